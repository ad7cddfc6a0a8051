//! Taints of hosts, and the deployments that tolerate them.

use serde::{Deserialize, Serialize};

use crate::{labels, problems::Fault};

/// A mark on a host that keeps deployments away which do not tolerate it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Taint {
    /// The key, like that of a label.
    pub key: String,
    /// The value, like that of a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it does.
    pub effect: TaintEffect,
}

/// What a taint does to deployments that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TaintEffect {
    /// None comes; those that are there stay.
    NoSchedule,
    /// None comes, and those that are there leave.
    NoExecute,
}

/// What a deployment does not mind on a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Toleration {
    /// The key of the taint; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The value of the taint; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The effect; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

impl Taint {
    /// Whether one of the tolerations is about this taint.
    #[must_use]
    pub fn tolerated(&self, tolerations: &[Toleration]) -> bool {
        tolerations.iter().any(|toleration| {
            toleration.key.as_ref().is_none_or(|key| *key == self.key)
                && toleration.value.as_ref().is_none_or(|value| self.value.as_ref() == Some(value))
                && toleration.effect.is_none_or(|effect| effect == self.effect)
        })
    }
}

impl std::fmt::Display for Taint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, "={value}")?;
        }
        write!(f, ":{}", self.effect.as_str())
    }
}

impl TaintEffect {
    /// Returns the effect as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// Why a text is not a [`Taint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a taint; write key:NoSchedule, or key=value:NoExecute")]
pub struct TaintError(String);

impl std::str::FromStr for Taint {
    type Err = TaintError;

    fn from_str(text: &str) -> Result<Self, TaintError> {
        let bad = || TaintError(text.to_owned());
        let (name, effect) = text.rsplit_once(':').ok_or_else(bad)?;
        let effect = match effect {
            "NoSchedule" => TaintEffect::NoSchedule,
            "NoExecute" => TaintEffect::NoExecute,
            _ => return Err(bad()),
        };
        let (key, value) = name.split_once('=').map_or((name, None), |(key, value)| (key, Some(value.to_owned())));
        let taint = Self { key: key.to_owned(), value, effect };
        if fault(Some(&taint.key), taint.value.as_ref(), "").is_some() { Err(bad()) } else { Ok(taint) }
    }
}

/// Returns what is wrong with a key and a value, at `pointer`.
pub(crate) fn fault(key: Option<&String>, value: Option<&String>, pointer: &str) -> Option<Fault> {
    if let Some(key) = key
        && !labels::is_key(key)
    {
        return Some(Fault::new(format!("{pointer}/key"), format!("{key:?} is not a key such as those of labels")));
    }
    let value = value?;
    let good = labels::is_key(value) && !value.contains('/');
    (!good).then(|| Fault::new(format!("{pointer}/value"), format!("{value:?} is not a value such as those of labels")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(text: &str) -> Taint {
        text.parse().expect("a taint")
    }

    #[test]
    fn what_a_toleration_leaves_out_may_be_anything() {
        let dedicated = taint("dedicated=gpu:NoExecute");
        let tolerates = |key: Option<&str>, value: Option<&str>, effect| {
            let [key, value] = [key, value].map(|text| text.map(str::to_owned));
            dedicated.tolerated(&[Toleration { key, value, effect }])
        };
        assert!(tolerates(None, None, None) && tolerates(Some("dedicated"), None, None));
        assert!(tolerates(Some("dedicated"), Some("gpu"), Some(TaintEffect::NoExecute)));
        assert!(!tolerates(Some("dedicated"), Some("ssd"), None) && !tolerates(Some("other"), None, None));
        assert!(!tolerates(None, None, Some(TaintEffect::NoSchedule)) && !dedicated.tolerated(&[]));
        assert!(
            !taint("dedicated:NoSchedule")
                .tolerated(&[Toleration { value: Some("gpu".into()), ..Toleration::default() }])
        );
    }

    #[test]
    fn taints_are_written_as_they_are_shown() {
        for text in ["gpu:NoSchedule", "dedicated=db:NoExecute"] {
            assert_eq!(taint(text).to_string(), text);
        }
        for bad in ["", "gpu", "gpu:Nothing", ":NoSchedule", "a b:NoSchedule", "a=b c:NoSchedule", "a=:NoExecute"] {
            assert!(bad.parse::<Taint>().is_err(), "{bad}");
        }
    }
}

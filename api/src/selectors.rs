//! Selectors: rules over labels and facts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{labels::is_key, limits, problems::Fault};

/// Rules that match hosts; all that are given must hold. Facts are matched as `fact/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Selector {
    /// Labels that must be there with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on single labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
    /// A minijinja expression over `name`, `labels` and `facts`, such as `facts.memoryBytes > 1000000000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
}

/// A condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Requirement {
    /// The label's key, or `fact/<name>`.
    pub key: String,
    /// How its value is compared.
    pub operator: Operator,
    /// The values for `In` and `NotIn`; empty for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Operator {
    /// The label is there and its value is one of the values.
    In,
    /// The label is absent or its value is none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Selector {
    /// Returns a selector of equal labels.
    #[must_use]
    pub fn labels(match_labels: BTreeMap<String, String>) -> Self {
        Self { match_labels, ..Self::default() }
    }

    /// Whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty() && self.expression.is_none()
    }

    /// Whether `matchLabels` and `matchExpressions` hold for what `value` looks up; `expression` is not looked at.
    pub fn rules_match<'a>(&self, value: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>) -> bool {
        self.match_labels.iter().all(|(key, wanted)| value(key).is_some_and(|found| found == *wanted))
            && self.match_expressions.iter().all(|requirement| requirement.matches(&value))
    }

    /// Returns what is wrong with the selector at `pointer`.
    #[must_use]
    pub fn faults(&self, pointer: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        for key in self.match_labels.keys().filter(|key| !is_key(key)) {
            faults.push(Fault::new(format!("{pointer}/matchLabels"), format!("{key:?} is not a label key")));
        }
        if self.match_expressions.len() > limits::SELECTOR_TERMS || self.match_labels.len() > limits::SELECTOR_TERMS {
            faults.push(Fault::new(pointer, format!("more than {} terms", limits::SELECTOR_TERMS)));
        }
        for (index, requirement) in self.match_expressions.iter().enumerate() {
            let at = format!("{pointer}/matchExpressions/{index}");
            if !is_key(&requirement.key) {
                faults.push(Fault::new(format!("{at}/key"), format!("{:?} is not a label key", requirement.key)));
            }
            let takes_values = matches!(requirement.operator, Operator::In | Operator::NotIn);
            if takes_values && requirement.values.is_empty() {
                faults.push(Fault::new(format!("{at}/values"), "In and NotIn need at least one value"));
            }
            if !takes_values && !requirement.values.is_empty() {
                faults.push(Fault::new(format!("{at}/values"), "Exists and DoesNotExist take no values"));
            }
            if requirement.values.len() > limits::SELECTOR_TERMS {
                faults.push(Fault::new(format!("{at}/values"), format!("more than {} values", limits::SELECTOR_TERMS)));
            }
        }
        if self.expression.as_ref().is_some_and(|text| text.len() > limits::EXPRESSION_BYTES) {
            let detail = format!("longer than {} bytes", limits::EXPRESSION_BYTES);
            faults.push(Fault::new(format!("{pointer}/expression"), detail));
        }
        faults
    }
}

impl Requirement {
    /// Whether the condition holds for what `value` looks up.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>) -> bool {
        let found = value(&self.key);
        let listed = |found: &str| self.values.iter().any(|value| value == found);
        match self.operator {
            Operator::In => found.is_some_and(|found| listed(&found)),
            Operator::NotIn => !found.is_some_and(|found| listed(&found)),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn holds(selector: &serde_json::Value, labels: &[(&str, &'static str)]) -> bool {
        let selector: Selector = serde_json::from_value(selector.clone()).expect("selector");
        selector.rules_match(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| Cow::Borrowed(*v)))
    }

    #[test]
    fn each_operator_matches_as_its_name_says() {
        use serde_json::json;
        let term = |op: &str, values: &[&str]| json!({"matchExpressions": [{"key": "zone", "operator": op, "values": values}]});
        let (here, there, none): (&[_], &[_], &[_]) = (&[("zone", "a")], &[("zone", "b")], &[]);
        for (selector, expected) in [
            (term("In", &["a"]), [true, false, false]),
            (term("NotIn", &["a"]), [false, true, true]),
            (term("Exists", &[]), [true, true, false]),
            (term("DoesNotExist", &[]), [false, false, true]),
            (json!({"matchLabels": {"zone": "a"}}), [true, false, false]),
            (json!({}), [true, true, true]),
        ] {
            assert_eq!([here, there, none].map(|labels| holds(&selector, labels)), expected, "{selector}");
        }
    }

    #[test]
    fn faults_name_their_place() {
        let selector: Selector = serde_json::from_value(serde_json::json!({
            "matchLabels": {"a b": "c"},
            "matchExpressions": [{"key": "k", "operator": "In"}, {"key": "k", "operator": "Exists", "values": ["x"]}],
        }))
        .expect("selector");
        let pointers: Vec<_> = selector.faults("/spec").into_iter().map(|fault| fault.pointer).collect();
        assert_eq!(
            pointers,
            ["/spec/matchLabels", "/spec/matchExpressions/0/values", "/spec/matchExpressions/1/values"]
        );
    }
}

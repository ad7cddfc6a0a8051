//! Resources by name: what a host has room for, and what a deployment asks of each host that it is on.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use crate::limits::{RESOURCE_MOST, RESOURCES};

/// The resource that is counted in thousandths of a core.
pub const CPU: &str = "cpu";
/// The resource that is counted in bytes.
pub const MEMORY: &str = "memory";

/// Units of memory, those that are shown first.
const BINARY: [(&str, u64); 5] = [("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
/// Units of memory that are only read.
const DECIMAL: [(&str, u64); 5] =
    [("P", 1_000_000_000_000_000), ("T", 1_000_000_000_000), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1000)];

/// Amounts by resource: `cpu` in cores (`2`, `0.5` or `500m`), `memory` in bytes (`512Mi`, `2Gi`), any other name as a
/// count (`gpu: 1`).
///
/// Inside, cores are thousandths, so that every amount is a whole number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Resources(BTreeMap<String, u64>);

/// Why something is not an amount of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// The name is none.
    #[error("{0:?} is not the name of a resource: use up to 63 of letters, digits, '-', '_' and '.'")]
    Name(String),
    /// The amount is none.
    #[error("{amount} is not an amount of {name}: {expected}")]
    Amount {
        /// The resource.
        name: String,
        /// What was written.
        amount: String,
        /// What can be.
        expected: &'static str,
    },
    /// The amount is too large.
    #[error(
        "{amount} of {name} is more than anybody has: the limit is {RESOURCE_MOST} thousandths of a core, bytes or pieces"
    )]
    TooMuch {
        /// The resource.
        name: String,
        /// What was written.
        amount: String,
    },
    /// There are more than the limit.
    #[error("{0} resources are too many: the limit is {RESOURCES}")]
    TooMany(usize),
}

impl Resources {
    /// Takes in amounts as they are written: numbers, or texts with a unit.
    pub fn read<'a>(amounts: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Result<Self, ResourceError> {
        let mut all = BTreeMap::new();
        for (name, amount) in amounts {
            all.insert(name.to_owned(), read(name, amount)?);
        }
        if all.len() > RESOURCES { Err(ResourceError::TooMany(all.len())) } else { Ok(Self(all)) }
    }

    /// Reads amounts from a list such as `cpu=500m,memory=2Gi`.
    pub fn parse_list(text: &str) -> Result<Self, ResourceError> {
        let pairs = text.split(',').filter(|pair| !pair.is_empty());
        let pairs: Vec<_> = pairs
            .map(|pair| pair.split_once('=').ok_or_else(|| ResourceError::Name(pair.to_owned())))
            .collect::<Result<_, _>>()?;
        let values: Vec<_> = pairs.into_iter().map(|(name, amount)| (name, Value::from(amount))).collect();
        Self::read(values.iter().map(|(name, value)| (*name, value)))
    }

    /// Returns the amount of a resource, if it is named.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Returns the amounts by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Whether none is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns an amount as people write it: `500m`, `2Gi`, `3`.
#[must_use]
pub fn shown(name: &str, amount: u64) -> String {
    match value(name, amount) {
        Value::String(text) => text,
        number => number.to_string(),
    }
}

fn read(name: &str, amount: &Value) -> Result<u64, ResourceError> {
    if !crate::labels::is_key(name) || name.contains('/') {
        return Err(ResourceError::Name(name.to_owned()));
    }
    let text = match amount {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let (read, expected) = match name {
        CPU => (cores(&text), "write cores such as 2, 0.5 or \"500m\""),
        MEMORY => (bytes(&text), "write bytes with a unit, such as \"512Mi\" or \"2Gi\""),
        _ => (digits(&text), "write a whole number"),
    };
    match read {
        Some(read) if read <= RESOURCE_MOST => Ok(read),
        Some(_) => Err(ResourceError::TooMuch { name: name.to_owned(), amount: amount.to_string() }),
        None => Err(ResourceError::Amount { name: name.to_owned(), amount: amount.to_string(), expected }),
    }
}

/// Reads a whole number; one that is too large is as large as can be.
fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u64::MAX))
}

fn cores(text: &str) -> Option<u64> {
    if let Some(thousandths) = text.strip_suffix('m') {
        return digits(thousandths);
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if part.len() > 3 {
        return None;
    }
    let part = digits(&format!("{part:0<3}"))?;
    Some(digits(whole)?.saturating_mul(1000).saturating_add(part))
}

fn bytes(text: &str) -> Option<u64> {
    let unit = BINARY.iter().chain(&DECIMAL).find(|(unit, _)| text.ends_with(unit));
    let (unit, length) = unit.copied().unwrap_or(("", 1));
    Some(digits(text.strip_suffix(unit)?)?.saturating_mul(length))
}

/// Returns an amount as it stands in a document.
fn value(name: &str, amount: u64) -> Value {
    match name {
        CPU if amount.is_multiple_of(1000) => (amount / 1000).into(),
        CPU => format!("{amount}m").into(),
        MEMORY => {
            let unit = BINARY.iter().find(|(_, length)| amount > 0 && amount.is_multiple_of(*length));
            unit.map_or_else(|| amount.into(), |(unit, length)| format!("{}{unit}", amount / length).into())
        }
        _ => amount.into(),
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, amount)) in self.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{name}={}", shown(name, amount))?;
        }
        Ok(())
    }
}

impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(name, amount)| (name, value(name, amount))))
    }
}

impl<'de> Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let amounts = BTreeMap::<String, Value>::deserialize(deserializer)?;
        Self::read(amounts.iter().map(|(name, amount)| (name.as_str(), amount))).map_err(D::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Resources {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, SchemaType, Type};
        let amount = ObjectBuilder::new()
            .schema_type(SchemaType::Array(vec![Type::Number, Type::String]))
            .description(Some("A number, or a text with a unit: `500m`, `2Gi`."))
            .build();
        let text = "Amounts by resource: `cpu` in cores (`2`, `0.5` or `500m`), `memory` in bytes (`512Mi`, `2Gi`), any \
             other name as a count.";
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some(text))
            .additional_properties(Some(AdditionalProperties::RefOr(amount.into())))
            .build()
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Resources {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Resources, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn amounts_are_read_with_their_units_and_written_in_one_way() {
        for (given, amount, written) in [
            (json!({"cpu": "500m"}), 500, json!("500m")),
            (json!({"cpu": 0.5}), 500, json!("500m")),
            (json!({"cpu": "1.25"}), 1250, json!("1250m")),
            (json!({"cpu": 2}), 2000, json!(2)),
            (json!({"memory": "2Gi"}), 2 << 30, json!("2Gi")),
            (json!({"memory": "2048Mi"}), 2 << 30, json!("2Gi")),
            (json!({"memory": "500M"}), 500_000_000, json!(500_000_000)),
            (json!({"memory": "64k"}), 64_000, json!(64_000)),
            (json!({"memory": 1024}), 1024, json!("1Ki")),
            (json!({"memory": 0}), 0, json!(0)),
            (json!({"gpu": 1}), 1, json!(1)),
            (json!({"gpu": "3"}), 3, json!(3)),
        ] {
            let name = given.as_object().and_then(|map| map.keys().next().cloned()).expect("a name");
            let resources = read(given.clone()).expect("amounts");
            assert_eq!(resources.get(&name), Some(amount), "{given}");
            let back = serde_json::to_value(&resources).expect("written");
            assert_eq!(back, json!({ name: written }), "{given}");
            assert_eq!(read(back).expect("read again"), resources);
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_what_would_be() {
        for (given, says) in [
            (json!({"cpu": "a lot"}), "0.5"),
            (json!({"cpu": -1}), "cores"),
            (json!({"cpu": 0.0001}), "cores"),
            (json!({"cpu": "."}), "cores"),
            (json!({"memory": "2gb"}), "2Gi"),
            (json!({"memory": "Gi"}), "2Gi"),
            (json!({"memory": 1.5}), "2Gi"),
            (json!({"gpu": 0.5}), "whole number"),
            (json!({"gpu": true}), "whole number"),
            (json!({"gpu": []}), "whole number"),
            (json!({"a b": 1}), "name of a resource"),
            (json!({"x/gpu": 1}), "name of a resource"),
            (json!({"": 1}), "name of a resource"),
            (json!({"memory": "99999999Pi"}), "limit"),
            (json!({"gpu": u64::MAX}), "limit"),
        ] {
            let error = read(given.clone()).expect_err("refused");
            assert!(error.contains(says), "{given}: {error}");
        }
        let many = |count: usize| Value::Object((0..count).map(|n| (format!("r{n}"), json!(1))).collect());
        assert!(read(many(RESOURCES)).is_ok());
        assert!(read(many(RESOURCES + 1)).expect_err("refused").contains("limit"));
    }

    #[test]
    fn lists_on_the_command_line_say_the_same() {
        let listed = Resources::parse_list("cpu=500m,memory=2Gi,gpu=1").expect("a list");
        assert_eq!(listed, read(json!({"cpu": "500m", "memory": "2Gi", "gpu": 1})).expect("a map"));
        assert_eq!(listed.to_string(), "cpu=500m,gpu=1,memory=2Gi");
        assert!(Resources::parse_list("cpu").is_err() && Resources::parse_list("").expect("none").is_empty());
    }
}

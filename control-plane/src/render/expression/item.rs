//! What a part of an expression comes to.

use std::{borrow::Cow, cmp::Ordering};

use serde_json::Value;
use titan_api::{hosts::Facts, labels::Labels};

/// A value, mostly borrowed from the host or the expression.
#[derive(Debug, Clone)]
pub(super) enum Item<'a> {
    /// The host does not have it.
    Missing,
    /// Nothing, explicitly.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Another number.
    Float(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// A list that the expression makes.
    List(Vec<Self>),
    /// A fact that is a list or a map.
    Json(&'a Value),
    /// All labels.
    Labels(&'a Labels),
    /// All facts.
    Facts(&'a Facts),
}

impl<'a> Item<'a> {
    pub(super) const fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::String(text) => Self::text(text),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value.into()),
                (None, Some(value)) => Self::Int(value.into()),
                (None, None) => number.as_f64().map_or(Self::Missing, Self::Float),
            },
            Value::Array(_) | Value::Object(_) => Self::Json(value),
        }
    }

    /// Returns what lies under `key`.
    pub(super) fn get(&self, key: &str) -> Self {
        match self {
            Self::Labels(labels) => labels.get(key).map_or(Self::Missing, Item::text),
            Self::Facts(facts) => facts.get(key).map_or(Self::Missing, Item::of),
            Self::Json(value) => value.get(key).map_or(Self::Missing, Item::of),
            _ => Self::Missing,
        }
    }

    /// Whether it counts as true: it is there, and neither empty nor nought.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Missing | Self::Null => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(_) | Self::List(_) | Self::Json(_) | Self::Labels(_) | Self::Facts(_) => {
                self.length().is_some_and(|length| length > 0)
            }
        }
    }

    /// Returns the number of characters or entries.
    pub(super) fn length(&self) -> Option<i128> {
        let length = match self {
            Self::Text(text) => text.chars().count(),
            Self::List(items) => items.len(),
            Self::Json(Value::Array(items)) => items.len(),
            Self::Json(Value::Object(map)) => map.len(),
            Self::Labels(labels) => labels.iter().count(),
            Self::Facts(facts) => facts.len(),
            _ => return None,
        };
        i128::try_from(length).ok()
    }

    pub(super) fn equals(&self, other: &Item<'_>) -> bool {
        match (self, other) {
            (Self::Null, Item::Null) => true,
            (Self::Bool(a), Item::Bool(b)) => a == b,
            (Self::List(a), Item::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Self::Json(a), Item::Json(b)) => a == b,
            _ => self.order(other).is_some_and(Ordering::is_eq),
        }
    }

    /// Returns how two numbers or two texts compare; nothing else does.
    pub(super) fn order(&self, other: &Item<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(a), Item::Text(b)) => Some(a.as_ref().cmp(b.as_ref())),
            (Self::Int(a), Item::Int(b)) => Some(a.cmp(b)),
            (Self::Float(a), Item::Float(b)) => a.partial_cmp(b),
            (Self::Int(a), Item::Float(b)) => (*a as f64).partial_cmp(b),
            (Self::Float(a), Item::Int(b)) => a.partial_cmp(&(*b as f64)),
            _ => None,
        }
    }

    /// Whether `item` is in the list, a key of the map, or a part of the text.
    pub(super) fn contains(&self, item: &Item<'_>) -> bool {
        match (self, item) {
            (_, Item::Missing) => false,
            (Self::List(items), item) => items.iter().any(|entry| entry.equals(item)),
            (Self::Json(Value::Array(items)), item) => items.iter().any(|entry| Item::of(entry).equals(item)),
            (Self::Text(text), Item::Text(part)) => text.contains(part.as_ref()),
            (map, Item::Text(key)) => !matches!(map.get(key), Item::Missing),
            _ => false,
        }
    }

    /// Returns the number that it is or spells.
    pub(super) fn number(&self) -> Option<Self> {
        match self {
            Self::Int(_) | Self::Float(_) => Some(self.clone()),
            Self::Bool(value) => Some(Self::Int((*value).into())),
            Self::Text(text) => {
                let text = text.trim();
                let int = text.parse().ok().map(Self::Int);
                int.or_else(|| text.parse().ok().filter(|value: &f64| value.is_finite()).map(Self::Float))
            }
            _ => None,
        }
    }

    /// Returns the text made of its text, if it has one.
    pub(super) fn map_text(&self, change: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Text(text) => Self::Text(change(text).into()),
            Self::Int(value) => Self::Text(value.to_string().into()),
            Self::Float(value) => Self::Text(value.to_string().into()),
            Self::Bool(value) => Self::Text(value.to_string().into()),
            _ => Self::Missing,
        }
    }
}

//! Values: the data that templates are filled with, in layers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A map of values, any JSON inside.
pub type Values = serde_json::Map<String, Value>;

/// One value with the layer that gave it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ValueOrigin {
    /// JSON pointer of the value.
    pub pointer: String,
    /// The value itself; never a map unless empty.
    pub value: Value,
    /// The layer that gave it: `template`, `workload`, `deployment`, `override <n>` or `host`.
    pub layer: String,
    /// Layers below it that gave another value, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hides: Vec<String>,
}

/// The values of a deployment on one host: `GET .../deployments/{d}/values?host=`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MergedValues {
    /// The layers merged.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub values: Values,
    /// Where each value came from, by pointer.
    pub origins: Vec<ValueOrigin>,
}

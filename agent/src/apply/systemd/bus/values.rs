//! What answers hold, and the plain types that it is taken for.

/// What an answer holds. Variants are what is inside of them.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::apply) enum Value {
    Flag(bool),
    Number(u64),
    Signed(i64),
    Real(f64),
    /// A string, a path or a signature.
    Text(String),
    List(Vec<Self>),
    /// A structure, or an entry of a dictionary.
    Row(Vec<Self>),
}

impl TryFrom<Value> for String {
    type Error = Value;

    fn try_from(value: Value) -> Result<Self, Value> {
        if let Value::Text(text) = value { Ok(text) } else { Err(value) }
    }
}

impl TryFrom<Value> for bool {
    type Error = Value;

    fn try_from(value: Value) -> Result<Self, Value> {
        if let Value::Flag(flag) = value { Ok(flag) } else { Err(value) }
    }
}

impl TryFrom<Value> for u64 {
    type Error = Value;

    fn try_from(value: Value) -> Result<Self, Value> {
        if let Value::Number(number) = value { Ok(number) } else { Err(value) }
    }
}

impl TryFrom<Value> for u32 {
    type Error = Value;

    fn try_from(value: Value) -> Result<Self, Value> {
        if let Value::Number(number) = value { Self::try_from(number).map_err(|_| value) } else { Err(value) }
    }
}

impl TryFrom<Value> for i32 {
    type Error = Value;

    fn try_from(value: Value) -> Result<Self, Value> {
        if let Value::Signed(number) = value { Self::try_from(number).map_err(|_| value) } else { Err(value) }
    }
}

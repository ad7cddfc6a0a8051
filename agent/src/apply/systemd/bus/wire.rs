//! Messages of D-Bus as bytes: the calls that the agent makes, and whatever comes back.

#[cfg(test)]
mod tests;

use super::values::Value;

/// Bytes of a message. D-Bus allows 128 MiB; what is told of a thousand units has 0.3 MiB.
pub(super) const MESSAGE_BYTES: usize = 8 << 20;
/// Values of a message: each takes more room in memory than on the wire.
const VALUES: usize = 1 << 18;
/// How deep values may be inside each other.
const DEPTH: usize = 32;
/// The part of a message that has the same length in all of them.
pub(super) const FIXED: usize = 16;

/// What a message's bytes are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("a message ends too early")]
    Short,
    #[error("a message of {0} bytes, the limit is {MESSAGE_BYTES}")]
    Long(usize),
    #[error("a message of more than {VALUES} values")]
    Many,
    #[error("a malformed message: {0}")]
    Malformed(&'static str),
}

/// What is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) method: &'a str,
}

/// What a method is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument<'a> {
    Text(&'a str),
    Texts(&'a [&'a str]),
}

/// What kind of message it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    /// An error's name.
    Error(String),
    Signal,
    Other,
}

/// A message that came.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The serial of the call that it answers.
    pub(super) answers: Option<u32>,
    signature: String,
    body: Vec<u8>,
    big: bool,
}

impl Call<'_> {
    /// Returns the message.
    pub(super) fn encode(&self, serial: u32, arguments: &[Argument<'_>]) -> Result<Vec<u8>, WireError> {
        let (mut body, mut signature) = (Writer(Vec::new()), String::new());
        for argument in arguments {
            match argument {
                Argument::Text(text) => {
                    signature.push('s');
                    body.text(text)?;
                }
                Argument::Texts(texts) => {
                    signature.push_str("as");
                    let at = body.begin_array();
                    texts.iter().try_for_each(|text| body.text(text))?;
                    body.end_array(at, at + 4)?;
                }
            }
        }
        let mut message = Writer(vec![b'l', 1, 0, 1]);
        message.number(length(body.0.len())?);
        message.number(serial);
        let at = message.begin_array();
        message.field(1, "o", self.path)?;
        message.field(2, "s", self.interface)?;
        message.field(3, "s", self.method)?;
        message.field(6, "s", self.destination)?;
        if !signature.is_empty() {
            message.field(8, "g", &signature)?;
        }
        message.end_array(at, FIXED)?;
        message.pad(8);
        message.0.append(&mut body.0);
        length(message.0.len())?;
        Ok(message.0)
    }
}

fn length(bytes: usize) -> Result<u32, WireError> {
    u32::try_from(bytes).ok().filter(|_| bytes <= MESSAGE_BYTES).ok_or(WireError::Long(bytes))
}

/// Writes in little-endian order; positions count from where a multiple of eight is.
struct Writer(Vec<u8>);

impl Writer {
    fn pad(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.pad(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) -> Result<(), WireError> {
        if text.contains('\0') {
            return Err(WireError::Malformed("a text with a NUL character"));
        }
        self.number(length(text.len())?);
        self.0.extend(text.bytes().chain([0]));
        Ok(())
    }

    fn signature(&mut self, text: &str) -> Result<(), WireError> {
        self.0.push(u8::try_from(text.len()).map_err(|_| WireError::Malformed("a long signature"))?);
        self.0.extend(text.bytes().chain([0]));
        Ok(())
    }

    fn field(&mut self, code: u8, kind: &str, text: &str) -> Result<(), WireError> {
        self.pad(8);
        self.0.push(code);
        self.signature(kind)?;
        if kind == "g" { self.signature(text) } else { self.text(text) }
    }

    /// Leaves room for an array's length, and returns where.
    fn begin_array(&mut self) -> usize {
        self.number(0);
        self.0.len() - 4
    }

    /// Writes the length of the array whose elements begin at `first` down at `at`.
    fn end_array(&mut self, at: usize, first: usize) -> Result<(), WireError> {
        let bytes = length(self.0.len() - first)?;
        self.0[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
        Ok(())
    }
}

impl Message {
    /// Returns how many bytes a message has that begins so.
    pub(super) fn length(fixed: [u8; FIXED]) -> Result<usize, WireError> {
        let mut reader = Reader::of(&fixed, big(fixed[0])?);
        if fixed[3] != 1 {
            return Err(WireError::Malformed("another version of D-Bus"));
        }
        reader.at = 4;
        let (body, _serial, fields) = (reader.number()?, reader.number()?, reader.number()?);
        let (body, fields) = (body as usize, fields as usize);
        if body > MESSAGE_BYTES || fields > MESSAGE_BYTES {
            return Err(WireError::Long(body.saturating_add(fields)));
        }
        let all = (FIXED + fields).next_multiple_of(8) + body;
        if all > MESSAGE_BYTES { Err(WireError::Long(all)) } else { Ok(all) }
    }

    /// Returns the message with these bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fixed = *bytes.first_chunk::<FIXED>().ok_or(WireError::Short)?;
        if Self::length(fixed)? != bytes.len() {
            return Err(WireError::Malformed("its length is not what it says"));
        }
        let mut reader = Reader::of(bytes, big(fixed[0])?);
        reader.at = FIXED - 4;
        let Value::List(fields) = reader.value(b"a(yv)", 0)? else { return Err(WireError::Malformed("no fields")) };
        reader.pad(8)?;
        let body = bytes.get(reader.at..).ok_or(WireError::Short)?.to_vec();
        let (mut answers, mut error, mut signature) = (None, None, String::new());
        for field in fields {
            let Value::Row(pair) = field else { continue };
            match <[Value; 2]>::try_from(pair) {
                Ok([Value::Number(4), Value::Text(name)]) => error = Some(name),
                Ok([Value::Number(5), Value::Number(serial)]) => answers = u32::try_from(serial).ok(),
                Ok([Value::Number(8), Value::Text(text)]) => signature = text,
                _ => {}
            }
        }
        let kind = match (fixed[1], error) {
            (2, _) => Kind::Return,
            (3, Some(name)) => Kind::Error(name),
            (3, None) => return Err(WireError::Malformed("an error without a name")),
            (4, _) => Kind::Signal,
            _ => Kind::Other,
        };
        Ok(Self { kind, answers, signature, body, big: big(fixed[0])? })
    }

    /// Returns what it says.
    pub(super) fn values(&self) -> Result<Vec<Value>, WireError> {
        let mut reader = Reader::of(&self.body, self.big);
        let mut kinds = self.signature.as_bytes();
        let mut values = Vec::new();
        while !kinds.is_empty() {
            let (first, rest) = kinds.split_at(single(kinds, 0)?);
            values.push(reader.value(first, 0)?);
            kinds = rest;
        }
        Ok(values)
    }
}

fn big(order: u8) -> Result<bool, WireError> {
    match order {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err(WireError::Malformed("its order of bytes is not known")),
    }
}

/// Returns how long the first complete type of a signature is.
fn single(kinds: &[u8], depth: usize) -> Result<usize, WireError> {
    let bad = WireError::Malformed("a signature");
    if depth > DEPTH {
        return Err(WireError::Malformed("too deep"));
    }
    match kinds.first().ok_or(bad)? {
        b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b'h' | b's' | b'o' | b'g' | b'v' => Ok(1),
        b'a' => Ok(1 + single(&kinds[1..], depth + 1)?),
        open @ (b'(' | b'{') => {
            let close = if *open == b'(' { b')' } else { b'}' };
            let mut at = 1;
            while *kinds.get(at).ok_or(bad)? != close {
                at += single(&kinds[at..], depth + 1)?;
            }
            // What takes no room could be there any number of times.
            if at == 1 { Err(bad) } else { Ok(at + 1) }
        }
        _ => Err(bad),
    }
}

/// Returns the multiple that a type begins at.
const fn alignment(kind: u8) -> usize {
    match kind {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b'h' | b's' | b'o' | b'a' => 4,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 1,
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
    values: usize,
}

impl<'a> Reader<'a> {
    const fn of(bytes: &'a [u8], big: bool) -> Self {
        Self { bytes, at: 0, big, values: 0 }
    }

    fn pad(&mut self, to: usize) -> Result<(), WireError> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(count).ok_or(WireError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(WireError::Short)?;
        self.at = end;
        Ok(taken)
    }

    /// Returns the next `N` bytes, aligned, the least significant first.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.pad(N)?;
        let mut bytes: [u8; N] = self.take(N)?.try_into().map_err(|_| WireError::Short)?;
        if self.big {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    fn text(&mut self, length: usize) -> Result<&'a str, WireError> {
        let text = self.take(length)?;
        if self.take(1)? != [0] {
            return Err(WireError::Malformed("a text without an end"));
        }
        std::str::from_utf8(text).map_err(|_| WireError::Malformed("a text that is not UTF-8"))
    }

    fn signature(&mut self) -> Result<&'a str, WireError> {
        let [length] = self.array()?;
        self.text(length.into())
    }

    /// Reads the value of one complete type.
    fn value(&mut self, kind: &[u8], depth: usize) -> Result<Value, WireError> {
        self.values += 1;
        if self.values > VALUES {
            return Err(WireError::Many);
        }
        if depth > DEPTH {
            return Err(WireError::Malformed("too deep"));
        }
        let (first, inside) = kind.split_first().ok_or(WireError::Malformed("a signature"))?;
        Ok(match first {
            b'y' => Value::Number(self.array().map(u8::from_le_bytes)?.into()),
            b'b' => match self.number()? {
                flag @ (0 | 1) => Value::Flag(flag == 1),
                _ => return Err(WireError::Malformed("a flag that is neither")),
            },
            b'n' => Value::Signed(self.array().map(i16::from_le_bytes)?.into()),
            b'q' => Value::Number(self.array().map(u16::from_le_bytes)?.into()),
            b'i' => Value::Signed(self.array().map(i32::from_le_bytes)?.into()),
            b'u' | b'h' => Value::Number(self.number()?.into()),
            b'x' => Value::Signed(self.array().map(i64::from_le_bytes)?),
            b't' => Value::Number(self.array().map(u64::from_le_bytes)?),
            b'd' => Value::Real(self.array().map(f64::from_le_bytes)?),
            b's' | b'o' => {
                let length = self.number()? as usize;
                Value::Text(self.text(length)?.to_owned())
            }
            b'g' => Value::Text(self.signature()?.to_owned()),
            b'v' => {
                let kind = self.signature()?.as_bytes();
                if single(kind, depth)? != kind.len() {
                    return Err(WireError::Malformed("a variant that is not of one type"));
                }
                self.value(kind, depth + 1)?
            }
            b'a' => {
                let length = self.number()? as usize;
                self.pad(alignment(*inside.first().ok_or(WireError::Malformed("a signature"))?))?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
                let end = end.ok_or(WireError::Short)?;
                let mut list = Vec::new();
                while self.at < end {
                    list.push(self.value(inside, depth + 1)?);
                }
                if self.at != end {
                    return Err(WireError::Malformed("an array that ends inside of an element"));
                }
                Value::List(list)
            }
            b'(' | b'{' => {
                self.pad(8)?;
                let mut kinds = &inside[..inside.len().saturating_sub(1)];
                let mut row = Vec::new();
                while !kinds.is_empty() {
                    let (one, rest) = kinds.split_at(single(kinds, depth + 1)?);
                    row.push(self.value(one, depth + 1)?);
                    kinds = rest;
                }
                Value::Row(row)
            }
            _ => return Err(WireError::Malformed("a type that is not known")),
        })
    }
}

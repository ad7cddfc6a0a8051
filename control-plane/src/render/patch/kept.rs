//! The worker's side: the context that it keeps.

use std::{collections::BTreeMap, io, sync::Arc};

use minijinja::Value;

use super::{DEPTH, FALSE, FLOAT, INTEGER, LIST, MAP, NATURAL, NULL, PATCH, TEXT, TRUE};

/// A context that can be patched.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    root: Node,
}

/// A value of which the maps can be patched. To a template it is the same as any other.
#[derive(Debug, Clone)]
enum Node {
    Value(Value),
    Map(Arc<BTreeMap<Value, Self>>),
}

impl Default for Node {
    fn default() -> Self {
        Self::Map(Arc::default())
    }
}

impl From<Node> for Value {
    fn from(node: Node) -> Self {
        match node {
            Node::Value(value) => value,
            Node::Map(map) => Self::from_dyn_object(map),
        }
    }
}

impl Kept {
    /// Brings the context up to date with what [`super::write`] or [`super::write_patch`] made; fails with `InvalidData`
    /// on anything else, and is not to be used any more then.
    pub fn update(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut input = Input(bytes);
        input.update(&mut self.root, 0)?;
        if input.0.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Returns the context as it is now.
    #[must_use]
    pub fn value(&self) -> Value {
        self.root.clone().into()
    }
}

/// What has not been read yet.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Reads a value or patch into `node`.
    fn update(&mut self, node: &mut Node, depth: usize) -> io::Result<()> {
        let tag = self.byte()?;
        if tag != PATCH {
            *node = self.node(tag, depth)?;
            return Ok(());
        }
        let changes = self.length()?;
        if changes == 0 {
            return Ok(());
        }
        let Node::Map(map) = node else { return Err(io::ErrorKind::InvalidData.into()) };
        // Nothing else holds it once a template is rendered, so this is rarely a copy.
        let mut entries = Arc::make_mut(map).values_mut();
        let mut next = 0;
        for _ in 0..changes {
            let place = self.length()?;
            let ahead = place.checked_sub(next).ok_or(io::ErrorKind::InvalidData)?;
            let entry = entries.nth(ahead).ok_or(io::ErrorKind::InvalidData)?;
            self.update(entry, depth + 1)?;
            next = place + 1;
        }
        Ok(())
    }

    fn node(&mut self, tag: u8, depth: usize) -> io::Result<Node> {
        if tag == MAP {
            Ok(Node::Map(Arc::new(self.map(depth, Self::node)?)))
        } else {
            self.value(tag, depth).map(Node::Value)
        }
    }

    fn value(&mut self, tag: u8, depth: usize) -> io::Result<Value> {
        Ok(match tag {
            NULL => Value::from(()),
            FALSE => Value::from(false),
            TRUE => Value::from(true),
            NATURAL => Value::from(u64::from_le_bytes(self.array()?)),
            INTEGER => Value::from(i64::from_le_bytes(self.array()?)),
            FLOAT => Value::from(f64::from_le_bytes(self.array()?)),
            TEXT => Value::from(self.text()?),
            LIST => {
                check_depth(depth)?;
                let length = self.length()?;
                // An item takes a byte at least, so a length that is wrong takes no memory.
                let mut items = Vec::with_capacity(length.min(self.0.len()));
                for _ in 0..length {
                    let tag = self.byte()?;
                    items.push(self.value(tag, depth + 1)?);
                }
                Value::from(items)
            }
            MAP => Value::from(self.map(depth, Self::value)?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }

    fn map<T>(
        &mut self,
        depth: usize,
        read: impl Fn(&mut Self, u8, usize) -> io::Result<T>,
    ) -> io::Result<BTreeMap<Value, T>> {
        check_depth(depth)?;
        let mut map = BTreeMap::new();
        for _ in 0..self.length()? {
            let key = Value::from(self.text()?);
            let tag = self.byte()?;
            map.insert(key, read(self, tag, depth + 1)?);
        }
        Ok(map)
    }

    fn text(&mut self) -> io::Result<&'a str> {
        let length = self.length()?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn length(&mut self) -> io::Result<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(*array)
    }
}

fn check_depth(depth: usize) -> io::Result<()> {
    if depth > DEPTH { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
}

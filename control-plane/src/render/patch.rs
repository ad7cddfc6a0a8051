//! A context on its way to a worker: all that a template reads of it, or only where it differs from the one before.
//!
//! Contexts of one template differ in a few places: a host's name, a label, a value. A worker keeps the last context of
//! each template ([`Kept`]), so a patch is little to write, little to read, and leaves the rest as it is. A value is a
//! tag and what belongs to it: numbers in eight bytes, little-endian; texts with their length before them; lists and maps
//! with their count before them, lengths and counts in four bytes. A patch holds pairs of a place among the entries of a
//! map, in their order, and the value or patch that goes there.

mod kept;

use serde_json::{Number, Value};

pub use self::kept::Kept;
use super::reads::Reads;

/// Lists and maps inside each other. JSON that is read has no more than 128, a context a few around it.
pub const DEPTH: usize = 140;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const NATURAL: u8 = 3;
const INTEGER: u8 = 4;
const FLOAT: u8 = 5;
const TEXT: u8 = 6;
const LIST: u8 = 7;
const MAP: u8 = 8;
const PATCH: u8 = 9;

/// Why a context cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Lists and maps lie too deep inside each other.
    #[error("the context has more than {DEPTH} lists and maps inside each other")]
    Depth,
    /// A text, list or map is too long to be counted.
    #[error("the context has a text, list or map of more than {} entries", u32::MAX)]
    Length,
}

/// Adds to `out` all that `reads` names of `context`.
pub fn write(reads: &Reads, context: &Value, out: &mut Vec<u8>) -> Result<(), PatchError> {
    whole(Some(reads), context, out, 0)
}

/// Adds to `out` what makes of `before` what `reads` names of `context`.
pub fn write_patch(reads: &Reads, before: &Value, context: &Value, out: &mut Vec<u8>) -> Result<(), PatchError> {
    if !difference(Some(reads), before, context, out, 0)? {
        out.push(PATCH);
        length(0, out)?;
    }
    Ok(())
}

/// Adds a value; of a map only what is read, or all of it without `reads`.
fn whole(reads: Option<&Reads>, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), PatchError> {
    if depth > DEPTH {
        return Err(PatchError::Depth);
    }
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
        Value::Number(value) => number(value, out),
        Value::String(value) => {
            out.push(TEXT);
            text(value, out)?;
        }
        Value::Array(items) => {
            out.push(LIST);
            length(items.len(), out)?;
            for item in items {
                whole(None, item, out, depth + 1)?;
            }
        }
        Value::Object(map) => {
            out.push(MAP);
            let count = Count::begin(out);
            let mut entries = 0;
            match reads.filter(|reads| !reads.is_whole()) {
                Some(reads) => {
                    for (key, reads) in reads.parts() {
                        let Some(value) = map.get(key) else { continue };
                        text(key, out)?;
                        whole(Some(reads), value, out, depth + 1)?;
                        entries += 1;
                    }
                }
                None => {
                    for (key, value) in map {
                        text(key, out)?;
                        whole(None, value, out, depth + 1)?;
                        entries += 1;
                    }
                }
            }
            count.end(entries, out)?;
        }
    }
    Ok(())
}

/// Adds a patch or a new value if the two differ in what is read, and returns whether they do.
fn difference(
    reads: Option<&Reads>,
    before: &Value,
    now: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<bool, PatchError> {
    let (Value::Object(old), Value::Object(new)) = (before, now) else {
        let differ = !same(before, now);
        if differ {
            whole(reads, now, out, depth)?;
        }
        return Ok(differ);
    };
    if depth > DEPTH {
        return Err(PatchError::Depth);
    }
    let begun = out.len();
    out.push(PATCH);
    let mut patch = Patch { count: Count::begin(out), place: 0, changed: 0 };
    let mut alike = true;
    match reads.filter(|reads| !reads.is_whole()) {
        Some(reads) => {
            for (key, reads) in reads.parts() {
                match (old.get(key), new.get(key)) {
                    (None, None) => {}
                    (Some(old), Some(new)) => patch.entry(Some(reads), old, new, out, depth)?,
                    _ => alike = false,
                }
            }
        }
        None if old.len() == new.len() => {
            for ((old_key, old), (new_key, new)) in old.iter().zip(new) {
                if old_key == new_key {
                    patch.entry(None, old, new, out, depth)?;
                } else {
                    alike = false;
                    break;
                }
            }
        }
        None => alike = false,
    }
    if !alike {
        out.truncate(begun);
        whole(reads, now, out, depth)?;
        return Ok(true);
    }
    if patch.changed == 0 {
        out.truncate(begun);
        return Ok(false);
    }
    patch.count.end(patch.changed, out)?;
    Ok(true)
}

/// A patch that is being written.
struct Patch {
    count: Count,
    place: usize,
    changed: usize,
}

impl Patch {
    /// Adds the next entry of the map if it differs.
    fn entry(
        &mut self,
        reads: Option<&Reads>,
        old: &Value,
        new: &Value,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), PatchError> {
        let begun = out.len();
        length(self.place, out)?;
        self.place += 1;
        if difference(reads, old, new, out, depth + 1)? {
            self.changed += 1;
        } else {
            out.truncate(begun);
        }
        Ok(())
    }
}

/// Whether two values are written the same. Unlike `==` it tells `0.0` from `-0.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            a.as_f64().map(f64::to_bits) == b.as_f64().map(f64::to_bits)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        _ => a == b,
    }
}

fn number(number: &Number, out: &mut Vec<u8>) {
    let (tag, bytes) = match (number.as_u64(), number.as_i64()) {
        (Some(number), _) => (NATURAL, number.to_le_bytes()),
        (None, Some(number)) => (INTEGER, number.to_le_bytes()),
        (None, None) => (FLOAT, number.as_f64().unwrap_or_default().to_le_bytes()),
    };
    out.push(tag);
    out.extend_from_slice(&bytes);
}

fn text(text: &str, out: &mut Vec<u8>) -> Result<(), PatchError> {
    length(text.len(), out)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn length(length: usize, out: &mut Vec<u8>) -> Result<(), PatchError> {
    let length = u32::try_from(length).map_err(|_| PatchError::Length)?;
    out.extend_from_slice(&length.to_le_bytes());
    Ok(())
}

/// The place of a count that is known later.
struct Count(usize);

impl Count {
    fn begin(out: &mut Vec<u8>) -> Self {
        let place = out.len();
        out.extend_from_slice(&[0; 4]);
        Self(place)
    }

    fn end(self, entries: usize, out: &mut [u8]) -> Result<(), PatchError> {
        let entries = u32::try_from(entries).map_err(|_| PatchError::Length)?;
        out[self.0..self.0 + 4].copy_from_slice(&entries.to_le_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests;

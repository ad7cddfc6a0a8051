//! What the control plane and a render worker say to each other over the worker's standard input and output.
//!
//! A frame is a kind (one byte), a slot (one byte), a length (four bytes, little-endian) and that many bytes. The control
//! plane says [`Kind::Template`] to fill a slot, [`Kind::Render`] or [`Kind::RenderOnce`] to render from one; the worker
//! says [`Kind::Ready`] once, then exactly one frame for each of these, in order.

use std::io::{self, Read};

/// Bytes before a frame's body.
pub const HEAD: usize = 6;
/// Bytes of the longest body.
pub const BODY: usize = 64 << 20;
/// Templates that a worker holds at once.
pub const SLOTS: usize = 8;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To the worker: the files of a template, as JSON, for a slot.
    Template,
    /// To the worker: a context for the template in a slot, whole or as a patch of the one before ([`super::patch`]).
    Render,
    /// To the worker: the same, but the next context will be whole: this one is not to be kept.
    RenderOnce,
    /// From the worker: it has set its limits.
    Ready,
    /// From the worker: the template is in its slot.
    Prepared,
    /// From the worker: a bundle, as JSON.
    Bundle,
    /// From the worker: a [`super::failure::Failure`], as JSON.
    Failed,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Template, Self::Render, Self::RenderOnce, Self::Ready, Self::Prepared, Self::Bundle, Self::Failed];

    const fn byte(self) -> u8 {
        match self {
            Self::Template => b'T',
            Self::Render => b'R',
            Self::RenderOnce => b'O',
            Self::Ready => b'r',
            Self::Prepared => b'p',
            Self::Bundle => b'b',
            Self::Failed => b'f',
        }
    }
}

/// A frame's first bytes, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the frame is.
    pub kind: Kind,
    /// Which template it is about.
    pub slot: u8,
    /// Bytes of its body.
    pub length: usize,
}

impl Head {
    /// Returns the head of a frame as bytes.
    #[must_use]
    pub fn write(kind: Kind, slot: u8, length: u32) -> [u8; HEAD] {
        let [a, b, c, d] = length.to_le_bytes();
        [kind.byte(), slot, a, b, c, d]
    }

    /// Returns a head read from bytes; fails with `InvalidData` on anything that is not one.
    pub fn read(bytes: [u8; HEAD]) -> io::Result<Self> {
        let [kind, slot, length @ ..] = bytes;
        let kind = Kind::ALL.into_iter().find(|known| known.byte() == kind).ok_or(io::ErrorKind::InvalidData)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > BODY || usize::from(slot) >= SLOTS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { kind, slot, length })
    }
}

/// Adds a frame to `out`; fails with `InvalidInput` if `body` is longer than [`BODY`].
pub fn push(out: &mut Vec<u8>, kind: Kind, slot: u8, body: &[u8]) -> io::Result<()> {
    let begun = begin(out);
    out.extend_from_slice(body);
    end(out, begun, kind, slot)
}

/// Begins a frame at the end of `out` and returns where; its body is to be added to `out`.
pub fn begin(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; HEAD]);
    out.len() - HEAD
}

/// Ends a frame that began at `begun`; fails with `InvalidInput`, and without the frame, if its body is longer than
/// [`BODY`].
pub fn end(out: &mut Vec<u8>, begun: usize, kind: Kind, slot: u8) -> io::Result<()> {
    let length = out.len() - begun - HEAD;
    let Some(length) = u32::try_from(length).ok().filter(|_| length <= BODY) else {
        out.truncate(begun);
        return Err(io::ErrorKind::InvalidInput.into());
    };
    out[begun..begun + HEAD].copy_from_slice(&Head::write(kind, slot, length));
    Ok(())
}

/// Reads one frame, or `None` at the end of `input`.
pub fn read(input: &mut impl Read, body: &mut Vec<u8>) -> io::Result<Option<Head>> {
    let mut head = [0; HEAD];
    match input.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let head = Head::read(head)?;
    body.resize(head.length, 0);
    input.read_exact(body)?;
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        push(&mut bytes, Kind::Template, 3, b"abc").expect("push");
        push(&mut bytes, Kind::Ready, 0, b"").expect("push");
        let (mut input, mut body) = (bytes.as_slice(), Vec::new());
        assert_eq!(read(&mut input, &mut body).expect("read"), Some(Head { kind: Kind::Template, slot: 3, length: 3 }));
        assert_eq!(body, b"abc");
        assert_eq!(read(&mut input, &mut body).expect("read").map(|head| head.kind), Some(Kind::Ready));
        assert_eq!(read(&mut input, &mut body).expect("end"), None);
    }

    #[test]
    fn what_is_not_a_frame_is_an_error() {
        for bytes in [*b"Xaaaaa", *b"T\0\xff\xff\xff\xff", *b"T\x09\0\0\0\0"] {
            assert!(read(&mut bytes.as_slice(), &mut Vec::new()).is_err(), "{bytes:?}");
        }
        assert!(read(&mut b"T\0\x05\0\0\0ab".as_slice(), &mut Vec::new()).is_err());
    }
}

//! One gzip member (RFC 1952) out of pieces: some compressed before, the rest stored as it is.

use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress};

use super::texts::Sink;

/// Pieces below this are not worth compressing. It also sees to it that an answer with a compressed piece has 512 bytes,
/// for what surrounds such a piece has more than the rest.
const LEAST: usize = 256;
/// Bytes that a piece must lose, or it stays as it is: a stored one costs nothing to check and little to send.
const GAIN: usize = 64;
/// Bytes of text in one stored block at most, and of what stands before it.
const BLOCK: usize = 0xffff;
const BLOCK_HEAD: usize = 5;
/// Deflate; no flags, no time, any system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// Bytes of checksum and length at the end.
const FOOT: usize = 8;

/// A piece that was compressed before: deflate blocks that end on a byte, refer to nothing before them and are not the last.
#[derive(Debug)]
pub(super) struct Packed {
    deflated: Box<[u8]>,
    plain: usize,
    crc: u32,
    /// What the checksum of everything before is multiplied with when this piece follows.
    shift: u32,
}

impl Packed {
    /// Compresses a piece, given in parts; `None` if that would gain nothing.
    pub(super) fn of(parts: &[&[u8]]) -> Option<Self> {
        let plain = parts.concat();
        let room = plain.len().checked_sub(GAIN).filter(|_| plain.len() >= LEAST)?;
        let mut deflated = Vec::with_capacity(room);
        let mut compress = Compress::new(Compression::default(), false);
        compress.compress_vec(&plain, &mut deflated, FlushCompress::Full).ok()?;
        // What fills its room may go on after it.
        if compress.total_in() != plain.len() as u64 || deflated.len() >= room {
            return None;
        }
        let shift = shift(plain.len() as u64);
        Some(Self { deflated: deflated.into(), plain: plain.len(), crc: crc32fast::hash(&plain), shift })
    }

    /// Returns the number of its bytes.
    pub(super) fn len(&self) -> usize {
        self.deflated.len()
    }
}

/// Returns what a checksum is [multiplied](product) with when `bytes` bytes follow: what becomes of the one of 1.
fn shift(bytes: u64) -> u32 {
    let mut one = Hasher::new_with_initial_len(1 << 31, 0);
    one.combine(&Hasher::new_with_initial_len(0, bytes));
    one.finalize()
}

/// Returns the product of two polynomials modulo that of CRC-32, lowest power in the highest bit.
///
/// `crc32fast` finds the factor anew each time it combines, which takes longer than all the rest of an answer.
fn product(a: u32, b: u32) -> u32 {
    let mut power = b;
    let mut sum = 0;
    for bit in (0..32).rev() {
        sum ^= power & 0_u32.wrapping_sub(a >> bit & 1);
        power = (power >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(power & 1));
    }
    sum
}

/// Counts the bytes of an answer, plain and as a member.
#[derive(Debug, Default)]
pub(super) struct Size {
    text: usize,
    packed: usize,
    pieces: usize,
    blocks: usize,
    /// Bytes of text since the last compressed piece.
    run: usize,
}

impl Size {
    pub(super) const fn has_packed(&self) -> bool {
        self.pieces > 0
    }

    /// Returns the bytes of the plain answer, if nothing in it is compressed.
    pub(super) const fn plain(&self) -> usize {
        self.text
    }

    /// Returns the bytes of the answer as a member.
    pub(super) const fn member(&self) -> usize {
        let blocks = self.blocks + self.run.div_ceil(BLOCK);
        HEAD.len() + self.packed + self.text + blocks * BLOCK_HEAD + FOOT
    }
}

impl Sink for Size {
    fn text(&mut self, text: &[u8]) {
        self.text += text.len();
        self.run += text.len();
    }

    fn packed(&mut self, packed: &Packed) {
        self.packed += packed.len();
        self.pieces += 1;
        self.blocks += self.run.div_ceil(BLOCK);
        self.run = 0;
    }
}

/// A member that is being written.
#[derive(Debug)]
pub(super) struct Member {
    bytes: Vec<u8>,
    crc: u32,
    /// Of the plain text, modulo 2^32 as the format has it.
    length: u32,
    /// Where the text of the open stored block begins.
    open: Option<usize>,
}

impl Member {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(&HEAD);
        Self { bytes, crc: 0, length: 0, open: None }
    }

    /// Ends the open stored block, if there is one; `last` says that none follows.
    fn close(&mut self, last: bool) {
        let Some(start) = self.open.take() else { return };
        let mut hasher = Hasher::new_with_initial(self.crc);
        hasher.update(&self.bytes[start..]);
        self.crc = hasher.finalize();
        // At most `BLOCK`.
        let length = (self.bytes.len() - start) as u16;
        self.length = self.length.wrapping_add(u32::from(length));
        let head = &mut self.bytes[start - BLOCK_HEAD..start];
        head[0] = u8::from(last);
        head[1..3].copy_from_slice(&length.to_le_bytes());
        head[3..].copy_from_slice(&(!length).to_le_bytes());
    }

    /// Returns the member's bytes. An answer ends with text, and its block is the last.
    pub(super) fn finish(mut self) -> Vec<u8> {
        debug_assert!(self.open.is_some(), "an answer ends with text");
        self.close(true);
        self.bytes.extend_from_slice(&self.crc.to_le_bytes());
        self.bytes.extend_from_slice(&self.length.to_le_bytes());
        self.bytes
    }
}

impl Sink for Member {
    fn text(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let start = *self.open.get_or_insert_with(|| {
                self.bytes.extend_from_slice(&[0; BLOCK_HEAD]);
                self.bytes.len()
            });
            let room = BLOCK - (self.bytes.len() - start);
            let (now, later) = text.split_at(room.min(text.len()));
            self.bytes.extend_from_slice(now);
            text = later;
            if !text.is_empty() {
                self.close(false);
            }
        }
    }

    fn packed(&mut self, packed: &Packed) {
        self.close(false);
        self.bytes.extend_from_slice(&packed.deflated);
        self.crc = product(packed.shift, self.crc) ^ packed.crc;
        // Modulo 2^32, as the format has it.
        self.length = self.length.wrapping_add(packed.plain as u32);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(random).take(bytes).collect()
    }

    #[test]
    fn piece_that_gains_nothing_is_not_compressed() {
        assert!(Packed::of(&[&[b'a'; LEAST - 1]]).is_none());
        assert!(Packed::of(&[&[b'a'; LEAST]]).is_some());
        assert!(Packed::of(&[]).is_none());
        for bytes in [LEAST, 5000, 70_000] {
            assert!(Packed::of(&[&noise(bytes)]).is_none(), "{bytes}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn checksums_are_combined_as_the_library_does(crc: u32, next: u32, bytes in 0..u64::MAX / 16) {
            let mut combined = Hasher::new_with_initial_len(crc, 0);
            combined.combine(&Hasher::new_with_initial_len(next, bytes));
            prop_assert_eq!(product(shift(bytes), crc) ^ next, combined.finalize());
        }

        #[test]
        fn any_order_of_pieces_unpacks(pieces in prop::collection::vec((any::<bool>(), 0..200_000_usize), 0..5)) {
            let (mut size, mut plain) = (Size::default(), Vec::new());
            let pieces: Vec<_> = pieces
                .into_iter()
                .map(|(text, bytes)| if text { noise(bytes) } else { vec![b'a'; bytes] })
                .map(|piece| (Packed::of(&[&piece]), piece))
                .collect();
            let write = |sink: &mut dyn Sink| {
                for (packed, piece) in &pieces {
                    match packed {
                        Some(packed) => sink.packed(packed),
                        None => sink.text(piece),
                    }
                    sink.text(b"{}");
                }
                sink.text(b"end");
            };
            write(&mut size);
            let mut member = Member::with_capacity(size.member());
            write(&mut member);
            let member = member.finish();
            prop_assert_eq!(member.len(), size.member());
            for (_, piece) in &pieces {
                plain.extend_from_slice(piece);
                plain.extend_from_slice(b"{}");
            }
            plain.extend_from_slice(b"end");
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&*member).read_to_end(&mut unpacked).expect("a valid member");
            prop_assert!(unpacked == plain);
        }
    }
}

//! Gzip stitched together from parts that were compressed before: a bundle is compressed once for all hosts.

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

/// The header of RFC 1952 for a stream without a name and a time, from a system that is not said.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block.
const LAST: [u8; 2] = [3, 0];
/// Bytes of a block that is not compressed, at most.
const BLOCK: usize = 65_535;
/// What is not longer than this is not worth the start of a compressor.
const STORED: usize = 4096;

/// A gzip stream that grows by parts.
#[derive(Debug)]
pub(crate) struct Gzip {
    bytes: Vec<u8>,
    sum: crc32fast::Hasher,
    length: u32,
}

impl Gzip {
    /// Returns an empty stream.
    pub(crate) fn new() -> Self {
        Self { bytes: HEADER.to_vec(), sum: crc32fast::Hasher::new(), length: 0 }
    }

    /// Adds bytes.
    pub(crate) fn add(&mut self, part: &[u8]) {
        self.count(part);
        if part.len() > STORED {
            self.bytes.extend_from_slice(&packed(part));
            return;
        }
        for block in part.chunks(BLOCK) {
            let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
            self.bytes.push(0);
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(&(!length).to_le_bytes());
            self.bytes.extend_from_slice(block);
        }
    }

    /// Adds bytes whose [`packed`] form is known.
    pub(crate) fn add_packed(&mut self, part: &[u8], packed: &[u8]) {
        self.count(part);
        self.bytes.extend_from_slice(packed);
    }

    fn count(&mut self, part: &[u8]) {
        self.sum.update(part);
        // Modulo 2^32, as the format has it.
        self.length = self.length.wrapping_add(part.len() as u32);
    }

    /// Returns the whole stream.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&LAST);
        self.bytes.extend_from_slice(&self.sum.finalize().to_le_bytes());
        self.bytes.extend_from_slice(&self.length.to_le_bytes());
        self.bytes
    }
}

/// Compresses bytes to blocks that end on a whole byte, are not the last ones, and refer to nothing before them: they
/// can stand in the middle of any stream.
pub(crate) fn packed(bytes: &[u8]) -> Bytes {
    let mut packer = Compress::new(Compression::default(), false);
    let mut packed = Vec::with_capacity(bytes.len() / 3 + 64);
    loop {
        let taken = usize::try_from(packer.total_in()).unwrap_or(usize::MAX);
        let status = packer.compress_vec(bytes.get(taken..).unwrap_or_default(), &mut packed, FlushCompress::Sync);
        // The flush is over when it leaves room.
        let over = packed.len() < packed.capacity() && packer.total_in() == bytes.len() as u64;
        if over || !matches!(status, Ok(Status::Ok | Status::BufError)) {
            return packed.into();
        }
        packed.reserve(packed.capacity().max(64));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn unpacked(stream: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut reader = flate2::read::GzDecoder::new(stream);
        reader.read_to_end(&mut bytes).expect("a whole stream");
        assert!(reader.into_inner().is_empty(), "nothing is left");
        bytes
    }

    proptest! {
        #[test]
        fn parts_come_out_as_one_text(parts in prop::collection::vec((any::<bool>(), prop::collection::vec(0_u8..4, 0..9000)), 0..6)) {
            let mut gzip = Gzip::new();
            let mut whole = Vec::new();
            for (known, part) in &parts {
                if *known { gzip.add_packed(part, &packed(part)) } else { gzip.add(part) }
                whole.extend_from_slice(part);
            }
            prop_assert_eq!(unpacked(&gzip.end()), whole);
        }
    }

    #[test]
    fn what_repeats_becomes_small_and_what_does_not_hardly_grows() {
        let same = vec![b'x'; 60_000];
        assert!(packed(&same).len() < 600);
        let mut state = 1_u64;
        let chance: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(60_000)
        .collect();
        assert!(packed(&chance).len() < 60_200);
    }
}

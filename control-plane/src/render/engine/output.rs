//! Text on its way into a bundle's JSON.

use std::io;

/// Takes text up to a limit and adds it to JSON, escaped as `serde_json` does it: a bundle's digest is over these bytes.
pub(super) struct Output<'a> {
    json: &'a mut Vec<u8>,
    left: usize,
    full: bool,
}

impl<'a> Output<'a> {
    /// Returns an output for at most `most` bytes of text.
    pub(super) const fn new(json: &'a mut Vec<u8>, most: usize) -> Self {
        Self { json, left: most, full: false }
    }

    /// Returns how many bytes more it would take, or `None` if it was given too many.
    pub(super) const fn left(&self) -> Option<usize> {
        if self.full { None } else { Some(self.left) }
    }
}

impl io::Write for &mut Output<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(piece.len()) else {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        self.left = left;
        escape(piece, self.json);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds text to a JSON string.
fn escape(text: &[u8], json: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((plain, byte, after)) = special(rest) {
        json.extend_from_slice(plain);
        match byte {
            b'\n' => json.extend_from_slice(br"\n"),
            b'"' => json.extend_from_slice(br#"\""#),
            b'\\' => json.extend_from_slice(br"\\"),
            b'\t' => json.extend_from_slice(br"\t"),
            b'\r' => json.extend_from_slice(br"\r"),
            0x08 => json.extend_from_slice(br"\b"),
            0x0c => json.extend_from_slice(br"\f"),
            byte => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                json.extend_from_slice(br"\u00");
                json.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
            }
        }
        rest = after;
    }
    json.extend_from_slice(rest);
}

/// Returns the first byte that is to be escaped, with what lies before and behind it. Looks at eight bytes at a time.
fn special(text: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let (words, _) = text.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        // The top bit of each byte that is zero, or a little above the first such one; the first is always right.
        let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (low | zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c))) & TOPS;
        if found != 0 {
            at += found.trailing_zeros() as usize / 8;
            break;
        }
        at += 8;
    }
    at += text[at..].iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\'))?;
    Some((&text[..at], text[at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn written(pieces: &[&str], most: usize) -> Option<String> {
        let mut json = vec![b'"'];
        let mut output = Output::new(&mut json, most);
        let all = pieces.iter().try_for_each(|piece| (&mut output).write_all(piece.as_bytes()));
        assert_eq!(all.is_ok(), output.left().is_some());
        output.left()?;
        json.push(b'"');
        Some(String::from_utf8(json).expect("text"))
    }

    #[test]
    fn every_character_is_written_as_json_does() {
        for at in 0..17 {
            for code in (0..=0x250).chain([0x2028, 0x1F980]) {
                let text = format!("{}{}tail", "x".repeat(at), char::from_u32(code).expect("character"));
                assert_eq!(written(&[&text], 100), serde_json::to_string(&text).ok(), "{text:?}");
            }
        }
    }

    #[test]
    fn the_limit_is_counted_before_escaping() {
        assert_eq!(written(&["\"\"", "\"\""], 4).as_deref(), Some(r#""\"\"\"\"""#));
        assert_eq!(written(&["abc", "de"], 4), None);
    }

    proptest! {
        #[test]
        fn any_text_is_written_as_json_does(pieces in prop::collection::vec("[\\x00-\\x7f\u{e9}\u{1F980}]{0,40}", 0..4)) {
            let pieces: Vec<_> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(written(&pieces, 1000), serde_json::to_string(&pieces.concat()).ok());
        }
    }
}

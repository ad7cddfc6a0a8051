//! The last that a command wrote, whatever it writes.

use std::collections::VecDeque;

use titan_api::limits;

/// Keeps the last [`limits::MESSAGE_BYTES`] bytes.
#[derive(Debug, Default)]
pub(super) struct Tail {
    kept: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let limit = limits::MESSAGE_BYTES;
        let fresh = &bytes[bytes.len().saturating_sub(limit)..];
        let over = (self.kept.len() + fresh.len()).saturating_sub(limit);
        self.cut |= over > 0 || fresh.len() < bytes.len();
        self.kept.drain(..over);
        self.kept.extend(fresh);
    }

    /// Returns what was kept as text that people, terminals and databases can stand: without control characters other
    /// than line ends and tabs. If more was written, it begins with three dots.
    pub(super) fn into_text(self) -> String {
        let bytes = Vec::from(self.kept);
        let visible = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
        let text: String = String::from_utf8_lossy(&bytes).chars().filter(visible).collect();
        let mut from = text.len().saturating_sub(limits::MESSAGE_BYTES - 4);
        if !self.cut && text.len() <= limits::MESSAGE_BYTES {
            return text;
        }
        while !text.is_char_boundary(from) {
            from += 1;
        }
        format!("...{}", text[from..].trim_start_matches('\u{fffd}'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_bytes_are_kept() {
        let mut tail = Tail::default();
        tail.push(b"begin\n");
        (0..100).for_each(|_| tail.push(&[b'x'; 1000]));
        tail.push(b"\nend");
        assert!(tail.kept.len() <= limits::MESSAGE_BYTES);
        let text = tail.into_text();
        assert!(text.starts_with("...xxx") && text.ends_with("x\nend") && text.len() <= limits::MESSAGE_BYTES);
        let mut tail = Tail::default();
        tail.push(&[0xff; 100_000]);
        assert!(tail.into_text().len() <= limits::MESSAGE_BYTES, "a bad byte becomes three");
    }

    #[test]
    fn control_characters_and_halves_of_letters_go() {
        let mut tail = Tail::default();
        tail.push(b"a\0b\r\n\x1b[31mred\tend");
        assert_eq!(tail.into_text(), "ab\n[31mred\tend");
        let mut tail = Tail::default();
        tail.push("é".repeat(limits::MESSAGE_BYTES).as_bytes());
        tail.push(b"x");
        let text = tail.into_text();
        assert!(text.starts_with("...é") && text.ends_with("éx"), "{}", &text[..10]);
    }
}

//! Text on its way into a bundle's JSON.

use std::io;

use crate::render::json::escape;

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

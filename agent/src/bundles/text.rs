//! A text of a JSON document, decoded bit by bit: it may be longer than the memory there is.

use std::io::{self, BufRead, Read};

/// The inside of a JSON text, from behind its first quote to its last one. Reads the bytes that it stands for, and leaves
/// its source behind the last quote.
///
/// What is refused is what `serde_json` refuses: bytes that are not UTF-8, control characters, unknown escapes, halves of
/// surrogate pairs.
#[derive(Debug)]
pub(super) struct Text<S> {
    source: S,
    /// Bytes of a character that was cut, of those that its first byte promises.
    cut: Cut,
    /// A character that was escaped and does not fit into what was asked for.
    waiting: Waiting,
    ended: bool,
}

#[derive(Debug, Default)]
struct Cut {
    bytes: [u8; 4],
    count: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: [u8; 4],
    from: usize,
    to: usize,
}

impl<S: BufRead> Text<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source, cut: Cut::default(), waiting: Waiting::default(), ended: false }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let byte = *self.source.fill_buf()?.first().ok_or_else(unended)?;
        self.source.consume(1);
        Ok(byte)
    }

    /// Reads what follows on a backslash.
    fn escape(&mut self) -> io::Result<char> {
        Ok(match self.byte()? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => match self.hex()? {
                high @ 0xd800..0xdc00 => {
                    let low = if self.byte()? == b'\\' && self.byte()? == b'u' { self.hex()? } else { 0 };
                    let pair =
                        (0xdc00..0xe000).contains(&low).then(|| 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                    pair.and_then(char::from_u32).ok_or_else(|| invalid("half of a surrogate pair"))?
                }
                code => char::from_u32(code).ok_or_else(|| invalid("half of a surrogate pair"))?,
            },
            _ => return Err(invalid("an escape that JSON does not know")),
        })
    }

    fn hex(&mut self) -> io::Result<u32> {
        (0..4).try_fold(0, |code, _| {
            let digit = char::from(self.byte()?).to_digit(16);
            digit.map(|digit| code << 4 | digit).ok_or_else(|| invalid("an escape that is not hexadecimal"))
        })
    }
}

impl Cut {
    /// Fails unless `bytes`, after those that were there before, are UTF-8 as far as they go.
    fn check(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let (Some((first, rest)), 1..) = (bytes.split_first(), self.count) {
            self.bytes[self.count] = *first;
            self.count += 1;
            bytes = rest;
            match std::str::from_utf8(&self.bytes[..self.count]) {
                Ok(_) => self.count = 0,
                Err(error) if error.error_len().is_none() && self.count < 4 => {}
                Err(_) => return Err(invalid("bytes that are not UTF-8")),
            }
        }
        if let Err(error) = std::str::from_utf8(bytes) {
            let tail = &bytes[error.valid_up_to()..];
            if error.error_len().is_some() {
                return Err(invalid("bytes that are not UTF-8"));
            }
            self.bytes[..tail.len()].copy_from_slice(tail);
            self.count = tail.len();
        }
        Ok(())
    }

    fn check_end(&self) -> io::Result<()> {
        if self.count == 0 { Ok(()) } else { Err(invalid("bytes that are not UTF-8")) }
    }
}

impl<S: BufRead> Read for Text<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        while count < out.len() {
            let Waiting { bytes, from, to } = &mut self.waiting;
            if from < to {
                out[count] = bytes[*from];
                (*from, count) = (*from + 1, count + 1);
                continue;
            }
            if self.ended {
                break;
            }
            let buffer = self.source.fill_buf()?;
            let first = *buffer.first().ok_or_else(unended)?;
            match first {
                b'"' | b'\\' => {
                    self.cut.check_end()?;
                    self.source.consume(1);
                    if first == b'"' {
                        self.ended = true;
                    } else {
                        let char = self.escape()?;
                        self.waiting.from = 0;
                        self.waiting.to = char.encode_utf8(&mut self.waiting.bytes).len();
                    }
                }
                0..0x20 => return Err(invalid("a control character that is not escaped")),
                _ => {
                    let room = buffer.len().min(out.len() - count);
                    let plain = buffer[..room].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
                    let plain = &buffer[..plain.unwrap_or(room)];
                    self.cut.check(plain)?;
                    out[count..count + plain.len()].copy_from_slice(plain);
                    let length = plain.len();
                    self.source.consume(length);
                    count += length;
                }
            }
        }
        Ok(count)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it holds {what}"))
}

fn unended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it does not end")
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    /// Reads `json`, a text with its quotes, by `step` bytes from a source that gives `buffer` at a time.
    fn read(json: &[u8], buffer: usize, step: usize) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut source = BufReader::with_capacity(buffer, &json[1..]);
        let (mut text, mut all, mut chunk) = (Text::new(&mut source), Vec::new(), vec![0; step]);
        loop {
            match text.read(&mut chunk)? {
                0 => break,
                count => all.extend_from_slice(&chunk[..count]),
            }
        }
        let mut rest = Vec::new();
        source.read_to_end(&mut rest)?;
        Ok((all, rest))
    }

    #[test]
    fn what_serde_refuses_is_refused() {
        for bad in [
            &b"\"abc"[..],
            b"\"",
            b"\"\\",
            b"\"\\x\"",
            b"\"\\u12g4\"",
            b"\"\\u12\"",
            b"\"\\ud800\"",
            b"\"\\ud800\\n\"",
            b"\"\\ud800\\u0041\"",
            b"\"\\udc00\"",
            b"\"a\nb\"",
            b"\"\xff\"",
            b"\"\xc3\"",
            b"\"\xc3\\n\"",
            b"\"\xe2\x82\"",
            b"\"\xed\xa0\x80\"",
            b"\"\xf5\x80\x80\x80\"",
        ] {
            assert!(serde_json::from_slice::<String>(bad).is_err(), "{bad:?}");
            for buffer in [1, 2, 3, 64] {
                assert!(read(bad, buffer, 7).is_err(), "{bad:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_text_is_what_serde_makes_of_it(
            text in "(\\PC|[\\x00-\\x20\"\\\\/]|[äß€𝄞]){0,40}",
            escaped in any::<bool>(),
            buffer in 1..9_usize,
            step in 1..9_usize,
        ) {
            let json = if escaped {
                let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
                format!("\"{units}\"")
            } else {
                serde_json::to_string(&text).expect("JSON")
            };
            let (read, rest) = read(format!("{json}, 1").as_bytes(), buffer, step).expect("read");
            prop_assert_eq!(String::from_utf8(read).expect("UTF-8"), text);
            prop_assert_eq!(rest, b", 1");
        }

        #[test]
        fn bytes_are_taken_or_refused_as_serde_does(
            inside in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\\u\"d8c0/n\xc3\xa4\xe2\x82\xac"[..])], 0..12),
            buffer in 1..5_usize,
        ) {
            let json = [b"\"", &inside[..], b"\""].concat();
            let mut serde = serde_json::Deserializer::from_slice(&json);
            let wanted: Result<String, _> = serde::Deserialize::deserialize(&mut serde);
            let found = read(&json, buffer, 3);
            prop_assert_eq!(wanted.ok().map(String::into_bytes), found.ok().map(|(read, _)| read));
        }
    }
}

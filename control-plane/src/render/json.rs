//! JSON, written quickly: byte for byte what `serde_json` writes.
//!
//! Keys and digests are over these bytes, and they are made for every host.

use serde_json::Value;

use super::reads::Reads;

/// Adds a value; of a map only what is read, or all of it without `reads`.
pub fn write(reads: Option<&Reads>, value: &Value, json: &mut Vec<u8>) {
    match value {
        Value::Null => json.extend_from_slice(b"null"),
        Value::Bool(true) => json.extend_from_slice(b"true"),
        Value::Bool(false) => json.extend_from_slice(b"false"),
        Value::Number(number) => {
            // A number can always be written, and to memory.
            let _written = serde_json::to_writer(&mut *json, number);
        }
        Value::String(value) => text(value, json),
        Value::Array(items) => {
            json.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                write(None, item, json);
            }
            json.push(b']');
        }
        Value::Object(map) => {
            json.push(b'{');
            let first = json.len();
            match reads.filter(|reads| !reads.is_whole()) {
                Some(reads) => {
                    for (key, reads) in reads.parts() {
                        if let Some(value) = map.get(key) {
                            entry(key, Some(reads), value, first, json);
                        }
                    }
                }
                None => map.iter().for_each(|(key, value)| entry(key, None, value, first, json)),
            }
            json.push(b'}');
        }
    }
}

fn entry(key: &str, reads: Option<&Reads>, value: &Value, first: usize, json: &mut Vec<u8>) {
    if json.len() > first {
        json.push(b',');
    }
    text(key, json);
    json.push(b':');
    write(reads, value, json);
}

fn text(text: &str, json: &mut Vec<u8>) {
    json.push(b'"');
    escape(text.as_bytes(), json);
    json.push(b'"');
}

/// Adds a piece of text to a JSON string that has begun.
pub fn escape(text: &[u8], json: &mut Vec<u8>) {
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
    use serde_json::json;

    use super::*;
    use crate::render::lexer;

    #[test]
    fn it_is_what_serde_json_writes() {
        let context = json!({
            "values": {"a": [1, -1, 1.5, 1e300, -0.0, u64::MAX, null, true, false, [], {}], "b\"\n": "\u{1}x\u{e9}", "c": {}},
            "host": {"name": "h", "labels": {"a/b": "c", "d": "e"}},
            "text": "x",
        });
        let whole = serde_json::to_vec(&context).expect("json");
        let mut json = Vec::new();
        write(None, &context, &mut json);
        assert_eq!(json, whole);
        for source in ["{{ values }}", "{{ values.c }}{{ host.labels['a/b'] }}{{ none.x }}", "{{ text.x }}", ""] {
            let reads = Reads::of(&lexer::code(source).expect("code"));
            json.clear();
            write(Some(&reads), &context, &mut json);
            assert_eq!(json, serde_json::to_vec(&reads.of_context(&context)).expect("json"), "{source}");
        }
    }
}

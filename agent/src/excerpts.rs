//! Excerpts of long texts: their beginning, and their end, where programs say why they stop.

/// What is kept of the beginning.
const HEAD: usize = 256;
const CUT: &str = "\n[...]\n";

/// Returns `text` in at most `limit` bytes: all of it, or its beginning and its end.
pub(crate) fn excerpt(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let room = limit.saturating_sub(CUT.len());
    let mut head = HEAD.min(room / 2);
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - (room - head);
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    format!("{}{CUT}{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_keeps_its_beginning_and_its_end() {
        assert_eq!(excerpt("short", 5), "short");
        let long = format!("it ended with 1: {}the last words", "ä".repeat(20_000));
        let told = excerpt(&long, 16_384);
        assert!(told.len() <= 16_384 && told.len() > 16_380, "{}", told.len());
        assert!(told.starts_with("it ended with 1: ää") && told.ends_with("ääthe last words"));
        assert!(told.contains(CUT));
    }
}

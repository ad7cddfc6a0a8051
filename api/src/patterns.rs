//! Patterns in which `*` is any text: what a host's owner allows, and parts of the paths in `template.yaml`.

/// Whether `text` is one that `pattern` means: `*` is any text, also none; everything else stands for itself.
///
/// Takes time in proportion to both lengths multiplied, at most.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_any_text() {
        for (pattern, text, expected) in [
            ("*", "anything", true),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("app", "app", true),
            ("app", "apps", false),
            ("app-*.service", "app-web.service", true),
            ("app-*.service", "sshd.service", false),
            ("*.conf", "a.conf", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "aXc", false),
            ("a*a", "a", false),
            ("a**a", "aa", true),
            ("ä*ß", "äöß", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}

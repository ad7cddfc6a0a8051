//! Differences between two texts, unified and coloured.

use similar::TextDiff;

use super::{Tone, lines};

/// Returns the unified diff from `old` to `new`, or `None` if they are equal.
pub(crate) fn unified(old: &str, new: &str, old_name: &str, new_name: &str) -> Option<String> {
    (old != new).then(|| {
        let diff = TextDiff::from_lines(old, new);
        diff.unified_diff().context_radius(3).header(old_name, new_name).missing_newline_hint(false).to_string()
    })
}

/// Returns a unified diff with additions green, removals red and the rest as it is, each line after `indent`
/// and cut to `width` columns.
pub(crate) fn paint(diff: &str, indent: &str, width: Option<usize>) -> String {
    let mut text = String::new();
    for line in diff.lines() {
        // Files may hold anything; nothing of it may steer the terminal.
        let line: String = line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
        let tone = if line.starts_with("+++") || line.starts_with("---") {
            Tone::Strong
        } else if line.starts_with('+') {
            Tone::Good
        } else if line.starts_with('-') {
            Tone::Bad
        } else if line.starts_with("@@") {
            Tone::Faint
        } else {
            Tone::Plain
        };
        text.push_str(indent);
        text.push_str(&tone.paint(&lines::cut(&line, width.map(|width| width.saturating_sub(indent.len())))));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_no_difference() {
        assert_eq!(unified("a\n", "a\n", "x", "y"), None);
    }

    #[test]
    fn changes_are_coloured_and_named() {
        let diff = unified("port: 1\nname: a\n", "port: 2\nname: a\n", "live", "file").expect("differs");
        assert!(diff.starts_with("--- live\n+++ file\n@@"), "{diff}");
        let painted = paint(&diff, "  ", None);
        assert!(painted.contains("  \u{1b}[31m-port: 1\u{1b}[0m\n  \u{1b}[32m+port: 2\u{1b}[0m\n"), "{painted:?}");
    }

    #[test]
    fn long_lines_are_cut_where_that_is_wanted() {
        let diff = format!("+{}\n+short\n", "x".repeat(3000));
        let cut = anstream::adapter::strip_str(&paint(&diff, "  ", Some(20))).to_string();
        assert_eq!(cut, format!("  +{}…\n  +short\n", "x".repeat(16)));
        assert!(paint(&diff, "  ", None).len() > 3000);
    }

    #[test]
    fn escape_codes_in_files_do_not_reach_the_terminal() {
        assert!(!paint("+\u{1b}]0;title\u{7}", "", None).contains("\u{1b}]"));
    }
}

//! Drifts: how a file that others changed differs from what was applied, as far as it may be shown. Pure.
//!
//! Reports travel and are kept: a file that not everybody on the host may read is never shown in one, and what is shown
//! has a limit for each file and for all files of a deployment.

pub(crate) mod differences;

use titan_api::{drift::Drift, limits};

/// A file with more bytes than this is not compared line by line.
pub(crate) const COMPARED: usize = 4 * limits::DRIFT_BYTES;
/// All that is shown of one deployment's drift, in bytes.
const SHOWN: usize = 256 * 1024;
/// How something differs that others put beside what was applied. It is theirs: it is told, and stays.
pub(crate) const ADDED: &str = "added";
/// The permission that everybody on the host has to have.
const EVERYBODY_READS: u32 = 0o004;

/// A file as it was applied, or as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a> {
    /// Its permission bits.
    pub(crate) mode: u32,
    /// Its content; absent if it has more than [`COMPARED`] bytes.
    pub(crate) content: Option<&'a [u8]>,
}

/// Whether a file with these permission bits may be shown.
pub(crate) const fn is_shown(mode: u32) -> bool {
    mode & EVERYBODY_READS != 0
}

/// Returns the drift of a file whose content was changed. `what` is its path below the agent's root.
pub(crate) fn of_content(what: &str, applied: Side<'_>, found: Side<'_>) -> Drift {
    let drift = |how: &str| Drift {
        what: what.to_owned(),
        how: how.to_owned(),
        diff: String::new(),
        found: None,
        repaired: false,
    };
    if !is_shown(applied.mode & found.mode) {
        return drift("content, not shown: not everybody on the host may read it");
    }
    let text = |side: Side<'_>| -> Result<String, &str> {
        let bytes = side.content.ok_or("content, too large to be shown")?;
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        text.map(str::to_owned).ok_or("content, not text")
    };
    match text(applied).and_then(|applied| Ok((applied, text(found)?))) {
        Ok((applied, found)) => {
            let diff = difference(what, &applied, &found);
            Drift { diff, found: Some(found).filter(|found| found.len() <= limits::DRIFT_BYTES), ..drift("content") }
        }
        Err(how) => drift(how),
    }
}

/// Returns `drifts` within the limits of a report: more than [`limits::DRIFTS`] are counted in the last one, and the last
/// ones are not shown if all together are too long.
pub(crate) fn bounded(mut drifts: Vec<Drift>) -> Vec<Drift> {
    if drifts.len() > limits::DRIFTS {
        let more = drifts.len() - (limits::DRIFTS - 1);
        drifts.truncate(limits::DRIFTS - 1);
        let how = "changed as well".to_owned();
        let repaired = drifts.iter().all(|drift| drift.repaired);
        drifts.push(Drift { what: format!("{more} more"), how, diff: String::new(), found: None, repaired });
    }
    let mut left = SHOWN;
    for drift in &mut drifts {
        let whole = drift.diff.len() + drift.found.as_ref().map_or(0, String::len);
        if whole > left {
            drift.found = None;
        }
        if drift.diff.len() > left {
            drift.diff = String::new();
            drift.how.push_str(", not shown: too much drifted");
        }
        left -= drift.diff.len() + drift.found.as_ref().map_or(0, String::len);
    }
    drifts
}

/// Returns the difference as `diff -u` writes it, in at most [`limits::DRIFT_BYTES`].
fn difference(what: &str, applied: &str, found: &str) -> String {
    cut(differences::unified((&format!("applied/{what}"), &format!("found/{what}")), applied, found))
}

/// Cuts a difference after a whole line, and says how many lines are left out.
fn cut(mut text: String) -> String {
    if text.len() <= limits::DRIFT_BYTES {
        return text;
    }
    let room = limits::DRIFT_BYTES - "[4294967295 more lines]\n".len();
    let end = text.as_bytes()[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let more = text[end..].lines().count();
    text.truncate(end);
    text.push_str(&format!("[{more} more lines]\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(content: &[u8]) -> Side<'_> {
        Side { mode: 0o100_644, content: Some(content) }
    }

    #[test]
    fn a_change_of_text_is_shown_line_by_line_and_can_be_adopted() {
        let drift = of_content("etc/app.conf", side(b"a\nb\nc\n"), side(b"a\nB\nc"));
        assert_eq!((drift.what.as_str(), drift.how.as_str()), ("etc/app.conf", "content"));
        let expected = "--- applied/etc/app.conf\n+++ found/etc/app.conf\n@@ -1,3 +1,3 @@\n a\n-b\n-c\n+B\n+c\n\
            \\ No newline at end of file\n";
        assert_eq!(drift.diff, expected);
        assert_eq!(drift.found.as_deref(), Some("a\nB\nc"));
    }

    #[test]
    fn what_not_everybody_may_read_is_never_shown() {
        for (applied, found) in [(0o640, 0o644), (0o644, 0o600), (0o600, 0o600)] {
            let with = |mode| Side { mode, ..side(b"password\n") };
            let drift = of_content("x", with(applied), with(found));
            assert_eq!(drift.how, "content, not shown: not everybody on the host may read it");
            assert!(drift.diff.is_empty() && drift.found.is_none());
        }
    }

    #[test]
    fn what_is_not_text_or_too_large_is_not_shown() {
        for (other, how) in [
            (Side { content: None, ..side(b"") }, "content, too large to be shown"),
            (side(b"a\0b"), "content, not text"),
            (side(&[0xff]), "content, not text"),
        ] {
            for (applied, found) in [(side(b"a"), other), (other, side(b"a"))] {
                let drift = of_content("x", applied, found);
                assert!(drift.how == how && drift.diff.is_empty() && drift.found.is_none(), "{drift:?}");
            }
        }
        let long = "line\n".repeat(COMPARED / 5);
        let drift = of_content("x", side(b""), side(long.as_bytes()));
        assert!(drift.found.is_none() && drift.diff.len() <= limits::DRIFT_BYTES, "{}", drift.diff.len());
        let (shown, more) = drift.diff.trim_end().rsplit_once('\n').expect("lines");
        let more: usize = more.trim_matches(['[', ']']).split(' ').next().expect("number").parse().expect("number");
        assert_eq!(shown.lines().count() - 3 + more, COMPARED / 5, "every line is shown or counted");
        let one = "é".repeat(limits::DRIFT_BYTES);
        assert!(of_content("x", side(b""), side(one.as_bytes())).diff.ends_with("[2 more lines]\n"));
    }

    #[test]
    fn a_deployments_drift_fits_into_its_report() {
        let some = |bytes: usize| {
            let text = "x".repeat(bytes);
            Drift { diff: text.clone(), found: Some(text), ..of_content("x", side(b"a"), side(b"b")) }
        };
        let drifts = bounded(vec![some(10); limits::DRIFTS]);
        assert!(drifts.len() == limits::DRIFTS && drifts.iter().all(|drift| drift.found.is_some()));
        let drifts = bounded(vec![some(limits::DRIFT_BYTES); limits::DRIFTS + 5]);
        let last = drifts.last().expect("last");
        assert_eq!((drifts.len(), last.what.as_str()), (limits::DRIFTS, "6 more"));
        let bytes: usize =
            drifts.iter().map(|drift| drift.diff.len() + drift.found.as_ref().map_or(0, String::len)).sum();
        assert!(bytes <= SHOWN && drifts[1].found.is_some() && drifts[9].how.ends_with("too much drifted"), "{bytes}");
    }
}

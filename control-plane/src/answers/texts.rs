//! The text of an answer, in the order and spelling of [`PollAnswer`](titan_api::poll::PollAnswer).

use titan_api::{Digest, poll::RemovalReason};

use super::{Part, Told, fragments::Content, gzip::Packed};
use crate::store::Description;

/// Bytes of a revision as text.
pub(super) const REVISION: usize = 27;

/// What an answer is written to, piece by piece.
pub(super) trait Sink {
    /// Takes in text.
    fn text(&mut self, text: &[u8]);
    /// Takes in a piece that was compressed before.
    fn packed(&mut self, packed: &Packed);
}

impl Sink for Vec<u8> {
    fn text(&mut self, text: &[u8]) {
        self.extend_from_slice(text);
    }

    fn packed(&mut self, _: &Packed) {
        debug_assert!(false, "a plain answer is made of plain fragments");
    }
}

/// Writes the answer.
pub(super) fn write(sink: &mut impl Sink, told: &Told<'_>, parts: &[Part<'_>]) {
    sink.text(br#"{"cursor":""#);
    sink.text(&told.cursor.text());
    sink.text(if told.full { br#"","full":true,"digest":""# } else { br#"","full":false,"digest":""# });
    sink.text(&told.digest.text());
    sink.text(br#"","deployments":["#);
    let (present, gone) =
        (parts.iter().filter(|part| part.fragment.is_some()), parts.iter().filter(|part| part.fragment.is_none()));
    for (index, part) in present.enumerate() {
        sink.text(if index == 0 { br#"{"id":""# } else { br#",{"id":""# });
        deployment(sink, part);
    }
    sink.text(br#"],"tombstones":["#);
    for (index, part) in gone.enumerate() {
        sink.text(if index == 0 { br#"{"id":""# } else { br#",{"id":""# });
        tombstone(sink, part);
    }
    sink.text(br#"],"pollAfterSeconds":"#);
    number(sink, told.poll_after_seconds);
    sink.text(b"}");
}

/// Writes what follows on `{"id":"`.
fn deployment(sink: &mut impl Sink, part: &Part<'_>) {
    let Some(fragment) = &part.fragment else { return };
    sink.text(&part.id);
    sink.text(fragment.before.as_bytes());
    sink.text(&part.revision);
    match fragment.content() {
        Some(Content::Packed(packed)) if part.inline => sink.packed(packed),
        Some(Content::Text(bundle)) if part.inline => {
            inlined(&fragment.after, bundle).into_iter().for_each(|text| sink.text(text))
        }
        _ => {
            sink.text(fragment.after.as_bytes());
            sink.text(b"}");
        }
    }
}

/// Writes what follows on `{"id":"`. Names hold nothing that would have to be escaped.
fn tombstone(sink: &mut impl Sink, part: &Part<'_>) {
    let description = &part.entry.description;
    sink.text(&part.id);
    sink.text(br#"","name":""#);
    sink.text(description.name.as_str().as_bytes());
    sink.text(br#"","workspace":""#);
    sink.text(description.workspace.as_str().as_bytes());
    sink.text(br#"","revision":""#);
    sink.text(&part.revision);
    sink.text(br#"","deletedAt":""#);
    sink.text(&part.revision);
    sink.text(br#"","reason":""#);
    sink.text(description.reason.unwrap_or(RemovalReason::Unmatched).as_str().as_bytes());
    sink.text(br#"","onRemove":""#);
    sink.text(description.on_remove.as_str().as_bytes());
    sink.text(br#""}"#);
}

/// Returns what stands between id and revision.
pub(super) fn before(description: &Description) -> String {
    let Description { name, workspace, release, .. } = description;
    // The one text in it that may need escapes, and a text can always be written.
    let release = serde_json::to_string(release).unwrap_or_default();
    format!(r#"","name":"{name}","workspace":"{workspace}","release":{release},"revision":""#)
}

/// Returns what stands between revision and bundle, or revision and closing brace if there is no bundle.
pub(super) fn after(description: &Description, digest: &Digest) -> String {
    let mut text = format!(r#"","digest":"{digest}""#);
    if !description.depends_on.is_empty() {
        text.push_str(r#","dependsOn":"#);
        text.push_str(&serde_json::to_string(&description.depends_on).unwrap_or_default());
    }
    text.push_str(r#","onRemove":""#);
    text.push_str(description.on_remove.as_str());
    text.push('"');
    text
}

/// Returns the pieces of what follows on the revision if `bundle` travels inside.
pub(super) fn inlined<'a>(after: &'a str, bundle: &'a [u8]) -> [&'a [u8]; 4] {
    [after.as_bytes(), br#","bundle":"#, bundle, b"}"]
}

fn number(sink: &mut impl Sink, number: u32) {
    let mut digits = [b'0'; 10];
    let (mut rest, mut first) = (number, digits.len() - 1);
    loop {
        // Below ten.
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return sink.text(&digits[first..]);
        }
        first -= 1;
    }
}

//! Reasons: what is not well, told to people within [`limits::MESSAGE_BYTES`].

use titan_api::limits;

use crate::{
    apply::{Condition, Observation},
    excerpts::excerpt,
};

/// More than this are counted and not named.
const NAMED: usize = 16;

/// What is not well.
#[derive(Debug)]
pub(super) struct Reasons {
    summary: String,
    items: Vec<(String, String)>,
}

impl Reasons {
    pub(super) fn new(summary: &str) -> Self {
        Self { summary: summary.to_owned(), items: Vec::new() }
    }

    pub(super) fn with(mut self, subject: &str, why: &str) -> Self {
        self.items.push((subject.to_owned(), why.to_owned()));
        self
    }

    pub(super) fn with_all<'a>(self, items: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        items.fold(self, |reasons, (subject, why)| reasons.with(subject, why))
    }

    pub(super) fn observed(self, observed: &[Observation]) -> Self {
        observed.iter().fold(self, |reasons, seen| match &seen.condition {
            Condition::Well => reasons,
            Condition::Starting(why) => reasons.with(&seen.claim.to_string(), &format!("not ready yet: {why}")),
            Condition::Ill(why) | Condition::Failed(why) => reasons.with(&seen.claim.to_string(), why),
        })
    }

    /// Returns who is not well.
    pub(super) fn subjects(&self) -> Vec<String> {
        self.items.iter().map(|(subject, _)| subject.clone()).collect()
    }

    /// Returns all of it as a text, which every reason has its share of.
    pub(super) fn tell(&self) -> String {
        let mut text = excerpt(&self.summary, limits::MESSAGE_BYTES / 4);
        let named = self.items.len().min(NAMED);
        let more = match self.items.len() - named {
            0 => String::new(),
            more => format!("\nand {more} more"),
        };
        let share = (limits::MESSAGE_BYTES - text.len() - more.len()) / named.max(1);
        for (subject, why) in &self.items[..named] {
            text.push_str(&excerpt(&format!("\n{subject}: {}", why.trim_end()), share));
        }
        text + &more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_share_of_the_limit() {
        let long = "é".repeat(20_000) + " the end";
        let one = Reasons::new("not healthy").with("a", &long).tell();
        assert!(one.len() <= limits::MESSAGE_BYTES && one.len() > limits::MESSAGE_BYTES - 8, "{}", one.len());
        assert!(one.starts_with("not healthy\na: éé") && one.ends_with(" the end"));
        let many = (0..40).fold(Reasons::new(&long), |reasons, n| reasons.with(&format!("unit:{n}"), &long)).tell();
        assert!(many.len() <= limits::MESSAGE_BYTES, "{}", many.len());
        assert!(many.contains("\nunit:15: ") && !many.contains("unit:16") && many.ends_with("\nand 24 more"));
    }
}

//! Failures: why a plan comes to a bad end, as people are told.

use serde::{Deserialize, Serialize};
use titan_api::{
    limits,
    workplans::{Executor, NodeKind},
};

use super::Node;

/// Characters of what a check asks.
const QUESTION: usize = 200;
/// Bytes of all of it: a person's own words, who said them and about what always fit.
const BYTES: usize = 2 * limits::SIGNAL_TEXT_BYTES;
/// What the message of a node begins with that a person rejected.
pub(super) const REJECTED: &str = "rejected";

/// What is told of the node that decided over a plan: of the first that had to pass and did not, unless a person rejected
/// one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why, in one line that names the node.
    pub text: String,
    /// Whether a person decided it.
    pub rejected: bool,
}

impl Failure {
    /// Returns what is told of a node that failed with this message.
    pub(super) fn of(node: &Node, message: Option<&str>) -> Self {
        let message = one_line(message.unwrap_or_default());
        let name = &node.name;
        let rejected = message.strip_prefix(REJECTED).is_some_and(|rest| rest.starts_with(" by "));
        let asked = question(node).map_or_else(String::new, |question| format!(" ({question})"));
        // A stage of a release names itself.
        let itself = message.strip_prefix("stage ").is_some_and(|rest| rest.starts_with(&format!("{name} failed")));
        let text = match message.as_str() {
            "" => format!("{name}{asked} failed"),
            message if itself => message.to_owned(),
            message if rejected => format!("{name}{asked} was {message}"),
            message => format!("{name}{asked} failed: {message}"),
        };
        Self { text: cut(text), rejected }
    }

    /// Whether this one is told rather than another that came before.
    pub(super) const fn outweighs(&self, before: Option<&Self>) -> bool {
        match before {
            Some(before) => self.rejected && !before.rejected,
            None => true,
        }
    }
}

/// Returns what a check asks, if its answer alone does not say so.
fn question(node: &Node) -> Option<String> {
    if node.spec.kind != NodeKind::Check {
        return None;
    }
    let asked = match (&node.spec.description, &node.spec.run) {
        (Some(description), _) => description.clone(),
        (None, Some(Executor::Metric(metric))) => format!("{} for {}", metric.success, metric.query),
        (None, Some(Executor::Health(gate))) => format!("deployment {}", gate.deployment),
        _ => return None,
    };
    let mut asked = one_line(&asked);
    if let Some((end, _)) = asked.char_indices().nth(QUESTION) {
        asked.truncate(end);
        asked.push('…');
    }
    (!asked.is_empty()).then_some(asked)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cut(mut text: String) -> String {
    if text.len() > BYTES {
        text.truncate(text.floor_char_boundary(BYTES - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use titan_api::Name;

    use super::*;

    fn told(spec: Value, message: &str) -> String {
        let spec = serde_json::from_value(spec).expect("a node");
        let node = Node::new(&Name::new("gate").expect("a name"), &spec);
        Failure::of(&node, Some(message).filter(|message| !message.is_empty())).text
    }

    #[test]
    fn a_failure_names_the_node_what_it_asks_and_what_was_said() {
        assert_eq!(told(json!({}), ""), "gate failed");
        assert_eq!(told(json!({}), "the disk\n is full"), "gate failed: the disk is full");
        assert_eq!(told(json!({}), "stage gate failed: 1 of 1 hosts"), "stage gate failed: 1 of 1 hosts");
        let approval = json!({"kind": "check", "run": {"approval": {}}});
        assert_eq!(told(approval, "rejected by token:bob: not yet"), "gate was rejected by token:bob: not yet");
        let asks = json!({"kind": "check", "description": "are the books closed?"});
        assert_eq!(told(asks, "two are open"), "gate (are the books closed?) failed: two are open");
        let metric = json!({"kind": "check", "run": {"metric": {"server": "http://p", "query": "errors", "count": 3,
            "success": "result < 1"}}});
        assert_eq!(
            told(metric, "3 of 3 measurements are bad"),
            "gate (result < 1 for errors) failed: 3 of 3 measurements are bad"
        );
        // What a stage is for is no question.
        assert_eq!(told(json!({"description": "builds it"}), "no"), "gate failed: no");
    }

    #[test]
    fn a_persons_words_fit_and_all_else_is_cut() {
        let words = "w".repeat(limits::SIGNAL_TEXT_BYTES);
        let asks = |asked: String| json!({"kind": "check", "run": {"approval": {}}, "description": asked});
        let text = told(asks("ä".repeat(5_000)), &format!("rejected by token:{}: {words}", "n".repeat(63)));
        assert!(text.len() <= BYTES && text.ends_with(&words), "{} bytes: {text}", text.len());
        let text = told(json!({}), &"ä".repeat(BYTES));
        assert!((BYTES - 4..=BYTES).contains(&text.len()) && text.ends_with('…'), "{} bytes", text.len());
    }
}

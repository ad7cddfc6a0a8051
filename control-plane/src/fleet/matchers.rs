//! Matching hosts.

use std::borrow::Cow;

use serde_json::Value;
use titan_api::{hosts::Facts, labels::Labels, problems::Fault, selectors::Selector};

use crate::{fleet::hosts::Host, render::Expression};

/// A selector that is ready to match.
#[derive(Debug)]
pub struct Matcher {
    selector: Selector,
    expression: Option<Expression>,
}

impl Matcher {
    /// Returns a matcher for `selector`, or what is wrong with its expression, with a pointer below the selector.
    pub fn new(selector: Selector) -> Result<Self, Fault> {
        let expression = match &selector.expression {
            Some(text) => Some(Expression::parse(text).map_err(|error| Fault::new("/expression", error.to_string()))?),
            None => None,
        };
        Ok(Self { selector, expression })
    }

    /// Whether the selector matches the host. For many hosts, [`Hosts::matching`](super::hosts::Hosts::matching) answers
    /// at once.
    #[must_use]
    pub fn matches(&self, host: Host<'_>) -> bool {
        let holds = |expression: &Expression| expression.evaluate(host.name(), &host.to_labels(), &host.to_facts());
        self.selector.rules_match(|key| host.lookup(key)) && self.expression.as_ref().is_none_or(holds)
    }

    /// Returns the selector.
    #[must_use]
    pub const fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Returns the selector's expression, read.
    #[must_use]
    pub const fn expression(&self) -> Option<&Expression> {
        self.expression.as_ref()
    }
}

/// Returns a label's value, or a fact's as text for `fact/<name>`.
pub(crate) fn lookup<'a>(labels: &'a Labels, facts: &'a Facts, key: &str) -> Option<Cow<'a, str>> {
    match key.strip_prefix("fact/") {
        Some(name) => facts.get(name).map(|value| match value {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            other => Cow::Owned(other.to_string()),
        }),
        None => labels.get(key).map(Cow::Borrowed),
    }
}

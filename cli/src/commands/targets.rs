//! Targets: made.

use std::collections::BTreeMap;

use clap::Args;
use titan_api::{
    Kind, Spec,
    labels::{LabelError, Labels, is_key},
    selectors::Selector,
};

use super::documents;
use crate::{arguments::NameArgument, errors::CliError, output::Exit, session::Session};

/// Make a target: rules that match hosts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan create target tim-pi --labels name=tim-pi
  titan create target arm --labels fact/arch=aarch64
  titan create target large --expression 'facts.memoryBytes > 4000000000'
  titan create target everywhere --expression true")]
pub(crate) struct Create {
    #[command(flatten)]
    name: NameArgument,
    /// Labels, or facts as `fact/NAME`, that a host must have: `key=value,key=value`.
    #[arg(short = 'l', long, value_name = "LABELS", default_value = "", value_parser = rules, required_unless_present = "expression", hide_default_value = true)]
    labels: Rules,
    /// Expression over `name`, `labels` and `facts` that must be true.
    #[arg(long, value_name = "EXPRESSION")]
    expression: Option<String>,
}

/// Labels to match, by key.
type Rules = BTreeMap<String, String>;

fn rules(text: &str) -> Result<Rules, LabelError> {
    let mut rules = Rules::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| LabelError::List(text.to_owned()))?;
        let (key, value) = (key.trim(), value.trim());
        if !is_key(key) {
            return Err(LabelError::Key(key.to_owned()));
        }
        rules.insert(key.to_owned(), value.to_owned());
    }
    Ok(rules)
}

impl Create {
    /// Makes the target.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let name = self.name.get()?;
        let spec = Selector { match_labels: self.labels, match_expressions: Vec::new(), expression: self.expression };
        let place = session.workspace_of(Kind::Target)?;
        let client = session.client()?;
        documents::create(&client, session.output, (name, place), Labels::default(), &Spec::Target(spec)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_facts_are_rules() {
        let rules = rules("name=tim-pi, fact/arch=aarch64").expect("rules");
        assert_eq!(rules.get("fact/arch").map(String::as_str), Some("aarch64"));
    }

    #[test]
    fn malformed_rules_are_refused() {
        for bad in ["name", "a b=c", "=x"] {
            assert!(rules(bad).is_err(), "{bad}");
        }
    }
}

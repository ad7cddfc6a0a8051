//! `titan plan`: what would happen, before anything does.

use std::path::PathBuf;

use clap::Args;
use titan_api::plans::{Plan as Answer, PlanEffect, PlanGroup};

use super::documents::{apply, slug};
use crate::{
    errors::CliError,
    output::{Exit, Format, Tone, View, diffs, terminal_width},
    session::Session,
};

/// Hosts that are named before the rest is counted.
const NAMED: usize = 5;
/// Columns of a line where there is no terminal that says how many it has.
const COLUMNS: usize = 160;

/// Show which hosts would change how if documents were applied; nothing is written.
///
/// Hosts to which the same would happen are one group, the largest first. Hosts for which a template cannot be rendered
/// are a group with the reason; they would keep what they have. Lines are cut where the terminal ends, or after 160
/// columns; -o wide and -o json have all of them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  titan plan -f fleet/
  titan plan -f template.yaml --exit-code                 ends with 6 if any host would change")]
pub(crate) struct Plan {
    /// File, directory, or - for standard input; may be given several times.
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// End with 6 if any host would change.
    #[arg(long)]
    exit_code: bool,
}

impl Plan {
    /// Asks and shows.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, CliError> {
        let manifests = apply::read(&self.files, session.given_workspace())?;
        let client = session.client()?;
        let plan = client
            .plan(&apply::request(&manifests, false, None))
            .await
            .map_err(|error| apply::located(error, &manifests))?;
        let width = match session.output.format {
            Format::Wide => None,
            _ => Some(terminal_width().map_or(COLUMNS, usize::from)),
        };
        session.output.show(&view(&plan, width))?;
        Ok(if self.exit_code && !plan.groups.is_empty() { Exit::Differences } else { Exit::Done })
    }
}

/// Returns the plan with what may be of any length on lines of at most `width` columns.
fn view(plan: &Answer, width: Option<usize>) -> View {
    let mut view = View::new(plan);
    for result in &plan.results {
        view = view.name(slug(result.kind, &result.name));
    }
    let documents: Vec<_> = plan
        .results
        .iter()
        .filter(|result| result.action != titan_api::changes::Action::Unchanged)
        .map(|result| format!("{} {}", slug(result.kind, &result.name), result.action.as_str()))
        .collect();
    if !documents.is_empty() {
        const TITLE: &str = "documents:";
        let listed = listed(&documents, width.map(|width| width.saturating_sub(TITLE.len() + 1)));
        view = view.text(format!("{} {listed}", Tone::Faint.paint(TITLE)));
    }
    for group in &plan.groups {
        view = view.text(format!("{}\n{}", heading(group), detail(group, width)));
    }
    for short in &plan.unplaced {
        let what = format!("{}/{} would not be placed everywhere:", short.workspace, short.deployment);
        view = view.text(format!("{} {}", Tone::Bad.paint(&what), short.detail));
    }
    view.text(summary(plan))
}

/// Returns a group in one line: how many hosts, what, and which.
fn heading(group: &PlanGroup) -> String {
    let (verb, tone) = match group.effect {
        PlanEffect::Add => ("get", Tone::Good),
        PlanEffect::Change => ("change", Tone::Care),
        PlanEffect::Remove => ("lose", Tone::Bad),
        PlanEffect::Fail => ("cannot render", Tone::Bad),
    };
    let hosts = if group.count == 1 { "1 host".to_owned() } else { format!("{} hosts", thousands(group.count)) };
    let what = format!("{hosts} would {verb} {}/{}", group.workspace, group.deployment);
    let what = what.replace("would cannot", "cannot");
    let named: Vec<_> = group.hosts.iter().take(NAMED).map(titan_api::Name::as_str).collect();
    let more = group.count.saturating_sub(named.len());
    let more = if more > 0 { format!(" and {} more", thousands(more)) } else { String::new() };
    format!("{}: {}{more}", tone.paint(&what), named.join(", "))
}

/// Returns as many texts as there is room for in `width` columns, at least one, and how many more there are.
fn listed(texts: &[String], width: Option<usize>) -> String {
    let tail = |more: usize| if more > 0 { format!(", … and {} more", thousands(more)) } else { String::new() };
    let mut line = String::new();
    for (index, text) in texts.iter().enumerate() {
        let next = format!("{}{text}", if index > 0 { ", " } else { "" });
        let columns = [&line, &next, &tail(texts.len() - index - 1)].map(|part| part.chars().count());
        if index > 0 && width.is_some_and(|width| columns.iter().sum::<usize>() > width) {
            line.push_str(&tail(texts.len() - index));
            break;
        }
        line.push_str(&next);
    }
    line
}

fn detail(group: &PlanGroup, width: Option<usize>) -> String {
    match group.effect {
        PlanEffect::Add | PlanEffect::Change => diffs::paint(&group.detail, "  ", width),
        PlanEffect::Remove | PlanEffect::Fail => group.detail.lines().map(|line| format!("  {line}\n")).collect(),
    }
}

fn summary(plan: &Answer) -> String {
    let count = |effect: PlanEffect| -> usize {
        plan.groups.iter().filter(|group| group.effect == effect).map(|group| group.count).sum()
    };
    let parts = [
        (PlanEffect::Add, "to add", Tone::Good),
        (PlanEffect::Change, "to change", Tone::Care),
        (PlanEffect::Remove, "to remove", Tone::Bad),
        (PlanEffect::Fail, "that cannot be rendered", Tone::Bad),
    ];
    let mut text: Vec<_> = parts
        .iter()
        .filter(|(effect, ..)| count(*effect) > 0)
        .map(|(effect, words, tone)| tone.paint(&format!("{} {words}", thousands(count(*effect)))))
        .collect();
    if text.is_empty() {
        text.push("no host would change".to_owned());
    }
    text.push(format!("{} unchanged", thousands(plan.unchanged)));
    text.join(", ")
}

/// Returns a number with its thousands apart: `38 201`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn groups_show_counts_hosts_and_difference() {
        let plan: Answer = serde_json::from_value(json!({
            "results": [{"kind": "Template", "name": "t", "workspace": "default", "action": "updated"}],
            "groups": [
                {"deployment": "prod", "workspace": "default", "effect": "change", "count": 38201,
                 "hosts": ["a", "b", "c", "d", "e", "f"], "detail": "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n"},
                {"deployment": "prod", "workspace": "default", "effect": "fail", "count": 1,
                 "hosts": ["z"], "detail": "app.conf.j2:7: values.port is undefined"},
            ],
            "unchanged": 12,
        }))
        .expect("plan");
        let text = view(&plan, None).render(Format::Table, None);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.contains("documents: template/t updated\n"), "{text}");
        assert!(
            text.contains("38 201 hosts would change default/prod: a, b, c, d, e and 38 196 more\n  --- a"),
            "{text}"
        );
        assert!(
            text.contains("1 host cannot render default/prod: z\n  app.conf.j2:7: values.port is undefined\n"),
            "{text}"
        );
        assert!(text.ends_with("38 201 to change, 1 that cannot be rendered, 12 unchanged\n"), "{text}");
    }

    #[test]
    fn long_lines_are_cut_to_the_columns_that_there_are() {
        let document = |index: usize| json!({"kind": "Host", "name": format!("host-{index}"), "action": "created"});
        let plan: Answer = serde_json::from_value(json!({
            "results": (0..200).map(document).collect::<Vec<_>>(),
            "groups": [{"deployment": "prod", "workspace": "default", "effect": "add", "count": 1, "hosts": ["a"],
                "detail": format!("+{}\n+end\n", "x".repeat(3000))}],
            "unchanged": 0,
        }))
        .expect("plan");
        let shown = |width| anstream::adapter::strip_str(&view(&plan, width).render(Format::Table, None)).to_string();
        let text = shown(Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.starts_with("documents: host/host-0 created, host/host-1 created, … and 198 more\n"), "{text}");
        assert!(text.contains("xxx…\n  +end\n"), "{text}");
        assert!(shown(None).contains("host/host-199 created\n"));
        // One that is too long alone is there all the same.
        assert_eq!(listed(&["a".repeat(9)], Some(3)), "a".repeat(9));
    }

    #[test]
    fn nothing_to_do_is_said() {
        let plan = Answer { results: Vec::new(), groups: Vec::new(), unchanged: 1_234_567, unplaced: Vec::new() };
        assert_eq!(view(&plan, None).render(Format::Table, None), "no host would change, 1 234 567 unchanged\n");
    }
}

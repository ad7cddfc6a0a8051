//! Watching a plan until its end: as a picture on a terminal, as lines elsewhere, as documents for programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use serde_json::{Value, json};
use titan_api::{
    Name,
    client::ClientError,
    workplans::{EventView, NodeView},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;

use super::{
    follow::{Follow, counts},
    picture::{picture, sentence, waits_for, words},
};
use crate::{
    away::{self, Away},
    errors::CliError,
    output::{Format, Output, Tone, ages, canvas::Canvas, lines::Line, yaml},
};

/// After how many seconds at most it is looked at again: ages go on, and what workers say meanwhile is no event.
const LOOK: u64 = 1;

/// Shows a plan until its end.
pub(crate) async fn watch(output: Output, plan: &mut Follow) -> Result<(), CliError> {
    if output.repaints() {
        return painted(output, plan).await;
    }
    let mut lines = Lines::default();
    let mut wait = 0;
    loop {
        let news = away::outlast(|text| output.note(text), async || plan.look(wait).await).await?;
        lines.news(output, plan, &news)?;
        if plan.is_over() {
            return Ok(());
        }
        wait = LOOK;
    }
}

async fn painted(output: Output, plan: &mut Follow) -> Result<(), CliError> {
    let mut canvas = Canvas::new(output);
    let mut resized = signal(SignalKind::window_change())?;
    let mut away = Away::default();
    let mut wait = 0;
    loop {
        match looked(plan, wait, &mut resized).await {
            Ok(true) => away.back(),
            Ok(false) => {}
            Err(error) if away.endures(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let (columns, rows) = Canvas::size();
        let mut lines = picture(plan, ages::now(), (columns, rows.saturating_sub(usize::from(away.is_on()))));
        if away.is_on() {
            lines.push(Line::new().add(Tone::Care, away::SAID));
        }
        canvas.paint(&lines)?;
        if away.is_on() {
            Away::pass().await;
        } else if plan.is_over() {
            return Ok(());
        }
        wait = LOOK;
    }
}

/// Waits until there is something new to see (true), or the terminal has another size. A look that is cut off is made
/// again.
async fn looked(plan: &mut Follow, wait: u64, resized: &mut Signal) -> Result<bool, ClientError> {
    tokio::select! {
        looked = plan.look(wait) => looked.map(|_| true),
        _ = resized.recv() => Ok(false),
    }
}

/// What was said of a plan where nothing can be painted.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    plan: Option<Uuid>,
    said: BTreeMap<Name, String>,
    faults: BTreeSet<Name>,
    nodes: BTreeMap<Name, NodeView>,
    last: Option<Value>,
}

impl Lines {
    /// Says what is new: what happened, one line each, then how far the stages are that go on.
    pub(crate) fn news(&mut self, output: Output, plan: &Follow, news: &[EventView]) -> io::Result<()> {
        // Of another plan nothing was said yet.
        if self.plan != Some(plan.status.id) {
            *self = Self { plan: Some(plan.status.id), ..Self::default() };
        }
        match output.format {
            Format::Table | Format::Wide => self.texts(plan, news).iter().try_for_each(|line| output.line(line)),
            Format::Name => {
                let changed: BTreeSet<&Name> = news.iter().filter_map(|event| event.event.node()).collect();
                changed.into_iter().try_for_each(|node| output.line(&format!("node/{node}")))
            }
            Format::Json => self.document(plan, news).map_or(Ok(()), |document| output.line(&document.to_string())),
            Format::Yaml => {
                let document = self.document(plan, news);
                document.map_or(Ok(()), |document| output.raw(&format!("---\n{}", yaml(&document))))
            }
        }
    }

    fn texts(&mut self, plan: &Follow, news: &[EventView]) -> Vec<String> {
        let name = &plan.status.name;
        let seconds = |at: titan_api::Revision| format!("{}Z", at.to_string().get(..19).unwrap_or_default());
        let line = |at: &str, said: &str| format!("{at} {name} {}", said.replace(|c: char| c.is_control(), " "));
        let told = news.iter().filter_map(|event| Some(line(&seconds(event.at), &sentence(plan, event)?)));
        let mut lines: Vec<String> = told.collect();
        let now = seconds(ages::now());
        for node in plan.nodes.values().filter(|node| node.outcome.is_none()) {
            if counts(node).is_none() && waits_for(plan, node, None).is_none() {
                continue;
            }
            let said = words(plan, node, None);
            if self.said.get(&node.name) != Some(&said) {
                lines.push(line(&now, &format!("{} {said}", node.name)));
                self.said.insert(node.name.clone(), said);
            }
        }
        for (host, said) in plan.faults.iter().filter(|(host, _)| !self.faults.contains(*host)) {
            lines.push(line(&now, &format!("host {host}: {said}")));
        }
        self.faults.extend(plan.faults.keys().cloned());
        lines
    }

    /// Returns the plan, the nodes that changed since the last document and what happened since; `None` if nothing did.
    fn document(&mut self, plan: &Follow, news: &[EventView]) -> Option<Value> {
        let changed = plan.nodes.iter().filter(|(name, node)| self.nodes.get(*name) != Some(node));
        let changed: Vec<&NodeView> = changed.map(|(_, node)| node).collect();
        let mut status = json!(plan.status);
        // The nodes that go on are among the others.
        if let Some(status) = status.as_object_mut() {
            status.remove("current");
        }
        if changed.is_empty() && news.is_empty() && self.last.as_ref() == Some(&status) {
            return None;
        }
        let document = json!({ "plan": status, "nodes": changed, "events": news });
        self.last = Some(status);
        self.nodes.clone_from(&plan.nodes);
        Some(document)
    }
}

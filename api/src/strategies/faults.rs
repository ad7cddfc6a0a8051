//! What can be wrong with a strategy, whatever the fleet.

use std::collections::BTreeSet;

use super::{Stage, Strategy};
use crate::{labels::is_key, limits, problems::Fault, shares::Share, windows::Windows, workplans::Executor};

/// Names that the nodes of every plan of a strategy have.
const RESERVED: [&str; 2] = ["preflight", "roll-back"];

impl Strategy {
    /// Returns what is wrong with the strategy, at `pointer`.
    #[must_use]
    pub fn faults(&self, pointer: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        let stages = format!("{pointer}/stages");
        match self.stages.len() {
            0 => faults.push(Fault::new(
                &stages,
                "no stages; write one that reaches everybody, such as {name: all, hosts: 100%}, or leave the strategy out",
            )),
            count if count > limits::STRATEGY_STAGES => {
                let detail = format!("{count} stages, the limit is {}", limits::STRATEGY_STAGES);
                faults.push(Fault::new(&stages, detail));
                return faults;
            }
            _ => {}
        }
        let mut names = BTreeSet::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let here = format!("{stages}/{index}");
            if !names.insert(&stage.name) {
                let detail =
                    format!("there is a stage {:?} before it; each has a name of its own", stage.name.as_str());
                faults.push(Fault::new(format!("{here}/name"), detail));
            }
            faults.extend(stage.faults(&here));
        }
        faults.extend(self.order_faults(&stages));
        let spans = [("progressDeadline", self.progress_deadline), ("offline/after", self.offline.after)];
        for (key, span) in spans.into_iter().chain(self.deadline.map(|span| ("deadline", span))) {
            faults.extend(span.fault(format!("{pointer}/{key}"), limits::SPAN_LEAST, limits::PLAN_SPAN_MOST));
        }
        faults.extend(windows_fault(&self.windows, &format!("{pointer}/windows")));
        faults
    }

    /// What is wrong with the stages as they follow each other.
    fn order_faults(&self, pointer: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut refuse = |index: usize, key: &str, detail: String| {
            faults.push(Fault::new(format!("{pointer}/{index}/{key}"), detail));
        };
        let last = self.stages.len().saturating_sub(1);
        let mut before: Vec<Share> = Vec::new();
        let mut by = 0;
        for (index, stage) in self.stages.iter().enumerate() {
            if stage.by.is_some() {
                by += 1;
                if by > 1 {
                    refuse(index, "by", "another stage goes by a label already; one may".to_owned());
                }
            }
            let Some(hosts) = stage.hosts.filter(|_| stage.selector.is_none() && stage.by.is_none()) else { continue };
            if hosts == Share::ALL && index < last {
                let detail = "all hosts have the release after it, so that nobody is left for the stages behind it; put \
                              it last";
                refuse(index, "hosts", detail.to_owned());
            }
            let larger = before.iter().find(|earlier| match (earlier, hosts) {
                (Share::Count(earlier), Share::Count(hosts)) => *earlier >= hosts,
                (Share::Percent(earlier), Share::Percent(hosts)) => *earlier >= hosts,
                _ => false,
            });
            if let Some(larger) = larger {
                let detail = format!(
                    "{hosts} after {larger}; it says how many hosts have the release once the stage is done, those of \
                     earlier stages counted in, so it grows from stage to stage"
                );
                refuse(index, "hosts", detail);
            }
            before.push(hosts);
        }
        let whole = |stage: &Stage| {
            stage.by.is_some() || (stage.selector.is_none() && stage.hosts.is_none_or(|hosts| hosts == Share::ALL))
        };
        if let Some(stage) = self.stages.last().filter(|stage| !whole(stage)) {
            let key = if stage.selector.is_some() { "match" } else { "hosts" };
            let detail = "some hosts would never have the release; the last stage has hosts: 100%, or goes by a label";
            refuse(last, key, detail.to_owned());
        }
        faults
    }
}

impl Stage {
    fn faults(&self, pointer: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut refuse = |key: &str, detail: String| faults.push(Fault::new(format!("{pointer}{key}"), detail));
        if RESERVED.contains(&self.name.as_str()) {
            refuse("/name", format!("{:?} is what every rollout has; name the stage otherwise", self.name.as_str()));
        }
        if self.name.len() > limits::STAGE_NAME_BYTES {
            refuse("/name", format!("{} bytes, the limit is {}", self.name.len(), limits::STAGE_NAME_BYTES));
        }
        match (self.hosts, &self.selector, &self.by) {
            (None, None, None) => {
                refuse(
                    "",
                    "a stage says which hosts it is about: hosts: 10%, match: a selector, or by: a label".to_owned(),
                );
            }
            (_, Some(_), Some(_)) => refuse("/by", "a stage has match or by; make two of it".to_owned()),
            (Some(_), _, Some(_)) => {
                refuse(
                    "/hosts",
                    "a stage that goes by a label takes all hosts of each value; leave hosts out".to_owned(),
                );
            }
            _ => {}
        }
        if self.hosts.is_some_and(Share::is_none) {
            refuse("/hosts", "a stage of nobody; write at least 1 or 1%".to_owned());
        }
        if self.max_unavailable.is_none() {
            refuse("/maxUnavailable", "no host could ever be given the release; write at least 1 or 1%".to_owned());
        }
        if let Some(key) = self.by.as_ref().filter(|key| !is_key(key) || key.starts_with("fact/")) {
            refuse("/by", format!("{key:?} is not the key of a label that people set"));
        }
        if self.min_ready_seconds > limits::MIN_READY_SECONDS {
            let detail = format!("{} s, the limit is {}", self.min_ready_seconds, limits::MIN_READY_SECONDS);
            refuse("/minReadySeconds", detail);
        }
        if self.checks.len() > limits::STAGE_CHECKS {
            refuse("/checks", format!("{} checks, the limit is {}", self.checks.len(), limits::STAGE_CHECKS));
        }
        for (index, check) in self.checks.iter().enumerate() {
            let here = format!("{pointer}/checks/{index}");
            if matches!(check, Executor::Plan(_) | Executor::Release(_)) {
                let detail = "a check is one of approval, metric, http, health, external, wait";
                faults.push(Fault::new(format!("{here}/{}", check.name()), detail));
            } else {
                faults.extend(check.faults(&here, 1));
            }
        }
        if let Some(selector) = &self.selector {
            if selector.is_empty() {
                faults.push(Fault::new(format!("{pointer}/match"), "it matches everybody; leave match out"));
            }
            faults.extend(selector.faults(&format!("{pointer}/match")));
        }
        faults.extend(windows_fault(&self.windows, &format!("{pointer}/windows")));
        faults
    }
}

fn windows_fault(windows: &[String], pointer: &str) -> Option<Fault> {
    let (index, detail) = Windows::check(windows).err()?;
    let pointer = if index < windows.len() && index < limits::WINDOWS {
        format!("{pointer}/{index}")
    } else {
        pointer.to_owned()
    };
    Some(Fault::new(pointer, detail))
}

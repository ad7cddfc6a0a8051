//! Memory: of the view by itself, and of the whole control plane, per host.
//! S4-37.

use std::{ffi::OsString, process::Stdio, sync::Arc};

use anyhow::{Context as _, ensure};
use titan_api::{Digest, Name, Revision, deployments::OnRemove};
use titan_control_plane::{
    fleet::view::FleetView,
    store::{Assignment, Description},
};
use titan_tests::{
    measures::{Figure, Goal},
    processes,
};
use uuid::Uuid;

use crate::{
    children::{self, Plane},
    hosts,
    options::Options,
    roles,
};

/// Assignments of each host.
const ASSIGNMENTS: usize = 5;
/// Hosts of one request or of one step.
const STEP: usize = 1000;
/// What a control plane with ten thousand hosts takes, at most, in MiB.
const RESIDENT: f64 = 256.0;

/// Memory per host with five assignments: of the view, and of everything.
pub(crate) async fn memory(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (alone, size) = options.pick((100_000, 10 * STEP), (5000, STEP));
    let bytes = view(alone)?;
    let plane = Plane::start().await?;
    hosts::apply(&plane, hosts::ground()).await?;
    hosts::settled(&plane).await?;
    let before = processes::memory(plane.server.id())?.resident;
    for first in (0..size).step_by(STEP) {
        hosts::declare(&plane, first, STEP).await?;
    }
    hosts::settled(&plane).await?;
    let with_hosts = processes::memory(plane.server.id())?.resident;
    for number in 0..ASSIGNMENTS {
        hosts::apply(&plane, vec![hosts::deployment(&format!("service-{number}"), "shared", "all", number)]).await?;
        hosts::assigned(&plane, (number + 1) * size).await?;
    }
    let after = processes::memory(plane.server.id())?.resident;
    let per_host = |more: u64, less: u64| more.saturating_sub(less) as f64 / size as f64;
    Ok(vec![
        Figure::new("view, per host with 5 assignments", bytes, "B")
            .goal(Goal::AtMost(600.0))
            .note(format!("{alone} hosts in a process of their own, difference of RSS")),
        Figure::new("control plane, per declared host", per_host(with_hosts, before), "B")
            .note(format!("{size} hosts; RSS before and after, the allocator's slack and SQLite's cache included")),
        Figure::new("control plane, per host with 5 assignments", per_host(after, before), "B")
            .note("as before: a first figure, mostly what planning leaves behind"),
        Figure::new(format!("control plane with {size} hosts"), after as f64 / 1_048_576.0, "MiB")
            .goal(Goal::AtMost(RESIDENT))
            .note(format!("RSS once each host has its {ASSIGNMENTS} assignments; the requirement is for 10000")),
    ])
}

/// Returns the bytes per host of a view in a process of its own.
fn view(hosts: usize) -> anyhow::Result<f64> {
    let mut command = children::command(roles::VIEW)?;
    let output = command.args([hosts.to_string(), ASSIGNMENTS.to_string()]).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the view could not be filled");
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Fills a view and prints how many bytes each host took.
pub(crate) fn fill(args: &[OsString]) -> anyhow::Result<()> {
    let number = |index: usize| -> anyhow::Result<usize> {
        Ok(args.get(index).and_then(|arg| arg.to_str()).context("hosts and assignments of each")?.parse()?)
    };
    let (hosts, each) = (number(0)?, number(1)?);
    let view = FleetView::default();
    // What the first use of anything costs is not the hosts'.
    advance(&view, 0..STEP.min(hosts), each)?;
    let before = processes::memory(std::process::id())?.resident;
    let mut done = STEP.min(hosts);
    let counted = hosts.saturating_sub(done).max(1);
    while done < hosts {
        let next = (done + STEP).min(hosts);
        advance(&view, done..next, each)?;
        done = next;
    }
    let after = processes::memory(std::process::id())?.resident;
    ensure!(view.hosts() == hosts, "{} hosts are in the view, not {hosts}", view.hosts());
    crate::say(&format!("{:.1}", after.saturating_sub(before) as f64 / counted as f64));
    Ok(())
}

fn advance(view: &FleetView, hosts: std::ops::Range<usize>, each: usize) -> anyhow::Result<()> {
    let revision = Revision::from_micros(1_800_000_000_000_000 + i64::try_from(hosts.end)?);
    let mut moved = Vec::with_capacity(hosts.len() * each);
    for number in 0..each {
        let name = format!("service-{number}");
        let description = Arc::new(Description {
            deployment: Uuid::from_u128(number as u128),
            workspace: Name::new("default")?,
            name: Name::new(&name)?,
            release: format!("{name}#1"),
            depends_on: Vec::new(),
            on_remove: OnRemove::Delete,
            reason: None,
        });
        for host in hosts.clone() {
            let slot = view.slot(Uuid::from_u128(host as u128));
            view.name(&slot, &Name::new(format!("host-{host:07}"))?);
            moved.push(Assignment {
                deployment: description.deployment,
                host: slot.uid(),
                description: Arc::clone(&description),
                revision,
                bundle: Some(Digest::of(format!("{name} on {host}").as_bytes())),
            });
        }
    }
    view.advance(moved, revision);
    Ok(())
}

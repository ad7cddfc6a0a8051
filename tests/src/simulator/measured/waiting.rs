//! What a waiting host costs the server in memory.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;

use super::{at_once, fanout};
use crate::{
    measures::{Figure, Goal},
    simulator::{
        script::{Carrier, Script},
        stage::Stage,
        transports::Transport,
        wire::Ask,
    },
};

/// Hosts on one connection of a gateway that fills them: the control plane takes 256 requests at a time on one.
pub(super) const FULL: usize = 250;

/// Lets every host of the stage wait over `carrier`.
pub(super) async fn measure(stage: &Stage, carrier: Carrier, connections: usize) -> anyhow::Result<Vec<Figure>> {
    warm(stage).await?;
    let before = stage.server.resident()?;
    let script = Script { carrier, connections, wait: 60, verify: 0.0, ..Script::default() };
    let fleet = fanout::waiting(stage, stage.hosts, script).await?;
    let waiting = stage.server.metric("titan_polls_waiting").await?.unwrap_or_default();
    let after = stage.server.resident()?;
    ensure!(fleet.tally.errors() == 0, "there were errors: {:?}", fleet.tally.faults());
    // Held polls go in turns of a minute: some are on their way between two.
    ensure!(waiting >= 0.95 * stage.hosts as f64, "{waiting} polls are held, not {}", stage.hosts);
    let bytes = after.saturating_sub(before) as f64 / stage.hosts as f64;
    let connects = fleet.tally.connects.get();
    fleet.stop().await;
    let (name, goal) = match carrier {
        Carrier::Mux => (format!("multiplexed, {} on a connection", stage.hosts.div_ceil(connections)), 1024.0),
        _ => ("own connection".to_owned(), 8192.0),
    };
    let name = format!("server memory per waiting host, {name}");
    let note = format!("{} hosts over {connects} connections; difference of RSS", stage.hosts);
    Ok(vec![Figure::new(name, bytes, "B").goal(Goal::AtMost(goal)).note(note)])
}

/// Lets every host poll once, so that what the first poll costs is not counted as what waiting costs.
async fn warm(stage: &Stage) -> anyhow::Result<()> {
    let script = Script { connections: 8, ..Script::default() };
    let transport = Arc::new(Transport::new(&stage.server.place, &script, stage.hosts, &Arc::default())?);
    let credentials = stage.credentials.clone();
    at_once(stage.hosts, move |number| {
        let (transport, credentials) = (Arc::clone(&transport), credentials.clone());
        async move {
            let ask = Ask::poll(number, credentials.host(number as usize), None, 0, false);
            transport.exchange(number, &ask, false).await?;
            Ok(())
        }
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(())
}

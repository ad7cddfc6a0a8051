//! Measures that are runs of a script.

use std::time::{Duration, Instant};

use super::{Measure, Measuring, PATIENCE, differences};
use crate::{
    measures::{Figure, Goal},
    simulator::{
        fleet::Fleet,
        progress::tell,
        runs::{self, Outcome},
        script::{Carrier, Script},
        stage::Stage,
        tally::Evenness,
    },
};

/// Hosts that begin in a second where their first answers are not what is measured: over connections that are kept, and over
/// new ones, each with a handshake in full.
const TOLD_A_SECOND: (f64, f64) = (3000.0, 1800.0);

/// What a backup that is restored has lost: hosts know of changes that were made since.
const LOST: Duration = Duration::from_secs(5);

/// Returns the script of a measure.
fn script(measure: Measure, options: &Measuring, seconds: f64, hosts: usize) -> Script {
    let usual = Script { seconds, connections: options.connections, wait: options.wait, ..Script::default() };
    let (carrier, cadence) = match measure {
        Measure::SustainedTls => (Carrier::Once, 300.0),
        Measure::Storm => (Carrier::Own, 5.0),
        Measure::Day => (Carrier::Mux, 5.0),
        _ => (Carrier::Mux, 30.0),
    };
    let script = Script {
        carrier: options.carrier.unwrap_or(carrier),
        cadence: Some(options.cadence.unwrap_or(cadence)),
        tls: measure.tls(),
        ..usual
    };
    match measure {
        Measure::Storm => Script { storm_every: (seconds / 5.0).max(1.0), ramp: Some(5.0), ..script },
        Measure::Day => Script {
            offline: 0.02,
            offline_period: (seconds / 40.0).max(1.0),
            restart_every: (seconds / 3.0).max(5.0),
            changes_per_second: 1.0,
            phases_per_second: 10.0,
            lost: 0.001,
            ..script
        },
        // As many new connections a second as later on, and no more first answers than can be told.
        Measure::SustainedTls | Measure::SustainedMux => {
            let (kept, new) = TOLD_A_SECOND;
            let first = hosts as f64 / if measure == Measure::SustainedTls { new } else { kept };
            Script { ramp: Some(first.max(script.cadence.unwrap_or_default())), ..script }
        }
        Measure::AllFull => Script { ramp: Some(seconds), ..script },
        _ => script,
    }
}

/// Plays the script of a measure.
pub(super) async fn measure(
    measure: Measure,
    stage: &mut Stage,
    options: &Measuring,
    seconds: f64,
) -> anyhow::Result<Vec<Figure>> {
    let script = script(measure, options, seconds, stage.hosts);
    let fleet = Fleet::new(&stage.server.place, script.clone(), stage.credentials.clone(), stage.hosts)?;
    let begun = Instant::now();
    let sustained = matches!(measure, Measure::SustainedTls | Measure::SustainedMux);
    if sustained {
        // Whoever was told everything waits for all others: a fleet that is behind from the beginning stays behind.
        fleet.park();
    }
    if measure == Measure::AllFull {
        fleet.restored(LOST);
    }
    fleet.start(script.ramp());
    let all = stage.hosts as u64;
    let mut figures = Vec::new();
    if measure == Measure::AllFull {
        fleet.until("every full answer", PATIENCE, |fleet| fleet.tally.fulls.get() >= all).await?;
        let took = begun.elapsed().as_secs_f64();
        let tally = &fleet.tally;
        let (answered, later) = (tally.answered.summary(), tally.put_off.get());
        let note = format!(
            "{all} hosts with cursors that the database never gave, asked within {seconds} s; {answered}; put off {later} times"
        );
        figures.push(Figure::new("every host told everything", took, "s").note(note));
        // What follows is as ever; what counts was before.
        let rest = Script { seconds: 1.0, ..script };
        let outcome = runs::played(&mut stage.server, &fleet, &rest).await?;
        figures.extend(ending("full answers", &outcome));
        return Ok(figures);
    }
    // The first answers, in full, are another measure.
    fleet.until("every first answer", script.ramp() + PATIENCE, |fleet| fleet.tally.fulls.get() >= all).await?;
    tell(&format!("every host was told everything after {:.0} s", begun.elapsed().as_secs_f64()));
    let (polls, errors) = (fleet.tally.polls(), fleet.tally.errors());
    let connects = (fleet.tally.handshakes.0.get(), fleet.tally.handshakes.1.get());
    for histogram in [&fleet.tally.answered, &fleet.tally.connecting, &fleet.tally.late] {
        histogram.clear();
    }
    if sustained {
        fleet.unpark(Duration::from_secs_f64(script.cadence.unwrap_or_default()));
    }
    let outcome = runs::played(&mut stage.server, &fleet, &script).await?;
    let tally = &outcome.fleet.tally;
    let rate = tally.polls().saturating_sub(polls) as f64 / outcome.played.as_secs_f64();
    let name = match measure {
        Measure::SustainedTls => "every host over new, resumed TLS",
        Measure::SustainedMux => "every host over HTTP/2",
        Measure::Storm => "reconnect storms",
        _ => "a day",
    };
    let cadence = script.cadence.unwrap_or_default();
    let note = format!(
        "{all} hosts every {cadence} s for {:.0} s; {}",
        outcome.played.as_secs_f64(),
        tally.answered.summary()
    );
    figures.push(Figure::new(format!("{name}: polls"), rate, "1/s").note(note));
    let cores = Figure::new(format!("{name}: server"), outcome.cores, "cores");
    figures.push(if sustained { cores.goal(Goal::AtMost(1.0)) } else { cores });
    if script.tls {
        let full = tally.handshakes.0.get() - connects.0;
        let resumed = tally.handshakes.1.get() - connects.1;
        let share = resumed as f64 / (full + resumed).max(1) as f64;
        let note = format!("{full} full, {resumed} resumed; {}", tally.connecting.summary());
        figures.push(Figure::new(format!("{name}: handshakes that resumed"), share, "share").note(note));
    }
    if measure == Measure::Storm {
        figures.extend(lockstep(&outcome, Duration::from_secs_f64(cadence)));
    }
    if errors > 0 {
        tell(&format!("errors before the measure began: {errors}"));
    }
    let mut ending = ending(name, &outcome);
    if measure == Measure::Day {
        // What a restart breaks off is an error to whoever was waiting, and is made up for.
        ending[0].goal = None;
    }
    figures.extend(ending);
    Ok(figures)
}

/// How much of the storms is left two cadences later.
fn lockstep(outcome: &Outcome, cadence: Duration) -> Vec<Figure> {
    let worst = outcome.evenness(cadence).into_iter().max_by(|a, b| a.peak_to_mean.total_cmp(&b.peak_to_mean));
    let Some(Evenness { peak_to_mean, by_chance }) = worst else { return Vec::new() };
    let note = format!("worst of {} storms; arrivals in 100 ms, from two cadences after each", outcome.storms.len());
    let figure = Figure::new("lockstep after two intervals: peak to mean", peak_to_mean, "x");
    vec![figure.beside("by chance alone", by_chance).goal(Goal::AtMost(by_chance)).note(note)]
}

/// What every run ends with: errors, memory, the verdict.
fn ending(name: &str, outcome: &Outcome) -> [Figure; 3] {
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (first, most, last) = outcome.resident;
    let faults = format!("{:?}", outcome.fleet.tally.faults());
    let restarts = outcome.restarts.iter().map(|took| format!("{:.1} s", took.as_secs_f64())).collect::<Vec<_>>();
    let before = outcome.before_restarts.iter().map(|bytes| format!("{:.0}", mebibytes(*bytes))).collect::<Vec<_>>();
    let memory = format!(
        "{:.0} at first, {before:?} before restarts, {:.0} at the end; restarts {restarts:?}",
        mebibytes(first),
        mebibytes(last)
    );
    [
        Figure::new(format!("{name}: errors"), outcome.errors as f64, "").goal(Goal::AtMost(0.0)).note(faults),
        Figure::new(format!("{name}: control plane at most"), mebibytes(most), "MiB").note(memory),
        differences(name, &outcome.verdict),
    ]
}

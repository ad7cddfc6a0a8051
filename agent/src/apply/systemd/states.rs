//! What the state of a unit means.

use super::units::{Start, Unit};
use crate::apply::Condition;

/// What systemd tells of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::apply) struct State {
    /// Whether its file could be read: `loaded`, `not-found`, `bad-setting`, `error`, `masked`, `merged`.
    pub(in crate::apply) load: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`, `maintenance`.
    pub(in crate::apply) active: String,
    /// The finer state, whose words depend on the type.
    pub(super) sub: String,
    /// What is waiting to be done with it: `start`, `restart`, `stop`, ...
    pub(super) job: Option<String>,
}

/// What systemd tells of a unit that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Details {
    /// How it ended: `success`, `exit-code`, `start-limit-hit`, ...
    pub(super) result: Option<String>,
    /// The code that its main process ended with.
    pub(super) exit: Option<i32>,
    /// How often it was restarted by itself.
    pub(super) restarts: Option<u32>,
    /// Why its file cannot be used.
    pub(in crate::apply) load_error: Option<String>,
    /// Whether it was passed over, since what its file asks for first does not hold.
    pub(super) passed_over: bool,
    /// The same for what its file insists on.
    pub(super) asserted: bool,
}

/// What is thought of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// How it does.
    pub(super) condition: Condition,
    /// Whether it does not run though it should, and nothing went wrong: somebody stopped it.
    pub(super) stopped: bool,
}

impl State {
    /// Whether nothing of it runs, and nothing is about to.
    pub(in crate::apply) fn rests(&self) -> bool {
        self.job.is_none() && matches!(self.active.as_str(), "inactive" | "failed" | "")
    }

    /// Whether it is as it should be as far as this tells, so that nothing more needs to be asked.
    pub(in crate::apply) fn is_plain(&self) -> bool {
        self.load == "loaded" && matches!(self.active.as_str(), "active" | "reloading") && self.job.is_none()
    }
}

fn well() -> Verdict {
    Verdict { condition: Condition::Well, stopped: false }
}

fn of(condition: Condition) -> Verdict {
    Verdict { condition, stopped: false }
}

/// Returns what to think of a unit in this state.
pub(super) fn judge(unit: &Unit, state: &State, details: &Details) -> Verdict {
    match state.load.as_str() {
        "loaded" | "merged" => {}
        "masked" => return of(Condition::Ill("it is masked".to_owned())),
        "not-found" | "" => return of(Condition::Ill("systemd does not know it".to_owned())),
        load => {
            let why = details.load_error.as_deref().filter(|why| !why.is_empty()).unwrap_or(load);
            return of(Condition::Failed(format!("systemd cannot use its file: {why}")));
        }
    }
    let wanted = unit.start == Start::Now;
    let why = || why(state, details);
    match (state.active.as_str(), state.job.as_deref()) {
        ("active" | "reloading", None | Some("reload")) => well(),
        (_, Some("start" | "restart" | "try-restart" | "reload-or-start")) if state.active != "activating" => {
            of(Condition::Starting(format!("it is about to start ({})", state.active)))
        }
        ("activating", _) if state.sub.starts_with("auto-restart") => {
            of(Condition::Ill(format!("it is about to be started again: {}", why())))
        }
        ("activating", _) => of(Condition::Starting(format!("it starts ({})", state.sub))),
        ("deactivating", _) if wanted => of(Condition::Starting(format!("it stops ({})", state.sub))),
        // Whoever starts it may do so again, and it may go better then.
        ("failed", _) if !wanted && details.result.as_deref() != Some("start-limit-hit") => of(Condition::Ill(why())),
        ("failed", _) => of(Condition::Failed(why())),
        ("inactive", _) if details.asserted => of(Condition::Failed("an Assert of its file does not hold".to_owned())),
        ("inactive", _) if !wanted || unit.ends || details.passed_over => well(),
        ("inactive", _) => Verdict { condition: Condition::Ill(format!("it does not run: {}", why())), stopped: true },
        ("maintenance", _) => of(Condition::Ill("it is under maintenance".to_owned())),
        _ if !wanted => well(),
        (active, _) => of(Condition::Starting(format!("it is {active} ({})", state.sub))),
    }
}

fn why(state: &State, details: &Details) -> String {
    let mut text = format!("{} ({})", state.active, state.sub);
    if let Some(result) = details.result.as_deref().filter(|result| *result != "success") {
        text = result.to_owned();
    }
    if let Some(code) = details.exit.filter(|code| *code != 0) {
        text.push_str(&format!(", it ended with {code}"));
    }
    if let Some(restarts) = details.restarts.filter(|restarts| *restarts > 0) {
        text.push_str(&format!(", restarted {restarts} times"));
    }
    text
}

#[cfg(test)]
mod tests {
    use titan_api::poll;

    use super::*;
    use crate::apply::systemd::units::Units;

    fn unit(name: &str, text: &str) -> Unit {
        let bundle =
            serde_json::json!({"applier": "systemd", "files": [{"path": name, "mode": "0644", "content": text}]});
        let bundle: poll::Bundle = serde_json::from_value(bundle).expect("bundle");
        let target = crate::apply::systemd::tests::target("web");
        Units::read(&target, &bundle.try_into().expect("bundle")).expect("units").own.remove(name).expect("unit")
    }

    fn state(load: &str, active: &str, sub: &str, job: Option<&str>) -> State {
        State { load: load.into(), active: active.into(), sub: sub.into(), job: job.map(str::to_owned) }
    }

    #[test]
    fn states_are_judged_by_what_the_unit_is_for() {
        let service = unit("a.service", "[Service]\nExecStart=/x\n");
        let oneshot = unit("a.service", "[Service]\nType=oneshot\nExecStart=/x\n");
        let remains = unit("a.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/x\n");
        let passive = unit("a.service", "[Service]\nExecStart=/x\n[X-Titan]\nStart=no\n");
        let failed = Details { result: Some("exit-code".into()), exit: Some(3), ..Details::default() };
        let limit = Details { result: Some("start-limit-hit".into()), ..Details::default() };
        let skipped = Details { passed_over: true, ..Details::default() };
        let none = Details::default();
        let word = |unit: &Unit, state: &State, details: &Details| {
            let Verdict { condition, stopped } = judge(unit, state, details);
            let word = match condition {
                Condition::Well => "well",
                Condition::Starting(_) => "starting",
                Condition::Ill(_) => "ill",
                Condition::Failed(_) => "failed",
            };
            (word, stopped)
        };
        for (unit, state, details, expected) in [
            (&service, state("loaded", "active", "running", None), &none, ("well", false)),
            (&service, state("loaded", "active", "running", Some("restart")), &none, ("starting", false)),
            (&service, state("loaded", "inactive", "dead", Some("start")), &none, ("starting", false)),
            (&service, state("loaded", "activating", "start", Some("start")), &none, ("starting", false)),
            (&service, state("loaded", "activating", "auto-restart", None), &failed, ("ill", false)),
            (&service, state("loaded", "failed", "failed", None), &failed, ("failed", false)),
            (&service, state("loaded", "inactive", "dead", None), &none, ("ill", true)),
            (&service, state("loaded", "inactive", "dead", None), &skipped, ("well", false)),
            (&service, state("bad-setting", "inactive", "dead", None), &none, ("failed", false)),
            (&service, state("not-found", "inactive", "dead", None), &none, ("ill", false)),
            (&service, state("masked", "inactive", "dead", None), &none, ("ill", false)),
            (&service, state("loaded", "deactivating", "stop-sigterm", None), &none, ("starting", false)),
            (&oneshot, state("loaded", "activating", "start", Some("start")), &none, ("starting", false)),
            (&oneshot, state("loaded", "inactive", "dead", None), &none, ("well", false)),
            (&oneshot, state("loaded", "failed", "failed", None), &failed, ("failed", false)),
            (&remains, state("loaded", "active", "exited", None), &none, ("well", false)),
            (&remains, state("loaded", "inactive", "dead", None), &none, ("ill", true)),
            (&passive, state("loaded", "inactive", "dead", None), &none, ("well", false)),
            (&passive, state("loaded", "failed", "failed", None), &failed, ("ill", false)),
            (&passive, state("loaded", "failed", "failed", None), &limit, ("failed", false)),
        ] {
            assert_eq!(word(unit, &state, details), expected, "{state:?} {details:?}");
        }
    }

    #[test]
    fn people_are_told_how_it_ended() {
        let service = unit("a.service", "[Service]\nExecStart=/x\n");
        let details =
            Details { result: Some("exit-code".into()), exit: Some(3), restarts: Some(4), ..Details::default() };
        let Condition::Failed(why) = judge(&service, &state("loaded", "failed", "failed", None), &details).condition
        else {
            panic!("failed");
        };
        assert_eq!(why, "exit-code, it ended with 3, restarted 4 times");
    }
}

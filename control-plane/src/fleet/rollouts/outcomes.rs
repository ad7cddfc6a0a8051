//! Outcomes: what is told of a stage.

use std::fmt::Write as _;

pub use titan_api::strategies::releases::Counts;

use super::{Advance, Rules, Verdict};

/// Returns a line about a stage, such as `stage early: 37 of 50 hosts healthy, 2 failed (limit 2%), 1 offline; next look in
/// 12 s`. `now` is the plan's clock.
#[must_use]
pub fn line(rules: &Rules, advance: &Advance, now: i64) -> String {
    let Counts { members, opened, proven, settling, moving, failed, offline, excluded } = advance.counts;
    let stage = &rules.stage;
    match &advance.verdict {
        Some(Verdict::NoOp(why)) => return format!("stage {stage}: nothing to do, {why}"),
        Some(Verdict::Failed(why)) => return format!("stage {stage} failed: {why}"),
        _ => {}
    }
    let mut line = format!("stage {stage}: {proven} of {members} hosts healthy");
    let mut add = |count: u64, what: &str| {
        if count > 0 {
            let _ = write!(line, ", {count} {what}");
        }
    };
    add(settling, "settling");
    add(moving, "on their way");
    add(failed, &format!("failed (limit {})", rules.max_failures));
    if excluded < offline {
        add(offline, "offline");
    } else {
        add(excluded, "offline and left out");
    }
    match (&advance.verdict, advance.due) {
        (Some(_), _) => line.push_str("; passed"),
        (None, Some(due)) => {
            add(members.saturating_sub(opened), "not yet open");
            // Rounded up: at that second it is certain to be looked at.
            let seconds = due.saturating_sub(now).max(0).unsigned_abs().div_ceil(1_000_000);
            let _ = write!(line, "; next look in {seconds} s");
        }
        (None, None) => {
            add(members.saturating_sub(opened), "not yet open");
            line.push_str("; waiting");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use titan_api::{
        Name,
        shares::Share,
        spans::Span,
        strategies::{Offline, releases::Back},
    };

    use super::*;

    fn rules() -> Rules {
        let back = Back { progress_deadline: Span(Duration::from_mins(10)), offline: Offline::default() };
        Rules { max_failures: Share::Percent(2), ..Rules::back(&Name::new("early").expect("name"), &back) }
    }

    #[test]
    fn a_stage_is_told_in_one_line() {
        let counts = Counts { members: 50, opened: 50, proven: 37, failed: 2, offline: 1, ..Counts::default() };
        let advance = Advance { opening: None, verdict: None, due: Some(12_000_000), counts };
        assert_eq!(
            line(&rules(), &advance, 1),
            "stage early: 37 of 50 hosts healthy, 2 failed (limit 2%), 1 offline; next look in 12 s"
        );
        let counts = Counts { opened: 40, settling: 1, moving: 2, offline: 3, excluded: 3, failed: 0, ..counts };
        assert_eq!(
            line(&rules(), &Advance { counts, due: None, ..advance.clone() }, 0),
            "stage early: 37 of 50 hosts healthy, 1 settling, 2 on their way, 3 offline and left out, 10 not yet open; \
             waiting"
        );
        let with = |verdict| line(&rules(), &Advance { verdict: Some(verdict), due: None, ..advance.clone() }, 0);
        assert!(with(Verdict::Passed).ends_with("1 offline; passed"));
        assert_eq!(
            with(Verdict::NoOp("no host is left for it".to_owned())),
            "stage early: nothing to do, no host is left for it"
        );
        assert_eq!(with(Verdict::Failed("3 of 50".to_owned())), "stage early failed: 3 of 50");
    }
}

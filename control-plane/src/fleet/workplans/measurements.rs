//! Measurements: when enough of them were made to know the answer.

use titan_api::workplans::{attempts::Verdict, executors::Metric};

/// What one measurement gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measurement {
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
    /// Neither.
    Inconclusive,
    /// It could not be made: that says nothing about what is measured.
    Error,
}

/// What the measurements of a check came to so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measured {
    made: u32,
    bad: u32,
    inconclusive: u32,
    good_in_a_row: u32,
    errors_in_a_row: u32,
}

/// What follows from the measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Another one is to be made.
    GoOn,
    /// This is the answer, for this reason.
    Known(Verdict, String),
    /// Nothing can be measured.
    Unknown(String),
}

impl Measured {
    /// Takes in a measurement. Too many bad ones come first, then enough good ones in a row, then too many of neither.
    pub fn take(&mut self, metric: &Metric, measurement: Measurement) -> Answer {
        match measurement {
            Measurement::Error => {
                self.errors_in_a_row += 1;
                self.good_in_a_row = 0;
                if self.errors_in_a_row > metric.consecutive_error_limit {
                    let errors = self.errors_in_a_row;
                    return Answer::Unknown(format!("{errors} measurements in a row could not be made"));
                }
                return Answer::GoOn;
            }
            Measurement::Good => self.good_in_a_row += 1,
            Measurement::Bad => (self.bad, self.good_in_a_row) = (self.bad + 1, 0),
            Measurement::Inconclusive => (self.inconclusive, self.good_in_a_row) = (self.inconclusive + 1, 0),
        }
        self.made += 1;
        self.errors_in_a_row = 0;
        let Self { made, bad, inconclusive, good_in_a_row, .. } = *self;
        let wanted = metric.consecutive_success_limit;
        if bad > metric.failure_limit && !metric.dry_run {
            Answer::Known(Verdict::Failed, format!("{bad} of {made} measurements are bad"))
        } else if wanted > 0 && good_in_a_row >= wanted {
            Answer::Known(Verdict::Passed, format!("{good_in_a_row} good measurements in a row"))
        } else if inconclusive > metric.inconclusive_limit && !metric.dry_run {
            Answer::Known(Verdict::Inconclusive, format!("{inconclusive} of {made} measurements are inconclusive"))
        } else if made >= metric.count {
            let dry = if metric.dry_run { " (dry run)" } else { "" };
            Answer::Known(Verdict::Passed, format!("{made} measurements, {bad} bad{dry}"))
        } else {
            Answer::GoOn
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Measurement as M, *};

    /// Returns the verdict and after how many measurements it was known.
    fn run(limits: &Value, measurements: &[M]) -> (Option<Verdict>, usize) {
        let mut spec = json!({"server": "http://p", "query": "q", "success": "result > 0", "count": 5});
        spec.as_object_mut().expect("map").extend(limits.as_object().expect("map").clone());
        let metric: Metric = serde_json::from_value(spec).expect("metric");
        let mut measured = Measured::default();
        for (index, measurement) in measurements.iter().enumerate() {
            match measured.take(&metric, *measurement) {
                Answer::GoOn => {}
                Answer::Known(verdict, _) => return (Some(verdict), index + 1),
                Answer::Unknown(_) => return (None, index + 1),
            }
        }
        panic!("no answer yet");
    }

    #[test]
    fn what_is_violated_first_decides() {
        assert_eq!(run(&json!({}), &[M::Good; 5]), (Some(Verdict::Passed), 5));
        assert_eq!(run(&json!({}), &[M::Good, M::Bad]), (Some(Verdict::Failed), 2));
        assert_eq!(run(&json!({"failureLimit": 1}), &[M::Bad, M::Good, M::Bad]), (Some(Verdict::Failed), 3));
        assert_eq!(run(&json!({}), &[M::Inconclusive]), (Some(Verdict::Inconclusive), 1));
        assert_eq!(run(&json!({"consecutiveSuccessLimit": 2}), &[M::Good, M::Good]), (Some(Verdict::Passed), 2));
        // That it could not be measured is not that it is bad.
        assert_eq!(
            run(&json!({}), &[M::Error, M::Error, M::Error, M::Error, M::Good, M::Good, M::Good, M::Good, M::Good]),
            (Some(Verdict::Passed), 9)
        );
        assert_eq!(run(&json!({}), &[M::Error; 5]), (None, 5));
        assert_eq!(run(&json!({"dryRun": true}), &[M::Bad; 5]), (Some(Verdict::Passed), 5));
    }
}

//! Figures of the benchmarks: samples, ratios, and how they are told.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Repeated measurements of one thing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Takes in one measurement. What is not a number is left out.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            self.0.push(value);
        }
    }

    /// Returns how many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value below which a `part` (0 to 1) of the samples lies, the nearest rank; 0 if there are none.
    #[must_use]
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (part.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Returns the median; the mean of the middle two if their number is even.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.get(middle) {
            Some(upper) if sorted.len().is_multiple_of(2) => f64::midpoint(sorted[middle - 1], *upper),
            Some(value) => *value,
            None => 0.0,
        }
    }

    /// Returns the least and the greatest sample divided by the median: how far apart the rounds lay.
    #[must_use]
    pub fn spread(&self) -> (f64, f64) {
        let median = self.median();
        let of = |value: f64| if median == 0.0 { 0.0 } else { value / median };
        (of(self.quantile(0.0)), of(self.quantile(1.0)))
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut samples = Self::default();
        values.into_iter().for_each(|value| samples.push(value));
        samples
    }
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The ratio to the reference, at least.
    RatioAtLeast(f64),
    /// The figure itself, at most, in its unit.
    AtMost(f64),
}

/// What stands beside a figure: the least that any program would have to do, measured in the same run.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// What it is.
    pub name: String,
    /// Its value, in the figure's unit.
    pub value: f64,
}

/// One measured figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it is compared with.
    pub reference: Option<Reference>,
    /// What it is to be.
    pub goal: Option<Goal>,
    /// How often it was measured, and whatever else belongs to it.
    pub note: String,
}

impl Figure {
    /// Returns a figure that stands for itself.
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, reference: None, goal: None, note: String::new() }
    }

    /// Sets it beside a reference.
    #[must_use]
    pub fn beside(mut self, name: impl Into<String>, value: f64) -> Self {
        self.reference = Some(Reference { name: name.into(), value });
        self
    }

    /// Says what it is to be.
    #[must_use]
    pub const fn goal(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Adds a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Returns the figure divided by its reference, if there is one that is not zero.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.reference.as_ref().filter(|reference| reference.value != 0.0).map(|reference| self.value / reference.value)
    }

    /// Whether the goal is reached; `None` if there is none or nothing to compare with.
    #[must_use]
    pub fn reached(&self) -> Option<bool> {
        match self.goal? {
            Goal::RatioAtLeast(least) => self.ratio().map(|ratio| ratio >= least),
            Goal::AtMost(most) => Some(self.value <= most),
        }
    }

    /// Returns the figure for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let reference = self.reference.as_ref().map(|it| json!({ "name": it.name, "value": it.value }));
        let goal = self.goal.map(|goal| match goal {
            Goal::RatioAtLeast(ratio) => json!({ "ratioAtLeast": ratio }),
            Goal::AtMost(value) => json!({ "atMost": value }),
        });
        json!({
            "name": self.name, "value": self.value, "unit": self.unit, "reference": reference,
            "ratio": self.ratio(), "goal": goal, "reached": self.reached(), "note": self.note,
        })
    }

    fn cells(&self) -> [String; 6] {
        let reference = self.reference.as_ref();
        let goal = match self.goal {
            Some(Goal::RatioAtLeast(ratio)) => format!("ratio >= {ratio}"),
            Some(Goal::AtMost(value)) => format!("<= {} {}", number(value), self.unit),
            None => String::new(),
        };
        let reached = match self.reached() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        [
            self.name.clone(),
            format!("{} {}", number(self.value), self.unit),
            reference.map_or_else(String::new, |it| format!("{} ({})", number(it.value), it.name)),
            self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.3}")),
            if reached.is_empty() { goal } else { format!("{goal}: {reached}") },
            self.note.clone(),
        ]
    }
}

/// Returns figures as a table for people.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let head = ["measure", "figure", "beside", "ratio", "goal", "note"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(figures.iter().map(Figure::cells)).collect();
    let widths: Vec<_> =
        (0..6).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _infallible = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns a number with as many digits as a person can use: three at least, thousands apart.
pub fn number(value: f64) -> String {
    if value.abs() < 1000.0 {
        let digits = if value.abs() >= 100.0 || value.fract() == 0.0 {
            0
        } else if value.abs() >= 1.0 {
            2
        } else {
            4
        };
        return format!("{value:.digits$}");
    }
    let plain = format!("{value:.0}");
    let digits = plain.trim_start_matches('-');
    let mut text = String::from(if plain.starts_with('-') { "-" } else { "" });
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
    use super::*;

    #[test]
    fn median_and_quantiles_are_of_the_sorted_samples() {
        let samples: Samples = [5.0, 1.0, 4.0, 2.0, 3.0, f64::NAN].into_iter().collect();
        assert_eq!((samples.len(), samples.median()), (5, 3.0));
        assert_eq!((samples.quantile(0.0), samples.quantile(0.5), samples.quantile(0.99)), (1.0, 3.0, 5.0));
        let even: Samples = [1.0, 2.0, 3.0, 10.0].into_iter().collect();
        assert_eq!((even.median(), even.spread()), (2.5, (0.4, 4.0)));
        assert_eq!((Samples::default().median(), Samples::default().quantile(0.5)), (0.0, 0.0));
    }

    #[test]
    fn goals_are_judged_by_ratio_or_by_value() {
        let figure = Figure::new("polls", 75.0, "1/s").beside("bare", 100.0);
        assert_eq!(figure.ratio(), Some(0.75));
        assert_eq!(figure.clone().goal(Goal::RatioAtLeast(0.75)).reached(), Some(true));
        assert_eq!(figure.clone().goal(Goal::RatioAtLeast(0.76)).reached(), Some(false));
        assert_eq!(figure.goal(Goal::AtMost(74.0)).reached(), Some(false));
        let alone = Figure::new("polls", 75.0, "1/s").goal(Goal::RatioAtLeast(0.75));
        assert_eq!((alone.ratio(), alone.reached()), (None, None));
        assert_eq!(Figure::new("a", 1.0, "s").beside("nothing", 0.0).ratio(), None);
    }

    #[test]
    fn table_lines_up_and_json_has_every_part() {
        let figure = Figure::new("polls", 123_456.0, "1/s").beside("bare", 200_000.0).goal(Goal::RatioAtLeast(0.5));
        let text = table(&[figure.clone(), Figure::new("memory", 4.256, "MiB").note("idle")]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("123 456 1/s") && lines[1].contains("0.617") && lines[1].ends_with("yes"), "{text}");
        assert_eq!(lines[0].find("figure"), lines[1].find("123 456"), "{text}");
        assert!(lines[2].contains("4.26 MiB") && lines[2].ends_with("idle"), "{text}");
        let json = figure.to_json();
        assert_eq!((json["reference"]["name"].as_str(), json["reached"].as_bool()), (Some("bare"), Some(true)));
    }
}

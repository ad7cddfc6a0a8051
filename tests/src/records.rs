//! Records of benchmark runs: kept as JSON, set beside the run before, and told as a table in a page.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::measures::number;

/// How much worse than before a figure may be before it is told as worse; runs differ by as much by themselves.
const TOLERANCE: f64 = 0.15;
/// What the table stands between in the page.
const BEGIN: &str = "<!-- figures: written by `just bench` -->";
const END: &str = "<!-- end of figures -->";

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Day, commit and machine.
    pub run: Value,
    /// The figures, as [`Figure::to_json`](crate::measures::Figure::to_json) writes them.
    pub figures: Vec<Value>,
}

/// How a figure stands to the run before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is none to compare with.
    New,
    /// By more than the tolerance.
    Better,
    /// Within the tolerance.
    Same,
    /// By more than the tolerance.
    Worse,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Better => "better",
            Self::Same => "same",
            Self::Worse => "worse",
        }
    }
}

impl Record {
    /// Returns the record of figures, one JSON object a line; other lines are passed over.
    pub fn of(texts: &[String], run: Value) -> anyhow::Result<Self> {
        let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with('{'));
        let figures: Vec<Value> = lines.map(serde_json::from_str).collect::<Result<_, _>>().context("a figure")?;
        let named = |figure: &Value| figure["name"].is_string() && figure["value"].is_number();
        ensure!(figures.iter().all(named), "a line is not a figure");
        ensure!(!figures.is_empty(), "there is no figure");
        Ok(Self { run, figures })
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_slice(&std::fs::read(path)?)?;
        let Some(figures) = value["figures"].as_array() else { bail!("{} has no figures", path.display()) };
        Ok(Self { run: value["run"].clone(), figures: figures.clone() })
    }

    /// Returns how a figure stands to that of the same name and reference in the run before: by its ratio, or by itself
    /// where there is none. What is compared is better if it is nearer to, or farther beyond, its goal.
    #[must_use]
    pub fn verdict(figure: &Value, before: Option<&Self>) -> Verdict {
        let same = |other: &&Value| other["name"] == figure["name"] && reference(other) == reference(figure);
        let Some(before) = before.and_then(|before| before.figures.iter().find(same)) else { return Verdict::New };
        let of = |figure: &Value| figure["ratio"].as_f64().or_else(|| figure["value"].as_f64());
        let (Some(now), Some(then)) = (of(figure), of(before)) else { return Verdict::New };
        // More is better of rates and shares, and of what is to be at least something; of everything else, less.
        let more = figure["unit"].as_str().is_some_and(|unit| unit.contains("/s") || unit == "share")
            || figure["goal"]["ratioAtLeast"].is_number();
        let (good, bad) = if more { (now, then) } else { (then, now) };
        match (good.max(0.0), bad.max(0.0)) {
            // What is none is infinitely better or worse than anything.
            (good, bad) if good > bad * (1.0 + TOLERANCE) => Verdict::Better,
            (good, bad) if bad > good * (1.0 + TOLERANCE) => Verdict::Worse,
            _ => Verdict::Same,
        }
    }

    /// Says in a line how the run came out: goals, and what is worse or better than before.
    #[must_use]
    pub fn summary(&self, before: Option<&Self>) -> String {
        let goals: Vec<bool> = self.figures.iter().filter_map(|figure| figure["reached"].as_bool()).collect();
        let reached = goals.iter().filter(|reached| **reached).count();
        let of = |wanted: Verdict| {
            let of = self.figures.iter().filter(|figure| Self::verdict(figure, before) == wanted);
            of.filter_map(|figure| figure["name"].as_str()).collect::<Vec<_>>()
        };
        let (worse, better) = (of(Verdict::Worse), of(Verdict::Better));
        let worse = if worse.is_empty() { "nothing worse".to_owned() } else { format!("worse: {}", worse.join("; ")) };
        format!("{reached} of {} goals reached; beside the run before {worse}, {} better.", goals.len(), better.len())
    }

    /// Returns the table of the page.
    #[must_use]
    pub fn table(&self, before: Option<&Self>) -> String {
        let mut text = String::new();
        let of = |key: &str| self.run[key].as_str().unwrap_or("?").to_owned();
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "{}, commit {}, {}, {} cores, Linux {}. The run before: {}.\n",
            of("day"),
            of("commit"),
            of("cpu"),
            self.run["cores"],
            of("kernel"),
            before
                .map_or("none".to_owned(), |before| format!("commit {}", before.run["commit"].as_str().unwrap_or("?"))),
        );
        let _infallible = writeln!(text, "{}\n", self.summary(before));
        text.push_str("| measure | figure | beside | ratio | goal | before |\n|---|---|---|---|---|---|\n");
        for figure in &self.figures {
            let unit = figure["unit"].as_str().unwrap_or_default();
            let value = number(figure["value"].as_f64().unwrap_or_default());
            let beside = match (figure["reference"]["value"].as_f64(), reference(figure)) {
                (Some(value), Some(name)) => format!("{} ({name})", number(value)),
                _ => String::new(),
            };
            let ratio = figure["ratio"].as_f64().map_or_else(String::new, |ratio| format!("{ratio:.3}"));
            let verdict = Self::verdict(figure, before).as_str();
            let name = figure["name"].as_str().unwrap_or_default();
            let _infallible =
                writeln!(text, "| {name} | {value} {unit} | {beside} | {ratio} | {} | {verdict} |", goal(figure));
        }
        text
    }
}

fn reference(figure: &Value) -> Option<&str> {
    figure["reference"]["name"].as_str()
}

fn goal(figure: &Value) -> String {
    let reached = match figure["reached"].as_bool() {
        Some(true) => "reached",
        Some(false) => "**not reached**",
        None => return String::new(),
    };
    let unit = figure["unit"].as_str().unwrap_or_default();
    let goals = [("ratioAtLeast", "ratio >= ", ""), ("ratioAtMost", "ratio <= ", ""), ("atMost", "<= ", unit)];
    let found = goals.into_iter().find_map(|(key, sign, unit)| Some((figure["goal"][key].as_f64()?, sign, unit)));
    found.map_or_else(String::new, |(value, sign, unit)| {
        format!("{sign}{}: {reached}", format!("{} {unit}", number(value)).trim_end())
    })
}

/// Returns day, commit and machine of a run that is made now in `repository`.
pub fn run(repository: &Path) -> anyhow::Result<Value> {
    let said = |program: &str, args: &[&str]| -> anyhow::Result<String> {
        let output = Command::new(program).args(args).current_dir(repository).output().context(program.to_owned())?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(json!({
        "day": said("date", &["-u", "+%F"])?,
        "commit": said("git", &["rev-parse", "--short", "HEAD"])?,
        "cpu": cpu.map_or("an unknown processor", |(_, name)| name),
        "cores": std::thread::available_parallelism()?.get(),
        "kernel": said("uname", &["-r"])?,
    }))
}

/// Keeps a record as JSON in `folder`, sets it beside the newest of another commit there, and writes the table into
/// `page`. Returns the table.
pub fn keep(record: &Record, folder: &Path, page: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(folder)?;
    let name =
        |run: &Value| format!("{}-{}.json", run["day"].as_str().unwrap_or("?"), run["commit"].as_str().unwrap_or("?"));
    let own = folder.join(name(&record.run));
    let mut others: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    others.retain(|path| path.extension().is_some_and(|ending| ending == "json") && *path != own);
    // Of one day the one that was written last.
    others.sort_by_key(|path| {
        (path.file_name().map(|name| name.to_string_lossy()[..10.min(name.len())].to_owned()), modified(path))
    });
    let before = others.last().map(|path| Record::read(path)).transpose()?;
    let text = serde_json::to_string_pretty(&json!({ "run": record.run, "figures": record.figures }))?;
    std::fs::write(&own, text + "\n")?;
    let table = record.table(before.as_ref());
    let old = std::fs::read_to_string(page)?;
    let (head, rest) = old.split_once(BEGIN).context("the page has no place for figures")?;
    let (_, tail) = rest.split_once(END).context("the page's figures have no end")?;
    std::fs::write(page, format!("{head}{BEGIN}\n{table}{END}{tail}"))?;
    Ok(table)
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measures::{Figure, Goal};

    fn record(commit: &str, rate: f64, bytes: f64) -> Record {
        let figures = [
            Figure::new("polls", rate, "1/s").beside("bare", 100.0).goal(Goal::RatioAtLeast(0.75)),
            Figure::new("memory", bytes, "B").goal(Goal::AtMost(600.0)),
        ];
        let text = figures.map(|figure| figure.to_json().to_string()).join("\n");
        let run = json!({ "day": "2026-11-21", "commit": commit, "cpu": "a", "cores": 2, "kernel": "6" });
        Record::of(&["measuring ...\n".to_owned() + &text], run).expect("a record")
    }

    #[test]
    fn a_figure_is_judged_by_what_is_better_for_it() {
        let before = record("a", 80.0, 500.0);
        let verdicts = |rate, bytes| {
            let now = record("b", rate, bytes);
            [0, 1].map(|index| Record::verdict(&now.figures[index], Some(&before)))
        };
        assert_eq!(verdicts(81.0, 510.0), [Verdict::Same; 2]);
        assert_eq!(verdicts(60.0, 400.0), [Verdict::Worse, Verdict::Better]);
        assert_eq!(verdicts(99.0, 900.0), [Verdict::Better, Verdict::Worse]);
        assert_eq!(Record::verdict(&before.figures[0], None), Verdict::New);

        let one = |unit, value| {
            let figure = Figure::new("x", value, unit).to_json().to_string();
            Record::of(&[figure], Value::Null).expect("a record")
        };
        let verdict = |unit, then, now| Record::verdict(&one(unit, now).figures[0], Some(&one(unit, then)));
        assert_eq!(verdict("", 0.0, 0.0), Verdict::Same, "errors");
        assert_eq!(verdict("", 0.0, 1.0), Verdict::Worse);
        assert_eq!(verdict("", 1000.0, 0.0), Verdict::Better);
        assert_eq!(verdict("share", 0.9, 0.5), Verdict::Worse);
        assert_eq!(verdict("share", 0.0, 0.5), Verdict::Better);
    }

    #[test]
    fn a_run_is_kept_beside_the_one_before_and_told_in_the_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let page = folder.path().join("page.md");
        std::fs::write(&page, format!("# Head\n{BEGIN}\nold\n{END}\nfoot\n")).expect("a page");
        let records = folder.path().join("records");
        keep(&record("a", 80.0, 500.0), &records, &page).expect("kept");
        let table = keep(&record("b", 60.0, 400.0), &records, &page).expect("kept");
        assert!(table.contains("The run before: commit a.") && table.contains("| worse |"), "{table}");
        assert!(table.contains("1 of 2 goals reached; beside the run before worse: polls, 1 better."), "{table}");
        assert!(table.contains("| ratio >= 0.7500: **not reached** |"), "{table}");
        let text = std::fs::read_to_string(&page).expect("the page");
        assert!(text.starts_with("# Head\n") && text.ends_with("\nfoot\n") && !text.contains("old"), "{text}");
        assert_eq!(std::fs::read_dir(&records).expect("records").count(), 2);
        assert!(Record::of(&["{\"name\": 1}".to_owned()], Value::Null).is_err());
    }
}

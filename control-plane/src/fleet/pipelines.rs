//! Pipelines: what their reports come to, and what of it a release runs.

use serde_json::Value;
use titan_api::{
    Code, Problem, Revision,
    pipelines::{Build, BuildReport, BuildState, PipelineLog, Source, SourceReport},
};

/// The fewest characters of a version that are taken for the beginning of a commit.
const COMMIT_LEAST: usize = 7;
/// The fewest characters of an artifact that are looked for among what a release is made of.
const ARTIFACT_LEAST: usize = 12;

/// Returns a commit as it is kept after a report, or nothing if it says nothing new.
#[must_use]
pub fn seen(known: Option<&Source>, report: &SourceReport, actor: &str, now: Revision) -> Option<Source> {
    let Some(known) = known else {
        return Some(Source { report: report.clone(), actor: actor.to_owned(), seen_at: now });
    };
    let (new, old) = (report.clone(), known.report.clone());
    let report = SourceReport {
        commit: old.commit,
        branch: new.branch.or(old.branch),
        message: new.message.or(old.message),
        author: new.author.or(old.author),
        url: new.url.or(old.url),
    };
    (report != known.report).then(|| Source { report, actor: actor.to_owned(), seen_at: known.seen_at })
}

/// Returns a build as it is kept after a report, or nothing if it says nothing new: what comes late is no news.
///
/// # Errors
///
/// If the build ended otherwise, or is one of another commit.
pub fn built(
    known: Option<&Build>,
    report: &BuildReport,
    actor: &str,
    now: Revision,
) -> Result<Option<Build>, Problem> {
    let ended = |state: BuildState| state.is_final().then_some(now);
    let Some(known) = known else {
        let (actor, ended_at) = (actor.to_owned(), ended(report.state));
        return Ok(Some(Build { report: report.clone(), actor, began_at: now, ended_at }));
    };
    let old = known.report.clone();
    let another = "a build that is made again is another one: give it an id of its own";
    if !(old.commit.starts_with(&report.commit) || report.commit.starts_with(&old.commit)) {
        let detail = format!("build {} is one of commit {}", old.id, old.commit);
        let problem = Problem::new(Code::AlreadyExists, detail.clone());
        return Err(problem.at("/build/commit", detail).hint(another));
    }
    if old.state.is_final() && report.state.is_final() && report.state != old.state {
        let detail = format!("build {} has ended already: {}", old.id, old.state.as_str());
        let problem = Problem::new(Code::InvalidTransition, detail.clone());
        return Err(problem.at("/build/state", detail).hint(another));
    }
    if old.state.is_final() && !report.state.is_final() {
        return Ok(None);
    }
    let new = report.clone();
    let report = BuildReport {
        id: old.id,
        commit: old.commit,
        state: new.state,
        version: new.version.or(old.version),
        artifact: new.artifact.or(old.artifact),
        message: new.message.or(old.message),
        url: new.url.or(old.url),
    };
    let ended_at = known.ended_at.or(ended(report.state));
    let build = Build { report, actor: actor.to_owned(), began_at: known.began_at, ended_at };
    Ok((build.report != known.report).then_some(build))
}

/// What a release runs, as far as pipelines told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The build that made it.
    pub build: Option<&'a Build>,
    /// The commit that it was made of.
    pub source: Option<&'a Source>,
}

/// Returns which of the commits and builds a release runs: by its version first, which may be a commit too, then by an
/// artifact that its values name. `inputs`: what the release was made of.
#[must_use]
pub fn origin<'a>(log: &'a PipelineLog, inputs: &Value) -> Origin<'a> {
    let version = inputs["context"]["workload"]["version"].as_str().unwrap_or_default();
    let commit = (version.len() >= COMMIT_LEAST).then_some(version);
    let is = |found: &str| commit.is_some_and(|commit| found.starts_with(commit) || commit.starts_with(found));
    let values = inputs["values"].to_string() + &inputs["overrides"].to_string();
    let good = || log.builds.iter().filter(|build| build.report.state == BuildState::Succeeded);
    let build = good()
        .find(|build| !version.is_empty() && build.report.version.as_deref() == Some(version))
        .or_else(|| good().find(|build| is(&build.report.commit)))
        .or_else(|| good().find(|build| build.report.artifact.as_deref().is_some_and(|made| names(&values, made))));
    let source = match build {
        Some(build) => source_of(log, &build.report.commit),
        None => log.sources.iter().find(|source| is(&source.report.commit)),
    };
    Origin { build, source }
}

/// Returns the commit that a build was made of.
#[must_use]
pub fn source_of<'a>(log: &'a PipelineLog, commit: &str) -> Option<&'a Source> {
    let mut sources = log.sources.iter();
    sources.find(|source| source.report.commit.starts_with(commit) || commit.starts_with(&source.report.commit))
}

/// Whether values, as JSON, name an artifact, or its digest alone.
fn names(values: &str, artifact: &str) -> bool {
    let digest = artifact.rsplit_once('@').map_or(artifact, |(_, digest)| digest);
    digest.len() >= ARTIFACT_LEAST && values.contains(digest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn at(micros: i64) -> Revision {
        Revision::from_micros(micros)
    }

    fn report(id: &str, commit: &str, state: BuildState) -> BuildReport {
        let (id, commit) = (id.to_owned(), commit.to_owned());
        BuildReport { id, commit, state, version: None, artifact: None, message: None, url: None }
    }

    fn source(commit: &str) -> SourceReport {
        SourceReport { commit: commit.to_owned(), branch: None, message: None, author: None, url: None }
    }

    /// S2-33: a pipeline may say the same as often as it likes.
    #[test]
    fn what_says_nothing_new_is_not_written() {
        let first = seen(None, &source(ONE), "token:ci", at(1)).expect("new");
        assert_eq!(seen(Some(&first), &source(ONE), "token:other", at(2)), None);
        let more = SourceReport { branch: Some("main".to_owned()), ..source(ONE) };
        let second = seen(Some(&first), &more, "token:ci", at(3)).expect("it says more");
        assert_eq!((second.seen_at, second.report.branch.as_deref()), (at(1), Some("main")));
        assert_eq!(seen(Some(&second), &source(ONE), "token:ci", at(4)), None, "what is not said again stays");
    }

    #[test]
    fn a_build_goes_forward_only_whatever_the_order_in_which_it_is_told() {
        for state in BuildState::ALL {
            for next in BuildState::ALL {
                let first = built(None, &report("1", ONE, state), "token:ci", at(1)).expect("taken").expect("new");
                assert_eq!(first.ended_at, state.is_final().then_some(at(1)));
                let second = built(Some(&first), &report("1", ONE, next), "token:ci", at(2));
                match (state, next) {
                    _ if state == next => assert_eq!(second, Ok(None), "{state:?}"),
                    (BuildState::Running, _) => {
                        let second = second.expect("taken").expect("news");
                        assert_eq!((second.began_at, second.ended_at), (at(1), Some(at(2))), "{next:?}");
                    }
                    (_, BuildState::Running) => assert_eq!(second, Ok(None), "late, after {state:?}"),
                    _ => {
                        let problem = second.expect_err("it has ended");
                        assert_eq!(problem.code, Code::InvalidTransition, "{state:?} {next:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_build_stays_one_of_its_commit() {
        let first = built(None, &report("1", ONE, BuildState::Running), "a", at(1)).expect("taken").expect("new");
        let problem = built(Some(&first), &report("1", TWO, BuildState::Failed), "a", at(2)).expect_err("another");
        assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::AlreadyExists, "/build/commit"));
        let short = built(Some(&first), &report("1", &ONE[..8], BuildState::Succeeded), "a", at(2));
        assert_eq!(short.expect("taken").expect("news").report.commit, ONE, "the beginning of a commit names it");
    }

    /// S2-34.
    #[test]
    fn a_release_is_found_by_version_then_commit_then_artifact() {
        let build = |id: &str, commit: &str, version: Option<&str>, artifact: Option<&str>, state| {
            let mut report = report(id, commit, state);
            (report.version, report.artifact) = (version.map(str::to_owned), artifact.map(str::to_owned));
            Build { report, actor: "a".to_owned(), began_at: at(1), ended_at: None }
        };
        let digest = format!("sha256:{}", "ab".repeat(32));
        let made = format!("ghcr.io/acme/web@{digest}");
        let log = PipelineLog {
            sources: [TWO, ONE].map(|commit| seen(None, &source(commit), "a", at(1)).expect("new")).to_vec(),
            builds: vec![
                build("4", TWO, Some("2.0"), None, BuildState::Failed),
                build("3", TWO, Some("2.0"), None, BuildState::Succeeded),
                build("2", ONE, None, Some(&made), BuildState::Succeeded),
                build("1", ONE, Some("latest"), Some("web"), BuildState::Succeeded),
            ],
        };
        let found = |version: &str, values: Value| {
            let inputs = json!({"context": {"workload": {"version": version}}, "values": values, "overrides": []});
            let origin = origin(&log, &inputs);
            let id = origin.build.map(|build| build.report.id.clone());
            (id.unwrap_or_default(), origin.source.map(|source| source.report.commit.clone()).unwrap_or_default())
        };
        let expect = |id: &str, commit: &str| (id.to_owned(), commit.to_owned());
        assert_eq!(found("2.0", json!({})), expect("3", TWO), "one that failed made nothing");
        assert_eq!(found(&ONE[..10], json!({})), expect("2", ONE), "a commit as version, the newest build of it");
        assert_eq!(found("", json!({"image": made})), expect("2", ONE));
        assert_eq!(found("", json!({"digest": digest})), expect("2", ONE));
        assert_eq!(found("", json!({"app": "web"})), expect("", ""), "a short word names nothing");
        assert_eq!(found("3.0", json!({})), expect("", ""));
        let unbuilt = PipelineLog { builds: Vec::new(), ..log.clone() };
        let inputs = json!({"context": {"workload": {"version": TWO}}});
        assert_eq!(origin(&unbuilt, &inputs).source.map(|source| source.report.commit.as_str()), Some(TWO));
    }
}

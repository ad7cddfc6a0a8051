//! What agents and control planes of different versions say to each other. The files in `wire/` are how it stands on the
//! wire: one that has to be changed for a test to pass breaks those who are in the field already.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use titan_api::{
    Code, Problem,
    enrolment::{EnrolAnswer, EnrolRequest},
    poll::{Bundle, PollAnswer, RemovalReason},
    reports::{Phase, Report},
};

/// Reads what a peer sends, and fails unless it is written again exactly as it was.
fn stands<T: Serialize + DeserializeOwned>(text: &str) -> T {
    let read: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let written = serde_json::to_string(&read).expect("JSON");
    let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(value(&written), value(text));
    read
}

/// S3-34: what an agent is told.
#[test]
fn answers_to_polls_stand_as_they_are() {
    let answer: PollAnswer = stands(include_str!("wire/poll.json"));
    let [web, large] = answer.deployments.as_slice() else { panic!("two deployments: {answer:?}") };
    let bundle: Bundle = stands(web.bundle.as_ref().expect("a bundle").get());
    assert_eq!((bundle.files.len(), bundle.health.probes.len(), large.bundle.is_none()), (2, 5, true));
    assert_eq!(bundle.files[1].bytes().as_deref(), Some(&[0, 1, 2][..]));
    assert_eq!(answer.tombstones[0].reason, RemovalReason::DeploymentDeleted);
    let enrolled: EnrolAnswer = stands(include_str!("wire/enrolled.json"));
    assert_eq!(&*enrolled.host, "tim-pi");
    let problem: Problem = stands(include_str!("wire/problem.json"));
    assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::Stale, "/unchanged"));
}

/// S3-34: what an agent says.
#[test]
fn reports_and_enrolments_stand_as_they_are() {
    let report: Report = stands(include_str!("wire/report.json"));
    let phases: Vec<_> = report.deployments.iter().map(|deployment| deployment.phase).collect();
    assert_eq!(phases, [Phase::Healthy, Phase::Removed]);
    let same: Report = stands(include_str!("wire/unchanged.json"));
    assert!(same.unchanged && same.facts.is_none() && same.orphans.is_none());
    let enrol: EnrolRequest = stands(include_str!("wire/enrol.json"));
    assert_eq!(enrol.facts.len(), 1);
}

/// S3-34: an agent reads what only a newer control plane says, and either reads what leaves out all that may be left out.
#[test]
fn what_is_new_and_what_is_left_out_is_read() {
    let mut answer: Value = serde_json::from_str(include_str!("wire/poll.json")).expect("JSON");
    answer["colour"] = json!("red");
    answer["deployments"][0]["colour"] = json!("red");
    answer["deployments"][0]
        .as_object_mut()
        .expect("a deployment")
        .retain(|key, _| !["dependsOn", "onRemove"].contains(&key.as_str()));
    answer["tombstones"][0]["colour"] = json!("red");
    answer["tombstones"][0]["reason"] = json!("fromTheFuture");
    let read: PollAnswer = serde_json::from_str(&answer.to_string()).expect("an answer");
    assert_eq!((read.deployments.len(), read.tombstones[0].reason), (2, RemovalReason::Other));
    let bundle =
        json!({ "applier": "files", "files": [{ "path": "a", "mode": "0644", "content": "" }], "colour": "red" });
    serde_json::from_value::<Bundle>(bundle).expect("a bundle");
    let problem = json!({ "type": "urn:titan:problem:new", "title": "x", "status": 409, "detail": "x", "code": "new", "colour": "red" });
    assert_eq!(serde_json::from_value::<Problem>(problem).expect("a problem").code, Code::Unknown);
    let report: Report = serde_json::from_value(json!({ "seq": 1 })).expect("a report");
    assert_eq!(report, Report { seq: 1, ..Report::default() });
    // A control plane is updated before its agents: what it does not know in a report is a fault, and is told.
    assert!(serde_json::from_value::<Report>(json!({ "seq": 1, "colour": "red" })).is_err());
}

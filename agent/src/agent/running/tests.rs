use titan_api::{Name, Revision, client::Polled};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::*;
use crate::{
    config::{Secret, Settings},
    identity::Identity,
    state::StateDir,
};

/// Such as that of a control plane whose database is an older copy.
#[tokio::test]
async fn a_host_checks_itself_at_each_beat_though_its_first_answer_is_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let state = StateDir::new(dir.path());
    let host = Name::new("tim-pi").expect("name");
    let identity = Identity { host, host_id: Uuid::from_u128(1), server: "http://127.0.0.1:1".to_owned() };
    identity.write(&state, &Secret::new("secret".to_owned())).expect("enrolled");
    let mut agent = Agent::open(Settings::new(dir.path()), &Handle::current()).expect("agent");
    let at = Revision::from_micros;
    agent.with_worker(|worker| worker.desired.advance(at(9)).expect("newer")).await;
    let mut rhythm = Rhythm::begin(Instant::now());
    let older = Polled::Unchanged { cursor: at(5), poll_after_seconds: 30 };
    agent.polled(Ok(older), &mut rhythm).await.expect("taken");
    assert!(rhythm.failures == 1 && rhythm.beat.is_some());
}

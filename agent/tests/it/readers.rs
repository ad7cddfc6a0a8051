//! Law 7 as another program sees it: a deployment's directory is the old one or the new one, never a mixture.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::{Mode, OFlags};
use titan_agent::{Agent, Settings};

use crate::{host::Host, plane::Plane};

const EXCHANGES: usize = 200;

/// Opens the directory once and reads two files in it. `None` if it was exchanged and cleared away meanwhile.
fn look(dir: &Path) -> Option<(String, String)> {
    let dir = rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).expect("always a directory");
    let read = |name: &str| {
        let file = match rustix::fs::openat(&dir, name, OFlags::RDONLY, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return None,
            file => file.unwrap(),
        };
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).unwrap();
        Some(text)
    };
    Some((read("a")?, read("b")?))
}

#[test]
fn a_reader_never_sees_a_mixture() {
    let plane = Plane::start();
    let host = Host::new(&plane);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = Settings { git: None, ..Settings::new(host.state()) };
    let mut agent = Agent::open(settings, runtime.handle()).unwrap();
    let mut exchange = |n: usize| {
        let text = n.to_string();
        plane.deploy("one", &[("a", &text), ("b", &text)]);
        let summary = runtime.block_on(agent.once()).unwrap();
        assert!(summary.is_settled(), "{summary:?}");
    };
    exchange(0);
    let (home, stop) = (host.home("one"), AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                if let Some((a, b)) = look(&home) {
                    assert_eq!(a, b, "a mixture");
                    seen.insert(a);
                }
            }
            seen
        });
        (1..=EXCHANGES).for_each(&mut exchange);
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(seen.len() > EXCHANGES / 10, "the reader saw only {} of {EXCHANGES}", seen.len());
}

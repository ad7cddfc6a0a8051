//! Disks that are full at one write after the other.

use titan_tests::{agents::AgentNode, worlds::until};

/// Has an agent go from release to release, each time with the disk full for another one of the files that it writes for its
/// own use: those that `writes` name, see [`AgentNode::once_without_room`]. `declare` declares a version, and `is` tells whether
/// it is what runs, all of it and nothing else.
pub(crate) async fn every_write(
    agent: &AgentNode,
    writes: &[&str],
    declare: impl AsyncFn(&str),
    is: impl Fn(&str) -> bool,
) {
    let mut version = 100;
    let mut before = version.to_string();
    declare(&before).await;
    agent.settle().expect("the first release");
    for write in writes {
        for nth in 1.. {
            version += 1;
            let next = version.to_string();
            declare(&next).await;
            let (wrote, said) = agent.once_without_room(write, nth).expect("it ran");
            let whole = until("a whole release", async || Ok((is(&before) || is(&next)).then_some(())));
            whole.await.unwrap_or_else(|error| panic!("{write} {nth}: {error}: neither {before} nor {next}: {said}"));
            agent.settle().unwrap_or_else(|error| panic!("room again after {write} {nth}: {error}: {said}"));
            let there = until("the next release", async || Ok(is(&next).then_some(())));
            there.await.unwrap_or_else(|error| panic!("{write} {nth}: {error}: it is not {next}: {said}"));
            before = next;
            if !wrote {
                assert!(nth > 1, "{write}: it never writes that");
                break;
            }
        }
    }
}

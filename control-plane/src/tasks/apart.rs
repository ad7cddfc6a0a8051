//! Work that all others wait for, on threads of its own. As a task each of its steps would stand in line behind those of
//! thousands of others in a process that is busy, and whoever waits for it with them.

use std::pin::Pin;

use tokio::{runtime::Handle, sync::oneshot, task::spawn_blocking};

/// Does work to its end.
pub(crate) fn apart(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = Handle::current();
    spawn_blocking(move || runtime.block_on(work));
}

/// Begins the work of `who`, and returns what waits for its end. The work is given up when that is dropped.
pub(crate) fn awaited(
    who: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let (waits, given_up) = oneshot::channel::<()>();
    let runtime = Handle::current();
    let ended = spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = given_up => {}
                () = work => {}
            }
        });
    });
    Box::pin(async move {
        let _waits = waits;
        if let Err(error) = ended.await {
            tracing::error!(error = &error as &dyn std::error::Error, "the {who} broke down");
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn work_ends_when_nobody_waits_for_it() {
        let (here, there) = (Arc::new(()), Arc::new(()));
        awaited("first", {
            let here = Arc::clone(&here);
            async move { drop(here) }
        })
        .await;
        assert_eq!(Arc::strong_count(&here), 1, "it was done");
        let endless = awaited("second", {
            let there = Arc::clone(&there);
            async move {
                std::future::pending::<()>().await;
                drop(there);
            }
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), endless).await.is_err());
        let gone = async {
            while Arc::strong_count(&there) > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it is given up");
    }
}

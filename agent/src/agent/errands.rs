//! What is under way to the control plane: at most one poll, one report and one bundle at a time, none of which holds up
//! the work on the host.

use std::pin::Pin;

use titan_api::{
    Digest,
    client::{ClientError, Polled},
    reports::Report,
};

type Errand<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// What is under way.
#[derive(Default)]
pub(super) struct Errands {
    pub(super) poll: Errand<Result<Polled, ClientError>>,
    pub(super) report: Errand<(Report, Result<(), ClientError>)>,
    pub(super) fetch: Errand<(Digest, Result<(), String>)>,
}

/// What came back.
pub(super) enum Back {
    Polled(Result<Polled, ClientError>),
    Reported(Report, Result<(), ClientError>),
    Fetched(Digest, Result<(), String>),
}

impl Errands {
    /// Waits for the next to come back; for ever if there is none under way.
    pub(super) async fn next(&mut self) -> Back {
        tokio::select! {
            polled = end(&mut self.poll) => Back::Polled(polled),
            (report, result) = end(&mut self.report) => Back::Reported(report, result),
            (digest, result) = end(&mut self.fetch) => Back::Fetched(digest, result),
        }
    }
}

/// Waits for an errand, which can be dropped and waited for again.
async fn end<T>(errand: &mut Errand<T>) -> T {
    match errand {
        Some(under_way) => {
            let result = under_way.await;
            *errand = None;
            result
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errands_come_back_one_by_one_and_are_not_lost_when_nobody_waits() {
        let mut errands = Errands::default();
        let digest = Digest::of(b"x");
        errands.fetch = Some(Box::pin(async move {
            tokio::task::yield_now().await;
            (digest, Ok(()))
        }));
        tokio::select! {
            biased;
            _ = errands.next() => unreachable!("it has yet to yield"),
            () = std::future::ready(()) => {}
        }
        assert!(matches!(errands.next().await, Back::Fetched(back, Ok(())) if back == digest));
        assert!(errands.fetch.is_none());
    }
}

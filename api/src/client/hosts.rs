//! Hosts: polls, bundles, reports, and what an operator asks of one host.

use std::time::Duration;

use reqwest::{
    Method, StatusCode,
    header::{self, HeaderValue},
};

use super::{Client, Download, Polled, Result, WriteOptions, download, media_type, path_with, written};
use crate::{
    Digest, Revision, SetDigest, SetDigestStart,
    drift::{AdoptAnswer, AdoptRequest, HostDrift},
    limits,
    poll::{CURSOR_HEADER, POLL_AFTER_HEADER},
    reports::{PruneAnswer, PruneRequest, Report},
    status::Why,
};

/// How long fetching a bundle may take on the whole: the largest one at the slowest pace.
const BUNDLE_TIMEOUT: Duration = Duration::from_hours(24);

impl Client {
    /// Asks what changed for `host` at or after `since`; `have` is the digest of the set that the host holds.
    pub async fn poll(
        &self,
        host: &str,
        since: Option<Revision>,
        have: Option<SetDigest>,
        wait: u64,
    ) -> Result<Polled> {
        let mut query = Vec::new();
        query.extend(since.map(|since| ("since", since.to_string())));
        query.extend(have.map(|have| ("have", SetDigestStart::text(have))));
        query.extend((wait > 0).then(|| ("wait", wait.to_string())));
        let request = self.plain(Method::GET, &path_with(&format!("/v1/hosts/{host}/changes"), &query));
        // What a poll answers is settled. An empty list of types keeps the usual one, which is longer, away.
        let request = request.header(header::ACCEPT, HeaderValue::from_static(""));
        let request = request.timeout(Duration::from_secs(wait + 30));
        let response = self.send(request).await?;
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            let cursor = header(CURSOR_HEADER).and_then(|text| text.parse().ok());
            let poll_after = header(POLL_AFTER_HEADER).map_or(Some(0), |text| text.parse().ok());
            return match (cursor, poll_after) {
                (Some(cursor), Some(poll_after_seconds)) => Ok(Polled::Unchanged { cursor, poll_after_seconds }),
                _ => Err(self.not_titan(status, "no cursor", None)),
            };
        }
        let media_type = media_type(&response);
        if media_type != "application/json" {
            return Err(self.not_titan(status, &media_type, None));
        }
        let body = self.bytes(response, limits::POLL_ANSWER_BYTES).await?;
        serde_json::from_slice(&body)
            .map(|answer| Polled::Changed(Box::new(answer)))
            .map_err(|error| self.not_titan(status, &format!("JSON that does not fit ({error})"), None))
    }

    /// Fetches a bundle that is assigned to `host`. The caller checks the digest.
    pub async fn bundle(&self, host: &str, digest: &Digest) -> Result<Download> {
        let request = self.request(Method::GET, &format!("/v1/hosts/{host}/bundles/{digest}"));
        // A large one over a slow line takes its time: that is the download's to bound, not the request's.
        let answer = tokio::time::timeout(download::GRACE, self.send(request.timeout(BUNDLE_TIMEOUT))).await;
        let response = answer.unwrap_or_else(|_| Err(download::slow(self.server(), 0, download::GRACE)))?;
        Ok(Download::new(self.server(), response, limits::FETCHED_BUNDLE_BYTES))
    }

    /// Tells what was observed on `host`.
    pub async fn report(&self, host: &str, report: &Report) -> Result<()> {
        let request = self.plain(Method::POST, &format!("/v1/hosts/{host}/report")).json(report);
        let request = request.header(header::ACCEPT, HeaderValue::from_static(""));
        let response = self.send(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            Ok(())
        } else {
            Err(self.not_titan(response.status(), &media_type(&response), None))
        }
    }

    /// Tells a host to remove orphans.
    pub async fn prune(&self, host: &str, request: &PruneRequest) -> Result<PruneAnswer> {
        self.post_json(&format!("/v1/hosts/{host}/prune"), request).await
    }

    /// Returns what is not as it was applied on a host, with the differences.
    pub async fn drift(&self, host: &str) -> Result<HostDrift> {
        self.get_json(&format!("/v1/hosts/{host}/drift")).await
    }

    /// Makes what was found on a host the declared state there.
    pub async fn adopt(&self, host: &str, request: &AdoptRequest, options: &WriteOptions) -> Result<AdoptAnswer> {
        let path = format!("/v1/hosts/{host}/drift:adopt");
        self.json(written(self.request(Method::POST, &path), options).json(request)).await
    }

    /// Returns files of a host to what the template says.
    pub async fn unadopt(&self, host: &str, request: &AdoptRequest, options: &WriteOptions) -> Result<AdoptAnswer> {
        let path = format!("/v1/hosts/{host}/drift:unadopt");
        self.json(written(self.request(Method::POST, &path), options).json(request)).await
    }

    /// Returns why a host has a deployment, or has it not.
    pub async fn why(&self, host: &str, workspace: &str, deployment: &str) -> Result<Why> {
        self.get_json(&format!("/v1/hosts/{host}/why/{workspace}/{deployment}")).await
    }
}

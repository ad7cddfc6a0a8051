//! One cluster, and the calls that all parts of the applier make to it.

use reqwest::Method;
use serde_json::Value;

use super::{
    client::{APPLY, CallError, Client, Refused, encode},
    discovery::{Discovery, Resource},
    fields::MANAGER,
    manifests::Manifest,
    objects::Key,
    seen::Seen,
};
use crate::{apply::ApplyError, config::appliers::Kubernetes};

/// One cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) discovery: Discovery,
    pub(crate) allowed: Kubernetes,
    pub(crate) seen: Seen,
}

/// How an object is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Whether fields of other managers are taken.
    pub(crate) force: bool,
    /// Whether the server only says what would be.
    pub(crate) dry_run: bool,
}

impl Cluster {
    pub(crate) const fn new(client: Client, allowed: Kubernetes, seen: Seen) -> Self {
        let discovery = Discovery::new();
        Self { client, discovery, allowed, seen }
    }

    /// Returns where objects of a manifest's kind are, or `None` if the server does not know it.
    pub(crate) async fn resource(&self, manifest: &Manifest) -> Result<Option<Resource>, CallError> {
        self.discovery.exact(&self.client, &manifest.key.group, &manifest.version, &manifest.key.kind).await
    }

    /// Returns an object, or `None` if it is not there.
    pub(crate) async fn live(&self, resource: &Resource, key: &Key) -> Result<Option<Value>, CallError> {
        match self.client.insist(Method::GET, &resource.object(key), None).await {
            Ok(live) => Ok(Some(live)),
            Err(error) if error.is_missing() => Ok(None),
            // Asked for a kind that is gone, a server says no more than any proxy: what it knows is asked anew.
            Err(error @ CallError::Strange { status: 404, .. }) => {
                self.discovery.forget();
                match self.discovery.any(&self.client, &key.group, &key.kind).await? {
                    None => Ok(None),
                    Some(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Applies an object and returns it as it is then, or would be.
    pub(crate) async fn apply(
        &self,
        resource: &Resource,
        manifest: &Manifest,
        manner: Manner,
    ) -> Result<Value, CallError> {
        self.apply_value(resource, &manifest.key, &manifest.value, manner).await
    }

    pub(crate) async fn apply_value(
        &self,
        resource: &Resource,
        key: &Key,
        value: &Value,
        manner: Manner,
    ) -> Result<Value, CallError> {
        let dry = if manner.dry_run { "&dryRun=All" } else { "" };
        let query = format!("fieldManager={}&force={}{dry}", encode(MANAGER), manner.force);
        let path = format!("{}?{query}", resource.object(key));
        self.client.insist(Method::PATCH, &path, Some((APPLY, value))).await
    }
}

/// Returns why something could not be done to an object. What a server says of a secret may quote it, so that stays here.
pub(crate) fn fault(doing: &str, key: &Key, error: &CallError) -> ApplyError {
    let message = match error {
        CallError::Refused(refused) if key.is_secret() => {
            let fields: Vec<&str> = refused.causes.iter().map(|(field, ..)| field.as_str()).collect();
            format!("{} {} {}", refused.status, refused.reason, fields.join(", ")).trim_end().to_owned()
        }
        CallError::Refused(Refused { status: 403, message, .. }) => {
            format!("{message}; the agent's role in the cluster has to allow it")
        }
        error => error.to_string(),
    };
    ApplyError::Platform { what: format!("{doing} {key}"), message }
}

/// Returns the fault of a call that is about no object.
pub(crate) fn call_fault(doing: &str, error: &CallError) -> ApplyError {
    ApplyError::Platform { what: doing.to_owned(), message: error.to_string() }
}

//! Which kinds the server knows, and where their objects are.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    client::{CallError, Client, encode},
    objects::{Key, at, items, text},
};

/// How long it is believed that the server does not know a kind.
const MISSING: Duration = Duration::from_secs(1);
/// How long all else is believed.
const KNOWN: Duration = Duration::from_mins(10);

/// One kind in one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// The group and version, as in `apiVersion`.
    pub(crate) api_version: String,
    /// The kind.
    pub(crate) kind: String,
    /// Its name in addresses.
    pub(crate) plural: String,
    /// Whether its objects are in namespaces.
    pub(crate) namespaced: bool,
    /// What can be done with them.
    pub(crate) verbs: Vec<String>,
}

impl Resource {
    /// Returns the address of all objects, or of all in one namespace.
    pub(crate) fn collection(&self, namespace: &str) -> String {
        let api = if self.api_version.contains('/') { "apis" } else { "api" };
        match namespace {
            "" => format!("/{api}/{}/{}", self.api_version, self.plural),
            namespace => format!("/{api}/{}/namespaces/{}/{}", self.api_version, encode(namespace), self.plural),
        }
    }

    /// Returns the address of an object.
    pub(crate) fn object(&self, key: &Key) -> String {
        format!("{}/{}", self.collection(&key.namespace), encode(&key.name))
    }
}

/// The versions of each group, the one that the server likes best first.
type Groups = BTreeMap<String, Vec<String>>;

/// What the server told of itself, for a while.
#[derive(Debug)]
pub(crate) struct Discovery {
    groups: Mutex<Option<(Instant, Groups)>>,
    resources: Mutex<BTreeMap<String, (Instant, Vec<Resource>)>>,
}

impl Discovery {
    pub(crate) const fn new() -> Self {
        Self { groups: Mutex::new(None), resources: Mutex::new(BTreeMap::new()) }
    }

    /// Returns the kind in the version that `api_version` names, or `None` if the server does not know it.
    pub(crate) async fn exact(
        &self,
        client: &Client,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<Option<Resource>, CallError> {
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let is = |resource: &Resource| resource.kind == kind;
        if let Some(found) = self.kinds(client, &api_version, KNOWN).await?.into_iter().find(is) {
            return Ok(Some(found));
        }
        Ok(self.kinds(client, &api_version, MISSING).await?.into_iter().find(is))
    }

    /// Returns the kind in the version that the server likes best, or `None` if it does not know it. That a part of the
    /// server does not answer is an error: it would look as if nothing were there.
    pub(crate) async fn any(&self, client: &Client, group: &str, kind: &str) -> Result<Option<Resource>, CallError> {
        if group.is_empty() {
            return self.exact(client, "", "v1", kind).await;
        }
        for age in [KNOWN, MISSING] {
            for version in self.versions(client, group, age).await? {
                let kinds = self.kinds(client, &format!("{group}/{version}"), age).await?;
                if let Some(found) = kinds.into_iter().find(|resource| resource.kind == kind) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Returns every kind of which there can be objects, each in the version that the server likes best.
    pub(crate) async fn all(&self, client: &Client) -> Result<Vec<Resource>, CallError> {
        let mut all = self.kinds(client, "v1", MISSING).await?;
        self.versions(client, "", MISSING).await?;
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (group, versions) in groups.map(|(_, groups)| groups).unwrap_or_default() {
            if let Some(version) = versions.first() {
                all.extend(self.kinds(client, &format!("{group}/{version}"), MISSING).await?);
            }
        }
        Ok(all)
    }

    /// Forgets what the server told: the next question goes to it.
    pub(crate) fn forget(&self) {
        *self.groups.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.resources.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn versions(&self, client: &Client, group: &str, age: Duration) -> Result<Vec<String>, CallError> {
        let known = self.groups.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read, groups)) = known.filter(|(read, _)| read.elapsed() < age) {
            let _since = read;
            return Ok(groups.get(group).cloned().unwrap_or_default());
        }
        let answer = client.insist(reqwest::Method::GET, "/apis", None).await?;
        let of = |item: &Value| {
            let best = text(item, &["preferredVersion", "version"]).to_owned();
            let all = items(item, &["versions"]).iter().map(|version| text(version, &["version"]).to_owned());
            let others: Vec<String> = all.filter(|version| *version != best).collect();
            let versions = std::iter::once(best).chain(others).filter(|version| !version.is_empty()).collect();
            (text(item, &["name"]).to_owned(), versions)
        };
        let groups: Groups = items(&answer, &["groups"]).iter().map(of).collect();
        let versions = groups.get(group).cloned().unwrap_or_default();
        *self.groups.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), groups));
        Ok(versions)
    }

    async fn kinds(&self, client: &Client, api_version: &str, age: Duration) -> Result<Vec<Resource>, CallError> {
        if let Some((read, kinds)) = self.resources.lock().unwrap_or_else(PoisonError::into_inner).get(api_version)
            && read.elapsed() < age
        {
            return Ok(kinds.clone());
        }
        let api = if api_version.contains('/') { "apis" } else { "api" };
        let path: Vec<String> = api_version.split('/').map(encode).collect();
        if let Some((group, version)) = api_version.split_once('/')
            && !self.versions(client, group, age).await?.iter().any(|known| known == version)
        {
            // Asked for it, a server says no more than any proxy: "404 page not found".
            return Ok(Vec::new());
        }
        let kinds = match client.insist(reqwest::Method::GET, &format!("/{api}/{}", path.join("/")), None).await {
            Ok(answer) => {
                items(&answer, &["resources"]).iter().filter_map(|item| resource(api_version, item)).collect()
            }
            Err(error) if error.is_missing() => Vec::new(),
            Err(error) => return Err(error),
        };
        let entry = (Instant::now(), kinds);
        self.resources.lock().unwrap_or_else(PoisonError::into_inner).insert(api_version.to_owned(), entry.clone());
        Ok(entry.1)
    }
}

fn resource(api_version: &str, item: &Value) -> Option<Resource> {
    let plural = text(item, &["name"]);
    let strings = |value: &Value| value.as_str().map(str::to_owned);
    (!plural.contains('/') && !plural.is_empty()).then(|| Resource {
        api_version: api_version.to_owned(),
        kind: text(item, &["kind"]).to_owned(),
        plural: plural.to_owned(),
        namespaced: at(item, &["namespaced"]).and_then(Value::as_bool).unwrap_or_default(),
        verbs: items(item, &["verbs"]).iter().filter_map(strings).collect(),
    })
}

//! Changes that people make while the fleet polls, through the API.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use titan_api::{
    Kind,
    changes::ApplyRequest,
    client::{Client, ClientError, WriteOptions},
};

use crate::{
    dice::Dice,
    simulator::{credentials, documents, tally::Tally},
};

/// Deployments that changes are made to, beside those that every host has; each is for the hosts of a zone.
const ZONED: usize = 20;

/// How often each sort of change is made, against the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Weights {
    /// A template is edited: the hosts of a zone move.
    pub template: u64,
    /// A template of every host is edited.
    pub everywhere: u64,
    /// A target is edited: the hosts of one zone leave, those of another come.
    pub target: u64,
    /// A host's zone and role are changed.
    pub relabel: u64,
    /// A deployment is deleted, or made again.
    pub deployment: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { template: 2, everywhere: 0, target: 2, relabel: 10, deployment: 2 }
    }
}

/// Someone who makes changes.
#[derive(Debug)]
pub struct Churn {
    admin: Client,
    hosts: usize,
    weights: Weights,
    dice: Dice,
    edition: u64,
    there: [bool; ZONED],
}

/// Moves a host to another zone.
async fn move_host(admin: &Client, host: &str, zone: &str) -> Result<(), ClientError> {
    let patch = json!({ "metadata": { "labels": { "zone": zone } } });
    admin.patch(Kind::Host, None, host, &patch, &WriteOptions::default()).await.map(drop)
}

fn zoned(number: usize) -> String {
    format!("zoned-{number:02}")
}

impl Churn {
    /// Declares what changes are made to.
    pub async fn begin(admin: Client, hosts: usize, weights: Weights, seed: u64) -> anyhow::Result<Self> {
        let churn = Self { admin, hosts, weights, dice: Dice::new(seed), edition: 0, there: [true; ZONED] };
        let mut resources = Vec::new();
        for number in 0..ZONED {
            let name = zoned(number);
            resources.push(documents::template(&name, 0));
            resources.push(documents::target(&name, "zone", &[format!("zone-{number:02}")]));
            resources.push(documents::deployment(&name, &name, &name));
        }
        churn.apply(resources).await?;
        Ok(churn)
    }

    async fn apply(&self, resources: Vec<serde_json::Value>) -> Result<(), ClientError> {
        let request = ApplyRequest { resources, ..ApplyRequest::default() };
        self.admin.apply(&request, &WriteOptions::default()).await.map(drop)
    }

    /// Makes one change.
    pub async fn step(&mut self) -> Result<(), ClientError> {
        let Weights { template, everywhere, target, relabel, deployment } = self.weights;
        let mut rolled = self.dice.roll(template + everywhere + target + relabel + deployment);
        let mut under = |weight: u64| {
            let chosen = rolled < weight;
            rolled = rolled.saturating_sub(weight);
            chosen
        };
        self.edition += 1;
        let number = self.dice.pick(ZONED);
        let name = zoned(number);
        if under(template) {
            return self.apply(vec![documents::template(&name, self.edition)]).await;
        }
        if under(everywhere) {
            return self.apply(vec![documents::template(&documents::base(0), self.edition)]).await;
        }
        if under(target) {
            let zone = format!("zone-{:02}", self.dice.roll(100));
            return self.apply(vec![documents::target(&name, "zone", &[zone])]).await;
        }
        if under(relabel) {
            let host = credentials::name(self.dice.pick(self.hosts));
            let zone = format!("zone-{:02}", self.dice.roll(100));
            return move_host(&self.admin, &host, &zone).await;
        }
        self.there[number] = !self.there[number];
        if self.there[number] {
            self.apply(vec![documents::deployment(&name, &name, &name)]).await
        } else {
            let options = WriteOptions::default();
            self.admin.delete(Kind::Deployment, Some("default"), &name, false, &options).await.map(drop)
        }
    }

    /// Makes changes at a rate, until the future is dropped. A change that fails is counted and not repeated.
    pub async fn run(&mut self, per_second: f64, tally: &Tally) {
        let mut interval = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second.max(0.001)));
        loop {
            interval.tick().await;
            if let Err(error) = self.step().await {
                tally.fault(format!("change: {error}"));
            }
        }
    }
}

//! Unchanged polls a second, and what each costs the server, beside a bare route.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use titan_api::{
    Revision, SetDigest,
    client::{Client, Polled},
};

use super::Measuring;
use crate::{
    measures::{Figure, Goal, Samples},
    simulator::{
        bare::Bare,
        credentials,
        load::Load,
        relay::Relay,
        stage::Stage,
        transports::{Place, Transport},
        wire::Ask,
    },
};

/// Connections that the polls go over.
const CONNECTIONS: usize = 64;
/// Hosts whose polls are sent at most: each is some 300 bytes of memory here.
const POLLED: usize = 200_000;

/// What was measured.
#[derive(Debug)]
pub struct Unchanged {
    /// Polls a second, and the same of the bare route.
    pub rate: (f64, f64),
    /// Microseconds of the server's processor for a poll, and the same of the bare route.
    pub cost: (f64, f64),
    /// Bytes of a poll as the agent's own client sends it, up and down.
    pub bytes: (f64, f64),
    /// How many rounds, and how many hosts were polled for.
    pub note: String,
}

impl Unchanged {
    /// Returns the figures for the table.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        vec![
            Figure::new("unchanged polls", self.rate.0, "1/s")
                .beside("bare route, same request", self.rate.1)
                .goal(Goal::RatioAtLeast(0.75))
                .note(&self.note),
            Figure::new("server CPU of an unchanged poll", self.cost.0 / self.cost.1, "x bare")
                .goal(Goal::AtMost(1.4))
                .note(format!("{:.2} us, bare {:.2} us", self.cost.0, self.cost.1)),
            Figure::new("bytes of an unchanged poll, up and down", self.bytes.0 + self.bytes.1, "B")
                .goal(Goal::AtMost(300.0))
                .note(format!("{} up, {} down, as the agent's own client sends it", self.bytes.0, self.bytes.1)),
        ]
    }
}

/// Measures over `stage` in `rounds` rounds of `span`, in turns with a bare server.
pub async fn measure(stage: &Stage, options: &Measuring, rounds: usize, span: Duration) -> anyhow::Result<Unchanged> {
    let (request, bytes) = recorded(stage).await?;
    let hosts = stage.hosts.min(POLLED);
    let requests = requests(stage, &request, hosts).await?;
    let bare = Bare::start(&options.stage.program, None).await?;
    let address = |place: &Place| place.address.replace("localhost", "127.0.0.1");
    let mut subject = Load::open(&address(&stage.server.place), &requests, CONNECTIONS).await?;
    let mut reference = Load::open(&address(&bare.place), &requests, CONNECTIONS).await?;
    let (mut rates, mut bare_rates) = (Samples::default(), Samples::default());
    let (mut costs, mut bare_costs) = (Samples::default(), Samples::default());
    // Every host is polled for once before it counts: the credential of each is looked up the first time.
    let least = Duration::from_secs_f64(hosts as f64 / 50_000.0);
    subject.run(least.max(span / 2)).await?;
    reference.run(span / 2).await?;
    for _ in 0..rounds {
        let before = bare.processor()?;
        let stretch = reference.run(span).await?;
        bare_rates.push(stretch.rate());
        bare_costs.push((bare.processor()? - before).as_secs_f64() * 1e6 / stretch.answered.max(1) as f64);
        let before = stage.server.processor()?;
        let stretch = subject.run(span).await?;
        rates.push(stretch.rate());
        costs.push((stage.server.processor()? - before).as_secs_f64() * 1e6 / stretch.answered.max(1) as f64);
    }
    Ok(Unchanged {
        rate: (rates.median(), bare_rates.median()),
        cost: (costs.median(), bare_costs.median()),
        bytes,
        note: format!(
            "{rounds} rounds of {span:?}, {CONNECTIONS} connections, {hosts} of {} hosts in turn",
            stage.hosts
        ),
    })
}

/// What an agent's own client sends for a poll that is told of no change, and the bytes of it, up and down.
async fn recorded(stage: &Stage) -> anyhow::Result<(String, (f64, f64))> {
    let server = stage.server.place.address.replace("localhost", "127.0.0.1");
    let relay = Relay::start(&server).await?;
    let client = Client::new(&format!("http://{}", relay.address), Some(stage.credentials.host(0)))?;
    let name = credentials::name(0);
    let Polled::Changed(answer) = client.poll(&name, None, None, 0).await? else {
        anyhow::bail!("{name} was told nothing at its first poll");
    };
    let (mut up, mut down) = (Samples::default(), Samples::default());
    let mut request = Vec::new();
    for _ in 0..3 {
        let _until_now = relay.take();
        // Held, as an agent at rest asks; a second of it takes as many bytes as thirty, but for a digit.
        let polled = client.poll(&name, Some(answer.cursor), Some(answer.digest), 1).await?;
        ensure!(matches!(polled, Polled::Unchanged { .. }), "{name} is told of a change though there was none");
        let (sent, got) = relay.take();
        up.push(sent.len() as f64);
        down.push(got.len() as f64);
        request = sent;
    }
    Ok((String::from_utf8(request)?, (up.median(), down.median())))
}

/// Returns the request of every host, made after the recorded one.
async fn requests(stage: &Stage, recorded: &str, hosts: usize) -> anyhow::Result<Vec<Arc<[u8]>>> {
    let (line, rest) = recorded.split_once("\r\n").context("a request line")?;
    ensure!(line.starts_with("GET "), "{line} is no poll");
    let secret = stage.credentials.host(0);
    let cursors = cursors(stage, hosts).await?;
    let requests = cursors.into_iter().enumerate().map(|(number, (since, have))| {
        let path = Ask::poll(number as u32, String::new(), Some((since, have)), 0, false).path;
        let rest = rest.replace(&secret, &stage.credentials.host(number));
        format!("GET {path} HTTP/1.1\r\n{rest}").into_bytes().into()
    });
    Ok(requests.collect())
}

/// Asks for every host what it has; returns the cursors and digests.
async fn cursors(stage: &Stage, hosts: usize) -> anyhow::Result<Vec<(Revision, SetDigest)>> {
    let script = crate::simulator::script::Script { connections: 8, ..Default::default() };
    let transport = Arc::new(Transport::new(&stage.server.place, &script, hosts, &Arc::default())?);
    let asked = super::at_once(hosts, {
        let credentials = stage.credentials.clone();
        move |number| {
            let (transport, credentials) = (Arc::clone(&transport), credentials.clone());
            async move {
                let ask = Ask::poll(number, credentials.host(number as usize), None, 0, false);
                let told = transport.exchange(number, &ask, false).await?;
                ensure!(told.status == 200, "{} was told {}", credentials::name(number as usize), told.status);
                let envelope = crate::simulator::answers::Answer::read(&told.body)?.envelope();
                Ok((envelope.cursor, envelope.digest))
            }
        }
    });
    asked.await
}

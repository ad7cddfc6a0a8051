//! The unchanged poll: how many a second, and how many bytes.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use titan_tests::{
    measures::{Figure, Goal, Samples},
    simulator::{
        load::{Load, Stretch},
        relay::Relay,
    },
};

use crate::{
    children::{Plane, Server},
    hosts,
    options::Options,
    roles,
};

/// Hosts that are declared; the fleet in memory.
const FLEET: usize = 1000;
/// Hosts that poll, each on a connection of its own.
const POLLING: usize = 64;
/// Assignments of each host.
pub(crate) const ASSIGNMENTS: usize = 5;
/// How long a host is silent before it polls once more: longer than an agent at rest.
const SILENCE: Duration = Duration::from_secs(31);
/// Bytes of payload a day of an agent at rest, at most.
const DAY_BYTES: f64 = 1_000_000.0;
/// Held polls of a day at the agent's usual `wait`.
const DAY_POLLS: f64 = 86_400.0 / 30.0;

/// Returns a control plane with a fleet, every host of which has its assignments.
pub(crate) async fn fleet(size: usize) -> anyhow::Result<Plane> {
    let plane = Plane::start().await?;
    hosts::declare(&plane, 0, size).await?;
    let mut documents = hosts::ground();
    documents.extend((0..ASSIGNMENTS).map(|number| {
        let template = if number == 0 { "own" } else { "shared" };
        hosts::deployment(&format!("service-{number}"), template, "all", number)
    }));
    hosts::apply(&plane, documents).await?;
    hosts::assigned(&plane, size * ASSIGNMENTS).await?;
    Ok(plane)
}

/// One side of the comparison, round by round.
struct Side<'a> {
    server: &'a Server,
    load: Load,
    rates: Samples,
    costs: Samples,
}

impl<'a> Side<'a> {
    async fn new(server: &'a Server, requests: &[Arc<[u8]>]) -> anyhow::Result<Self> {
        let load = Load::open(&server.address, requests, requests.len()).await?;
        Ok(Self { server, load, rates: Samples::default(), costs: Samples::default() })
    }

    /// Sends for `span` and takes down requests per second and microseconds of the server's processor per request.
    async fn round(&mut self, span: Duration) -> anyhow::Result<Stretch> {
        let before = self.server.processor()?;
        let stretch = self.load.run(span).await?;
        let spent = self.server.processor()?.saturating_sub(before);
        self.rates.push(stretch.rate());
        self.costs.push(spent.as_secs_f64() * 1e6 / stretch.answered as f64);
        Ok(stretch)
    }

    fn forget(&mut self) {
        (self.rates, self.costs) = (Samples::default(), Samples::default());
    }
}

/// Unchanged polls per second, and processor time of each, beside a bare route.
pub(crate) async fn speed(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (size, polling) = options.pick((FLEET, POLLING), (50, 8));
    let (rounds, span) = options.pick((15, Duration::from_secs(2)), (2, Duration::from_millis(200)));
    let plane = fleet(size).await?;
    let bare = Server::bare().await?;
    // What the agent's own client sends, byte for byte, recorded once and sent again by both sides.
    let relay = Relay::start(&plane.server.address).await?;
    let mut requests: Vec<Arc<[u8]>> = Vec::with_capacity(polling);
    for number in 0..polling {
        let mut host = hosts::enrol(&plane, &format!("http://{}", relay.address), &hosts::name(number)).await?;
        let _until_now = relay.take();
        ensure!(!host.poll(0).await?, "{} is told of a change though there was none", host.name);
        requests.push(relay.take().0.into());
    }
    drop(relay);
    let least: Arc<[u8]> = format!("GET {} HTTP/1.1\r\nhost: titan\r\n\r\n", roles::LEAST).into_bytes().into();
    let mut subject = Side::new(&plane.server, &requests).await?;
    let mut same = Side::new(&bare, &requests).await?;
    let mut least = Side::new(&bare, &vec![least; polling]).await?;
    for side in [&mut same, &mut subject, &mut least] {
        side.round(span).await?;
        side.forget();
    }
    let mut ratios = Samples::default();
    for _ in 0..rounds {
        let reference = same.round(span).await?.rate();
        ratios.push(subject.round(span).await?.rate() / reference);
        least.round(span).await?;
    }
    subject.load.once().await?;
    let at_once = subject.load.once().await?.median();
    tokio::time::sleep(options.pick(SILENCE, Duration::from_secs(1))).await;
    let after_silence = subject.load.once().await?.median();
    let (low, high) = (ratios.quantile(0.0), ratios.quantile(1.0));
    let note = format!("{rounds} rounds, single ratios {low:.2} to {high:.2}, {polling} connections, {size} hosts");
    let (rate, cost) = (subject.rates.median(), subject.costs.median());
    Ok(vec![
        Figure::new("unchanged polls", rate, "1/s")
            .beside("bare route, same request", same.rates.median())
            .goal(Goal::RatioAtLeast(0.75))
            .note(note),
        Figure::new("unchanged polls", rate, "1/s").beside("bare route, least request", least.rates.median()),
        Figure::new("server CPU of a poll", cost, "us").beside("bare route, same request", same.costs.median()),
        Figure::new("server CPU of a poll", cost, "us").beside("bare route, least request", least.costs.median()),
        Figure::new("polls per server-CPU second", 1e6 / cost, "1/s")
            .beside("bare route, same request", 1e6 / same.costs.median()),
        Figure::new("one poll after 31 s of silence", after_silence, "us")
            .beside("the same poll at once", at_once)
            .note("median over the hosts, one after the other; an agent at rest polls every 30 s"),
    ])
}

/// Bytes of an unchanged poll as the agent's own client sends it, headers included, counted on the socket.
pub(crate) async fn bytes() -> anyhow::Result<Vec<Figure>> {
    let plane = fleet(1).await?;
    let relay = Relay::start(&plane.server.address).await?;
    let mut host = hosts::enrol(&plane, &format!("http://{}", relay.address), &hosts::name(0)).await?;
    let (mut up, mut down) = (Samples::default(), Samples::default());
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let _until_now = relay.take();
        // Held, as the agent asks; one second is as many bytes as thirty, but for a digit.
        ensure!(!host.poll(1).await?, "a change though there was none");
        (request, answer) = relay.take();
        up.push(request.len() as f64);
        down.push(answer.len() as f64);
    }
    crate::tell(&format!("{}{}", redacted(&request), String::from_utf8_lossy(&answer)));
    let both = up.median() + down.median();
    let least = format!("GET {} HTTP/1.1\r\nhost: titan\r\n\r\n", roles::LEAST);
    Ok(vec![
        Figure::new("bytes of an unchanged poll, up", up.median(), "B").beside("least request", least.len() as f64),
        Figure::new("bytes of an unchanged poll, down", down.median(), "B"),
        Figure::new("bytes of a day at rest", both * DAY_POLLS, "B")
            .goal(Goal::AtMost(DAY_BYTES))
            .note(format!("worked out: {both} B a poll, {DAY_POLLS} held polls of 30 s; reports and TCP aside")),
    ])
}

/// Returns a request as text without its credential.
fn redacted(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    text.lines().fold(String::new(), |mut all, line| {
        let secret = line.to_ascii_lowercase().starts_with("authorization:");
        all.push_str(if secret { "authorization: Bearer ..." } else { line });
        all.push('\n');
        all
    })
}

//! The load: kept connections, one request after another on each, no pipelining.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use titan_tests::measures::Samples;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// How an empty answer begins.
const EMPTY: &[u8] = b"HTTP/1.1 204 ";
/// How the headers of an answer end; an empty answer has nothing after it.
const END: &[u8] = b"\r\n\r\n";

/// Kept connections to one server, each with the request that it sends again and again.
#[derive(Debug)]
pub(crate) struct Load(Vec<Connection>);

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    request: Arc<[u8]>,
    answer: Vec<u8>,
}

/// What was answered in a stretch of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    /// How many requests.
    pub(crate) answered: u64,
    /// In how much time.
    pub(crate) elapsed: Duration,
}

impl Stretch {
    /// Returns requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }
}

impl Load {
    /// Opens a connection for each request.
    pub(crate) async fn open(server: &str, requests: &[Arc<[u8]>]) -> anyhow::Result<Self> {
        let mut connections = Vec::with_capacity(requests.len());
        for request in requests {
            let stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            connections.push(Connection { stream, request: Arc::clone(request), answer: Vec::with_capacity(1024) });
        }
        Ok(Self(connections))
    }

    /// Sends on every connection for `span` and counts the answers, all of which must be 204.
    pub(crate) async fn run(&mut self, span: Duration) -> anyhow::Result<Stretch> {
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for connection in self.0.drain(..) {
            running.spawn(connection.run(Arc::clone(&stop)));
        }
        tokio::time::sleep(span).await;
        stop.store(true, Ordering::Relaxed);
        let mut answered = 0;
        while let Some(ended) = running.join_next().await {
            let (connection, count) = ended??;
            answered += count;
            self.0.push(connection);
        }
        Ok(Stretch { answered, elapsed: begun.elapsed() })
    }

    /// Sends once on every connection, one after the other, and returns how many microseconds each answer took.
    pub(crate) async fn once(&mut self) -> anyhow::Result<Samples> {
        let mut times = Samples::default();
        for connection in &mut self.0 {
            let begun = Instant::now();
            connection.ask().await?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    }
}

impl Connection {
    async fn run(mut self, stop: Arc<AtomicBool>) -> anyhow::Result<(Self, u64)> {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            self.ask().await?;
            count += 1;
        }
        Ok((self, count))
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        while !self.answer.ends_with(END) {
            let length = self.stream.read_buf(&mut self.answer).await.context("reading an answer")?;
            if length == 0 {
                bail!("the server closed a kept connection");
            }
        }
        if !self.answer.starts_with(EMPTY) {
            bail!("the server answered {}", String::from_utf8_lossy(&self.answer));
        }
        Ok(())
    }
}

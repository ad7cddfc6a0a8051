//! The load: kept connections, one request after another on each, no pipelining.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::measures::Samples;

/// How an empty answer begins.
const EMPTY: &[u8] = b"HTTP/1.1 204 ";
/// How the headers of an answer end; an empty answer has nothing after it.
const END: &[u8] = b"\r\n\r\n";

/// Kept connections to one server, each with the requests that it sends in turn, again and again.
#[derive(Debug)]
pub struct Load(Vec<Connection>);

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    requests: Vec<Arc<[u8]>>,
    next: usize,
    answer: Vec<u8>,
}

/// What was answered in a stretch of time.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// How many requests.
    pub answered: u64,
    /// In how much time.
    pub elapsed: Duration,
}

impl Stretch {
    /// Returns requests per second.
    pub fn rate(&self) -> f64 {
        self.answered as f64 / self.elapsed.as_secs_f64()
    }
}

impl Load {
    /// Opens `connections` connections that share the requests out among them.
    pub async fn open(server: &str, requests: &[Arc<[u8]>], connections: usize) -> anyhow::Result<Self> {
        let mut opened = Vec::with_capacity(connections);
        for index in 0..connections.min(requests.len()) {
            let stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            let requests = requests.iter().skip(index).step_by(connections).cloned().collect();
            opened.push(Connection { stream, requests, next: 0, answer: Vec::with_capacity(1024) });
        }
        Ok(Self(opened))
    }

    /// Sends on every connection for `span` and counts the answers, all of which must be 204.
    pub async fn run(&mut self, span: Duration) -> anyhow::Result<Stretch> {
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
    pub async fn once(&mut self) -> anyhow::Result<Samples> {
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
        let request = &self.requests[self.next % self.requests.len()];
        self.next = self.next.wrapping_add(1);
        self.stream.write_all(request).await?;
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

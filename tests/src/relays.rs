//! Networks between an agent and its control plane: a relay that can be cut, or lose answers.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// It carries everything.
    Fair,
    /// It carries nothing, and what is open breaks.
    Cut,
    /// Answers that bring something get lost on their way, after the control plane has given them.
    Lossy,
}

/// A relay to one address.
#[derive(Debug)]
pub struct Relay {
    /// Its own address, `http://127.0.0.1:PORT`.
    pub server: String,
    weather: Arc<watch::Sender<Weather>>,
    lost: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts to relay to `to`, `127.0.0.1:PORT`.
    pub async fn start(to: &str) -> anyhow::Result<Self> {
        let to: SocketAddr = to.parse()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = format!("http://{}", listener.local_addr()?);
        let weather = Arc::new(watch::Sender::new(Weather::Fair));
        let (losing, lost) = watch::channel(0);
        let (losing, forecast) = (Arc::new(losing), weather.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (weather, losing) = (forecast.subscribe(), losing.clone());
                if *weather.borrow() == Weather::Cut {
                    continue;
                }
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(to).await {
                        relay(client, server, weather, &losing).await;
                    }
                });
            }
        });
        Ok(Self { server, weather, lost, task })
    }

    /// Changes what the network does, for what is open as well.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Returns how many answers got lost.
    #[must_use]
    pub fn lost(&self) -> usize {
        *self.lost.borrow()
    }

    /// Returns what changes the network from elsewhere.
    #[must_use]
    pub fn weather(&self) -> Arc<watch::Sender<Weather>> {
        self.weather.clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(
    mut client: TcpStream,
    mut server: TcpStream,
    mut weather: watch::Receiver<Weather>,
    losing: &watch::Sender<usize>,
) {
    let (mut asked, mut answered) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        tokio::select! {
            changed = weather.changed() => {
                if changed.is_err() || *weather.borrow_and_update() == Weather::Cut {
                    return;
                }
            }
            read = client.read(&mut asked) => match read {
                Ok(count @ 1..) if server.write_all(&asked[..count]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(count @ 1..) => {
                    if *weather.borrow() == Weather::Lossy && answered[..count].starts_with(b"HTTP/1.1 200") {
                        losing.send_modify(|lost| *lost += 1);
                        return;
                    }
                    if client.write_all(&answered[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

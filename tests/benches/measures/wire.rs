//! The wire between an agent and a control plane: TLS, and a count of every byte.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use anyhow::Context as _;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// Where Debian keeps the authorities that everybody trusts.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Bytes on the wire, those of TLS included, those of TCP and IP not.
#[derive(Debug, Default)]
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
}

/// Speaks TLS to one client after the other, and plain HTTP to the server.
#[derive(Debug)]
pub(crate) struct Wire {
    /// `https://localhost:PORT`.
    pub(crate) url: String,
    /// Certificates of authorities, this wire's among the system's, as `SSL_CERT_FILE` wants them.
    pub(crate) authorities: PathBuf,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Wire {
    /// Starts a wire to `server`, which is `127.0.0.1:PORT`. Its certificate is written into `folder`.
    pub(crate) async fn start(server: &str, folder: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let authorities = folder.join("authorities.pem");
        let others = std::fs::read_to_string(AUTHORITIES).unwrap_or_default();
        std::fs::write(&authorities, others + &made.cert.pem()).context("the certificate is written")?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let counts = Arc::new(Counts::default());
        let (server, counted) = (server.to_owned(), Arc::clone(&counts));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let client = Counted { stream: client, counts: Arc::clone(&counted) };
                tokio::spawn(pass(client, acceptor.clone(), server.clone()));
            }
        });
        Ok(Self { url, authorities, counts, task })
    }

    /// Returns how many bytes the client has sent and received until now.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.counts.up.load(Ordering::Relaxed), self.counts.down.load(Ordering::Relaxed))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes everything on until either side ends; what fails, fails for both of them.
async fn pass(client: Counted, acceptor: TlsAcceptor, server: String) {
    let _best_effort = client.stream.set_nodelay(true);
    let Ok(mut client) = acceptor.accept(client).await else { return };
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let _best_effort = server.set_nodelay(true);
    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

/// A connection whose bytes are counted.
struct Counted {
    stream: TcpStream,
    counts: Arc<Counts>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        self.counts.up.fetch_add((into.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.counts.down.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

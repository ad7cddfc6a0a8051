//! Connections that can be made.

use titan_api::health::TcpProbe;
use tokio::net::TcpStream;

pub(super) async fn ask(probe: &TcpProbe) -> Result<(), String> {
    let address = probe.address.as_str();
    if address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        return Err(format!("{address:?} is not host:port"));
    }
    TcpStream::connect(address).await.map(drop).map_err(|error| format!("{address} does not accept: {error}"))
}

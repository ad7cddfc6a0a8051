//! Commands that end with 0.

use titan_api::health::ExecProbe;

use super::ProbeGround;
use crate::commands::Order;

pub(super) async fn ask(probe: &ExecProbe, ground: &ProbeGround) -> Result<(), String> {
    let ProbeGround { target, home, exec, timeout, .. } = ground;
    let order = Order::probe(target, home, probe, *timeout, exec.as_ref()).map_err(|error| error.to_string())?;
    order.run().await.failure().map_or(Ok(()), Err)
}

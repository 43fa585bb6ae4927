//! The official PKARR relay, over a DHT that begins with one given node: its program cannot be told where to begin.
//!
//! Arguments: the address of a node, a folder for the cache. Prints the port of the relay; ends when its input does.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use pkarr::dht::ReportPolicy;
use pkarr_relay::Relay;
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first: SocketAddrV4 = arguments.next().context("no node")?.parse()?;
    let cache = arguments.next().context("no folder")?;
    let mut builder = Relay::builder();
    builder
        .http_port(0)
        .storage(cache.into())
        .disable_rate_limiter()
        .report_policy(ReportPolicy::testnet())
        .dht(|dht| {
            dht.bootstrap = Some(vec![first]);
            dht.bind_address = Some(Ipv4Addr::LOCALHOST);
            dht.port = Some(0);
            dht.server_mode = true;
            dht
        });
    // SAFETY: no other process has this cache open.
    let relay = unsafe { builder.run().await? };
    println!("{}", relay.relay_address().port());
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    relay.shutdown();
    Ok(())
}

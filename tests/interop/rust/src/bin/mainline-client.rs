//! A client of the DHT by the official crate, for the comparison in `tests/bench/dht.py`.
//!
//! `mainline-client PORT publish|newest|agreed SEED COUNT`: joins by a node of the loopback, prints `ready` and its own
//! port, waits for a line, then works through COUNT keys, one after the other, and prints the milliseconds of each.

use std::io::{stdin, stdout, Write};
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use futures_util::StreamExt;
use mainline::{Dht, MutableItem, SigningKey};

/// Nodes with the same item: as many as our own client asks for.
const ENOUGH: u32 = 3;

fn key(seed: u8, number: u32) -> SigningKey {
    let mut secret = [seed; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_bytes(&secret)
}

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    ensure!(words.len() == 4, "PORT publish|newest|agreed SEED COUNT");
    let bootstrap = format!("127.0.0.1:{}", words[0]);
    let (seed, count): (u8, u32) = (words[2].parse()?, words[3].parse()?);
    let dht = Dht::builder().bootstrap(&[bootstrap]).build()?.as_async();
    ensure!(dht.bootstrapped().await, "nobody is there");
    println!("ready {}", dht.info().await.local_addr().port());
    stdin().read_line(&mut String::new())?;
    for number in 0..count {
        let key = key(seed, number);
        let began = Instant::now();
        match words[1].as_str() {
            "publish" => {
                dht.put_mutable(MutableItem::new(key, b"some value", 1, None), None).await?;
            }
            "newest" => {
                let public = key.verifying_key().to_bytes();
                dht.get_mutable_most_recent(&public, None).await.context("not found")?;
            }
            _ => {
                let public = key.verifying_key().to_bytes();
                let mut answers = dht.get_mutable(&public, None, None);
                let first = answers.next().await.context("not found")?;
                let mut same = 1;
                while same < ENOUGH {
                    let next = answers.next().await.context("not agreed upon")?;
                    same += u32::from(next == first);
                }
            }
        }
        println!("{:.1}", began.elapsed().as_secs_f64() * 1000.0);
        stdout().flush()?;
    }
    println!("end");
    stdin().read_line(&mut String::new())?;
    Ok(())
}

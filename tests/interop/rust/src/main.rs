//! The official Rust client against our test network, found and reached by public keys alone.
//!
//! Each scenario prints one line, `ok NAME` or `FAILED NAME: why`; the exit code is the number of failures.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
use futures_util::StreamExt;
use pkarr::errors::{PublishError, ResolveError};
use pkarr::{Client as PkarrClient, Keypair as PkarrKeypair, ResolvePolicy, SignedPacket};
use pubky::{
    AuthFlowKind, Capabilities, ClientId, EventType, GrantManager, Keypair, Method, Pubky,
    PubkyGrantAuthFlow, PubkyHttpClient, PubkySession, PublicKey,
};

const HOMESERVER: &str = "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo";
const RELAY: &str = "http://localhost:15412/inbox";

fn homeserver() -> PublicKey {
    PublicKey::try_from_z32(HOMESERVER).expect("a key")
}

/// A client that knows the DHT and no relay.
fn client() -> Result<PubkyHttpClient> {
    let mut builder = PubkyHttpClient::builder();
    builder.testnet().pkarr(|network| network.no_relays());
    Ok(builder.build()?)
}

fn pubky() -> Result<Pubky> {
    Ok(Pubky::with_client(client()?))
}

/// A new user, signed up and signed in by grant.
async fn user() -> Result<(Pubky, Keypair, PubkySession)> {
    let pubky = pubky()?;
    let keypair = Keypair::random();
    let signer = pubky.signer(keypair.clone());
    signer.signup(&homeserver(), None).await.context("sign-up")?;
    let session = signer
        .signin_blocking(ClientId::new("interop.example")?)
        .await
        .context("sign-in")?;
    Ok((pubky, keypair, session))
}

async fn storage() -> Result<()> {
    let (pubky, keypair, session) = user().await?;
    let storage = session.storage();
    storage.put("/pub/app/a.txt", "hello").await.context("put")?;
    storage.put("/pub/app/deep/ü.json", "{\"a\":1}").await?;
    let text = storage.get("/pub/app/a.txt").await.context("own read")?.text().await?;
    ensure!(text == "hello", "read {text}");
    let address = format!("{}/pub/app/a.txt", keypair.public_key());
    let public = pubky.public_storage();
    ensure!(public.get(&address).await.context("public read")?.text().await? == "hello", "public read");
    let stats = public.stats(&address).await.context("stats")?.ok_or(anyhow!("no stats"))?;
    ensure!(stats.content_length == Some(5), "length {:?}", stats.content_length);
    let listed = storage.list("/pub/app/")?.send().await.context("list")?;
    ensure!(listed.len() == 2, "listed {}", listed.len());
    let shallow = storage.list("/pub/app/")?.shallow(true).limit(1).send().await?;
    ensure!(shallow.len() == 1, "listed {}", shallow.len());
    storage.delete("/pub/app/a.txt").await.context("delete")?;
    ensure!(!public.exists(&address).await?, "it is still there");
    let conflict = storage.put("/pub/app/deep", "x").await;
    ensure!(conflict.is_err(), "a folder was overwritten");
    Ok(())
}

async fn private_storage() -> Result<()> {
    let (pubky, keypair, session) = user().await?;
    session.storage().put("/priv/secret", "mine").await?;
    ensure!(session.storage().get("/priv/secret").await?.text().await? == "mine", "own read");
    let address = format!("{}/priv/secret", keypair.public_key());
    ensure!(pubky.public_storage().get(&address).await.is_err(), "anybody reads it");
    let (_, _, other) = user().await?;
    let url = format!("https://_pubky.{0}/storage/{0}/priv/secret", keypair.public_key().z32());
    let answer = client()?.request_async(Method::GET, url.parse()?).await?.send().await?;
    ensure!(answer.status() == 401, "status {}", answer.status());
    ensure!(other.storage().get("/priv/secret").await.is_err(), "another's own is not there");
    Ok(())
}

async fn locks() -> Result<()> {
    let (_, _, session) = user().await?;
    let storage = session.storage();
    let mut lock = storage.lock("/pub/locked", Duration::from_secs(20)).await?;
    ensure!(storage.put("/pub/locked", "x").await.is_err(), "written past the lock");
    storage.put_locked(&lock, "y").await?;
    storage.refresh_lock(&mut lock, Duration::from_secs(30)).await?;
    ensure!(lock.timeout() == Duration::from_secs(30), "{:?}", lock.timeout());
    ensure!(storage.lock("/pub/locked", Duration::from_secs(5)).await.is_err(), "locked twice");
    storage.unlock(&lock).await?;
    storage.put("/pub/locked", "z").await?;
    Ok(())
}

async fn events() -> Result<()> {
    let (pubky, keypair, session) = user().await?;
    session.storage().put("/pub/old", "1").await?;
    let mut stream = pubky
        .event_stream_for_user(&keypair.public_key(), None)
        .live()
        .subscribe()
        .await?;
    let first = stream.next().await.ok_or(anyhow!("ended"))??;
    ensure!(first.resource.path.as_str() == "/pub/old", "{:?}", first.resource);
    session.storage().put("/pub/new", "2").await?;
    let second = tokio::time::timeout(Duration::from_secs(5), stream.next())
        .await?
        .ok_or(anyhow!("ended"))??;
    ensure!(second.resource.path.as_str() == "/pub/new", "{:?}", second.resource);
    session.storage().delete("/pub/new").await?;
    let third = tokio::time::timeout(Duration::from_secs(5), stream.next())
        .await?
        .ok_or(anyhow!("ended"))??;
    ensure!(matches!(third.event_type, EventType::Delete), "{:?}", third.event_type);
    Ok(())
}

async fn private_events_end_with_the_session() -> Result<()> {
    let (pubky, keypair, session) = user().await?;
    let mut stream = pubky
        .event_stream_for_user(&keypair.public_key(), None)
        .session(&session)
        .path("/priv/")
        .live()
        .subscribe()
        .await?;
    session.storage().put("/priv/a", "1").await?;
    let event = tokio::time::timeout(Duration::from_secs(5), stream.next())
        .await?
        .ok_or(anyhow!("ended"))??;
    ensure!(event.resource.path.as_str() == "/priv/a", "{:?}", event.resource);
    session.signout().await.map_err(|(error, _)| error)?;
    let end = tokio::time::timeout(Duration::from_secs(5), stream.next()).await?;
    ensure!(!matches!(end, Some(Ok(_))), "an event after the sign-out");
    Ok(())
}

async fn hundred_megabytes() -> Result<()> {
    let (_, _, session) = user().await?;
    let body: Vec<u8> = (0..100 * 1024 * 1024usize).map(|at| (at / 4096 * 31 + at) as u8).collect();
    session.storage().put("/pub/large.bin", body.clone()).await?;
    let read = session.storage().get("/pub/large.bin").await?.bytes().await?;
    ensure!(read == body, "{} bytes came back, or others", read.len());
    Ok(())
}

async fn grants() -> Result<()> {
    let (pubky, keypair, session) = user().await?;
    let other = pubky
        .signer(keypair)
        .signin_blocking(ClientId::new("other.example")?)
        .await?;
    let manager = GrantManager::new(&session);
    let listed = manager.list().await?;
    ensure!(listed.len() == 2, "{} grants", listed.len());
    let theirs = other.as_grant().ok_or(anyhow!("no grant"))?.grant_id().await;
    manager.revoke(&theirs).await?;
    ensure!(other.revalidate().await?.is_none(), "the revoked session lives");
    ensure!(other.storage().put("/pub/x", "1").await.is_err(), "the revoked session writes");
    let before = session.as_grant().ok_or(anyhow!("no grant"))?.current_bearer().await;
    let after = session.as_grant().ok_or(anyhow!("no grant"))?.force_refresh().await?;
    ensure!(before != after, "the bearer is the same");
    session.storage().put("/pub/x", "1").await?;
    session.signout().await.map_err(|(error, _)| error)?;
    Ok(())
}

async fn cookies() -> Result<()> {
    let pubky = pubky()?;
    let signer = pubky.signer(Keypair::random());
    #[allow(deprecated)]
    let session = signer.signup_cookie(&homeserver(), None).await?;
    session.storage().put("/pub/cookie", "1").await?;
    ensure!(session.revalidate().await?.is_some(), "no session");
    #[allow(deprecated)]
    let again = signer.signin_cookie_blocking().await?;
    session.signout().await.map_err(|(error, _)| error)?;
    again.storage().delete("/pub/cookie").await?;
    again.signout().await.map_err(|(error, _)| error)?;
    Ok(())
}

async fn keyless() -> Result<()> {
    let (pubky, keypair, _) = user().await?;
    let capabilities = Capabilities::builder().read_write("/pub/keyless.example/")?.finish();
    let flow = PubkyGrantAuthFlow::builder(
        &capabilities,
        AuthFlowKind::signin(),
        ClientId::new("keyless.example")?,
    )
    .relay(RELAY.parse()?)
    .client(client()?)
    .start()?;
    let url = flow.authorization_url();
    let signer = pubky.signer(keypair.clone());
    let (approved, session) = tokio::join!(signer.approve_auth(url), flow.await_approval());
    approved?;
    let session = session?;
    ensure!(session.public_key() == keypair.public_key(), "somebody else");
    session.storage().put("/pub/keyless.example/a", "1").await?;
    ensure!(session.storage().put("/pub/other/a", "1").await.is_err(), "written outside");
    Ok(())
}

/// A key whose record points at the homeserver's port is not the homeserver.
async fn wrong_key() -> Result<()> {
    let impostor = PkarrKeypair::random();
    let packet = SignedPacket::builder()
        .https(
            ".".try_into()?,
            {
                let mut record = pkarr::dns::rdata::SVCB::new(1, ".".try_into()?);
                record.set_port(6287);
                record
            },
            300,
        )
        .address(".".try_into()?, "127.0.0.1".parse()?, 300)
        .sign(&impostor)?;
    let url = format!("https://{}/", impostor.public_key().to_z32());
    relay_only()?.publish(&packet).await?;
    let answer = client()?.request_async(Method::GET, url.parse()?).await?.send().await;
    ensure!(answer.is_err(), "the impostor was believed");
    let url = format!("https://{HOMESERVER}/");
    let answer = client()?.request_async(Method::GET, url.parse()?).await?.send().await?;
    ensure!(answer.text().await? == "Pubky Homeserver", "the homeserver was not");
    Ok(())
}

/// A new client, which remembers nothing, of the test network's relay or of the one that PKARR_RELAY names.
fn relay_only() -> Result<PkarrClient> {
    let relay = std::env::var("PKARR_RELAY").unwrap_or("http://localhost:15411".into());
    Ok(PkarrClient::builder()
        .no_default_network()
        .relays(&[relay.as_str()])?
        .build()?)
}

fn dht_only() -> Result<PkarrClient> {
    Ok(PkarrClient::builder()
        .no_default_network()
        .bootstrap(&["localhost:6881"])
        .dht_report_policy(pkarr::dht::ReportPolicy::testnet())
        .build()?)
}

/// The homeserver's record is on the DHT, without any relay.
async fn record_on_the_dht() -> Result<()> {
    let key = pkarr::PublicKey::try_from(HOMESERVER)?;
    let packet = dht_only()?
        .resolve(&key, ResolvePolicy::NetworkOnly)
        .await?;
    ensure!(packet.all_resource_records().count() >= 2, "few records");
    Ok(())
}

/// What one client publishes on the DHT another resolves.
async fn publish_and_resolve() -> Result<()> {
    let keypair = PkarrKeypair::random();
    for text in ["one", "two"] {
        let packet = SignedPacket::builder()
            .txt("_test".try_into()?, text.try_into()?, 300)
            .sign(&keypair)?;
        dht_only()?.publish(&packet).await?;
        let found = dht_only()?
            .resolve(&keypair.public_key(), ResolvePolicy::NetworkOnly)
            .await?;
        ensure!(found.timestamp() == packet.timestamp(), "an old packet");
    }
    println!("published {}", keypair.public_key().to_z32());
    Ok(())
}

/// What one client publishes at a relay others find there, the newest; nobody leads the relay back.
async fn relay() -> Result<()> {
    const POLICIES: [ResolvePolicy; 3] =
        [ResolvePolicy::CacheOnly, ResolvePolicy::CacheFirst, ResolvePolicy::NetworkOnly];
    let keypair = PkarrKeypair::random();
    let key = keypair.public_key();
    for policy in POLICIES {
        let nothing = relay_only()?.resolve(&key, policy).await;
        ensure!(matches!(nothing, Err(ResolveError::NotFound)), "{policy}: {nothing:?}");
    }
    let signed = |text: &'static str, timestamp: u64| -> Result<SignedPacket> {
        let builder = SignedPacket::builder().txt("_test".try_into()?, text.try_into()?, 300);
        Ok(builder.timestamp(timestamp.into()).sign(&keypair)?)
    };
    for packet in [signed("one", 1000)?, signed("two", 2000)?, signed("two", 2000)?] {
        let nodes = relay_only()?.publish(&packet).await?;
        ensure!(nodes >= 1, "on {nodes} nodes");
        for policy in POLICIES {
            let found = relay_only()?.resolve(&key, policy).await?;
            ensure!(found.is_same_as(&packet), "{policy}: {found:?}");
        }
    }
    for packet in [signed("three", 1999)?, signed("", 2000)?] {
        let refused = relay_only()?.publish(&packet).await;
        ensure!(matches!(refused, Err(PublishError::NotMostRecent)), "{refused:?}");
    }
    println!("published {}", key.to_z32());
    Ok(())
}

async fn run(name: &str, wanted: &[String], scenario: impl Future<Output = Result<()>>) -> i32 {
    if !wanted.is_empty() && !wanted.iter().any(|one| name == one) {
        return 0;
    }
    let began = Instant::now();
    let outcome = tokio::time::timeout(Duration::from_secs(60), scenario).await;
    let seconds = began.elapsed().as_secs_f64();
    match outcome {
        Ok(Ok(())) => println!("ok {name} ({seconds:.1} s)"),
        Ok(Err(ref error)) => println!("FAILED {name}: {error:#}"),
        Err(_) => println!("FAILED {name}: it took more than a minute"),
    }
    i32::from(!matches!(outcome, Ok(Ok(()))))
}

#[tokio::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut failed = 0;
    failed += run("storage", &wanted, storage()).await;
    failed += run("private_storage", &wanted, private_storage()).await;
    failed += run("locks", &wanted, locks()).await;
    failed += run("events", &wanted, events()).await;
    failed += run("private_events", &wanted, private_events_end_with_the_session()).await;
    failed += run("hundred_megabytes", &wanted, hundred_megabytes()).await;
    failed += run("grants", &wanted, grants()).await;
    failed += run("cookies", &wanted, cookies()).await;
    failed += run("keyless", &wanted, keyless()).await;
    failed += run("wrong_key", &wanted, wrong_key()).await;
    failed += run("relay", &wanted, relay()).await;
    failed += run("record_on_the_dht", &wanted, record_on_the_dht()).await;
    failed += run("publish_and_resolve", &wanted, publish_and_resolve()).await;
    std::process::exit(failed);
}

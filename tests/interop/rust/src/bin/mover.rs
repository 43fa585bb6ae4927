//! Somebody with a key and the official client, on a DHT whose node is named; each step is a process of its own.
//!
//!     mover BOOTSTRAP SECRET signup HOMESERVER
//!     mover BOOTSTRAP SECRET put PATH TEXT
//!     mover BOOTSTRAP SECRET read PATH
//!
//! `put` knows nothing but the key: where the user lives says the record. `read` prints what everybody may read.

use anyhow::{bail, Context, Result};
use pubky::{ClientId, Keypair, Pubky, PubkyHttpClient, PublicKey};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, secret, step, rest @ ..] = arguments.as_slice() else {
        bail!("what to do?");
    };
    let mut builder = PubkyHttpClient::builder();
    builder.testnet().pkarr(|network| {
        network
            .no_default_network()
            .bootstrap(&[bootstrap.as_str()])
            .dht_report_policy(pkarr::dht::ReportPolicy::testnet())
    });
    let pubky = Pubky::with_client(builder.build()?);
    let keypair = Keypair::from_secret(&decode(secret)?);
    let signer = pubky.signer(keypair.clone());
    match (step.as_str(), rest) {
        ("signup", [homeserver]) => {
            let key = PublicKey::try_from_z32(homeserver)?;
            signer.signup(&key, None).await.context("sign-up")?;
        }
        ("put", [path, text]) => {
            let session = signer
                .signin_blocking(ClientId::new("mover.example")?)
                .await
                .context("sign-in")?;
            session.storage().put(path.as_str(), text.clone()).await.context("put")?;
        }
        ("read", [path]) => {
            let address = format!("{}{path}", keypair.public_key());
            let answer = pubky.public_storage().get(&address).await.context("read")?;
            println!("{}", answer.text().await?);
        }
        _ => bail!("what is {step}?"),
    }
    Ok(())
}

fn decode(hex: &str) -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2).context("64 digits")?, 16)?;
    }
    Ok(bytes)
}

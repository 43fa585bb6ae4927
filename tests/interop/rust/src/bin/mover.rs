//! Somebody with a key and the official client, on a DHT whose node is named; each step is a process of its own.
//!
//!     mover BOOTSTRAP SECRET signup HOMESERVER
//!     mover BOOTSTRAP SECRET put PATH TEXT
//!     mover BOOTSTRAP PUBLIC-KEY read PATH                 what everybody may read, where the user lives
//!     mover BOOTSTRAP PUBLIC-KEY through HOMESERVER PATH   the same at a homeserver that is named by its key
//!
//! `put` knows nothing but the key: where the user lives says the record. `through` prints the role, then the text; the
//! homeserver proves its key by TLS.

use anyhow::{bail, ensure, Context, Result};
use pubky::{ClientId, Keypair, Method, Pubky, PubkyHttpClient, PublicKey};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, key, step, rest @ ..] = arguments.as_slice() else {
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
    let signer = || anyhow::Ok(pubky.signer(Keypair::from_secret(&decode(key)?)));
    match (step.as_str(), rest) {
        ("signup", [homeserver]) => {
            let homeserver = PublicKey::try_from_z32(homeserver)?;
            signer()?.signup(&homeserver, None).await.context("sign-up")?;
        }
        ("put", [path, text]) => {
            let session = signer()?
                .signin_blocking(ClientId::new("mover.example")?)
                .await
                .context("sign-in")?;
            session.storage().put(path.as_str(), text.clone()).await.context("put")?;
        }
        ("read", [path]) => {
            let address = format!("pubky{key}{path}");
            let answer = pubky.public_storage().get(&address).await.context("read")?;
            println!("{}", answer.text().await?);
        }
        ("through", [homeserver, path]) => {
            let url = format!("https://{homeserver}/storage/{key}{path}");
            let answer = pubky.client().request(Method::GET, &url).send().await.context("through")?;
            ensure!(answer.status() == 200, "{}", answer.status());
            let role = match answer.headers().get("pubky-role") {
                Some(role) => role.to_str()?.to_owned(),
                None => "null".to_owned(),
            };
            println!("{role}\n{}", answer.text().await?);
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

// The test network as an app sees it: one well-known homeserver, a pkarr relay and an http relay, all on localhost.
import assert from "node:assert/strict";
import { Keypair, Pubky, PublicKey } from "@synonymdev/pubky";

/** The homeserver of every test network: the public key of 32 zero bytes. */
export const HOMESERVER = "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo";

/** Where an app and a wallet meet. Client 0.6.0 speaks the link protocol only. */
export const HTTP_RELAY = "http://localhost:15412/link";

/** Its key as the client takes it; some calls use the object up, so each gets its own. */
export const homeserver = () => PublicKey.from(HOMESERVER);

export const pubky = Pubky.testnet();

/** A user who has just signed up: `{keypair, signer, session, storage, z32, at(path), url(path)}`. */
export async function newUser() {
  const keypair = Keypair.random();
  const signer = pubky.signer(keypair);
  const session = await signer.signup(homeserver());
  const z32 = keypair.publicKey.z32();
  return {
    keypair,
    signer,
    session,
    storage: session.storage,
    z32,
    at: (path) => `pubky${z32}${path}`,
    url: (path) => `https://_pubky.${z32}${path}`,
  };
}

/** A signup token from the operator of the test network, whose password everybody knows. */
export async function newInvite() {
  const response = await fetch("http://localhost:6288/generate_signup_token", { headers: { "x-admin-password": "admin" } });
  assert.equal(response.status, 200);
  return response.text();
}

/** For `assert.rejects`: the homeserver's answer had this status, and its text if one is given. */
export function answered(status, text = "") {
  return (error) => {
    assert.equal(error.data?.statusCode, status, `${error.name}: ${error.message}`);
    assert.ok(error.message.includes(text), `${JSON.stringify(text)} is not in: ${error.message}`);
    return true;
  };
}

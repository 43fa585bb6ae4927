// What an app does with the official client, one step at a time.
import { AuthFlowKind, Keypair, Pubky, PublicKey } from "./pubky.js";

const HOMESERVER = "8pinxxgqs41n4aididenw5apqp1urfmzdztr8jt4abrkdn435ewo";
const HTTP_RELAY = "http://localhost:15412/link";
const API = "http://localhost:6286";

const pubky = Pubky.testnet();
let session;
let flow;
let events;

const signer = (secret) => pubky.signer(Keypair.fromSecret(Uint8Array.from(secret)));
const whose = () => ({
  z32: session.info.publicKey.z32(),
  capabilities: session.info.capabilities,
  exported: session.export(),
});

export async function signUp() {
  const keypair = Keypair.random();
  session = await pubky.signer(keypair).signup(PublicKey.from(HOMESERVER));
  return { ...whose(), secret: [...keypair.secret()] };
}

export async function signIn(secret) {
  session = await signer(secret).signinBlocking();
  return whose();
}

export async function restore(exported) {
  session = await pubky.restoreSession(exported);
  return whose();
}

export const signOut = async () => session.signout();

export const put = async (path, text) => session.storage.putText(path, text);
export const get = async (path) => session.storage.getText(path);
export const list = async (path) => session.storage.list(path);
export const stats = async (path) => session.storage.stats(path);
export const remove = async (path) => session.storage.delete(path);

/** Put so many bytes, get them back: whether they are the same. */
export async function roundTrip(path, length) {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i += 65536) crypto.getRandomValues(bytes.subarray(i, i + 65536));
  await session.storage.putBytes(path, bytes);
  const back = await session.storage.getBytes(path);
  return back.length === length && back.every((byte, i) => byte === bytes[i]);
}

export const read = async (address) => pubky.publicStorage.getText(address);
export const listPublic = async (address) => pubky.publicStorage.list(address);

/** The link that an app shows to a wallet. */
export async function ask(capabilities) {
  flow = pubky.startAuthFlow(capabilities, AuthFlowKind.signin(), HTTP_RELAY);
  return flow.authorizationUrl;
}

export const approve = async (secret, link) => signer(secret).approveAuthRequest(link);

export async function approved() {
  session = await flow.awaitApproval();
  return whose();
}

/** Follow a user's folder with the browser's own `EventSource`. Ready when the stream is open. */
export function follow(user, folder) {
  const query = new URLSearchParams({ user, path: folder, live: "true" });
  const source = new EventSource(`${API}/events-stream?${query}`, { withCredentials: true });
  events = new ReadableStream({
    start(controller) {
      for (const type of ["PUT", "DEL"]) source.addEventListener(type, (event) => controller.enqueue(event));
    },
    cancel: () => source.close(),
  }).getReader();
  return new Promise((resolve, reject) => {
    source.onopen = () => resolve();
    source.onerror = () => reject(new Error("the stream did not open"));
  });
}

/** The next so many events, as their type and first line. */
export async function followed(count) {
  const seen = [];
  while (seen.length < count) {
    const { value } = await events.read();
    seen.push(`${value.type} ${value.data.split("\n")[0]}`);
  }
  return seen;
}

export const unfollow = async () => events.cancel();

/** The text feed from a cursor on. */
export const feed = async (cursor) => (await fetch(`${API}/events/?cursor=${cursor}`)).text();

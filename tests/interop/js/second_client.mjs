// A client of its own: in Node the official client keeps its cookies per process, so a second one needs a thread.
import { once } from "node:events";
import { Worker, isMainThread, parentPort } from "node:worker_threads";

/** Runs the steps below in another thread, which has its own cookies, its own cache and its own sessions. */
export class SecondClient {
  #worker = new Worker(new URL(import.meta.url));

  /** The result of a step, or its error with `name`, `message` and `data` as the client raised them. */
  async do(step, ...args) {
    this.#worker.postMessage([step, args]);
    const [{ result, error }] = await once(this.#worker, "message");
    if (error) throw Object.assign(new Error(error.message), error);
    return result;
  }

  close() {
    return this.#worker.terminate();
  }
}

async function serve() {
  const { Keypair, PublicKey } = await import("@synonymdev/pubky");
  const { homeserver, pubky } = await import("./network.mjs");
  const signer = (secret) => pubky.signer(Keypair.fromSecret(secret));
  let session;

  const steps = {
    async signUp(secret) {
      session = await signer(secret).signup(homeserver());
    },
    async signIn(secret) {
      session = await signer(secret).signinBlocking();
      return { user: session.info.publicKey.z32(), capabilities: session.info.capabilities };
    },
    signOut: () => session.signout(),
    home: async (user) => (await pubky.getHomeserverOf(PublicKey.from(user))).z32(),
    approve: (secret, link) => signer(secret).approveAuthRequest(link),
    put: (path, text) => session.storage.putText(path, text),
    get: (path) => session.storage.getText(path),
    read: (address) => pubky.publicStorage.getText(address),
    list: (address) => pubky.publicStorage.list(address),
    stats: (address) => pubky.publicStorage.stats(address),
    async restore(exported) {
      session = await pubky.restoreSession(exported);
    },
    async status(url, init) {
      return (await pubky.client.fetch(url, init)).status;
    },
  };

  parentPort.on("message", async ([step, args]) => {
    try {
      parentPort.postMessage({ result: await steps[step](...args) });
    } catch ({ name, message, data }) {
      parentPort.postMessage({ error: { name, message, data } });
    }
  });
}

if (!isMainThread) await serve();

// Somebody with the official client and a pkarr relay; each step is a process of its own, without any memory.
//
//     node mover.mjs RELAY SECRET signup HOMESERVER
//     node mover.mjs RELAY SECRET put PATH TEXT
//     node mover.mjs RELAY PUBLIC-KEY read PATH             what everybody may read, where the user lives
//     node mover.mjs RELAY PUBLIC-KEY list PATH
//     node mover.mjs RELAY PUBLIC-KEY through HOMESERVER PATH   the same at a homeserver that is named by its key
//
// `put` knows nothing but the key: where the user lives says the record. `through` prints the role, then the text.
import { Client, Keypair, Pubky, PublicKey } from "@synonymdev/pubky";

const [relay, key, step, ...rest] = process.argv.slice(2);
const pubky = Pubky.withClient(new Client({ pkarr: { relays: [relay], requestTimeout: 8000 } }));
const signer = () => pubky.signer(Keypair.fromSecret(new Uint8Array(Buffer.from(key, "hex"))));

const steps = {
  async signup(homeserver) {
    await signer().signup(PublicKey.from(homeserver));
  },
  async put(path, text) {
    const session = await signer().signinBlocking();
    await session.storage.putText(path, text);
  },
  read: (path) => pubky.publicStorage.getText(`pubky${key}${path}`),
  list: async (path) => (await pubky.publicStorage.list(`pubky${key}${path}`)).join("\n"),
  async through(homeserver, path) {
    const answer = await pubky.client.fetch(`https://${homeserver}/storage/${key}${path}`);
    if (answer.status !== 200) throw new Error(`${answer.status} ${await answer.text()}`);
    return `${answer.headers.get("pubky-role")}\n${await answer.text()}`;
  },
};

process.stdout.write((await steps[step](...rest)) ?? "");

// Nodes of npm's bittorrent-dht. Reads commands from stdin, one JSON value a line, and answers each with a line.
import { createHash, createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { createInterface } from "node:readline";
import DHT from "bittorrent-dht";

const HOST = "127.0.0.1";
const PRIVATE = Buffer.from("302e020100300506032b657004220420", "hex"); // what stands before a seed (RFC 8410)
const PUBLIC = Buffer.from("302a300506032b6570032100", "hex");

const bytes = (text) => Buffer.from(text, "hex");
const isSigned = (signature, message, key) =>
  verify(null, message, createPublicKey({ key: Buffer.concat([PUBLIC, key]), format: "der", type: "spki" }), signature);

const nodes = [];

async function start({ count, bootstrap }) {
  for (let number = 0; number < count; number++) {
    const known = bootstrap ?? nodes[0]?.address().port;
    const node = new DHT({ bootstrap: known ? [`${HOST}:${known}`] : false, verify: isSigned });
    await new Promise((resolve) => node.listen(0, HOST, resolve));
    if (!node.ready) await new Promise((resolve) => node.once("ready", resolve));
    nodes.push(node);
  }
  for (const node of nodes)
    for (const other of nodes) if (node !== other) node.addNode({ host: HOST, port: other.address().port });
  return nodes[0].address().port;
}

function put({ seed, k, v, seq, salt }) {
  const key = createPrivateKey({ key: Buffer.concat([PRIVATE, bytes(seed)]), format: "der", type: "pkcs8" });
  const item = { k: bytes(k), v: bytes(v), seq, sign: (message) => sign(null, message, key) };
  if (salt) item.salt = bytes(salt);
  return new Promise((resolve, reject) =>
    nodes.at(-1).put(item, (error, _target, count) => (error ? reject(error) : resolve(count))),
  );
}

function get({ k, salt }) {
  const target = createHash("sha1").update(bytes(k + salt)).digest();
  const options = { cache: false, ...(salt && { salt: bytes(salt) }) };
  return new Promise((resolve, reject) =>
    nodes.at(-1).get(target, options, (error, item) =>
      error ? reject(error) : resolve(item && { seq: item.seq, v: Buffer.from(item.v).toString("hex") }),
    ),
  );
}

const commands = { start, put, get };
for await (const line of createInterface({ input: process.stdin })) {
  const [name, options] = JSON.parse(line);
  let answer;
  try {
    answer = [true, await commands[name](options)];
  } catch (error) {
    answer = [false, String(error)];
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);

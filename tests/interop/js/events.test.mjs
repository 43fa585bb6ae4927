// Following users: the stream of one or more users, live, and the text feed of all. Client 0.6.0 has no calls for them,
// so they are asked for with its `fetch`, which finds the homeserver by its key.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Keypair } from "@synonymdev/pubky";
import { HOMESERVER, newUser, pubky } from "./network.mjs";
import { SecondClient } from "./second_client.mjs";

const ROOT = `https://${HOMESERVER}`;

/** An open event stream: `next(n)` waits for n events, `rest()` reads to its end, `close()` hangs up, as the test's end does. */
class Stream {
  #chunks;
  #buffer = "";

  static async open(t, parameters, init) {
    const stream = new Stream();
    const response = await pubky.client.fetch(`${ROOT}/events-stream?${new URLSearchParams(parameters)}`, init);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("content-type"), "text/event-stream");
    stream.#chunks = response.body.pipeThrough(new TextDecoderStream()).getReader();
    t.after(() => stream.close());
    return stream;
  }

  /** The next event, `{type, uri, cursor, hash}`, or undefined at the end. */
  async #event() {
    for (;;) {
      const end = this.#buffer.indexOf("\n\n");
      if (end >= 0) {
        const frame = this.#buffer.slice(0, end);
        this.#buffer = this.#buffer.slice(end + 2);
        if (!frame.startsWith(":")) return parse(frame);
        continue;
      }
      const { value, done } = await this.#chunks.read();
      if (done) {
        assert.equal(this.#buffer, "", "the stream ends after a whole frame");
        return undefined;
      }
      this.#buffer += value;
    }
  }

  async next(count = 1) {
    const events = [];
    while (events.length < count) {
      const event = await this.#event();
      assert.ok(event, `the stream ended after ${events.length} of ${count} events`);
      events.push(event);
    }
    return events;
  }

  async rest() {
    const events = [];
    for (let event; (event = await this.#event()); ) events.push(event);
    return events;
  }

  close() {
    return this.#chunks.cancel();
  }
}

function parse(frame) {
  const [event, uri, cursor, hash, ...more] = frame.split("\n");
  assert.deepEqual(more, []);
  return {
    type: event.match(/^event: (PUT|DEL)$/)[1],
    uri: uri.match(/^data: (pubky:\/\/.*)$/)[1],
    cursor: BigInt(cursor.match(/^data: cursor: (\d+)$/)[1]),
    hash: hash?.match(/^data: content_hash: (\S{44})$/)[1],
  };
}

const seen = (events) => events.map(({ type, uri }) => `${type} ${uri.slice("pubky://".length + 52)}`);

test("who follows a user gets the past and then what happens, in order and once", async (t) => {
  const user = await newUser();
  await user.storage.putText("/pub/a.txt", "one");
  await user.storage.putText("/pub/b.txt", "two");
  await user.storage.delete("/pub/a.txt");
  const stream = await Stream.open(t, [["user", user.z32], ["live", "true"]]);
  const past = await stream.next(3);
  assert.deepEqual(seen(past), ["PUT /pub/a.txt", "PUT /pub/b.txt", "DEL /pub/a.txt"]);

  await user.storage.putText("/pub/c.txt", "three");
  await user.storage.putText("/pub/c.txt", "four");
  await user.storage.delete("/pub/c.txt");
  const present = await stream.next(3);
  assert.deepEqual(seen(present), ["PUT /pub/c.txt", "PUT /pub/c.txt", "DEL /pub/c.txt"]);

  const cursors = [...past, ...present].map(({ cursor }) => cursor);
  assert.ok(cursors.every((cursor, i) => i === 0 || cursor > cursors[i - 1]), cursors.join(" "));
  assert.ok(past.every(({ uri }) => uri.startsWith(`pubky://${user.z32}/`)));
});

test("an event names the content: its hash is the file's tag, and a deletion has none", async (t) => {
  const user = await newUser();
  await user.storage.putText("/pub/a.txt", "content");
  const { etag } = await user.storage.stats("/pub/a.txt");
  await user.storage.delete("/pub/a.txt");
  const [put, gone] = await (await Stream.open(t, [["user", user.z32]])).rest();
  assert.equal(put.hash, etag);
  assert.equal(gone.hash, undefined);
});

test("who comes back with the last cursor misses nothing and sees nothing twice", async (t) => {
  const user = await newUser();
  await user.storage.putText("/pub/1", "");
  const first = await Stream.open(t, [["user", user.z32], ["live", "true"]]);
  const [{ cursor }] = await first.next();
  await first.close();
  for (const name of ["2", "3"]) await user.storage.putText(`/pub/${name}`, "");
  const again = await Stream.open(t, [["user", `${user.z32}:${cursor}`], ["live", "true"]]);
  await user.storage.putText("/pub/4", "");
  assert.deepEqual(seen(await again.next(3)), ["PUT /pub/2", "PUT /pub/3", "PUT /pub/4"]);
});

test("one stream follows several users, each from its own cursor", async (t) => {
  const [one, two] = [await newUser(), await newUser()];
  await one.storage.putText("/pub/one/old", "");
  await two.storage.putText("/pub/two/old", "");
  const [{ cursor }] = await (await Stream.open(t, [["user", two.z32]])).rest();
  const stream = await Stream.open(t, [["user", one.z32], ["user", `${two.z32}:${cursor}`], ["live", "1"]]);
  await two.storage.putText("/pub/two/new", "");
  await one.storage.putText("/pub/one/new", "");
  assert.deepEqual(seen(await stream.next(3)), ["PUT /pub/one/old", "PUT /pub/two/new", "PUT /pub/one/new"]);
});

test("a stream can be narrowed to folders and files", async (t) => {
  const user = await newUser();
  const stream = await Stream.open(t, [
    ["user", user.z32], ["path", "/pub/app.example/"], ["path", "/pub/one.txt"], ["live", "true"],
  ]);
  for (const path of ["/pub/app.example", "/pub/other/a", "/pub/one.txt.bak", "/pub/one.txt"]) {
    await user.storage.putText(path, "");
  }
  await user.storage.delete("/pub/app.example");
  await user.storage.putText("/pub/app.example/a b", "");
  assert.deepEqual(seen(await stream.next(2)), ["PUT /pub/one.txt", "PUT /pub/app.example/a%20b"]);
});

test("a stream without live ends with the past, newest first if asked, after as many events as wanted", async (t) => {
  const user = await newUser();
  for (const name of ["1", "2", "3"]) await user.storage.putText(`/pub/${name}`, "");
  const read = async (...more) => seen(await (await Stream.open(t, [["user", user.z32], ...more])).rest());
  assert.deepEqual(await read(), ["PUT /pub/1", "PUT /pub/2", "PUT /pub/3"]);
  assert.deepEqual(await read(["reverse", "true"]), ["PUT /pub/3", "PUT /pub/2", "PUT /pub/1"]);
  assert.deepEqual(await read(["limit", "2"]), ["PUT /pub/1", "PUT /pub/2"]);
  assert.deepEqual(await read(["limit", "1"], ["reverse", "true"]), ["PUT /pub/3"]);
});

test("private events reach their owner's session and nobody else", async (t) => {
  const user = await newUser();
  const stranger = new SecondClient();
  t.after(() => stranger.close());
  await stranger.do("signUp", Keypair.random().secret());
  const priv = [["user", user.z32], ["path", "/priv/"], ["live", "true"]];
  const open = await Stream.open(t, [["user", user.z32], ["live", "true"]]);
  const stream = await Stream.open(t, priv, { credentials: "include" });
  await user.storage.putText("/priv/diary.txt", "mine");
  await user.storage.putText("/pub/note.txt", "for all");
  assert.deepEqual(seen(await stream.next()), ["PUT /priv/diary.txt"]);
  assert.deepEqual(seen(await open.next()), ["PUT /pub/note.txt"]);
  const url = `${ROOT}/events-stream?${new URLSearchParams(priv)}`;
  assert.equal(await stranger.do("status", url, { credentials: "include" }), 401);
});

test("the text feed tells the public events of all users in pages with a cursor", async (t) => {
  const [one, two] = [await newUser(), await newUser()];
  await one.storage.putText("/pub/before", "");
  let [{ cursor }] = await (await Stream.open(t, [["user", one.z32]])).rest();
  await one.storage.putText("/priv/hidden", "");
  await two.storage.putText("/pub/1", "");
  await one.storage.putText("/pub/2", "");
  await two.storage.delete("/pub/1");

  const mine = [];
  while (mine.length < 3) {
    const response = await pubky.client.fetch(`${ROOT}/events/?limit=2&cursor=${cursor}`);
    assert.equal(response.status, 200);
    const lines = (await response.text()).split("\n");
    const last = lines.pop();
    assert.match(last, /^cursor: \d+$/);
    assert.ok(lines.length >= 1 && lines.length <= 2, lines.join("\n"));
    cursor = BigInt(last.slice("cursor: ".length));
    mine.push(...lines.filter((line) => line.includes(one.z32) || line.includes(two.z32)));
  }
  assert.deepEqual(mine, [
    `PUT pubky://${two.z32}/pub/1`,
    `PUT pubky://${one.z32}/pub/2`,
    `DEL pubky://${two.z32}/pub/1`,
  ]);
  const end = await (await pubky.client.fetch(`${ROOT}/events/?cursor=9007199254740991`)).text();
  assert.equal(end, "");
});

// A user's files: put, get, list and delete by their owner, and the same files as everybody else sees them.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { after, test } from "node:test";
import { Keypair } from "@synonymdev/pubky";
import { HOMESERVER, answered, newUser, pubky } from "./network.mjs";
import { SecondClient } from "./second_client.mjs";

const MEGABYTE = 1024 * 1024;
const stranger = new SecondClient();
after(() => stranger.close());

const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");

test("text, JSON and bytes come back as they were put", async () => {
  const { storage } = await newUser();
  const value = { hello: "wörld", list: [1, 2.5, "3", true], nested: { "🌍": "" } };
  const bytes = new Uint8Array(randomBytes(70_000));
  await storage.putText("/pub/app.example/a.txt", "Grüße 🌍\n");
  await storage.putJson("/pub/app.example/a.json", value);
  await storage.putBytes("/pub/app.example/a.bin", bytes);
  assert.equal(await storage.getText("/pub/app.example/a.txt"), "Grüße 🌍\n");
  assert.deepEqual(await storage.getJson("/pub/app.example/a.json"), value);
  assert.deepEqual(await storage.getBytes("/pub/app.example/a.bin"), bytes);
});

test("a file of no bytes is a file", async () => {
  const { storage } = await newUser();
  await storage.putBytes("/pub/empty", new Uint8Array());
  assert.equal((await storage.getBytes("/pub/empty")).length, 0);
  assert.equal(await storage.exists("/pub/empty"), true);
  assert.equal((await storage.stats("/pub/empty")).contentLength, 0);
});

test("50 MB go up and come down whole, for the owner and for a stranger", async () => {
  const user = await newUser();
  const bytes = randomBytes(50 * MEGABYTE);
  await user.storage.putBytes("/pub/film.bin", bytes);
  const { contentLength } = await user.storage.stats("/pub/film.bin");
  assert.equal(contentLength, bytes.length);
  assert.equal(digest(await user.storage.getBytes("/pub/film.bin")), digest(bytes));

  const response = await pubky.publicStorage.get(user.at("/pub/film.bin"));
  const hash = createHash("sha256");
  for await (const chunk of response.body) hash.update(chunk);
  assert.equal(hash.digest("hex"), digest(bytes));
});

test("statistics tell length, type, time and a tag that changes with the content", async () => {
  const { storage } = await newUser();
  const before = Math.floor(Date.now() / 1000) * 1000;
  await storage.putText("/pub/a.json", "[]");
  const first = await storage.stats("/pub/a.json");
  assert.equal(first.contentLength, 2);
  assert.equal(first.contentType, "application/json");
  assert.ok(first.lastModifiedMs >= before && first.lastModifiedMs <= Date.now(), `${first.lastModifiedMs}`);
  await storage.putText("/pub/a.json", "{}");
  const second = await storage.stats("/pub/a.json");
  assert.notEqual(second.etag, first.etag);
  await storage.putText("/pub/a.json", "[]");
  assert.equal((await storage.stats("/pub/a.json")).etag, first.etag);
  assert.equal(await storage.stats("/pub/b.json"), undefined);
});

test("the type comes from the content, then from the name", async () => {
  const { storage } = await newUser();
  const png = Uint8Array.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13]);
  const types = {
    "/pub/picture.txt": [png, "image/png"],
    "/pub/page": [new TextEncoder().encode("<!DOCTYPE html><p>hi"), "text/html"],
    "/pub/script.js": [new TextEncoder().encode("let a;"), "text/javascript"],
    "/pub/thing": [new TextEncoder().encode("just words"), "application/octet-stream"],
  };
  for (const [path, [bytes, type]] of Object.entries(types)) {
    await storage.putBytes(path, bytes);
    assert.equal((await storage.stats(path)).contentType, type, path);
  }
});

test("a deleted file is gone for everybody, and cannot be deleted again", async () => {
  const user = await newUser();
  await user.storage.putText("/pub/a.txt", "a");
  assert.equal(await stranger.do("read", user.at("/pub/a.txt")), "a");
  await user.storage.delete("/pub/a.txt");
  assert.equal(await user.storage.exists("/pub/a.txt"), false);
  await assert.rejects(user.storage.getText("/pub/a.txt"), answered(404));
  await assert.rejects(stranger.do("read", user.at("/pub/a.txt")), answered(404));
  await assert.rejects(user.storage.delete("/pub/a.txt"), answered(404));
});

test("the session's storage takes any name the client takes", async (t) => {
  const user = await newUser();
  // Client 0.6.0 percent-encodes such a name twice here and once in public addresses: the stored name is `encoded`.
  for (const name of ODD_NAMES) {
    await t.test(JSON.stringify(name), async () => {
      const path = `/pub/odd names/${name}`;
      await user.storage.putText(path, name);
      assert.equal(await user.storage.getText(path), name);
      assert.equal(await user.storage.exists(path), true);
      const listed = await user.storage.list("/pub/odd names/");
      assert.equal(listed.length, 1);
      assert.equal(await pubky.publicStorage.getText(decodeURIComponent(listed[0])), name);
      await user.storage.delete(path);
      assert.equal(await user.storage.exists(path), false);
    });
  }
});

test("every allowed character of a path is kept as it is", async (t) => {
  const user = await newUser();
  for (const name of ODD_NAMES) {
    await t.test(JSON.stringify(name), async () => {
      const path = `/pub/odd names/${name}`;
      const url = user.url(path.split("/").map(encodeURIComponent).join("/"));
      const put = await pubky.client.fetch(url, { method: "PUT", body: name, credentials: "include" });
      assert.equal(put.status, 201);
      assert.equal(await stranger.do("read", user.at(path)), name);
      const lines = await (await pubky.client.fetch(user.url("/pub/odd%20names/"))).text();
      assert.equal(lines, `pubky://${user.z32}${path}`);
      const gone = await pubky.client.fetch(url, { method: "DELETE", credentials: "include" });
      assert.equal(gone.status, 204);
    });
  }
});

const ODD_NAMES = [
  "with space",
  " leading space",
  "plus+and&equals=1",
  "percent%",
  "percent%20twenty",
  "percent%2Fslash",
  "hash#mark",
  "question?mark",
  "colon:at@dollar$semicolon;comma,",
  "quote'double\"back`",
  "(brackets)[square]{curly}<angle>",
  "star*bang!tilde~caret^pipe|",
  "_underscore_%percent",
  "...",
  ".hidden",
  "ends.",
  "Grüße",
  "e\u0301 is not \u00e9",
  "日本語",
  "שלום",
  "👩‍👩‍👧‍👦.txt",
  "n".repeat(255),
];

test("names that differ by case or by normal form are different files", async () => {
  const { storage } = await newUser();
  const names = ["/pub/README", "/pub/readme", "/pub/\u00e9", "/pub/e\u0301"];
  for (const name of names) await storage.putText(name, name);
  for (const name of names) assert.equal(await storage.getText(name), name);
});

test("a listing has every file below a folder in the order of bytes, in pages, backwards, or one level only", async () => {
  const user = await newUser();
  const names = ["Z", "a", "b/1", "b/2", "b/c/3", "b.txt", "d", "é"].map((name) => `/pub/app.example/${name}`);
  for (const name of names) {
    await pubky.client.fetch(user.url(encodeURI(name)), { method: "PUT", body: "x", credentials: "include" });
  }
  await user.storage.putText("/pub/app.example.other", "not in the folder");
  const shown = (paths) => paths.map((path) => `pubky://${user.z32}/pub/app.example/${path}`);
  const list = async (...args) => (await user.storage.list("/pub/app.example/", ...args)).map(decodeURI);

  const all = shown(["Z", "a", "b.txt", "b/1", "b/2", "b/c/3", "d", "é"]);
  assert.deepEqual(await list(), all);
  assert.deepEqual(await list(null, true), all.toReversed());
  assert.deepEqual(await list(null, false, 3), all.slice(0, 3));
  assert.deepEqual(await list(all[2], false, 3), all.slice(3, 6));
  assert.deepEqual(await list(all[5], true, 2), [all[4], all[3]]);
  assert.deepEqual(await list(all.at(-2), false, 3), all.slice(-1));
  assert.deepEqual(await list(null, false, null, true), shown(["Z", "a", "b.txt", "b/", "d", "é"]));
  assert.deepEqual(await list(null, true, 2, true), shown(["é", "d"]));
  assert.deepEqual(await list(all[2], false, 2, true), shown(["b/", "d"]));
  assert.deepEqual((await stranger.do("list", user.at("/pub/app.example/"))).map(decodeURI), all);
});

test("a cursor is a whole address: the official homeserver refuses the last part of one as well", async () => {
  const { storage } = await newUser();
  await storage.putText("/pub/app.example/a.txt", "a");
  await assert.rejects(storage.list("/pub/app.example/", "a.txt"), answered(400, "Invalid cursor"));
});

test("a folder exists as long as something is in it", async () => {
  const user = await newUser();
  await assert.rejects(user.storage.list("/pub/app.example/"), answered(404, "Directory Not Found"));
  await user.storage.putText("/pub/app.example/deep/down/a.txt", "a");
  assert.equal((await user.storage.list("/pub/app.example/")).length, 1);
  await user.storage.delete("/pub/app.example/deep/down/a.txt");
  await assert.rejects(user.storage.list("/pub/app.example/"), answered(404, "Directory Not Found"));
});

test("a path is a file or a folder, not both", async () => {
  const { storage } = await newUser();
  await storage.putText("/pub/a", "file");
  await assert.rejects(storage.putText("/pub/a/b", "below a file"), answered(409, "File/folder path collision"));
  await storage.delete("/pub/a");
  await storage.putText("/pub/a/b", "now a folder");
  await assert.rejects(storage.putText("/pub/a", "over a folder"), answered(409, "File/folder path collision"));
});

test("the owner writes below /pub/ and /priv/ and nowhere else", async () => {
  const { storage } = await newUser();
  await storage.putText("/priv/diary.txt", "mine");
  assert.equal(await storage.getText("/priv/diary.txt"), "mine");
  for (const path of ["/pub", "/public/a.txt", "/a.txt"]) {
    await assert.rejects(storage.putText(path, "x"), answered(403, "Writing to directories other than"), path);
  }
});

test("a stranger reads what is public, without a session, and nothing private", async () => {
  const user = await newUser();
  await user.storage.putText("/pub/note.txt", "for everybody");
  await user.storage.putText("/priv/note.txt", "for me");
  assert.equal(await stranger.do("read", user.at("/pub/note.txt")), "for everybody");
  assert.equal(await stranger.do("read", `pubky://${user.z32}/pub/note.txt`), "for everybody");
  assert.deepEqual(await stranger.do("list", user.at("/pub/")), [`pubky://${user.z32}/pub/note.txt`]);
  assert.equal((await stranger.do("stats", user.at("/pub/note.txt"))).contentLength, 13);
  assert.equal(await stranger.do("status", user.url("/priv/note.txt")), 401);
  assert.equal(await stranger.do("status", user.url("/priv/absent.txt")), 401);
});

test("a session writes into its own user's storage only", async () => {
  const user = await newUser();
  await user.storage.putText("/pub/note.txt", "mine");
  await stranger.do("signUp", Keypair.random().secret());
  await stranger.do("put", "/pub/note.txt", "the stranger's own");
  for (const method of ["PUT", "DELETE"]) {
    const status = await stranger.do("status", user.url("/pub/note.txt"), { method, credentials: "include" });
    assert.equal(status, 401, method);
  }
  assert.equal(await user.storage.getText("/pub/note.txt"), "mine");
});

test("a reader that has the newest copy is told so without the bytes", async () => {
  const user = await newUser();
  await user.storage.putText("/pub/a.txt", "one");
  const url = user.url("/pub/a.txt");
  const etag = (await pubky.client.fetch(url)).headers.get("etag");
  const ask = () => pubky.client.fetch(url, { headers: { "if-none-match": etag } });
  assert.equal((await ask()).status, 304);
  await user.storage.putText("/pub/a.txt", "two");
  const changed = await ask();
  assert.equal(changed.status, 200);
  assert.equal(await changed.text(), "two");
});

test("the homeserver answers under its own key", async () => {
  const response = await pubky.client.fetch(`https://${HOMESERVER}/`);
  assert.equal(response.status, 200);
  assert.equal(await response.text(), "Pubky Homeserver");
});

test("part of a file can be asked for", async () => {
  const user = await newUser();
  await user.storage.putText("/pub/a.txt", "0123456789");
  const response = await pubky.client.fetch(user.url("/pub/a.txt"), { headers: { range: "bytes=2-4" } });
  assert.equal(response.status, 206);
  assert.equal(response.headers.get("content-range"), "bytes 2-4/10");
  assert.equal(await response.text(), "234");
});

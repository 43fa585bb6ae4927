// Who somebody is: sign-up, sign-in, sessions, the approval of an app by a wallet, sign-out.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { AuthFlowKind, Keypair } from "@synonymdev/pubky";
import { HOMESERVER, HTTP_RELAY, answered, homeserver, newInvite, newUser, pubky } from "./network.mjs";
import { SecondClient } from "./second_client.mjs";

const wallet = new SecondClient();
after(() => wallet.close());

test("sign-up gives a session with all rights, and the client publishes where the user lives", async () => {
  const user = await newUser();
  assert.equal(user.session.info.publicKey.z32(), user.z32);
  assert.deepEqual(user.session.info.capabilities, ["/:rw"]);
  const home = await pubky.getHomeserverOf(user.keypair.publicKey);
  assert.equal(home.z32(), HOMESERVER);
});

test("a key that never signed up has no homeserver", async () => {
  assert.equal(await pubky.getHomeserverOf(Keypair.random().publicKey), undefined);
});

test("a fresh record stays until its owner forces another", async () => {
  const user = await newUser();
  const elsewhere = () => Keypair.fromSecret(new Uint8Array(32).fill(7)).publicKey;
  const home = async () => (await pubky.getHomeserverOf(user.keypair.publicKey)).z32();
  await user.signer.pkdns.publishHomeserverIfStale(elsewhere());
  assert.equal(await home(), HOMESERVER);
  await user.signer.pkdns.publishHomeserverForce(elsewhere());
  assert.equal(await home(), elsewhere().z32());
  await user.signer.pkdns.publishHomeserverForce(homeserver());
  assert.equal(await wallet.do("home", user.z32), HOMESERVER);
});

test("a key signs up once", async () => {
  const user = await newUser();
  await assert.rejects(user.signer.signup(homeserver()), answered(409, "User already exists"));
});

test("an open homeserver ignores a well-formed invite and refuses a malformed one", async () => {
  await assert.rejects(
    pubky.signer(Keypair.random()).signup(homeserver(), "not-an-invite"),
    answered(400, "Invalid signup token format"),
  );
  const session = await pubky.signer(Keypair.random()).signup(homeserver(), await newInvite());
  assert.deepEqual(session.info.capabilities, ["/:rw"]);
});

test("a user signs in from a second client by the key alone, and both sessions live", async () => {
  const user = await newUser();
  const session = await wallet.do("signIn", user.keypair.secret());
  assert.deepEqual(session, { user: user.z32, capabilities: ["/:rw"] });
  await wallet.do("put", "/pub/app.example/second.txt", "from the second client");
  await user.storage.putText("/pub/app.example/first.txt", "from the first client");
  assert.equal(await user.storage.getText("/pub/app.example/second.txt"), "from the second client");
  assert.equal(await wallet.do("get", "/pub/app.example/first.txt"), "from the first client");
});

test("the quick sign-in gives a session that works", async () => {
  const user = await newUser();
  const session = await user.signer.signin();
  await session.storage.putText("/pub/app.example/note.txt", "quick");
  assert.equal(await session.storage.getText("/pub/app.example/note.txt"), "quick");
});

test("nobody signs in who did not sign up", async () => {
  const signer = pubky.signer(Keypair.random());
  await signer.pkdns.publishHomeserverForce(homeserver());
  await assert.rejects(signer.signin(), answered(404));
});

test("a session that was exported is restored as long as its cookie lives, and not without the cookie", async () => {
  const user = await newUser();
  const exported = user.session.export();
  const restored = await pubky.restoreSession(exported);
  assert.equal(restored.info.publicKey.z32(), user.z32);
  await restored.storage.putText("/pub/app.example/note.txt", "restored");
  assert.equal(await restored.storage.getText("/pub/app.example/note.txt"), "restored");
  await assert.rejects(wallet.do("restore", exported), answered(401, "No authenticated session found"));
});

test("sign-out ends this session and no other", async () => {
  const user = await newUser();
  await wallet.do("signIn", user.keypair.secret());
  const exported = user.session.export();
  await user.session.signout();
  await assert.rejects(user.storage.putText("/pub/a.txt", "late"), answered(401, "No authenticated session found"));
  await assert.rejects(pubky.restoreSession(exported), answered(401, "No authenticated session found"));
  await wallet.do("put", "/pub/a.txt", "still signed in");
  assert.equal(await pubky.publicStorage.getText(user.at("/pub/a.txt")), "still signed in");
});

test("sign-out takes the cookie back, and may be repeated", async () => {
  const user = await newUser();
  const cookies = async () => (await fetch.cookieJar.getCookies("http://localhost:6286/")).map(({ key }) => key);
  assert.ok((await cookies()).includes(user.z32));
  await user.session.signout();
  assert.ok(!(await cookies()).includes(user.z32));
  await user.session.signout();
  assert.equal(user.session.info.publicKey.z32(), user.z32);
});

test("several users share a client, each with a session of their own", async () => {
  const [one, two] = [await newUser(), await newUser()];
  const path = "/pub/app.example/owner.txt";
  await one.storage.putText(path, "one");
  await two.storage.putText(path, "two");
  assert.equal(await pubky.publicStorage.getText(one.at(path)), "one");
  assert.equal(await pubky.publicStorage.getText(two.at(path)), "two");
  await two.session.signout();
  await assert.rejects(two.storage.putText(path, "late"), answered(401));
  await one.storage.putText(path, "one again");
  assert.equal(await pubky.publicStorage.getText(one.at(path)), "one again");
  assert.equal(await pubky.publicStorage.getText(two.at(path)), "two");
});

test("a wallet lets an app in through the relay, with the rights that the app asked for and no more", async () => {
  const secret = Keypair.random().secret();
  await wallet.do("signUp", secret);
  const flow = pubky.startAuthFlow("/pub/app.example/:rw,/pub/shared/:r", AuthFlowKind.signin(), HTTP_RELAY);
  const [session] = await Promise.all([flow.awaitApproval(), wallet.do("approve", secret, flow.authorizationUrl)]);

  assert.equal(session.info.publicKey.z32(), Keypair.fromSecret(secret).publicKey.z32());
  assert.deepEqual(session.info.capabilities, ["/pub/app.example/:rw", "/pub/shared/:r"]);
  await session.storage.putText("/pub/app.example/note.txt", "by the app");
  assert.equal(await wallet.do("get", "/pub/app.example/note.txt"), "by the app");
  for (const path of ["/pub/shared/note.txt", "/pub/app.example.evil/note.txt", "/pub/app.example"]) {
    await assert.rejects(
      session.storage.putText(path, "not allowed"),
      answered(403, "Session does not have write access to path"),
      path,
    );
  }
  await session.signout();
  await assert.rejects(session.storage.putText("/pub/app.example/note.txt", "late"), answered(401));
});

test("an app may look from time to time whether the approval is there", async () => {
  const secret = Keypair.random().secret();
  await wallet.do("signUp", secret);
  const flow = pubky.startAuthFlow("/pub/app.example/:rw", AuthFlowKind.signin(), HTTP_RELAY);
  assert.equal(await flow.tryPollOnce(), undefined);
  await wallet.do("approve", secret, flow.authorizationUrl);
  let session;
  while (!(session = await flow.tryPollOnce())) await nextTurn();
  assert.deepEqual(session.info.capabilities, ["/pub/app.example/:rw"]);
});

test("a wallet signs a newcomer up for an app", async () => {
  const flow = pubky.startAuthFlow("/pub/app.example/:rw", AuthFlowKind.signup(homeserver()), HTTP_RELAY);
  const link = new URL(flow.authorizationUrl);
  assert.equal(link.searchParams.get("hs"), HOMESERVER);
  const secret = Keypair.random().secret();
  await wallet.do("signUp", secret);
  const [session] = await Promise.all([flow.awaitApproval(), wallet.do("approve", secret, flow.authorizationUrl)]);
  await session.storage.putText("/pub/app.example/hello.txt", "hello");
  assert.equal(await pubky.publicStorage.getText(`${session.info.publicKey}/pub/app.example/hello.txt`), "hello");
});

test("an app that needs no rights learns who approved", async () => {
  const secret = Keypair.random().secret();
  const flow = pubky.startAuthFlow("", AuthFlowKind.signin(), HTTP_RELAY);
  const [token] = await Promise.all([flow.awaitToken(), wallet.do("approve", secret, flow.authorizationUrl)]);
  assert.equal(token.publicKey.z32(), Keypair.fromSecret(secret).publicKey.z32());
  assert.deepEqual(token.capabilities, []);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "iogate-client";
import { asked, connected, FAST, happens, noted, opener, passed, Person, served } from "./served.js";

const server = served();
const { open, opened, openPair } = opener(server);

for (const transports of [["polling"], ["websocket"]]) {
  test(`the connection lives through three tokens, by ${transports}`, async () => {
    const ann = new Person(server);
    const getToken = asked(() => ann.token(1));
    const socket = open(getToken, { transports });
    const notes = noted(socket, "disconnect", "connect_error", "token_refresh_failed");
    await happens(socket, "connect");
    const { id } = socket;
    for (let life = 0; life < 3; life++) {
      const { sub, exp } = await happens(socket, "token_refreshed");
      assert.equal(sub, ann.sub);
      assert.ok(exp > 0);
    }
    assert.equal(await socket.emitWithAck("echo", "still here"), "still here");
    assert.equal(socket.id, id);
    assert.deepEqual(notes, []);
    assert.deepEqual(getToken.reasons, ["connect", "expiring", "expiring", "expiring"]);
    assert.equal((await ann.seen()).connects, 1);
  });
}

test("two namespaces share one question and one refresh, and both hear of it", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(1), () => ann.token(300));
  const sockets = openPair(getToken);
  const notes = sockets.map((socket) => noted(socket, "token_expiring", "authenticated", "token_refreshed", "disconnect"));
  await Promise.all(sockets.map((socket) => happens(socket, "token_refreshed")));
  assert.deepEqual(getToken.reasons, ["connect", "expiring"]);
  assert.deepEqual(notes.map((all) => all.filter(([event]) => event === "token_expiring").length), [1, 1]);
  assert.equal(notes.flat().filter(([event]) => event === "authenticated").length, 1);
});

test("a namespace that comes after a refresh has the new token", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(1), () => ann.token(300));
  const [one] = openPair(getToken);
  await happens(one, "token_refreshed");
  const late = connect(`${server.url}/${ann.sub}`, { getToken, ...FAST });
  opened.push(late);
  await connected(late);
  assert.deepEqual(getToken.reasons, ["connect", "expiring"]);
});

test("a refresh that fails is tried again while there is time, and nobody is put out", async () => {
  const ann = new Person(server);
  const problem = new Error("the network is down");
  const down = () => Promise.reject(problem);
  const getToken = asked(() => ann.token(2), down, down, () => ann.token());
  const socket = open(getToken);
  const notes = noted(socket, "token_refresh_failed", "disconnect");
  await happens(socket, "token_refreshed");
  assert.deepEqual(notes, [["token_refresh_failed", problem], ["token_refresh_failed", problem]]);
  assert.deepEqual(getToken.reasons, ["connect", "expiring", "expiring", "expiring"]);
});

test("a getToken that hangs during a refresh is asked again", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(2), () => new Promise(() => {}), () => ann.token());
  const socket = open(getToken, { timeout: 200 });
  const notes = noted(socket, "disconnect");
  await happens(socket, "token_refreshed");
  assert.deepEqual(notes, []);
});

test("a refresh that goes on failing is no loop, and the end of the token ends it", async () => {
  const ann = new Person(server);
  const socket = open(asked(() => ann.token(2), () => Promise.reject(new Error("down"))), { retryDelayMax: 60_000 });
  const failures = noted(socket, "token_refresh_failed");
  await happens(socket, "disconnect");
  assert.ok(failures.length >= 3 && failures.length <= 8, `${failures.length} attempts`);
  socket.disconnect();
});

test("the token that is about to end is not sent again", async () => {
  const ann = new Person(server);
  const token = await ann.token(2);
  const getToken = asked(token, token, () => ann.token());
  const socket = open(getToken);
  const notes = noted(socket, "token_refresh_failed", "unauthorized", "disconnect");
  await happens(socket, "token_refreshed");
  assert.deepEqual(notes.map(([event]) => event), ["token_refresh_failed"]);
});

test("a refused refresh is told and not repeated; when the token has ended, a newer one is asked for", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(1), () => ann.forged(), () => ann.token());
  const socket = open(getToken);
  const notes = noted(socket, "token_refresh_failed", "login_required", "disconnect");
  await happens(socket, "connect");
  await happens(socket, "connect");
  assert.deepEqual(getToken.reasons, ["connect", "expiring", "expired"]);
  assert.deepEqual(notes.map(([event]) => event), ["token_refresh_failed", "disconnect"]);
  assert.equal(notes[0][1].data.code, "invalid_token");
});

test("a refused refresh does not make the socket come back when the server sends it away later", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(1), () => ann.forged(), () => ann.token());
  const socket = open(getToken);
  await happens(socket, "token_refresh_failed");
  await ann.kick();
  await passed(100);
  assert.equal(socket.active, false);
  assert.deepEqual(getToken.reasons, ["connect", "expiring"]);
});

test("who has no newer token stays to the end, and then has to sign in", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(1), null);
  const socket = open(getToken);
  const notes = noted(socket, "token_refresh_failed");
  const error = await happens(socket, "login_required");
  assert.equal(error.data.retry, "login");
  assert.equal(notes.length, 1);
  assert.deepEqual(getToken.reasons, ["connect", "expiring", "expired", "login"]);
  assert.equal((await ann.seen()).attempts.length, 1, "it came back without a token");
});

test("a connection that the server ended with its token comes back at once, all namespaces with one new token", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(1), null, () => ann.token());
  const sockets = openPair(getToken);
  sockets[0].io.reconnectionDelay(60_000); // What comes back is not the official reconnection.
  await connected(...sockets);
  await connected(...sockets);
  sockets[0].io.reconnectionDelay(20);
  assert.deepEqual(getToken.reasons, ["connect", "expiring", "expired"]);
});

test("a revoked token ends the connection at once, and the person is asked, once", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(), null, () => ann.token());
  const sockets = openPair(getToken);
  await connected(...sockets);
  const [error] = await Promise.all([...sockets.map((socket) => happens(socket, "login_required")), ann.revoke()]);
  assert.equal(error.data.code, "revoked_token");
  assert.deepEqual(getToken.reasons, ["connect", "login"]);
  assert.deepEqual(sockets.map((socket) => socket.active), [false, false]);
});

test("a person who signs in again after a revocation is back", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(), async () => {
    await passed(1100); // A revocation counts in whole seconds.
    return ann.token();
  });
  const socket = open(getToken);
  await happens(socket, "connect");
  await Promise.all([happens(socket, "connect"), ann.revoke()]);
  assert.deepEqual(getToken.reasons, ["connect", "login"]);
});

test("a connection that is lost during a refresh takes the answer along", async () => {
  const ann = new Person(server);
  let answer;
  const getToken = asked(() => ann.token(1), () => new Promise((resolve) => (answer = resolve)), () => ann.token());
  const socket = open(getToken);
  const notes = noted(socket, "token_refresh_failed");
  await happens(socket, "token_expiring");
  await passed(20);
  await Promise.all([happens(socket, "disconnect"), ann.cut()]);
  answer(await ann.token());
  await happens(socket, "connect");
  assert.deepEqual(getToken.reasons, ["connect", "expiring"]);
  assert.deepEqual(notes, []);
});

test("disconnect() during a refresh is the end of it", async () => {
  const ann = new Person(server);
  let answer;
  const getToken = asked(() => ann.token(1), () => new Promise((resolve) => (answer = resolve)));
  const socket = open(getToken);
  await happens(socket, "token_expiring");
  await passed(20);
  socket.disconnect();
  answer(await ann.token());
  await passed(100);
  const seen = await ann.seen();
  assert.equal(seen.refreshes, 0);
  assert.deepEqual(getToken.reasons, ["connect", "expiring"]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { asked, happens, noted, opener, passed, Person, served } from "./served.js";

const server = served();
const { open } = opener(server, { inBand: true, path: "/in-band" });

for (const transports of [["polling"], ["websocket"], ["polling", "websocket"]]) {
  test(`the token goes by \`authenticate\`, not with CONNECT, by ${transports.join(" then ")}`, async () => {
    const ann = new Person(server);
    const getToken = asked(() => ann.token());
    const socket = open(getToken, { transports, auth: { room: "lobby" } });
    const sent = noted(socket.io, "open");
    const { sub, exp } = await happens(socket, "authenticated");
    assert.equal(sub, ann.sub);
    assert.ok(exp > 0);
    assert.equal(sent.length, 1);
    assert.equal(await socket.emitWithAck("echo", "in"), "in");
    assert.deepEqual((await ann.seen()).payload, { room: "lobby" });
    assert.deepEqual(getToken.reasons, ["connect"]);
  });
}

test("two namespaces get in with one token", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token());
  const sockets = [`/${ann.sub}-1`, `/${ann.sub}-2`].map((name) => open(getToken, { forceNew: false }, name));
  await Promise.all(sockets.map((socket) => happens(socket, "authenticated")));
  assert.deepEqual(await Promise.all(sockets.map((socket) => socket.emitWithAck("echo", 1))), [1, 1]);
  assert.deepEqual(getToken.reasons, ["connect"]);
});

test("an expired token is replaced at once, and only once in a row", async () => {
  const ann = new Person(server);
  const getToken = asked(await ann.token(-10), () => ann.token());
  await happens(open(getToken, { retryDelay: 60_000 }), "authenticated");
  assert.deepEqual(getToken.reasons, ["connect", "expired"]);

  const always = asked(await ann.token(-10));
  const socket = open(always, { retryDelay: 60_000 });
  await happens(socket, "disconnect");
  await happens(socket, "disconnect");
  await passed(200);
  assert.deepEqual(always.reasons, ["connect", "expired"]);
});

test("a token that is not accepted makes it ask the person, once", async () => {
  const ann = new Person(server);
  const getToken = asked(await ann.forged(), null);
  const socket = open(getToken);
  const error = await happens(socket, "login_required");
  assert.equal(error.data.code, "invalid_token");
  await passed(100);
  assert.deepEqual(getToken.reasons, ["connect", "login"]);
});

test("who has no token waits outside until the deadline, and then has to sign in", async () => {
  const ann = new Person(server);
  const getToken = asked(null, () => ann.token());
  const socket = open(getToken);
  const notes = noted(socket, "unauthorized");
  await happens(socket, "authenticated");
  assert.equal(notes[0][1].data.code, "timeout");
  assert.deepEqual(getToken.reasons, ["connect", "login"]);
});

test("the connection lives through its tokens here too", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(1));
  const socket = open(getToken);
  const notes = noted(socket, "disconnect");
  for (let life = 0; life < 3; life++) await happens(socket, "token_refreshed");
  assert.deepEqual(notes, []);
  assert.equal((await ann.seen()).connects, 1);
});

test("after a loss of the connection it authenticates again", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token());
  const socket = open(getToken);
  await happens(socket, "authenticated");
  await Promise.all([happens(socket, "authenticated"), ann.cut()]);
  assert.deepEqual(getToken.reasons, ["connect", "reconnect"]);
});

test("a server that takes tokens in band takes them with CONNECT too", async () => {
  const ann = new Person(server);
  await happens(open(asked(await ann.token()), { inBand: false }), "connect");
  await ann.until(({ connects }) => connects === 1);
});

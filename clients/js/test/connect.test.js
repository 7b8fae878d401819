import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "iogate-client";
import { io, Socket } from "socket.io-client";
import { asked, connected, happens, noted, opener, passed, Person, served } from "./served.js";

const server = served();
const { open, opened, openPair } = opener(server);

for (const transports of [["polling"], ["websocket"], ["polling", "websocket"]]) {
  test(`the token is asked for once and opens the gate, by ${transports.join(" then ")}`, async () => {
    const ann = new Person(server);
    const getToken = asked(() => ann.token());
    const socket = open(getToken, { transports });
    await happens(socket, "connect");
    assert.deepEqual(getToken.reasons, ["connect"]);
    assert.deepEqual(await socket.emitWithAck("echo", "hello"), "hello");
  });
}

test("the socket is the official one, with its own API", async () => {
  const ann = new Person(server);
  const socket = open(asked(await ann.token()), { autoConnect: false });
  assert.ok(socket instanceof Socket);
  assert.equal(socket.active, false);
  assert.equal(socket.open(), socket);
  await happens(socket, "connect");
  assert.equal(socket.close(), socket);
  assert.equal(socket.connected, false);
  assert.equal(socket.connect(), socket);
  await happens(socket, "connect");
});

test("a plain token and a function that is not async will do", async () => {
  const ann = new Person(server);
  const token = await ann.token();
  await happens(open(() => token), "connect");
});

test("without getToken there is an error at once", () => {
  assert.throws(() => connect(server.url, {}), TypeError);
});

test("what else the application puts into CONNECT arrives beside the token", async () => {
  const ann = new Person(server);
  const token = await ann.token();
  await happens(open(asked(token), { auth: { room: "lobby" } }), "connect");
  assert.deepEqual((await ann.seen()).payload, { room: "lobby" });
  await happens(open(asked(token), { auth: (give) => give({ room: "attic" }) }), "connect");
  assert.deepEqual((await ann.seen()).payload, { room: "attic" });
});

test("after a loss of the connection it is asked again", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token());
  const socket = open(getToken);
  await happens(socket, "connect");
  await Promise.all([happens(socket, "connect"), ann.cut()]);
  assert.deepEqual(getToken.reasons, ["connect", "reconnect"]);
});

test("after the application disconnected it begins anew", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token());
  const socket = open(getToken);
  await happens(socket, "connect");
  socket.disconnect().connect();
  await happens(socket, "connect");
  assert.deepEqual(getToken.reasons, ["connect", "connect"]);
});

test("a token that expired while nobody was there is replaced at once", async () => {
  const ann = new Person(server);
  const getToken = asked(await ann.token(-10), () => ann.token());
  const socket = open(getToken, { retryDelay: 60_000 });
  const errors = noted(socket, "connect_error");
  await happens(socket, "connect");
  assert.deepEqual(getToken.reasons, ["connect", "expired"]);
  assert.deepEqual(errors.map(([, error]) => error.data.retry), ["refresh"]);
});

test("tokens that are always expired are replaced at once only once, then with longer and longer pauses", async () => {
  const ann = new Person(server);
  const getToken = asked(await ann.token(-10));
  const socket = open(getToken, { retryDelay: 100, retryDelayMax: 60_000 });
  await passed(1000);
  socket.disconnect();
  // At once, then after 50 to 100 ms, 100 to 200, 200 to 400, 400 to 800.
  assert.ok(getToken.reasons.length >= 4 && getToken.reasons.length <= 6, `${getToken.reasons.length} attempts`);
  assert.deepEqual([...new Set(getToken.reasons.slice(1))], ["expired"]);
});

test("tokens that end at once are no success that could begin it all again", async () => {
  const ann = new Person(server);
  const getToken = asked((reason) => (reason === "expiring" ? null : ann.token(0.1)));
  open(getToken, { retryDelay: 500, retryDelayMax: 60_000 });
  await passed(1500);
  const tokens = getToken.reasons.filter((reason) => reason !== "expiring");
  // One, another at once, then one after 250 to 500 ms, and one after 500 to 1000.
  assert.ok(tokens.length >= 3 && tokens.length <= 4, `${tokens.length} connections: ${tokens}`);
  assert.ok((await ann.seen()).connects >= 2);
});

test("a token that is not accepted makes it ask the person, whose token is tried", async () => {
  const ann = new Person(server);
  const getToken = asked(await ann.forged(), () => ann.token());
  const socket = open(getToken);
  await happens(socket, "connect");
  assert.deepEqual(getToken.reasons, ["connect", "login"]);
});

for (const [what, answer] of Object.entries({
  null: () => null,
  undefined: () => undefined,
  "an error": () => Promise.reject(new Error("cancelled")),
  "the same token": (token) => token,
})) {
  test(`a person who gives ${what} has to sign in, and nothing is tried until then`, async () => {
    const ann = new Person(server);
    const forged = await ann.forged();
    const getToken = asked(forged, () => answer(forged), () => ann.token());
    const socket = open(getToken);
    const required = noted(socket, "login_required");
    const error = await happens(socket, "login_required");
    assert.ok(error instanceof Error);
    assert.equal(error.data.code, "invalid_token");
    await passed(200);
    assert.equal(required.length, 1);
    assert.deepEqual(getToken.reasons, ["connect", "login"]);
    assert.equal(socket.active, false);

    socket.connect();
    await happens(socket, "connect");
    assert.deepEqual(getToken.reasons, ["connect", "login", "connect"]);
  });
}

test("a person whose new token is not accepted either is not asked a second time", async () => {
  const ann = new Person(server);
  const ben = await ann.forged();
  const getToken = asked(ben, () => ann.forged());
  const socket = open(getToken);
  await happens(socket, "login_required");
  await passed(100);
  assert.equal(getToken.reasons.filter((reason) => reason === "login").length, 1);
});

test("without a token it is the server that says whether one is needed", async () => {
  const ann = new Person(server);
  const getToken = asked(null, () => ann.token());
  const socket = open(getToken);
  const errors = noted(socket, "connect_error");
  await happens(socket, "connect");
  assert.deepEqual(getToken.reasons, ["connect", "login"]);
  assert.equal(errors[0][1].data.code, "credentials_required");
});

test("`later` is obeyed with growing pauses, and it gets in when the server has room", async () => {
  const ann = new Person(server);
  await ann.refuse({ message: "full", code: "too_many", retry: "later" });
  const socket = open(asked(() => ann.token()), { retryDelay: 50, retryDelayMax: 200 });
  const { attempts } = await ann.until(({ attempts }) => attempts.length >= 6);
  const pauses = attempts.slice(1).map((at, index) => attempts[index] - at);
  const least = [25, 50, 100, 100, 100];
  least.forEach((pause, index) => assert.ok(pauses[index] * 1000 >= pause - 2, `${pauses}`));
  const came = happens(socket, "connect");
  await ann.refuse(null);
  await came;
});

for (const data of [{ message: "no", code: "insufficient_scope", retry: "never" }, { code: "closed" }]) {
  test(`${data.retry ?? "a refusal that does not say what to do"} ends it`, async () => {
    const ann = new Person(server);
    await ann.refuse(data);
    const socket = open(asked(() => ann.token()));
    const error = await happens(socket, "connect_error");
    assert.deepEqual(error.data, data);
    await passed(200);
    assert.equal((await ann.seen()).attempts.length, 1);
    assert.equal(socket.active, false);
  });
}

test("an application that wants no reconnection gets none", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token(-10));
  const socket = open(getToken, { reconnection: false });
  await happens(socket, "connect_error");
  await passed(200);
  assert.deepEqual(getToken.reasons, ["connect"]);
});

test("an error of getToken is told, and it is asked again later", async () => {
  const ann = new Person(server);
  const problem = new Error("the network is down");
  const getToken = asked(() => Promise.reject(problem), () => ann.token());
  const socket = open(getToken);
  const error = await happens(socket, "connect_error");
  assert.equal(error.data.code, "no_token");
  assert.equal(error.cause, problem);
  await happens(socket, "connect");
  assert.deepEqual(getToken.reasons, ["connect", "connect"]);
});

test("a getToken that never answers is asked again", async () => {
  const ann = new Person(server);
  const getToken = asked(() => new Promise(() => {}), () => ann.token());
  const socket = open(getToken, { timeout: 100 });
  const error = await happens(socket, "connect_error");
  assert.match(error.cause.message, /100 ms/);
  await happens(socket, "connect");
});

test("something that is no string is not sent as a token", async () => {
  const ann = new Person(server);
  const socket = open(asked({ token: "?" }, () => ann.token()));
  assert.ok((await happens(socket, "connect_error")).cause instanceof TypeError);
  await happens(socket, "connect");
});

test("two namespaces on one connection share one token", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token());
  const sockets = openPair(getToken);
  await connected(...sockets);
  assert.deepEqual(getToken.reasons, ["connect"]);
  await Promise.all([connected(...sockets), ann.cut()]);
  assert.deepEqual(getToken.reasons, ["connect", "reconnect"]);
});

test("a namespace that comes later has the token of the connection", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token());
  await connected(...openPair(getToken));
  await connected(open(getToken, { forceNew: false }, `/${ann.sub}`));
  assert.deepEqual(getToken.reasons, ["connect"]);
});

test("two namespaces that are refused together ask for one new token", async () => {
  const ann = new Person(server);
  const getToken = asked(await ann.token(-10), () => ann.token());
  await connected(...openPair(getToken));
  assert.deepEqual(getToken.reasons, ["connect", "expired"]);
});

test("two namespaces that are refused together ask the person once", async () => {
  const ann = new Person(server);
  const getToken = asked(await ann.forged(), () => ann.token());
  await connected(...openPair(getToken));
  assert.deepEqual(getToken.reasons, ["connect", "login"]);
});

test("two namespaces are both told that the person has to sign in", async () => {
  const ann = new Person(server);
  const getToken = asked(await ann.forged(), null);
  await Promise.all(openPair(getToken).map((socket) => happens(socket, "login_required")));
  assert.deepEqual(getToken.reasons, ["connect", "login"]);
});

test("who signs in after somebody else on the same page gets nothing of theirs", async () => {
  const [ann, ben] = [new Person(server), new Person(server)];
  const sockets = openPair(asked(() => ann.token()));
  await connected(...sockets);
  sockets.forEach((socket) => socket.disconnect());
  const other = open(asked(() => ben.token()), { forceNew: false }, `/${ben.sub}`);
  assert.equal(other.io, sockets[0].io);
  await connected(other);
  await ben.until(({ connects }) => connects === 1);
});

test("a socket that the application of the server sent away stays away", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token());
  const socket = open(getToken);
  await happens(socket, "connect");
  const [reason] = await Promise.all([happens(socket, "disconnect"), ann.kick()]);
  assert.equal(reason, "io server disconnect");
  await passed(200);
  assert.deepEqual(getToken.reasons, ["connect"]);
});

test("disconnect() while getToken is pending: nothing is sent when it answers", async () => {
  const ann = new Person(server);
  let answer;
  const getToken = asked(() => new Promise((resolve) => (answer = resolve)));
  const socket = open(getToken);
  await new Promise((resolve) => socket.io.once("open", resolve));
  await passed(20);
  socket.disconnect();
  answer(await ann.token());
  await passed(100);
  assert.equal((await ann.seen()).attempts.length, 0);
  assert.equal(socket.active, false);
});

test("a connection that is lost while getToken is pending asks no second question", async () => {
  const ann = new Person(server);
  let answer;
  const getToken = asked(() => new Promise((resolve) => (answer = resolve)));
  const socket = open(getToken);
  await new Promise((resolve) => socket.io.once("open", resolve));
  await passed(20);
  socket.io.engine.close();
  await new Promise((resolve) => socket.io.once("open", resolve));
  await passed(20);
  answer(await ann.token());
  await happens(socket, "connect");
  assert.equal(getToken.reasons.length, 1);
  assert.equal((await ann.seen()).attempts.length, 1);
});

test("the plain official client works beside it, on the same server", async () => {
  const ann = new Person(server);
  const token = await ann.token();
  await happens(open(asked(token), { forceNew: false }), "connect");
  const plain = io(server.url + "/other", { auth: { token } });
  opened.push(plain);
  await happens(plain, "connect");
});

// A sign-out: nothing of the first user is sent or used for the second one.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "iogate-client";
import { Socket } from "socket.io-client";
import { asked, connected, deferred, happens, noted, opener, passed, Person, served } from "./served.js";

const server = served();
const { open, openPair } = opener(server);
const IN_BAND = { inBand: true, path: "/in-band" };
/** With the official client's queue: one event at a time, the next when it is acknowledged. */
const QUEUE = { retries: 3, ackTimeout: 60_000 };

function people() {
  return [new Person(server), new Person(server)];
}

/** A page: `user.now` is signed in, and `getToken` gives the token of that person. */
function page(first) {
  const user = { now: first };
  const getToken = asked(() => (user.now === null ? null : user.now.token()));
  return { user, getToken };
}

const who = (socket) => socket.timeout(5000).emitWithAck("who");

for (const [mode, options, entered] of [
  ["with CONNECT", {}, "connect"],
  ["in band", IN_BAND, "authenticated"],
]) {
  for (const transports of [["polling"], ["websocket"]]) {
    const settings = { ...options, transports };
    const entering = (...sockets) => Promise.all(sockets.map((socket) => happens(socket, entered)));
    const how = `${mode}, by ${transports}`;

    test(`disconnect(), another user, connect(): the second user is in, and nobody else (${how})`, async () => {
      const [ann, ben] = people();
      const { user, getToken } = page(ann);
      const socket = open(getToken, settings);
      await entering(socket);
      socket.disconnect();
      user.now = ben;
      socket.connect();
      await entering(socket);
      assert.equal(await who(socket), ben.sub);
      assert.equal((await ann.seen()).connects, 1);
    });

    test(`the queue of the option \`retries\` holds nothing of the first user for the second (${how})`, async () => {
      const [ann, ben] = people();
      const { user, getToken } = page(ann);
      const socket = open(getToken, { ...settings, ...QUEUE });
      socket.emit("unanswered");
      socket.emit("note", "of Ann");
      await entering(socket);
      socket.disconnect();
      user.now = ben;
      socket.connect();
      await entering(socket);
      await ben.until(({ connects }) => connects === 1);
      socket.emit("note", "of Ben");
      await ben.until(({ notes }) => notes.length > 0);
      assert.deepEqual((await ben.seen()).notes, ["of Ben"]);
      assert.equal((await ann.seen()).connects, 1);
    });

    test(`two namespaces, each out and in again at once: both come in as the second user, with one token (${how})`, async () => {
      const [ann, ben] = people();
      const { user, getToken } = page(ann);
      const sockets = openPair(getToken, settings);
      await entering(...sockets);
      user.now = ben;
      for (const socket of sockets) {
        socket.disconnect();
        socket.connect();
      }
      await entering(...sockets);
      assert.deepEqual(await Promise.all(sockets.map(who)), [ben.sub, ben.sub]);
      assert.deepEqual(getToken.reasons, ["connect", "connect"]);
      assert.equal((await ann.seen()).connects, 2);
    });

    test(`one of two namespaces out and in again with the token of somebody else: both are theirs (${how})`, async () => {
      const [ann, ben] = people();
      const { user, getToken } = page(ann);
      const sockets = openPair(getToken, settings);
      await entering(...sockets);
      user.now = ben;
      sockets[0].disconnect();
      await passed(20);
      sockets[0].connect();
      await entering(...sockets);
      assert.deepEqual(await Promise.all(sockets.map(who)), [ben.sub, ben.sub]);
      assert.deepEqual(getToken.reasons, ["connect", "connect"]);
      await ann.until(({ inside }) => inside === 0);
    });

    test(`one of two namespaces out and in again with the same token: the other is not interrupted (${how})`, async () => {
      const ann = new Person(server);
      const getToken = asked(await ann.token());
      const [one, other] = openPair(getToken, settings);
      await entering(one, other);
      const notes = noted(other, "disconnect");
      one.disconnect();
      one.connect();
      await entering(one);
      assert.equal(await who(one), ann.sub);
      assert.deepEqual(notes, []);
      assert.deepEqual(getToken.reasons, ["connect", "connect"]);
    });

    test(`one of two namespaces out and in again without a token: it is not in as the first user (${how})`, async () => {
      const ann = new Person(server);
      const { user, getToken } = page(ann);
      const [one, other] = openPair(getToken, settings);
      await entering(one, other);
      user.now = null;
      const notes = noted(one, entered);
      one.disconnect();
      one.connect();
      await happens(one, "login_required");
      assert.deepEqual(notes, []);
      await ann.until(({ inside, connects }) => inside === 0 && connects === 2);
    });

    test(`a namespace that left while the server was deciding on it is not in afterwards (${how})`, async () => {
      const ann = new Person(server);
      const token = await ann.token();
      const fresh = await ann.token();
      const getToken = asked(token, fresh);
      const one = open(getToken, { ...settings, forceNew: false, autoConnect: false }, `/${ann.sub}-1`);
      const other = open(getToken, { ...settings, forceNew: false, autoConnect: false }, `/${ann.sub}-2`);
      one.connect();
      await entering(one);
      await ann.hold();
      const notes = noted(other, "connect");
      other.connect();
      await passed(100);
      other.disconnect();
      await ann.release();
      assert.equal(await who(one), ann.sub);
      await ann.until(({ inside }) => inside === 1);
      const before = notes.length;
      other.connect();
      await entering(other);
      assert.equal(await who(other), ann.sub);
      assert.equal(notes.length - before, 1);
      await ann.until(({ inside }) => inside === 2);
    });

    test(`an answer of getToken that comes after the sign-out is nobody's (${how})`, async () => {
      const [ann, ben] = people();
      const getToken = deferred();
      const socket = open(getToken, settings);
      await getToken.called(1);
      socket.disconnect();
      socket.connect();
      await getToken.called(2);
      getToken.calls[0].resolve(await ann.token());
      await passed(50);
      getToken.calls[1].resolve(await ben.token());
      await entering(socket);
      assert.equal(await who(socket), ben.sub);
      assert.equal((await ann.seen()).attempts.length, 0);
      assert.equal(getToken.calls[1].reason, "connect");
    });

    test(`a request that one of two namespaces waits for is not shared after the other has signed out (${how})`, async () => {
      const [ann, ben] = people();
      const getToken = deferred();
      const [one, other] = openPair(getToken, settings);
      await getToken.called(1);
      one.disconnect();
      one.connect();
      await getToken.called(2);
      getToken.calls[0].resolve(await ann.token());
      getToken.calls[1].resolve(await ben.token());
      await entering(one, other);
      assert.deepEqual(await Promise.all([one, other].map(who)), [ben.sub, ben.sub]);
      assert.equal((await ann.seen()).attempts.length, 0);
      assert.equal(getToken.calls.length, 2);
    });

    test(`an event that is never acknowledged delays neither the login nor the refresh (${how})`, async () => {
      const ann = new Person(server);
      const getToken = asked(() => ann.token(1));
      const socket = open(getToken, { ...settings, ...QUEUE });
      const notes = noted(socket, "unauthorized", "disconnect", "token_refresh_failed");
      socket.emit("unanswered");
      await entering(socket);
      socket.emit("unanswered");
      await happens(socket, "token_refreshed");
      await happens(socket, "token_refreshed");
      assert.deepEqual(notes, []);
      assert.equal((await ann.seen()).connects, 1);
    });
  }
}

test("in band, the token is sent before the events that were emitted before the connection was open", async () => {
  const ann = new Person(server);
  const socket = open(asked(await ann.token()), IN_BAND);
  const sent = [];
  socket.io.once("open", () => {
    const { engine } = socket.io;
    const write = engine.write;
    engine.write = (data, ...rest) => (sent.push(String(data)), write.call(engine, data, ...rest));
  });
  socket.emit("note", "early");
  await happens(socket, "authenticated");
  assert.deepEqual(sent.map((data) => data.match(/authenticate|note/)?.[0] ?? "CONNECT"), ["CONNECT", "authenticate", "note"]);
});

test("what the application has set for its own next event is not used up by a refresh, nor does it drop one", async () => {
  const ann = new Person(server);
  const socket = open(asked(() => ann.token(1)), { ackTimeout: 5 });
  await happens(socket, "connect");
  const { volatile } = socket;
  await happens(volatile, "token_refreshed");
  assert.equal(socket.flags.volatile, true);
  socket.timeout(5);
  await happens(socket, "token_refreshed");
  assert.equal(socket.flags.timeout, 5);
});

test("listeners for outgoing events do not see tokens", async () => {
  const ann = new Person(server);
  const socket = open(asked(() => ann.token(1)), IN_BAND);
  const seen = [];
  socket.onAnyOutgoing((event) => seen.push(event));
  await happens(socket, "token_refreshed");
  assert.deepEqual(seen, []);
});

test("what a person answers who was asked before a sign-out is not used after it, by no namespace", async () => {
  const [ann, ben] = people();
  const getToken = deferred();
  const [one, other] = openPair(getToken);
  await getToken.called(1);
  getToken.calls[0].resolve(await ann.forged());
  await getToken.called(2);
  assert.equal(getToken.calls[1].reason, "login");
  await passed(50);
  one.disconnect();
  one.connect();
  await getToken.called(3);
  getToken.calls[1].resolve(await ann.token());
  await passed(50);
  const both = connected(one, other);
  getToken.calls[2].resolve(await ben.token());
  await both;
  assert.deepEqual(await Promise.all([one, other].map(who)), [ben.sub, ben.sub]);
  assert.equal((await ann.seen()).attempts.length, 0);
  assert.deepEqual(getToken.calls.map(({ reason }) => reason), ["connect", "login", "connect"]);
});

test("the answer to a CONNECT that a sign-out has overtaken is not taken for the answer to the next one", async () => {
  const ann = new Person(server);
  const [one, other] = openPair(asked(await ann.token()));
  await connected(one, other);
  other.disconnect();
  await ann.until(({ inside }) => inside === 1);
  other.connect();
  const { engine } = one.io;
  const [deliver] = engine.listeners("data");
  const held = [];
  engine.off("data");
  engine.on("data", (data) => held.push(data)); // What the server sends is on its way from here on.
  await ann.until(({ inside }) => inside === 2);
  const notes = noted(other, "connect");
  other.disconnect();
  other.connect();
  await passed(50);
  if (one.io.engine === engine) {
    engine.off("data");
    engine.on("data", deliver);
    held.forEach(deliver);
  }
  await ann.until(({ inside, connects }) => connects >= 4 && inside === 2);
  assert.equal(await who(other), ann.sub);
  assert.equal(notes.length, 1);
});

test("what the first user emitted while the connection was lost is not sent as the second, and its senders are told", async () => {
  const [ann, ben] = people();
  const { user, getToken } = page(ann);
  const socket = open(getToken, { reconnectionDelay: 60_000 });
  await happens(socket, "connect");
  await Promise.all([happens(socket, "disconnect"), ann.cut()]);
  socket.emit("note", "of Ann");
  const lost = assert.rejects(socket.emitWithAck("echo", "of Ann"), /disconnected/);
  socket.disconnect();
  await lost;
  user.now = ben;
  socket.emit("note", "of Ben");
  socket.connect();
  await happens(socket, "connect");
  await ben.until(({ notes }) => notes.length > 0);
  assert.equal(await who(socket), ben.sub);
  assert.deepEqual((await ben.seen()).notes, ["of Ben"]);
});

test("the senders of what was in the queue are told once each, and may emit again", async () => {
  const [ann, ben] = people();
  const { user, getToken } = page(ann);
  const socket = open(getToken, QUEUE);
  await happens(socket, "connect");
  const told = [];
  for (const name of ["one", "two", "three"]) {
    socket.emit(name === "one" ? "unanswered" : "note", ...(name === "one" ? [] : [name]), (error) => {
      told.push([name, error?.message]);
      socket.emit("note", `${name} again`);
    });
  }
  await passed(50);
  user.now = ben;
  socket.disconnect();
  socket.connect();
  await ben.until(({ notes }) => notes.length === 3);
  assert.deepEqual(told, ["one", "two", "three"].map((name) => [name, "socket has been disconnected"]));
  assert.deepEqual((await ben.seen()).notes, ["one again", "two again", "three again"]);
  assert.deepEqual((await ann.seen()).notes, []);
});

test("events for the first user that came too late are not handed to the second, nor is the key to missed ones sent", async () => {
  const [ann, ben] = people();
  const { user, getToken } = page(ann);
  const socket = open(getToken);
  await happens(socket, "connect");
  const heard = noted(socket, "private");
  await Promise.all([happens(socket, "disconnect"), ann.cut()]);
  socket.onconnect("an id", "the key of Ann"); // As the official client does when a server answers so.
  socket.receiveBuffer.push(["private", "for Ann"]);
  socket.disconnect();
  user.now = ben;
  socket.connect();
  await happens(socket, "connect");
  assert.deepEqual(heard, []);
  assert.deepEqual((await ben.seen()).payload, {});
});

test("after login_required whoever connects may be somebody else: nothing of the first user is left", async () => {
  const [ann, ben] = people();
  const { user, getToken } = page(ann);
  const socket = open(getToken, QUEUE);
  await happens(socket, "connect");
  socket.emit("unanswered");
  socket.emit("note", "of Ann");
  user.now = null;
  await Promise.all([happens(socket, "login_required"), ann.revoke()]);
  user.now = ben;
  socket.connect();
  await happens(socket, "connect");
  socket.emit("note", "of Ben");
  await ben.until(({ notes }) => notes.length > 0);
  assert.deepEqual((await ben.seen()).notes, ["of Ben"]);
});

test("what was emitted before anybody was let in is sent after the sign-in", async () => {
  const ann = new Person(server);
  const getToken = asked(null, () => ann.token());
  const socket = open(getToken);
  socket.emit("note", "join");
  await happens(socket, "connect");
  assert.deepEqual(getToken.reasons, ["connect", "login"]);
  await ann.until(({ notes }) => notes.length === 1);
});

test("a lost connection is no sign-out: what was emitted meanwhile is sent", async () => {
  const ann = new Person(server);
  const socket = open(asked(() => ann.token()));
  await happens(socket, "connect");
  await Promise.all([happens(socket, "disconnect"), ann.cut()]);
  socket.emit("note", "meanwhile");
  await ann.until(({ notes }) => notes.length === 1);
});

test("a token that the server has refused is not shown again by connect() in a listener", async () => {
  const [ann, ben] = people();
  const getToken = asked(await ann.forged(), () => ben.token());
  const [one, other] = openPair(getToken);
  one.on("connect_error", () => one.connect());
  other.on("connect_error", () => other.connect());
  await connected(one, other);
  assert.equal(await who(one), ben.sub);
});

test("connect() in a listener of connect_error, after a getToken that failed", async () => {
  const ann = new Person(server);
  const getToken = asked(() => Promise.reject(new Error("down")), () => ann.token());
  const socket = open(getToken, { retryDelay: 60_000, retryDelayMax: 60_000 });
  socket.on("connect_error", () => socket.connect());
  await happens(socket, "connect");
  assert.equal(getToken.reasons.length, 2);
  assert.equal((await ann.seen()).attempts.length, 1);
});

test("connect() in a listener of disconnect comes in as the second user", async () => {
  const [ann, ben] = people();
  const { user, getToken } = page(ann);
  const socket = open(getToken, QUEUE);
  await happens(socket, "connect");
  socket.emit("unanswered");
  socket.once("disconnect", () => {
    user.now = ben;
    socket.connect();
  });
  socket.disconnect();
  await happens(socket, "connect");
  socket.emit("note", "of Ben");
  await ben.until(({ notes }) => notes.length === 1);
});

test("disconnect() and connect() within getToken", async () => {
  const [ann, ben] = people();
  let socket;
  const getToken = asked(
    () => {
      socket.disconnect();
      socket.connect();
      return ann.token();
    },
    () => ben.token(),
  );
  socket = open(getToken);
  await happens(socket, "connect");
  assert.equal(await who(socket), ben.sub);
  assert.equal((await ann.seen()).attempts.length, 0);
});

test("a refresh goes on when one of two namespaces leaves, be its request open or its answer on the way", async () => {
  const ann = new Person(server);
  const getToken = deferred();
  const [one, other, third] = [...openPair(getToken), ...openPair(getToken)].slice(0, 3);
  assert.equal(one.io, third.io);
  await getToken.called(1);
  getToken.calls[0].resolve(await ann.token(4));
  await connected(one, other, third);
  await getToken.called(2);
  one.disconnect();
  await getToken.called(3);
  assert.deepEqual(getToken.calls.map(({ reason }) => reason), ["connect", "expiring", "expiring"]);
  await ann.hold();
  getToken.calls[2].resolve(await ann.token());
  await passed(50);
  const failed = happens(third, "token_refresh_failed");
  other.disconnect();
  await failed;
  await ann.release();
  await happens(third, "token_refreshed");
  assert.equal(getToken.calls.length, 3);
});

test("a version of the official client that is built differently raises an error, and connects nothing", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token());
  for (const name of ["packet", "onconnect"]) {
    const kept = Socket.prototype[name];
    Socket.prototype[name] = undefined;
    try {
      assert.throws(() => open(getToken), new RegExp(`version of socket.io-client: Socket.${name}`));
    } finally {
      Socket.prototype[name] = kept;
    }
  }
  await passed(50);
  assert.deepEqual(getToken.reasons, []);
});

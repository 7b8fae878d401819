// One request for a token at a time, for one user and server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "iogate-client";
import { asked, connected, deferred, happens, opener, passed, Person, served } from "./served.js";

const server = served();
/** Sockets as components of a page open them: the official client gives each a connection of its own. */
const { open } = opener(server, { forceNew: false });

const who = (socket) => socket.timeout(5000).emitWithAck("who");

test("two components that connect to one namespace ask once", async () => {
  const ann = new Person(server);
  const getToken = asked(async () => {
    await passed(50);
    return ann.token();
  });
  const components = [open(getToken), open(getToken)];
  assert.notEqual(components[0].io, components[1].io);
  await connected(...components);
  assert.deepEqual(getToken.reasons, ["connect"]);
  assert.equal((await ann.seen()).connects, 2);
});

test("connections that were made apart on purpose, and namespaces, ask once too", async () => {
  const ann = new Person(server);
  const getToken = deferred();
  const sockets = [
    open(getToken),
    open(getToken, { forceNew: true }),
    open(getToken, { multiplex: false }, "/other"),
    open(getToken, { forceNew: true }, "/other"),
  ];
  await Promise.all(sockets.slice(1).map(({ io }) => new Promise((resolve) => io.once("open", resolve))));
  await getToken.called(1);
  await passed(50);
  getToken.calls[0].resolve(await ann.token());
  await connected(...sockets);
  assert.equal(getToken.calls.length, 1);
});

test("a component that is mounted, unmounted and mounted again at once, as by React's StrictMode, asks once", async () => {
  const ann = new Person(server);
  const getToken = asked(() => ann.token());
  open(getToken).disconnect();
  const socket = open(getToken);
  await happens(socket, "connect");
  await passed(50);
  assert.deepEqual(getToken.reasons, ["connect"]);
  assert.equal((await ann.seen()).attempts.length, 1);
});

test("the same on a connection that is open already: nothing is left of the first one", async () => {
  const ann = new Person(server);
  const token = await ann.token();
  const getToken = asked(token);
  const namespace = `/${ann.sub}`;
  const [other] = [open(getToken, {}, `${namespace}-other`)];
  await happens(other, "connect");
  const first = open(getToken, {}, namespace);
  assert.equal(first.io, other.io);
  first.disconnect();
  await happens(open(getToken, {}, namespace), "connect");
  assert.equal(await who(other), ann.sub);
  const { attempts, inside } = await ann.seen();
  assert.deepEqual([attempts.length, inside], [2, 2]);
});

test("a failure is shared too", async () => {
  const getToken = deferred();
  const components = [open(getToken, { retryDelay: 60_000 }), open(getToken, { retryDelay: 60_000, retryDelayMax: 60_000 })];
  const opens = components.map(({ io }) => new Promise((resolve) => io.once("open", resolve)));
  await Promise.all([...opens, getToken.called(1)]);
  await passed(20);
  const problem = new Error("down");
  const errors = Promise.all(components.map((socket) => happens(socket, "connect_error")));
  getToken.calls[0].reject(problem);
  assert.deepEqual((await errors).map(({ cause }) => cause), [problem, problem]);
  assert.equal(getToken.calls.length, 1);
});

test("a getToken that hangs fails for all that wait for it, and is called again once for all", async () => {
  const ann = new Person(server);
  const getToken = asked(() => new Promise(() => {}), async () => {
    await passed(300);
    return ann.token();
  });
  const components = [open(getToken, { timeout: 150 }), open(getToken, { timeout: 5000 })];
  const errors = await Promise.all(components.map((socket) => happens(socket, "connect_error")));
  for (const { cause } of errors) assert.match(cause.message, /longer than 150 ms|longer than 5000 ms/);
  components.forEach(({ io }) => io.timeout(5000));
  await connected(...components);
  assert.equal(getToken.reasons.length, 2);
});

test("a getToken that throws at once is as one that rejects", async () => {
  const ann = new Person(server);
  const token = await ann.token();
  let calls = 0;
  const socket = open(() => {
    if (calls++ === 0) throw new RangeError("at once");
    return token;
  });
  assert.ok((await happens(socket, "connect_error")).cause instanceof RangeError);
  await happens(socket, "connect");
  assert.equal(calls, 2);
});

test("an open request is not shared with who comes after a sign-out, and those who wait for it keep it", async () => {
  const [ann, ben] = [new Person(server), new Person(server)];
  const getToken = deferred();
  const [one, other] = [open(getToken), open(getToken)];
  await getToken.called(1);
  await passed(100); // Both wait for it by now.
  one.disconnect();
  one.connect();
  await getToken.called(2);
  getToken.calls[0].resolve(await ann.token());
  await happens(other, "connect");
  getToken.calls[1].resolve(await ben.token());
  await happens(one, "connect");
  assert.deepEqual(await Promise.all([one, other].map(who)), [ben.sub, ann.sub]);
  assert.equal(getToken.calls.length, 2);
});

test("two functions are two users: their requests are not shared", async () => {
  const [ann, ben] = [new Person(server), new Person(server)];
  const sockets = [ann, ben].map((person) => open(asked(async () => (await passed(50), person.token()))));
  await connected(...sockets);
  assert.deepEqual(await Promise.all(sockets.map(who)), [ann.sub, ben.sub]);
});

test("two servers are asked for apart", async () => {
  const [ann, ben] = [new Person(server), new Person(server)];
  const getToken = deferred();
  const sockets = [open(getToken), open(getToken, { path: "/in-band", forceNew: true })];
  await getToken.called(2);
  const both = connected(...sockets);
  getToken.calls[0].resolve(await ann.token());
  getToken.calls[1].resolve(await ben.token());
  await both;
});

test("a person is asked although a program is asked at the same time: afterwards, and not instead", async () => {
  const ann = new Person(server);
  const forged = await ann.forged();
  const getToken = deferred();
  const one = open(getToken);
  await getToken.called(1);
  const other = open(getToken);
  await passed(100);
  getToken.calls[0].resolve(forged);
  await getToken.called(2);
  assert.equal(getToken.calls[1].reason, "login");
  const third = open(getToken);
  await passed(100);
  getToken.calls[1].resolve(await ann.token());
  await connected(one, other, third);
  assert.equal(getToken.calls.length, 2);
});

test("a request for a newer token waits for that of another component, and is made afterwards", async () => {
  const ann = new Person(server);
  const getToken = deferred();
  const one = open(getToken);
  await getToken.called(1);
  getToken.calls[0].resolve(await ann.token(4));
  await happens(one, "connect");
  const expiring = happens(one, "token_expiring");
  const other = open(getToken);
  await getToken.called(2);
  await expiring;
  await passed(50);
  assert.equal(getToken.calls.length, 2);
  const entered = happens(other, "connect");
  getToken.calls[1].resolve(await ann.token());
  await entered;
  await getToken.called(3);
  assert.deepEqual(getToken.calls.map(({ reason }) => reason), ["connect", "connect", "expiring"]);
  const refreshed = happens(one, "token_refreshed");
  getToken.calls[2].resolve(await ann.token());
  await refreshed;
});

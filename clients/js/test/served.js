// A server in a process of its own, and the small tools of the tests.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { after, afterEach, before } from "node:test";
import { fileURLToPath } from "node:url";
import { connect } from "iogate-client";

const WITHIN = 10_000; // milliseconds that anything may take that a test waits for
export const FAST = { reconnectionDelay: 20, reconnectionDelayMax: 50, retryDelay: 40, retryDelayMax: 400 };
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const environment = here("../../../.venv/bin/python");
const python = process.env.PYTHON ?? (existsSync(environment) ? environment : "python3");

/** Starts the server before the tests of a file, and ends it after them. */
export function served() {
  const server = {};
  let child;
  before(async () => {
    child = spawn(python, [here("server.py")], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, PYTHONPATH: [process.env.PYTHONPATH, here("../../../src")].filter(Boolean).join(":") },
    });
    const { value } = await createInterface(child.stdout)[Symbol.asyncIterator]().next();
    assert.ok(value, "the server of the tests did not start");
    server.url = `http://127.0.0.1:${value}`;
  });
  after(async () => {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.stdin.end();
    await within(ended, "the end of the server");
  });
  return server;
}

/** Returns what opens sockets to a server, with short delays; each test's are closed after it. */
export function opener(server, own = {}) {
  const opened = [];
  const settings = (getToken, options) => ({ getToken, ...FAST, ...own, ...options });
  afterEach(() => opened.splice(0).forEach((socket) => socket.disconnect()));
  return {
    opened,
    open(getToken, options = {}, namespace = "/") {
      const socket = connect(server.url + namespace, { forceNew: true, ...settings(getToken, options) });
      opened.push(socket);
      return socket;
    },
    openPair(getToken, options = {}) {
      const sockets = pair(server.url, settings(getToken, options));
      opened.push(...sockets);
      return sockets;
    },
  };
}

/** Somebody with an account: what the server knows of them, and can be told to do with them. */
export class Person {
  constructor(server) {
    this.server = server;
    this.sub = randomUUID();
  }

  async #tell(path, body = {}) {
    const answer = await fetch(this.server.url + path, { method: "POST", body: JSON.stringify({ sub: this.sub, ...body }) });
    assert.equal(answer.status, 200, `${path} failed`);
    return answer.json();
  }

  /** A token that ends in so many seconds. */
  token = (life = 300) => this.#tell("/token", { life });
  forged = () => this.#tell("/token", { life: 300, secret: "not the secret of the server, but as long as that" });
  refuse = (data) => this.#tell("/refuse", { data });
  revoke = () => this.#tell("/revoke");
  kick = () => this.#tell("/kick");
  cut = () => this.#tell("/cut");
  /** From now on, until `release`, the server decides on none of their tokens. */
  hold = () => this.#tell("/hold");
  release = () => this.#tell("/release");
  seen = () => this.#tell("/seen");

  /** Waits until the server has seen this. */
  async until(condition, what = condition.toString()) {
    const end = performance.now() + WITHIN;
    for (;;) {
      const seen = await this.seen();
      if (condition(seen)) return seen;
      assert.ok(performance.now() < end, `not within ${WITHIN} ms: ${what}; ${JSON.stringify(seen)}`);
      await passed(20);
    }
  }
}

/** A `getToken` that notes why it was asked, and answers in turn; the last answer is for all that follow. */
export function asked(...answers) {
  const getToken = async ({ reason }) => {
    getToken.reasons.push(reason);
    const answer = answers[Math.min(getToken.reasons.length, answers.length) - 1];
    return typeof answer === "function" ? answer(reason) : answer;
  };
  getToken.reasons = [];
  return getToken;
}

/** A `getToken` whose answers the test gives, one per call, when it wants: `calls[0].resolve(token)`. */
export function deferred() {
  const getToken = ({ reason }) => new Promise((resolve, reject) => getToken.calls.push({ reason, resolve, reject }));
  getToken.calls = [];
  /** Waits until it has been called so many times. */
  getToken.called = async (times) => {
    const end = performance.now() + WITHIN;
    while (getToken.calls.length < times) {
      assert.ok(performance.now() < end, `not called ${times} times within ${WITHIN} ms`);
      await passed(5);
    }
  };
  return getToken;
}

/** Opens two namespaces that share a connection: new ones each time, or the official client would not let them share. */
export function pair(url, options) {
  const name = `/${randomUUID()}`;
  const sockets = [connect(`${url}${name}-1`, options), connect(`${url}${name}-2`, options)];
  assert.equal(sockets[0].io, sockets[1].io);
  return sockets;
}

/** Waits for an event, and returns its first argument. */
export function happens(socket, event) {
  return within(new Promise((resolve) => socket.once(event, resolve)), event);
}

/** Waits until all of them have connected. */
export function connected(...sockets) {
  return Promise.all(sockets.map((socket) => happens(socket, "connect")));
}

/** Notes all of some events from now on. */
export function noted(socket, ...events) {
  const notes = [];
  for (const event of events) socket.on(event, (detail) => notes.push([event, detail]));
  return notes;
}

export function passed(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

export async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(reject, WITHIN, new Error(`not within ${WITHIN} ms: ${what}`))));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

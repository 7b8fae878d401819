// What only shows in a process of its own: whether it ends, how it sleeps, what an error does to it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { passed, Person, served, within } from "./served.js";

const server = served();
const cwd = fileURLToPath(new URL("..", import.meta.url));
const PRELUDE = `
  import { connect } from "iogate-client";
  const [url, sub] = process.argv.slice(1);
  const say = (...words) => console.log(words.join(" "));
  const token = async (life) => (await fetch(url + "/token", { method: "POST", body: JSON.stringify({ sub, life }) })).json();
  const open = (getToken, options) => connect(url, { getToken, reconnectionDelay: 20, retryDelay: 40, ...options });
`;

/** Runs a script in Node. */
function run(t, person, script, { prelude = PRELUDE, env = {} } = {}) {
  const child = spawn(process.execPath, ["--input-type=module", "--eval", prelude + script, "--", server.url, person.sub], {
    cwd,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
  let complaints = "";
  child.stderr.on("data", (text) => (complaints += text));
  const ended = once(child, "exit").then(([code]) => ({ code, complaints }));
  return {
    child,
    ended: () => within(ended, "the end of the process"),
    async says(word) {
      for (;;) {
        const { value } = await within(lines.next(), word);
        assert.ok(value !== undefined, `it ended before it said ${word}: ${complaints}`);
        if (value === word) return;
      }
    },
  };
}

test("the example of the README for Node runs as printed", async (t) => {
  const person = new Person(server);
  const [, printed] = readFileSync(`${cwd}README.md`, "utf8").match(/```js\n(.*?)```/s);
  const script = printed.replace("https://chat.example.com", server.url);
  const { says } = run(t, person, script, { prelude: "", env: { TOKEN: await person.token() } });
  await says("in");
});

for (const [when, script] of Object.entries({
  "it was connected": `
    const socket = open(() => token(300));
    socket.on("connect", () => socket.disconnect());`,
  "getToken was pending": `
    const socket = open(() => new Promise(() => {}), { timeout: 60_000 });
    socket.io.on("open", () => setTimeout(() => socket.disconnect(), 50));`,
  "two connections waited for one getToken": `
    const getToken = () => new Promise(() => {});
    const sockets = [1, 2].map(() => open(getToken, { timeout: 60_000 }));
    const opens = sockets.map(({ io }) => new Promise((resolve) => io.on("open", resolve)));
    Promise.all(opens).then(() => setTimeout(() => sockets.forEach((socket) => socket.disconnect()), 50));`,
  "an answer to a refresh was awaited": `
    const socket = open(({ reason }) => token(reason === "connect" ? 2 : 300), { timeout: 60_000 });
    socket.on("token_expiring", () => {
      const { engine } = socket.io;
      engine.write = () => {}; // The server never gets it.
      setTimeout(() => socket.disconnect(), 200);
    });`,
  "the person was being asked": `
    const socket = open(({ reason }) => {
      if (reason === "login") setTimeout(() => socket.disconnect(), 50);
      return reason === "login" ? new Promise(() => {}) : null;
    });`,
  "it backed off": `
    const socket = open(() => Promise.reject(new Error("down")), { retryDelay: 60_000 });
    socket.on("connect_error", () => setTimeout(() => socket.disconnect(), 50));`,
  "it was about to try a refresh again": `
    const down = () => Promise.reject(new Error("down"));
    const socket = open(({ reason }) => (reason === "connect" ? token(2) : down()), { retryDelay: 60_000 });
    socket.on("token_refresh_failed", () => setTimeout(() => socket.disconnect(), 50));`,
})) {
  test(`after disconnect() nothing keeps the process alive: ${when}`, async (t) => {
    const { ended } = run(t, new Person(server), script);
    const { code, complaints } = await ended();
    assert.equal(code, 0, complaints);
  });
}

test("when the person has to sign in, nothing keeps the process alive either", async (t) => {
  const { says, ended } = run(
    t,
    new Person(server),
    `open(() => null).on("login_required", () => say("login_required"));`,
  );
  await says("login_required");
  assert.equal((await ended()).code, 0);
});

for (const [what, life, longer] of [
  ["the server has told it so", 0.8, 0],
  ["the server has given it up", 2, 1500],
]) {
  test(`a machine that slept past the end of its token comes back by itself, when ${what}`, async (t) => {
    const person = new Person(server);
    const { child, says } = run(
      t,
      person,
      `let kept = await token(${life});
       const socket = open(async ({ reason }) => {
         say(reason);
         if (reason === "expired" || reason === "expiring") kept = await token(300);
         return kept;
       });
       socket.on("connect", () => say("in"));
       socket.on("login_required", () => say("login_required"));`,
    );
    await says("in");
    child.kill("SIGSTOP");
    await person.until(({ gone }) => gone.length > 0);
    await passed(longer);
    child.kill("SIGCONT");
    await says("expired");
    await says("in");
  });
}

test("a listener that throws breaks nothing but itself", async (t) => {
  const { says, ended } = run(
    t,
    new Person(server),
    `process.on("uncaughtException", (error) => say(error.message));
     let first = true;
     const socket = open(() => {
       if (!first) return token(300);
       first = false;
       throw new Error("down");
     });
     socket.once("connect_error", () => {
       throw new Error("a mistake of the application");
     });
     socket.on("connect", () => {
       say("in");
       socket.disconnect();
     });`,
  );
  await says("a mistake of the application");
  await says("in");
  assert.equal((await ended()).code, 0);
});

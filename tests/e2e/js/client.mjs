// Drives the official client through the steps that a test gives it as one JSON object on stdin:
//   {"url": "...", "options": {...}, "steps": [{"do": "connect", ...}, ...]}
// Whatever happens is printed as one JSON object a line, in the order in which it happens. Bytes are
// {"$bytes": "<base64>"} in both directions; what JSON does not have is said to the client as {"$undefined": true},
// {"$date": "2020-02-29T12:00:00.000Z"} and {"$buffer": "<base64>"} (an ArrayBuffer). The option `parser` is "msgpack"
// or absent. The process ends after the last step, or with status 1.

import { io } from "socket.io-client";
import msgpack from "socket.io-msgpack-parser";

const input = JSON.parse(await text(process.stdin));
const sockets = new Map();
const seen = []; // what has happened and was not yet waited for
const watched = new WeakSet(); // managers and engines
let wake = () => {};
let say = (line) => {
  process.stdout.write(JSON.stringify(pack(line)) + "\n");
  seen.push(line);
  wake();
};

for (const step of input.steps) {
  const run = {
    connect, wait, emit, call, answer, disconnect, reconnect, drop,
  }[step.do];
  await run(step);
}
say = () => {}; // What comes now is the driver's own doing.
for (const socket of sockets.values()) socket.disconnect();
// The process ends by itself when the last request has been answered.
setTimeout(() => process.exit(0), 2000).unref();

async function text(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

// `as` names the socket for later steps; without it that is the namespace.
function connect({ ns = "/", as = ns, options = {} }) {
  const all = { reconnectionDelay: 20, reconnectionDelayMax: 50, ...input.options, ...unpack(options) };
  if (all.parser === "msgpack") all.parser = msgpack;
  const socket = io(input.url + ns, all);
  sockets.set(as, socket);
  const manager = socket.io;
  const engineName = () => manager.engine?.transport?.name;
  socket.on("connect", () => say({ as, what: "connect", id: socket.id, transport: engineName() }));
  socket.on("connect_error", (err) => say({ as, what: "connect_error", message: err.message, data: err.data ?? null }));
  socket.on("disconnect", (reason) => say({ as, what: "disconnect", reason }));
  socket.onAny((event, ...args) => {
    if (typeof args.at(-1) === "function") args.pop();
    say({ as, what: "event", event, args });
  });
  if (!watched.has(manager)) {
    watched.add(manager);
    const watch = () => {
      if (watched.has(manager.engine)) return;
      watched.add(manager.engine);
      manager.engine.on("upgrade", (transport) => say({ as, what: "upgrade", transport: transport.name }));
    };
    if (manager.engine) watch();
    manager.on("open", watch);
    manager.on("close", (reason) => say({ as, what: "closed", reason }));
    manager.on("reconnect", (attempt) => say({ as, what: "reconnect", attempt }));
  }
}

async function wait({ as = "/", what, event }) {
  for (;;) {
    const found = seen.findIndex(
      (line) => line.what === what && (what === "upgrade" || line.as === as) && (event === undefined || line.event === event),
    );
    if (found >= 0) {
      seen.splice(found, 1);
      return;
    }
    await new Promise((resolve) => (wake = resolve));
  }
}

function emit({ as = "/", args, times = 1, volatile = false }) {
  const socket = sockets.get(as);
  for (let n = 0; n < times; n++) {
    const values = unpack(args).map((value) => (value === "$n" ? n : value));
    (volatile ? socket.volatile : socket).emit(...values);
  }
}

async function call({ as = "/", args, timeout = 5000 }) {
  const answers = await new Promise((resolve) => {
    sockets.get(as).timeout(timeout).emit(...unpack(args), (err, ...values) => resolve(err ? null : values));
  });
  say({ as, what: answers ? "ack" : "ack_timeout", args: answers });
}

// From now on an event that asks for an acknowledgement gets these values.
function answer({ as = "/", event, args }) {
  sockets.get(as).on(event, (...values) => values.at(-1)(...unpack(args)));
}

function disconnect({ as = "/" }) {
  sockets.get(as).disconnect();
}

function reconnect({ as = "/" }) {
  sockets.get(as).connect();
}

// The client's own engine goes away, as when a laptop is closed.
function drop({ as = "/" }) {
  sockets.get(as).io.engine.close();
}

function pack(value) {
  if (value instanceof ArrayBuffer) value = Buffer.from(value);
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return value.map(pack);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, pack(item)]));
  }
  return value;
}

function unpack(value) {
  if (Array.isArray(value)) return value.map(unpack);
  if (value && typeof value === "object") {
    if (typeof value.$bytes === "string") return Buffer.from(value.$bytes, "base64");
    if (typeof value.$buffer === "string") return new Uint8Array(Buffer.from(value.$buffer, "base64")).buffer;
    if (typeof value.$date === "string") return new Date(value.$date);
    if (value.$undefined === true) return undefined;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpack(item)]));
  }
  return value;
}

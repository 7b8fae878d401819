// Everything this package uses of socket.io-client that is not in its documentation. `checkInternals` is called for
// every socket, so a version of the official client that differs raises an error instead of sending a token late. The
// minified builds rename whatever begins with `_`, so none of that is used by its name.

import { guarded } from "./events.js";

/** @typedef {import("socket.io-client").Socket} Socket */
/** @typedef {{ tryCount: number, args: unknown[] }} QueuedPacket an entry of the queue of the option `retries` */
/**
 * @typedef {object} Internals
 * @property {(packet: object) => void} packet writes a packet to the transport at once.
 * @property {(id: string, pid?: string) => void} onconnect takes the server's answer to CONNECT.
 * @property {number} ids the id of the next acknowledgement.
 * @property {Record<string, any>} acks the functions that wait for an acknowledgement, by id.
 * @property {{ id?: number }[]} sendBuffer
 * @property {unknown[]} receiveBuffer
 */

/** @type {WeakMap<Internals, string>} the property in which a socket has the queue of `retries` */
const queueNames = new WeakMap();
/** The arrays of a new socket that are not that queue. */
const OTHER_ARRAYS = ["sendBuffer", "receiveBuffer", "subs"];

/** The types of a packet in the Socket.IO protocol. */
const DISCONNECT = 1;
const EVENT = 2;

/** @param {Socket} socket @returns {Internals} */
function internals(socket) {
  return /** @type {Internals} */ (/** @type {unknown} */ (socket));
}

/**
 * Checks that the official client is built as this package expects.
 *
 * @param {Socket} socket
 * @throws {TypeError} it is not.
 */
export function checkInternals(socket) {
  const inner = internals(socket);
  const queues = Object.entries(inner).filter(([name, value]) => Array.isArray(value) && !OTHER_ARRAYS.includes(name));
  if (queues[0] !== undefined) queueNames.set(inner, queues[0][0]);
  const missing = Object.entries({
    "Socket.packet": typeof inner.packet === "function",
    "Socket.onconnect": typeof inner.onconnect === "function",
    "Socket.ids": Number.isInteger(inner.ids),
    "Socket.acks": typeof inner.acks === "object" && inner.acks !== null,
    "Socket._queue": queues.length === 1,
    "Socket.sendBuffer": Array.isArray(inner.sendBuffer),
    "Socket.receiveBuffer": Array.isArray(inner.receiveBuffer),
    "Manager.disconnect": typeof (/** @type {any} */ (socket.io).disconnect) === "function",
  }).flatMap(([name, present]) => (present ? [] : [name]));
  if (missing.length === 0) return;
  throw new TypeError(
    `iogate-client cannot work with this version of socket.io-client: ${missing.join(", ")} is not what it was in 4.6 to 4.8. ` +
      "Install socket.io-client 4.8, or a newer iogate-client.",
  );
}

/**
 * Calls back when the server has accepted CONNECT, before the official client sends what the application has emitted.
 *
 * @param {Socket} socket
 * @param {(recoverable: boolean) => void} callback gets whether the client will ask for the events that it misses.
 */
export function onAccepted(socket, callback) {
  const inner = internals(socket);
  const { onconnect } = inner;
  inner.onconnect = (...args) => (callback(args[1] !== undefined), onconnect.apply(socket, args));
}

/**
 * Sends an event past the queue of `retries`, the send buffer and the flags of the socket, all of which belong to the
 * application. On a transport that is lost the event is lost too: it is never sent on another one.
 *
 * @param {Socket} socket @param {string} event @param {unknown} detail
 * @param {(answer: any) => void} [answered] gets the acknowledgement, if it comes.
 * @returns {() => void} forgets the acknowledgement.
 */
export function sendAtOnce(socket, event, detail, answered) {
  const inner = internals(socket);
  const packet = { type: EVENT, data: [event, detail], options: { compress: true } };
  if (answered === undefined) {
    inner.packet(packet);
    return () => {};
  }
  const id = inner.ids++;
  inner.acks[id] = answered;
  inner.packet({ ...packet, id });
  return () => void delete inner.acks[id];
}

/**
 * Leaves a namespace whose CONNECT the server has not answered yet. The official client does not tell the server then.
 *
 * @param {Socket} socket
 */
export function leave(socket) {
  internals(socket).packet({ type: DISCONNECT });
}

/**
 * Ends the transport of a manager, and opens another one. The connected sockets of the manager come back with it.
 *
 * @param {import("socket.io-client").Manager} manager
 */
export function reopen(manager) {
  if (manager.engine?.readyState === "open") /** @type {any} */ (manager).disconnect();
  manager.open();
}

/**
 * Drops what a socket holds of its user: events that were not sent, not acknowledged or not handled. Where an
 * acknowledgement was waited for, it fails, as the official client has it.
 *
 * @param {Socket} socket
 * @param {() => void} disconnect disconnects the socket. What the application emits meanwhile is kept.
 */
export function forgetUser(socket, disconnect) {
  const inner = internals(socket);
  const dropped = [...queueOf(inner)];
  for (const packet of dropped) packet.tryCount = Infinity; // Not to be tried again.
  inner.sendBuffer = [];
  inner.receiveBuffer = [];
  try {
    disconnect();
  } finally {
    failAcks(inner);
    for (const packet of dropped) if (queueOf(inner).includes(packet)) failQueued(inner, packet);
  }
}

/** @param {Internals} inner @returns {QueuedPacket[]} */
function queueOf(inner) {
  return /** @type {any} */ (inner)[/** @type {string} */ (queueNames.get(inner))];
}

/** @param {Internals} inner @param {QueuedPacket[]} queue */
function setQueue(inner, queue) {
  /** @type {any} */ (inner)[/** @type {string} */ (queueNames.get(inner))] = queue;
}

/** @param {Internals} inner */
function failAcks(inner) {
  for (const [id, ack] of Object.entries(inner.acks)) {
    if (inner.sendBuffer.some((packet) => String(packet.id) === id)) continue;
    delete inner.acks[id];
    if (ack.withError) guarded(() => ack.call(inner, new Error("socket has been disconnected")));
  }
}

/** @param {Internals} inner @param {QueuedPacket} packet */
function failQueued(inner, packet) {
  // Its callback removes the first of the queue and sends the next: let it be alone there.
  const others = queueOf(inner).filter((other) => other !== packet);
  setQueue(inner, [packet]);
  guarded(() => /** @type {(error: Error) => void} */ (packet.args.at(-1))(new Error("socket has been disconnected")));
  setQueue(inner, [...others, ...queueOf(inner).filter((other) => other !== packet)]);
}

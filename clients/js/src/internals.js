// All undocumented parts of socket.io-client that this package uses. `checkInternals` is called for every socket, so an
// incompatible version of the official client throws an error instead of sending a token late. The minified builds
// rename all properties that begin with `_`, so this package does not use these names.

import { guarded } from "./events.js";

/** @typedef {import("socket.io-client").Socket} Socket */
/** @typedef {{ tryCount: number, args: unknown[] }} QueuedPacket an entry of the queue of the option `retries` */
/**
 * @typedef {object} Internals
 * @property {(packet: object) => void} packet writes a packet to the transport immediately.
 * @property {(id: string, pid?: string) => void} onconnect handles the server's answer to CONNECT.
 * @property {number} ids the id of the next acknowledgement.
 * @property {Record<string, any>} acks the callbacks that wait for an acknowledgement, by id.
 * @property {{ id?: number }[]} sendBuffer
 * @property {unknown[]} receiveBuffer
 */

/** @type {WeakMap<Internals, string>} the name of the property with a socket's `retries` queue */
const queueNames = new WeakMap();
/** The other arrays of a new socket. */
const OTHER_ARRAYS = ["sendBuffer", "receiveBuffer", "subs"];

/** Packet types of the Socket.IO protocol. */
const DISCONNECT = 1;
const EVENT = 2;

/** @param {Socket} socket @returns {Internals} */
function internals(socket) {
  return /** @type {Internals} */ (/** @type {unknown} */ (socket));
}

/**
 * Check that the official client has the internals that this package uses.
 *
 * @param {Socket} socket
 * @throws {TypeError} it does not have them.
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
 * Call back when the server accepts CONNECT, before the official client sends the events that the application emitted.
 *
 * @param {Socket} socket
 * @param {(recoverable: boolean) => void} callback receives true if the server gave the client a key (`pid`) with which
 *   it can request missed events after a reconnect.
 */
export function onAccepted(socket, callback) {
  const inner = internals(socket);
  const { onconnect } = inner;
  inner.onconnect = (...args) => (callback(args[1] !== undefined), onconnect.apply(socket, args));
}

/**
 * Send an event directly, bypassing the `retries` queue, the send buffer and the flags of the socket, all of which
 * belong to the application. If the transport is lost, the event is lost too: it is never sent on another transport.
 *
 * @param {Socket} socket @param {string} event @param {unknown} detail
 * @param {(answer: any) => void} [answered] receives the acknowledgement, if it arrives.
 * @returns {() => void} a function that stops waiting for the acknowledgement.
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
 * Leave a namespace whose CONNECT the server has not answered yet. The official client would not tell the server.
 *
 * @param {Socket} socket
 */
export function leave(socket) {
  internals(socket).packet({ type: DISCONNECT });
}

/**
 * Close the transport of a manager, and open a new one. The active sockets of the manager reconnect on it.
 *
 * @param {import("socket.io-client").Manager} manager
 */
export function reopen(manager) {
  if (manager.engine?.readyState === "open") /** @type {any} */ (manager).disconnect();
  manager.open();
}

/**
 * Drop the data of a user that a socket holds: events that were not sent, not acknowledged or not handled yet.
 * Acknowledgements that the application waits for fail with the same error as in the official client.
 *
 * @param {Socket} socket
 * @param {() => void} disconnect disconnects the socket. Events that the application emits meanwhile are kept.
 */
export function forgetUser(socket, disconnect) {
  const inner = internals(socket);
  const dropped = [...queueOf(inner)];
  for (const packet of dropped) packet.tryCount = Infinity; // Prevent further retries.
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
  // The callback removes the first packet of the queue and sends the next one, so the queue must contain only this one.
  const others = queueOf(inner).filter((other) => other !== packet);
  setQueue(inner, [packet]);
  guarded(() => /** @type {(error: Error) => void} */ (packet.args.at(-1))(new Error("socket has been disconnected")));
  setQueue(inner, [...others, ...queueOf(inner).filter((other) => other !== packet)]);
}

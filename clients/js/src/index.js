// `connect`: the official `io()`, with a token that is kept fresh.

import { io } from "socket.io-client";
import { Connection } from "./connection.js";
import { Follower } from "./follower.js";
import { checkInternals } from "./internals.js";

/**
 * Open a socket as the official `io()` does, and keep its token fresh while it is in use.
 *
 * Sockets that share a connection (namespaces of one server) share its token: `getToken` is called once for all.
 *
 * @param {string} url the URL of the server, with the namespace if it is not `/`.
 * @param {import("./index.js").ConnectOptions} options the options of the official client, and:
 *   `getToken`: returns a token, or null if there is none, or a promise of either;
 *   `inBand`: send the token with `authenticate` after CONNECT, not in CONNECT;
 *   `retryDelay`, `retryDelayMax`: the shortest and the longest back-off, in milliseconds.
 * @returns {import("./index.js").AnySocket} the official socket.
 * @throws {TypeError} `getToken` is missing, or this package does not support the version of socket.io-client.
 */
export function connect(url, { getToken, inBand = false, retryDelay = 1000, retryDelayMax = 60_000, auth, ...options }) {
  if (typeof getToken !== "function") throw new TypeError("connect(url, { getToken }) needs a function getToken");
  /** @type {Follower} */
  let follower;
  const socket = io(url, {
    ...options,
    // Called whenever the transport opens. On a shared connection, this can happen during this call, so defer it.
    auth: (give) => queueMicrotask(() => follower.credentials(give)),
  });
  try {
    checkInternals(socket);
  } catch (error) {
    socket.disconnect();
    throw error;
  }
  const connection = Connection.of(socket.io, { getToken, retryDelay, retryDelayMax });
  follower = new Follower(socket, connection, { inBand, auth });
  return socket;
}

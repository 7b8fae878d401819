// `connect`: the official `io()`, with somebody behind the socket who sees to its token.

import { io } from "socket.io-client";
import { Connection } from "./connection.js";
import { Follower } from "./follower.js";
import { checkInternals } from "./internals.js";

/**
 * Opens a socket as the official `io()` does, and keeps its token fresh for as long as it lives.
 *
 * Sockets that share a connection (namespaces of one server) share its token: `getToken` is asked once for all.
 *
 * @param {string} url the server, with the namespace if it is not `/`.
 * @param {import("./index.js").ConnectOptions} options those of the official client, and:
 *   `getToken`: gives a token, or null for none, or a promise of it;
 *   `inBand`: send it by `authenticate` after CONNECT, not with it;
 *   `retryDelay`, `retryDelayMax`: milliseconds of the shortest and the longest back-off.
 * @returns {import("./index.js").AnySocket} the official socket.
 * @throws {TypeError} there is no `getToken`, or the version of socket.io-client is not one that this package knows.
 */
export function connect(url, { getToken, inBand = false, retryDelay = 1000, retryDelayMax = 60_000, auth, ...options }) {
  if (typeof getToken !== "function") throw new TypeError("connect(url, { getToken }) needs a function getToken");
  /** @type {Follower} */
  let follower;
  const socket = io(url, {
    ...options,
    // Asked whenever the transport has opened; that can be within this very call, where the connection is shared.
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

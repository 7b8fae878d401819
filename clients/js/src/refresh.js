// The refresh: replace a token that expires soon with a new one, on the open connection.

import { RefusedError } from "./events.js";
import { sendAtOnce } from "./internals.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./index.js").Refusal} Refusal */
/** @typedef {import("socket.io-client").Socket} Socket */

export class Refresh {
  #connection;
  /** @type {unknown} the transport whose token is being refreshed */
  #engine = null;
  /** The last notice that was handled, to ignore its copies: the server sends one to every namespace. */
  #notice = "";
  /** @type {{ socket: Socket | null, wake: () => void }} the current wait: for an answer to `socket`, or for a delay */
  #waiting = { socket: null, wake: () => {} };

  /** @param {Connection} connection */
  constructor(connection) {
    this.#connection = connection;
  }

  /**
   * Refresh the token. Further calls during a refresh do nothing. Failed attempts are repeated until a rejection says
   * that a retry is useless, or until the connection ends: the server ends it when the token expires.
   *
   * @param {unknown} notice the data of the server's `token_expiring`, which identifies the token.
   */
  async begin(notice) {
    const connection = this.#connection;
    const engine = connection.manager.engine;
    const name = `${engine?.id} ${JSON.stringify(notice)}`;
    if (this.#engine === engine || this.#notice === name) return;
    this.#engine = engine;
    this.#notice = name;
    /** @type {{ token: string | null, user: object } | null} */
    let renewed = null;
    for (let failures = 0; connection.live(engine); failures++) {
      if (failures > 0) await this.#pause(connection.delay(failures - 1));
      if (!connection.live(engine)) break;
      try {
        renewed ??= await connection.newToken(engine);
        if (!connection.live(engine)) break;
        const { token, user } = renewed;
        if (token === null) throw new RefusedError({ message: "getToken gave no token", code: "no_token", retry: "login" });
        const identity = await this.#authenticate(token);
        connection.refreshed(engine, { token, user }, true);
        connection.announce("token_refreshed", identity);
        break;
      } catch (error) {
        if (!connection.live(engine)) break;
        const retry = error instanceof RefusedError ? error.data.retry : "later";
        if (error instanceof RefusedError) renewed = null;
        connection.announce("token_refresh_failed", error);
        if (retry !== "refresh" && retry !== "later") break;
      }
    }
    if (this.#engine === engine) this.#engine = null;
    if (renewed?.token && !connection.live(engine)) {
      connection.refreshed(engine, { token: renewed.token, user: renewed.user }, false);
    }
  }

  /** @param {string} token */
  async #authenticate(token) {
    const socket = /** @type {Socket} */ (this.#connection.connected[0]);
    const limit = this.#connection.manager.timeout();
    let end = () => {};
    /** @type {Promise<{ error?: Refusal } | undefined>} */
    const answered = new Promise((resolve, reject) => {
      const forget = sendAtOnce(socket, "authenticate", { token }, resolve);
      const late = () => reject(new Error(`the server did not answer \`authenticate\` within ${limit} ms`));
      const timer = typeof limit === "number" ? this.#connection.after(limit, late) : undefined;
      end = () => (clearTimeout(timer), forget());
      this.#waiting = { socket, wake: () => reject(new Error("the socket has been disconnected")) };
    });
    const answer = await answered.finally(end);
    if (answer?.error) {
      // The server sends `unauthorized` too. In a refresh, it does not announce the end of the socket.
      for (const follower of this.#connection.followers) follower.forgive();
      throw new RefusedError(answer.error);
    }
    return answer ?? {};
  }

  /** @param {number} delay milliseconds @returns {Promise<void>} */
  #pause(delay) {
    return new Promise((resolve) => {
      const timer = this.#connection.after(delay, resolve);
      this.#waiting = { socket: null, wake: () => (clearTimeout(timer), resolve()) };
    });
  }

  /** Handle the end of a socket: stop waiting for its answer, and stop any wait if no socket is connected. */
  left() {
    const { socket, wake } = this.#waiting;
    if (this.#connection.connected.length === 0 || (socket !== null && !socket.connected)) wake();
  }
}

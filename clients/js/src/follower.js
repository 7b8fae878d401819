// The token handling of one socket: send its credentials, and act on the server's rejections and disconnects.

import { announce, RefusedError } from "./events.js";
import { forgetUser, leave, onAccepted, sendAtOnce } from "./internals.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./connection.js").Socket} Socket */

export class Follower {
  /** True while the application wants the socket to be connected and this package has not given up. */
  on;
  /** @type {string | null | undefined} the token that was last used for the socket; undefined if there was none yet */
  sent = undefined;

  #connection;
  #inBand;
  #auth;
  #connect;
  #disconnect;
  /** The number of the current attempt. Asynchronous work of an earlier attempt is outdated and must not continue. */
  #round = 0;
  /** Cancel the next attempt, if one is scheduled. */
  #stop = () => {};
  /** @type {RefusedError | null} the reason why the server is about to disconnect the socket */
  #refusal = null;
  /** True if a new token was requested after an expired one, and the socket has not stayed connected since. */
  #renewed = false;
  #failures = 0;
  /** True if CONNECT was sent and the server has not answered yet. */
  #asked = false;
  /** True if the socket was admitted since the last sign-out. */
  #used = false;
  /** True if the socket ended with `login_required`, so that the next user may be a different one. */
  #signedOut = false;
  /** True if the official client has a key with which it can request missed events. */
  #recoverable = false;
  /** True if that key belongs to a user who has signed out. */
  #keyIsOld = false;
  /** The time of `performance.now()` at which the socket was admitted; Infinity before that. */
  #since = Infinity;

  /**
   * @param {Socket} socket @param {Connection} connection
   * @param {{ inBand: boolean, auth: import("./index.js").ConnectOptions["auth"] }} options
   */
  constructor(socket, connection, { inBand, auth }) {
    this.socket = socket;
    this.on = socket.active;
    this.#connection = connection;
    this.#inBand = inBand;
    this.#auth = auth;
    this.#connect = socket.connect;
    this.#disconnect = socket.disconnect;
    // The application connects and disconnects with these two methods; `open` and `close` call them too.
    socket.connect = () => this.#start();
    socket.disconnect = () => this.#end();
    connection.followers.add(this);
    // Send `authenticate` before any event of the application, so that these events cannot delay the server's verdict.
    onAccepted(socket, (recoverable) => {
      this.#recoverable = recoverable;
      this.#keyIsOld = false;
      if (inBand && this.sent) sendAtOnce(socket, "authenticate", { token: this.sent });
    });
    socket.on("connect", () => this.#connected());
    socket.on("authenticated", () => this.#entered());
    socket.on("connect_error", (error) => this.#refused(error));
    socket.on("unauthorized", (refusal, ack) => {
      this.#refusal = new RefusedError(refusal?.data ?? refusal);
      if (typeof ack === "function") ack(); // The server waits for this acknowledgement before it closes the transport.
    });
    socket.on("token_expiring", (notice) => void connection.refresh.begin(notice));
    socket.on("disconnect", (reason) => this.#disconnected(reason));
  }

  // Connecting.

  /** True if the server has admitted the socket. */
  get in() {
    return this.#since !== Infinity;
  }

  /**
   * Give the official client the payload of CONNECT.
   *
   * @param {(payload: object) => void} give
   */
  async credentials(give) {
    if (!this.socket.active) return; // The application has disconnected it meanwhile, in the same tick.
    const round = ++this.#round;
    const wanted = () => round === this.#round;
    this.sent = undefined;
    this.#asked = false;
    try {
      const auth = this.#auth;
      const extra = typeof auth === "function" ? await new Promise((resolve) => auth(resolve)) : auth;
      const { token, reason } = await this.#connection.token(wanted);
      if (!wanted()) return;
      if (token === null && reason === "expired") {
        this.sent = token;
        this.#fail(new RefusedError({ message: "getToken gave no token", code: "no_token", retry: "login" }));
      } else if (this.#connection.claim(token)) {
        this.sent = token;
        this.#asked = true;
        // Override the `pid` and `offset` that the official client would add: JSON omits `undefined`.
        const key = this.#keyIsOld ? { pid: undefined, offset: undefined } : {};
        give({ ...key, ...extra, ...(token === null || this.#inBand ? {} : { token }) });
      }
    } catch (cause) {
      if (wanted()) this.#failed(cause);
    }
  }

  /** @param {unknown} cause the error that `getToken` threw */
  #failed(cause) {
    this.#fail(new RefusedError({ message: "getToken failed", code: "no_token", retry: "later" }, { cause }));
  }

  /** @param {Error} error the reason not to ask the server, reported like a rejection by the server. */
  #fail(error) {
    this.#disconnect.call(this.socket);
    announce(this.socket, "connect_error", error);
  }

  #connected() {
    this.#refusal = null;
    this.#asked = false;
    if (!this.#inBand) this.#entered();
  }

  #entered() {
    this.#used = true;
    if (this.#since === Infinity) this.#since = performance.now();
  }

  // Rejections and disconnects.

  /** @param {Error & { data?: any }} error */
  #refused(error) {
    // The socket is still active after a network error, and the official client retries.
    if (this.socket.active) return this.#connection.unreachable();
    this.#asked = false;
    this.#follow(error, false);
    if (error.data?.retry !== "refresh" && error.data?.retry !== "login") return;
    // The token was rejected. The server closes the transport, perhaps without an answer to other sockets that sent it.
    for (const other of this.#connection.followers) {
      if (other.socket.active && !other.socket.connected && other.sent === this.sent) other.#fail(error);
    }
  }

  /** @param {string} reason */
  #disconnected(reason) {
    this.#lastWords();
    const refusal = this.#refusal;
    this.#refusal = null;
    this.#asked = false;
    this.#round++;
    // A socket that is admitted and disconnected at once, again and again, does not count as a success.
    if (performance.now() - this.#since >= this.#connection.retryDelay) {
      this.#renewed = false;
      this.#failures = 0;
      this.#connection.settled(this.#since);
    }
    this.#since = Infinity;
    if (reason === "io client disconnect") return;
    if (refusal !== null) {
      this.#disconnect.call(this.socket); // The official client would reconnect, whatever the rejection says.
      this.#follow(refusal, true);
    } else if (!this.socket.active) {
      this.#giveUp();
    }
    this.#connection.left();
  }

  /**
   * Handle an `unauthorized` that arrived together with the disconnect. The official client would keep such events for
   * the next connection.
   */
  #lastWords() {
    const kept = this.socket.receiveBuffer;
    const index = kept.findIndex(([event]) => event === "unauthorized");
    if (index >= 0) announce(this.socket, "unauthorized", kept.splice(index, 1)[0]?.[1]);
  }

  /** Forget the last `unauthorized`: it was about a refresh, and does not announce a disconnect. */
  forgive() {
    this.#refusal = null;
  }

  /**
   * Act on a rejection, as its `retry` says.
   *
   * @param {Error & { data?: any }} error
   * @param {boolean} ended true if the server ended the connection, false if it rejected only this socket.
   */
  #follow(error, ended) {
    const retry = this.#connection.manager.reconnection() ? error.data?.retry : "never";
    if (retry === "refresh") {
      this.#connection.refused(this.sent, "expired");
      if (this.#renewed) return this.#later();
      this.#renewed = true;
      return this.#again(ended);
    }
    if (retry === "later") return this.#later();
    if (retry === "login") return void this.#login(error, ended);
    this.#giveUp();
  }

  /** @param {boolean} ended */
  #again(ended) {
    const round = this.#round;
    this.#stop = this.#connection.whenFree(ended, () => {
      if (round === this.#round) this.#open();
    });
  }

  #later() {
    const timer = this.#connection.after(this.#connection.delay(this.#failures++), () => this.#open());
    this.#stop = () => clearTimeout(timer);
  }

  /** @param {Error} error @param {boolean} ended */
  async #login(error, ended) {
    const round = this.#round;
    this.#connection.refused(this.sent);
    // The next user may be a different one, so drop the user's data. Events that were emitted before any admission are
    // kept: they do not belong to a user yet.
    if (this.#used) this.#forget(() => {});
    const token = await this.#connection.login();
    if (round !== this.#round) return;
    if (token === undefined || (token !== null && token !== this.sent)) return this.#again(ended);
    this.#giveUp();
    this.#signedOut = true;
    announce(this.socket, "login_required", error);
  }

  #giveUp() {
    this.on = false;
    this.#connection.left();
  }

  /** Connect, but not on a transport of a user who has signed out. */
  #open() {
    if (!this.#connection.outdated) return void this.#connect.call(this.socket);
    const round = this.#round;
    const wanted = () => round === this.#round;
    this.#connection.renew(wanted).then(
      () => void (wanted() && this.#connect.call(this.socket)),
      (cause) => void (wanted() && this.#failed(cause)),
    );
  }

  /** Disconnect the socket until `resume`. It is not connected yet, so the application receives no event. */
  suspend() {
    this.#round++;
    this.#asked = false;
    this.#disconnect.call(this.socket);
  }

  resume() {
    this.#connect.call(this.socket);
  }

  // Calls from the application.

  #start() {
    if (!this.socket.active) {
      this.#reset();
      if (this.#signedOut) this.#connection.signOut();
      this.#signedOut = false;
      this.on = true;
      this.#open();
    }
    return this.socket;
  }

  #end() {
    if (this.#asked && !this.socket.connected) {
      leave(this.socket);
      this.#connection.doubt();
    }
    this.#reset();
    this.on = false;
    this.sent = undefined;
    this.#connection.signOut();
    this.#forget(() => this.#disconnect.call(this.socket));
    this.#connection.left();
    return this.socket;
  }

  /** @param {() => void} disconnect */
  #forget(disconnect) {
    this.#used = false;
    this.#keyIsOld ||= this.#recoverable;
    forgetUser(this.socket, disconnect);
  }

  #reset() {
    this.#round++;
    this.#stop();
    this.#refusal = null;
    this.#renewed = false;
    this.#failures = 0;
    this.#connection.settled(Infinity);
  }
}

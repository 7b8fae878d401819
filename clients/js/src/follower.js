// What sees to one socket: hands over its credentials, and does what the server says when it is refused or ended.

import { announce, RefusedError } from "./connection.js";

/** @typedef {import("./connection.js").Connection} Connection */
/** @typedef {import("./connection.js").Socket} Socket */

export class Follower {
  /** Whether the application wants the socket to be connected, and it is not past hope. */
  on;
  /** @type {string | null | undefined} the token that was last shown for the socket; undefined: none was, yet */
  sent = undefined;

  #connection;
  #inBand;
  #auth;
  #connect;
  #disconnect;
  /** What was begun in an earlier round is out of date. */
  #round = 0;
  #stop = () => {};
  /** @type {RefusedError | null} why the server is about to end it */
  #refusal = null;
  /** Whether a new token was fetched for an expired one, and has not let it in. */
  #renewed = false;
  #failures = 0;
  /** When it got in, on the monotonic clock; never, until then. */
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
    // The two calls by which the application says what it wants; `open` and `close` end here too.
    socket.connect = () => this.#start();
    socket.disconnect = () => this.#end();
    connection.followers.add(this);
    socket.on("connect", () => this.#connected());
    socket.on("authenticated", () => this.#entered());
    socket.on("connect_error", (error) => this.#refused(error));
    socket.on("unauthorized", (refusal, ack) => {
      this.#refusal = new RefusedError(refusal?.data ?? refusal);
      if (typeof ack === "function") ack(); // The server waits for it to close the transport.
    });
    socket.on("token_expiring", (notice) => void connection.refresh(notice));
    socket.on("disconnect", (reason) => this.#disconnected(reason));
  }

  // In.

  /**
   * Gives the official client what goes into CONNECT.
   *
   * @param {(payload: object) => void} give
   */
  async credentials(give) {
    const round = ++this.#round;
    this.sent = undefined;
    try {
      const auth = this.#auth;
      const extra = typeof auth === "function" ? await new Promise((resolve) => auth(resolve)) : auth;
      const { token, reason } = await this.#connection.token();
      if (round !== this.#round) return;
      this.sent = token;
      if (token === null && reason === "expired") {
        this.#fail(new RefusedError({ message: "getToken gave no token", code: "no_token", retry: "login" }));
      } else {
        give(token === null || this.#inBand ? { ...extra } : { ...extra, token });
      }
    } catch (cause) {
      if (round !== this.#round) return;
      this.#fail(new RefusedError({ message: "getToken failed", code: "no_token", retry: "later" }, { cause }));
    }
  }

  /** @param {Error} error why there is no use in asking the server; told as if it had refused. */
  #fail(error) {
    this.#disconnect.call(this.socket);
    announce(this.socket, "connect_error", error);
  }

  #connected() {
    this.#refusal = null;
    if (!this.#inBand) this.#entered();
    else if (this.sent) this.socket.emit("authenticate", { token: this.sent });
  }

  #entered() {
    if (this.#since === Infinity) this.#since = performance.now();
  }

  // Out.

  /** @param {Error & { data?: any }} error */
  #refused(error) {
    // Still active: it was the network, and the official client goes on trying.
    if (this.socket.active) return this.#connection.unreachable();
    this.#follow(error, false);
    if (error.data?.retry !== "refresh" && error.data?.retry !== "login") return;
    // The token is at fault: the server closes the transport, maybe without an answer to the others who showed it.
    for (const other of this.#connection.followers) {
      if (other.socket.active && !other.socket.connected && other.sent === this.sent) other.#fail(error);
    }
  }

  /** @param {string} reason */
  #disconnected(reason) {
    this.#lastWords();
    const refusal = this.#refusal;
    this.#refusal = null;
    this.#round++;
    // Let in and put out at once, again and again, is no success.
    if (performance.now() - this.#since >= this.#connection.retryDelay) {
      this.#renewed = false;
      this.#failures = 0;
      this.#connection.settled(this.#since);
    }
    this.#since = Infinity;
    if (reason === "io client disconnect") return;
    if (refusal !== null) {
      this.#disconnect.call(this.socket); // The official client would come back without looking at the refusal.
      this.#follow(refusal, true);
    } else if (!this.socket.active) {
      this.#giveUp();
    }
    this.#connection.left();
  }

  /** The official client keeps events that came together with the end for the next connection. This one is for now. */
  #lastWords() {
    const kept = this.socket.receiveBuffer;
    const index = kept.findIndex(([event]) => event === "unauthorized");
    if (index >= 0) announce(this.socket, "unauthorized", kept.splice(index, 1)[0]?.[1]);
  }

  /** What `unauthorized` said was about a refresh, not about the end. */
  forgive() {
    this.#refusal = null;
  }

  /**
   * @param {Error & { data?: any }} error
   * @param {boolean} ended whether the server ended the connection, or refused this socket only.
   */
  #follow(error, ended) {
    const retry = this.#connection.manager.reconnection() ? error.data?.retry : "never";
    if (retry === "refresh") {
      this.#connection.expired(this.sent);
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
      if (round === this.#round) this.#connect.call(this.socket);
    });
  }

  #later() {
    const timer = this.#connection.after(this.#connection.delay(this.#failures++), () => this.#connect.call(this.socket));
    this.#stop = () => clearTimeout(timer);
  }

  /** @param {Error} error @param {boolean} ended */
  async #login(error, ended) {
    const round = this.#round;
    const token = await this.#connection.login();
    if (round !== this.#round) return;
    if (token !== null && token !== this.sent) return this.#again(ended);
    this.#giveUp();
    announce(this.socket, "login_required", error);
  }

  #giveUp() {
    this.on = false;
    this.#connection.left();
  }

  // The application's calls.

  #start() {
    if (!this.socket.active) {
      this.#reset();
      this.on = true;
    }
    return this.#connect.call(this.socket);
  }

  #end() {
    this.#reset();
    this.on = false;
    this.#disconnect.call(this.socket);
    this.#connection.left();
    return this.socket;
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

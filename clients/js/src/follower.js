// What sees to one socket: hands over its credentials, and does what the server says when it is refused or ended.

import { announce, RefusedError } from "./events.js";
import { forgetUser, leave, onAccepted, sendAtOnce } from "./internals.js";

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
  /** Whether CONNECT was sent, and the server has not answered. */
  #asked = false;
  /** Whether the socket has been let in since the last sign-out. */
  #used = false;
  /** Whether it ended with `login_required`: whoever connects next may be somebody else. */
  #signedOut = false;
  /** Whether the official client has a key to the events that it misses, and whether that is of a user who has gone. */
  #recoverable = false;
  #keyIsOld = false;
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
    // Before anything of the application: no event of it can keep the server from deciding.
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
      if (typeof ack === "function") ack(); // The server waits for it to close the transport.
    });
    socket.on("token_expiring", (notice) => void connection.refresh.begin(notice));
    socket.on("disconnect", (reason) => this.#disconnected(reason));
  }

  // In.

  /** Whether the server has let the socket in. */
  get in() {
    return this.#since !== Infinity;
  }

  /**
   * Gives the official client what goes into CONNECT.
   *
   * @param {(payload: object) => void} give
   */
  async credentials(give) {
    if (!this.socket.active) return; // The application has disconnected it within the same turn.
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
        // In the place of what the official client would add: JSON has no `undefined`.
        const key = this.#keyIsOld ? { pid: undefined, offset: undefined } : {};
        give({ ...key, ...extra, ...(token === null || this.#inBand ? {} : { token }) });
      }
    } catch (cause) {
      if (wanted()) this.#failed(cause);
    }
  }

  /** @param {unknown} cause what `getToken` has thrown */
  #failed(cause) {
    this.#fail(new RefusedError({ message: "getToken failed", code: "no_token", retry: "later" }, { cause }));
  }

  /** @param {Error} error why there is no use in asking the server; told as if it had refused. */
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

  // Out.

  /** @param {Error & { data?: any }} error */
  #refused(error) {
    // Still active: it was the network, and the official client goes on trying.
    if (this.socket.active) return this.#connection.unreachable();
    this.#asked = false;
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
    this.#asked = false;
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
    // Whoever signs in next may be somebody else. What was emitted before anybody was let in is nobody's.
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

  /** Connects; not on a transport of somebody who has signed out. */
  #open() {
    if (!this.#connection.outdated) return void this.#connect.call(this.socket);
    const round = this.#round;
    const wanted = () => round === this.#round;
    this.#connection.renew(wanted).then(
      () => void (wanted() && this.#connect.call(this.socket)),
      (cause) => void (wanted() && this.#failed(cause)),
    );
  }

  /** Takes the socket off its transport, until `resume`, without a word to the application. */
  suspend() {
    this.#round++;
    this.#asked = false;
    this.#disconnect.call(this.socket);
  }

  resume() {
    this.#connect.call(this.socket);
  }

  // The application's calls.

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

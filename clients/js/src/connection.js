// The state that all sockets of one connection share: the token, the request for it, and its refresh. The server has
// one identity per connection. This module never reads the wall clock: the server decides when a token has expired, and
// tells the client.

import { announce } from "./events.js";
import { reopen } from "./internals.js";
import { Refresh } from "./refresh.js";
import { abandonRequest, requestToken } from "./requests.js";

/** @typedef {import("socket.io-client").Socket} Socket */
/** @typedef {import("socket.io-client").Manager} Manager */
/** @typedef {import("./index.js").Reason} Reason */
/** @typedef {import("./index.js").Refusal} Refusal */
/** @typedef {import("./follower.js").Follower} Follower */
/** @typedef {{ engine: unknown, reason: Reason, promise: Promise<string | null>, value?: string | null }} Supply */

/** Milliseconds to wait for the server to close a transport. */
const LINGER = 1000;

export class Connection {
  /** @type {WeakMap<Manager, Connection>} */
  static #all = new WeakMap();

  /**
   * Return the connection that all sockets of a manager share. The latest `getToken` serves all of them, because an
   * earlier one may see an outdated state of the page.
   *
   * @param {Manager} manager
   * @param {{ getToken: import("./index.js").GetToken, retryDelay: number, retryDelayMax: number }} settings
   */
  static of(manager, settings) {
    const connection = Connection.#all.get(manager) ?? new Connection(manager);
    Connection.#all.set(manager, connection);
    return Object.assign(connection, settings);
  }

  /** @type {import("./index.js").GetToken} */
  getToken = () => null;
  retryDelay = 0;
  retryDelayMax = 0;
  /** @type {Set<Follower>} */
  followers = new Set();

  /** The current user. A sign-out replaces this object; work that began with another one belongs to a former user. */
  #user = {};
  /** @type {Reason} the reason for which the next token is needed */
  #reason = "connect";
  /** @type {{ reason: Reason, promise: Promise<string | null>, cancel: (error: Error) => void } | null} */
  #request = null;
  /** @type {Supply | null} the token for the transport in use; if `engine` is null, for the next one that opens */
  #supply = null;
  /**
   * The latest token sent, with its transport and user.
   *
   * @type {{ engine: unknown, user: object, token: string | null | undefined } | null}
   */
  #shown = null;
  /**
   * The latest login, until it admits a socket.
   *
   * @type {{ promise: Promise<string | null | undefined>, since: number } | null}
   */
  #answer = null;
  refresh = new Refresh(this);

  /** @param {Manager} manager */
  constructor(manager) {
    this.manager = manager;
  }

  // The token.

  /**
   * Get the token for the open transport. All sockets on the transport get the same token.
   *
   * @param {() => boolean} wanted returns true if the token is still needed, after a sign-out.
   * @returns {Promise<{ token: string | null, reason: Reason }>}
   */
  token(wanted) {
    return this.#ofUser(wanted, async () => {
      const engine = this.manager.engine;
      let supply = this.#supply;
      if (supply === null || (supply.engine !== null && supply.engine !== engine)) {
        supply = this.#supplies({ engine, reason: this.#reason, promise: this.#ask(this.#reason) });
      }
      supply.engine = engine;
      return { token: await supply.promise, reason: supply.reason };
    });
  }

  /** @param {Supply} supply */
  #supplies(supply) {
    this.#supply = supply;
    supply.promise.then(
      (token) => (supply.value = token),
      () => this.#supply === supply && (this.#supply = null),
    );
    return supply;
  }

  /**
   * Run `get` again if the user signed out meanwhile, so that a result for one user is never used for the next.
   *
   * @template T
   * @param {() => boolean} wanted @param {() => Promise<T>} get
   * @returns {Promise<T>}
   */
  async #ofUser(wanted, get) {
    for (;;) {
      const user = this.#user;
      try {
        const result = await get();
        if (user === this.#user) return result;
      } catch (error) {
        if (user === this.#user) throw error;
      }
      if (!wanted()) throw new Error("disconnected");
    }
  }

  /**
   * Drop a token that the server rejected, unless there is a newer one already.
   *
   * @param {string | null | undefined} token
   * @param {Reason} [reason] the reason for which the next token is needed.
   */
  refused(token, reason) {
    if (this.#supply?.value === token) this.#supply = null;
    if (this.#supply === null && reason !== undefined) this.#reason = reason;
  }

  /** Drop a token for a transport that did not open, because it would be stale when a transport opens. */
  unreachable() {
    if (this.#supply?.engine === null) this.#supply = null;
  }

  /**
   * Ask the user to sign in, once. All sockets that are rejected before this login admits a socket get its result.
   *
   * @returns {Promise<string | null | undefined>} a token; null if the user did not sign in; undefined if there was a
   *   sign-out meanwhile, so that the result is not for the current user.
   */
  login() {
    const user = this.#user;
    const answered = async () => {
      const token = await this.#ask("login").catch(() => null);
      if (user !== this.#user) return undefined;
      if (token !== null) this.#supplies({ engine: null, reason: "login", promise: Promise.resolve(token), value: token });
      return token;
    };
    this.#answer ??= { since: performance.now(), promise: answered() };
    return this.#answer.promise;
  }

  /**
   * Forget the latest login if a socket was admitted after it, so that the next rejection asks the user again.
   *
   * @param {number} since the time of `performance.now()` at which the socket was admitted.
   */
  settled(since) {
    if (this.#answer !== null && this.#answer.since < since) this.#answer = null;
  }

  /**
   * Request a token. While a request is open, callers get its result; but a login joins only another login.
   *
   * @param {Reason} reason
   * @returns {Promise<string | null>}
   */
  async #ask(reason) {
    const joined = this.#request;
    if (joined !== null && (reason !== "login" || joined.reason === "login")) return joined.promise;
    const request = { reason, ...requestToken({ getToken: this.getToken, server: this.#server, reason, limit: this.#limit(reason) }) };
    this.#request = request;
    try {
      const token = await request.promise;
      if (this.#reason === reason) this.#reason = "reconnect";
      return token;
    } finally {
      if (this.#request === request) this.#request = null;
    }
  }

  /** @param {Reason} reason @returns {(fail: (error: Error) => void) => (() => void)} */
  #limit(reason) {
    // A login has no time limit, because the user may take any time. Any other call may hang, and is then repeated.
    const limit = reason === "login" ? false : this.manager.timeout();
    if (typeof limit !== "number") return () => () => {};
    return (fail) => {
      const timer = this.after(limit, () => fail(new Error(`getToken took longer than ${limit} ms`)));
      return () => clearTimeout(timer);
    };
  }

  /** The name of the server. `getToken` is called once at a time per server. */
  get #server() {
    const { hostname, port, path } = /** @type {any} */ (this.manager.engine)?.opts ?? {};
    return `${hostname}:${port}${path}`;
  }

  // The user.

  /**
   * Record that the application signed the user out on at least one socket: drop the token, the open request and the
   * latest login. A transport that other sockets still use is not closed.
   */
  signOut() {
    this.#user = {};
    this.#reason = "connect";
    this.#supply = this.#answer = null;
    const asked = this.#request;
    this.#request = null;
    // A login for another socket may continue, but its result is not used here.
    const goesOn = asked?.reason === "login" && [...this.followers].some((follower) => follower.on);
    if (!goesOn) asked?.cancel(new Error("disconnected"));
    abandonRequest(this.getToken, this.#server);
  }

  /** True if the open transport was used by a user who has signed out. */
  get outdated() {
    const { engine } = this.manager;
    return engine?.readyState === "open" && this.#shown?.engine === engine && this.#shown.user !== this.#user;
  }

  /**
   * Make the transport usable for the current user, before a socket connects on it.
   *
   * @param {() => boolean} wanted
   */
  async renew(wanted) {
    const { token } = await this.token(wanted);
    if (wanted()) this.claim(token);
  }

  /**
   * Claim the open transport for a token, or open a new transport. The server has one identity per transport, so a
   * transport of a user who has signed out can be used only with exactly the same token.
   *
   * @param {string | null} token
   * @returns {boolean} true if the token may be sent on the open transport.
   */
  claim(token) {
    if (this.outdated && (token === null || token !== this.#shown?.token)) {
      if (this.#supply !== null) this.#supply.engine = null;
      this.#reopen();
      return false;
    }
    this.#shown = { engine: this.manager.engine, user: this.#user, token };
    return true;
  }

  /** Forget which token the transport has: a socket left before the server's verdict, which is therefore unknown. */
  doubt() {
    if (this.#shown !== null) this.#shown.token = undefined;
  }

  #reopen() {
    // Sockets that wait for the server's answer must not receive an event about the closed transport.
    const silent = [...this.followers].filter(({ socket }) => socket.active && !socket.connected);
    for (const follower of silent) follower.suspend();
    reopen(this.manager);
    for (const follower of silent) follower.resume();
  }

  // The refresh.

  /**
   * Get a newer token for the open transport.
   *
   * @param {unknown} engine
   * @returns {Promise<{ token: string | null, user: object }>} the token and its user, as an argument of `refreshed`.
   */
  newToken(engine) {
    return this.#ofUser(
      () => this.live(engine),
      async () => {
        const user = this.#user;
        const token = await this.#ask("expiring");
        if (token !== null && token === this.#shown?.token) throw new Error("getToken gave the token that is about to end");
        return { token, user };
      },
    );
  }

  /**
   * Store a new token that the server accepted for a transport, or that was not accepted before the transport was lost:
   * then it is for the next transport. If its user has signed out meanwhile, the next user does not get it.
   *
   * @param {unknown} engine @param {{ token: string, user: object }} renewed @param {boolean} accepted
   */
  refreshed(engine, { token, user }, accepted) {
    if (accepted) {
      if (this.#shown !== null && this.#shown.engine === engine) this.#shown.token = token;
      for (const follower of this.followers) follower.sent = token;
    } else if (this.#supply === null || this.#supply.engine !== engine || this.#supply.value === token) {
      return;
    }
    if (user !== this.#user) return;
    this.#supplies({ engine: accepted ? engine : null, reason: "expiring", promise: Promise.resolve(token), value: token });
  }

  /** @param {unknown} engine */
  live(engine) {
    return this.manager.engine === engine && this.connected.length > 0;
  }

  /** The connected sockets, those that are admitted first. */
  get connected() {
    const followers = [...this.followers].filter(({ socket }) => socket.connected);
    return followers.sort((one, other) => Number(other.in) - Number(one.in)).map(({ socket }) => socket);
  }

  /** @param {string} event @param {unknown} detail */
  announce(event, detail) {
    for (const socket of this.connected) announce(socket, event, detail);
  }

  // Time.

  /**
   * Return the exponential back-off, with jitter so that clients do not retry at the same time.
   *
   * @param {number} failures the number of failures before this one.
   * @returns {number} the delay in milliseconds.
   */
  delay(failures) {
    return Math.min(this.retryDelay * 2 ** failures, this.retryDelayMax) * (0.5 + Math.random() / 2);
  }

  /** @param {number} delay milliseconds @param {() => void} callback */
  after(delay, callback) {
    const timer = setTimeout(callback, delay);
    if (this.manager.opts.autoUnref) /** @type {any} */ (timer).unref?.();
    return timer;
  }

  /**
   * Call back when a new attempt cannot use a transport that the server is about to close.
   *
   * @param {boolean} ended true if the server ended this connection, false if it only rejected a namespace.
   * @param {() => void} callback
   * @returns {() => void} a function that cancels the call.
   */
  whenFree(ended, callback) {
    const { manager } = this;
    // Call after the event, not during it: otherwise the manager would not notice that it was opened again.
    const call = () => (stop(), queueMicrotask(callback));
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const stop = () => (clearTimeout(timer), void manager.off("close", call));
    if (manager.engine?.readyState !== "open" || (!ended && this.connected.length > 0)) {
      call();
    } else {
      manager.on("close", call);
      timer = this.after(LINGER, call);
    }
    return stop;
  }

  /** Handle the end of a socket: stop waiting for its answer, and sign out if no socket is in use any more. */
  left() {
    this.refresh.left();
    if (![...this.followers].some((follower) => follower.on)) this.signOut();
  }
}

// What the sockets of one connection share, because the server knows one identity per connection: the token, the request
// for it, and its refresh. Nothing in here reads the clock of the machine: when a token has ended is the server's to say,
// and it does.

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

/** Milliseconds that a transport which the server is about to close may take to do so. */
const LINGER = 1000;

export class Connection {
  /** @type {WeakMap<Manager, Connection>} */
  static #all = new WeakMap();

  /**
   * Returns the one that a socket shares with the others on its manager. The latest `getToken` serves them all: an
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

  /** What a sign-out replaces: whatever was begun under another one belongs to a user who has signed out. */
  #user = {};
  /** @type {Reason} what the next token is needed for */
  #reason = "connect";
  /** @type {{ reason: Reason, promise: Promise<string | null>, cancel: (error: Error) => void } | null} */
  #request = null;
  /** @type {Supply | null} the answer, for the transport in use; without an engine, for the next one that opens */
  #supply = null;
  /** @type {{ engine: unknown, user: object, token: string | null | undefined } | null} the latest token shown on a transport */
  #shown = null;
  /** @type {{ promise: Promise<string | null | undefined>, since: number } | null} what the person answered, until it let somebody in */
  #answer = null;
  refresh = new Refresh(this);

  /** @param {Manager} manager */
  constructor(manager) {
    this.manager = manager;
  }

  // The token.

  /**
   * Gives the token for the transport that is open now: all sockets on it get the same.
   *
   * @param {() => boolean} wanted whether it is still wanted, after a sign-out.
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
   * Repeats what a sign-out has overtaken, so that nothing of the one user is given to the next.
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
   * Drops a token that the server has refused, unless there is a newer one already.
   *
   * @param {string | null | undefined} token
   * @param {Reason} [reason] what the next one is needed for.
   */
  refused(token, reason) {
    if (this.#supply?.value === token) this.#supply = null;
    if (this.#supply === null && reason !== undefined) this.#reason = reason;
  }

  /** Drops a token that was fetched for a transport which did not open: it would be stale when one does. */
  unreachable() {
    if (this.#supply?.engine === null) this.#supply = null;
  }

  /**
   * Asks the person, once; whoever is refused until that answer has let somebody in gets the same one.
   *
   * @returns {Promise<string | null | undefined>} a token; null: the person has none to give; undefined: there was a
   *   sign-out meanwhile, and the answer is not for who is there now.
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
   * Somebody stayed in: if it was by the person's answer, the next refusal is a new matter, and they are asked again.
   *
   * @param {number} since when they came in.
   */
  settled(since) {
    if (this.#answer !== null && this.#answer.since < since) this.#answer = null;
  }

  /**
   * One request at a time: who asks while one is open gets its answer.
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
    // A person may take any time; a program may hang, and then it is asked again.
    const limit = reason === "login" ? false : this.manager.timeout();
    if (typeof limit !== "number") return () => () => {};
    return (fail) => {
      const timer = this.after(limit, () => fail(new Error(`getToken took longer than ${limit} ms`)));
      return () => clearTimeout(timer);
    };
  }

  /** The server, for whose users there is one request at a time. */
  get #server() {
    const { hostname, port, path } = /** @type {any} */ (this.manager.engine)?.opts ?? {};
    return `${hostname}:${port}${path}`;
  }

  // The user.

  /**
   * Takes note that the application has signed a user out, on one of the sockets at least: the token, the open request
   * and the answer of the person are of no use any more. A transport on which others are still in stays as it is.
   */
  signOut() {
    this.#user = {};
    this.#reason = "connect";
    this.#supply = this.#answer = null;
    const asked = this.#request;
    this.#request = null;
    // A person who is being asked, for another socket, may go on; what they answer is not taken from here.
    const goesOn = asked?.reason === "login" && [...this.followers].some((follower) => follower.on);
    if (!goesOn) asked?.cancel(new Error("disconnected"));
    abandonRequest(this.getToken, this.#server);
  }

  /** Whether the open transport was used by a user who has signed out. */
  get outdated() {
    const { engine } = this.manager;
    return engine?.readyState === "open" && this.#shown?.engine === engine && this.#shown.user !== this.#user;
  }

  /**
   * Sees to it that the transport can be used, before a socket connects on it.
   *
   * @param {() => boolean} wanted
   */
  async renew(wanted) {
    const { token } = await this.token(wanted);
    if (wanted()) this.claim(token);
  }

  /**
   * Takes the open transport for a token, or opens another one: the server knows one identity per transport, and one
   * that was used by a user who has signed out serves only the very same token.
   *
   * @param {string | null} token
   * @returns {boolean} whether it may be shown on the open transport.
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

  /** A socket has left while the server was deciding on it: what the server makes of it is unknown. */
  doubt() {
    if (this.#shown !== null) this.#shown.token = undefined;
  }

  #reopen() {
    // Those that wait for the server need not hear that the transport has gone.
    const silent = [...this.followers].filter(({ socket }) => socket.active && !socket.connected);
    for (const follower of silent) follower.suspend();
    reopen(this.manager);
    for (const follower of silent) follower.resume();
  }

  // The refresh.

  /**
   * Gets a newer token for the open transport.
   *
   * @param {unknown} engine
   * @returns {Promise<{ token: string | null, user: object }>} the token, and what to show to `refreshed` with it.
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
   * Takes note of a new token, which the server has accepted for a transport; or which could not be shown, as the
   * transport was lost: then it is for the next one. If its user has signed out meanwhile, it is not for the next user.
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

  /** The sockets that are connected; first those that are let in. */
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
   * Returns how long to wait after so many failures before this one: longer and longer, and never the same for two.
   *
   * @param {number} failures
   * @returns {number} milliseconds
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
   * Calls back when a new attempt will not be made on a transport that the server is about to close.
   *
   * @param {boolean} ended whether the server has ended this connection, or only refused a namespace of it.
   * @param {() => void} callback
   * @returns {() => void} forgets the call.
   */
  whenFree(ended, callback) {
    const { manager } = this;
    // Afterwards, not within the event: the manager would not notice that it has been opened again.
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

  /** A socket has gone: nothing is left waiting for those that are not there. */
  left() {
    this.refresh.left();
    if (![...this.followers].some((follower) => follower.on)) this.signOut();
  }
}

// What the sockets of one connection share, because the server knows one identity a connection: the token, the
// question for it, and its refresh. Nothing in here reads the clock of the machine: when a token has ended is the
// server's to say, and it does.

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

  /** @type {Reason} what the next token is needed for */
  #reason = "connect";
  /** @type {{ promise: Promise<string | null>, cancel: (error: Error) => void } | null} the question that is open */
  #question = null;
  /** @type {Supply | null} the answer, for the transport in use; without an engine, for the next one that opens */
  #supply = null;
  /** @type {{ promise: Promise<string | null>, since: number } | null} what the person answered, until it let somebody in */
  #answer = null;
  /** @type {unknown} the transport whose token is being refreshed */
  #refreshing = null;
  /** The last notice that was followed: every namespace gets its own copy. */
  #notice = "";
  #wake = () => {};

  /** @param {Manager} manager */
  constructor(manager) {
    this.manager = manager;
  }

  // The token.

  /**
   * Gives the token for the transport that is open now: all sockets on it get the same.
   *
   * @returns {Promise<{ token: string | null, reason: Reason }>}
   */
  async token() {
    const engine = this.manager.engine;
    let supply = this.#supply;
    if (supply === null || (supply.engine !== null && supply.engine !== engine)) {
      supply = this.#supplies({ engine, reason: this.#reason, promise: this.#ask(this.#reason) });
    }
    supply.engine = engine;
    return { token: await supply.promise, reason: supply.reason };
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
   * Drops a token that the server took for expired, unless there is a newer one already.
   *
   * @param {string | null | undefined} token
   */
  expired(token) {
    if (this.#supply?.value === token) this.#supply = null;
    if (this.#supply === null) this.#reason = "expired";
  }

  /** Drops a token that was fetched for a transport which did not open: it would be stale when one does. */
  unreachable() {
    if (this.#supply?.engine === null) this.#supply = null;
  }

  /**
   * Asks the person, once; whoever is refused until that answer has let somebody in gets the same one.
   *
   * @returns {Promise<string | null>} a token, or null: the person has none to give.
   */
  login() {
    const answered = async () => {
      const token = await this.#ask("login").catch(() => null);
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
   * One question at a time: who asks while one is open gets its answer.
   *
   * @param {Reason} reason
   * @returns {Promise<string | null>}
   */
  #ask(reason) {
    if (this.#question === null) {
      /** @type {(error: Error) => void} */
      let cancel = () => {};
      const cancelled = new Promise((_, reject) => (cancel = reject));
      // A person may take any time; a program may hang, and then it is asked again.
      const limit = reason === "login" ? false : this.manager.timeout();
      const timer =
        typeof limit === "number" ? this.after(limit, () => cancel(new Error(`getToken took longer than ${limit} ms`))) : 0;
      const question = {
        cancel,
        promise: Promise.race([this.#answered(reason), cancelled]).finally(() => {
          clearTimeout(timer);
          if (this.#question === question) this.#question = null;
        }),
      };
      this.#question = question;
    }
    return this.#question.promise;
  }

  /** @param {Reason} reason */
  async #answered(reason) {
    const token = await this.getToken({ reason });
    if (token != null && typeof token !== "string") throw new TypeError("getToken gave something that is no string");
    if (this.#reason === reason) this.#reason = "reconnect";
    return token || null;
  }

  // The refresh.

  /**
   * Puts a new token in the place of one that ends soon, on the live connection. Further calls while that goes on are
   * part of it. What fails is tried again until the connection ends: the server ends it on time, and so the attempts.
   *
   * @param {unknown} notice which token it is, as the server says.
   */
  async refresh(notice) {
    const engine = this.manager.engine;
    const name = `${engine?.id} ${JSON.stringify(notice)}`;
    if (this.#refreshing === engine || this.#notice === name) return;
    this.#refreshing = engine;
    this.#notice = name;
    /** @type {string | null} */
    let token = null;
    for (let failures = 0; this.#live(engine); failures++) {
      if (failures > 0) await this.#pause(this.delay(failures - 1));
      if (!this.#live(engine)) break;
      try {
        token ??= await this.#newToken();
        if (!this.#live(engine)) break;
        if (token === null) throw new RefusedError({ message: "getToken gave no token", code: "no_token", retry: "login" });
        const renewed = await this.#authenticate(token);
        this.#supplies({ engine, reason: "expiring", promise: Promise.resolve(token), value: token });
        for (const follower of this.followers) follower.sent = token;
        this.#announce("token_refreshed", renewed);
        break;
      } catch (error) {
        if (!this.#live(engine)) break;
        const retry = error instanceof RefusedError ? error.data.retry : "later";
        if (error instanceof RefusedError) token = null;
        this.#announce("token_refresh_failed", error);
        if (retry !== "refresh" && retry !== "later") break;
      }
    }
    if (this.#refreshing === engine) this.#refreshing = null;
    // Lost on the way: the new token is for the next transport.
    if (token !== null && !this.#live(engine) && this.#supply?.engine === engine && this.#supply.value !== token) {
      this.#supplies({ engine: null, reason: "expiring", promise: Promise.resolve(token), value: token });
    }
  }

  async #newToken() {
    const token = await this.#ask("expiring");
    if (token !== null && token === this.#supply?.value) throw new Error("getToken gave the token that is about to end");
    return token;
  }

  /** @param {string} token */
  async #authenticate(token) {
    const socket = /** @type {Socket} */ (this.#connected()[0]);
    const limit = this.manager.timeout();
    const answer = await (typeof limit === "number" ? socket.timeout(limit) : socket).emitWithAck("authenticate", { token });
    if (answer?.error) {
      // The server says it by `unauthorized` too; that is not the end of the socket.
      for (const follower of this.followers) follower.forgive();
      throw new RefusedError(answer.error);
    }
    return answer ?? {};
  }

  /** @param {unknown} engine */
  #live(engine) {
    return this.manager.engine === engine && this.#connected().length > 0;
  }

  #connected() {
    return [...this.followers].map((follower) => follower.socket).filter((socket) => socket.connected);
  }

  /** @param {string} event @param {unknown} detail */
  #announce(event, detail) {
    for (const socket of this.#connected()) announce(socket, event, detail);
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

  /** @param {number} delay milliseconds @returns {Promise<void>} */
  #pause(delay) {
    return new Promise((resolve) => {
      const timer = this.after(delay, resolve);
      this.#wake = () => (clearTimeout(timer), resolve());
    });
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
    if (manager.engine?.readyState !== "open" || (!ended && this.#connected().length > 0)) {
      call();
    } else {
      manager.on("close", call);
      timer = this.after(LINGER, call);
    }
    return stop;
  }

  /** A socket has gone: nothing is left waiting for those that are not there. */
  left() {
    if (this.#connected().length === 0) this.#wake();
    if ([...this.followers].some((follower) => follower.on)) return;
    this.#question?.cancel(new Error("disconnected"));
    this.#question = this.#supply = this.#answer = this.#refreshing = null;
    this.#reason = "connect";
  }
}

/** An error as `connect_error` has it: the refusal is its `data`. */
export class RefusedError extends Error {
  /** @param {Refusal} data @param {ErrorOptions} [options] */
  constructor(data, options) {
    super(data?.message, options);
    this.data = data;
  }
}

/**
 * Calls the listeners of an event. It stays on this side: `emit` would send it to the server.
 *
 * @param {Socket} socket @param {string} event @param {unknown} detail
 */
export function announce(socket, event, detail) {
  for (const listener of [...socket.listeners(event)]) {
    try {
      listener.call(socket, detail);
    } catch (error) {
      // The application's own mistake, reported as any of a listener; what goes on here is not disturbed by it.
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

// Calls of `getToken`, one at a time per function and server. Different functions may return tokens of different users,
// so they do not share a call.

/** @typedef {import("./index.js").GetToken} GetToken */
/** @typedef {import("./index.js").Reason} Reason */
/** @typedef {{ resolve: (token: string | null) => void, reject: (error: unknown) => void }} Waiter */
/**
 * @typedef {object} Wanted
 * @property {GetToken} getToken
 * @property {string} server
 * @property {Reason} reason
 * @property {(fail: (error: Error) => void) => (() => void)} limit starts the time limit, and returns how to stop it.
 */

/** The level of each reason. A token for one reason can be used for all reasons of the same level and below. */
const LEVEL = { connect: 0, reconnect: 0, expiring: 1, expired: 1, login: 2 };

/** @type {WeakMap<GetToken, Map<string, Call>>} */
const open = new WeakMap();

/** One call of `getToken`, and the requests that wait for its result. */
class Call {
  /** @type {Set<Waiter>} */
  waiters = new Set();
  #stopLimit;

  /** @param {Wanted} wanted */
  constructor({ getToken, server, reason, limit }) {
    this.getToken = getToken;
    this.server = server;
    this.reason = reason;
    this.#stopLimit = limit((error) => this.#settle((waiter) => waiter.reject(error)));
    const calls = open.get(getToken) ?? new Map();
    open.set(getToken, calls.set(server, this));
    // Call the function later, not inside this constructor, because it may call `disconnect()`.
    queueMicrotask(() => void (this.waiters.size > 0 && this.#run()));
  }

  async #run() {
    try {
      const token = await this.getToken({ reason: this.reason });
      if (token != null && typeof token !== "string") throw new TypeError("getToken returned something that is not a string");
      this.#settle((waiter) => waiter.resolve(token || null));
    } catch (error) {
      this.#settle((waiter) => waiter.reject(error));
    }
  }

  /** @param {(waiter: Waiter) => void} tell */
  #settle(tell) {
    this.abandon();
    this.#stopLimit();
    const waiters = [...this.waiters];
    this.waiters.clear();
    waiters.forEach(tell);
  }

  /** @param {Waiter} waiter */
  leave(waiter) {
    this.waiters.delete(waiter);
    if (this.waiters.size > 0) return;
    this.abandon();
    this.#stopLimit();
  }

  /** Stop further requests from joining this call. */
  abandon() {
    const calls = open.get(this.getToken);
    if (calls?.get(this.server) === this) calls.delete(this.server);
  }
}

/**
 * Get a token from the open call of `getToken` if its reason is sufficient, or else from a new call after it.
 *
 * @param {Wanted} wanted
 * @returns {{ promise: Promise<string | null>, cancel: (error: Error) => void }}
 */
export function requestToken(wanted) {
  let cancel = /** @param {Error} _error */ (_error) => {};
  /** @type {Promise<string | null>} */
  const promise = new Promise((resolve, reject) => {
    /** @type {Call} */
    let call;
    /** @type {Waiter} */
    let waiter;
    const join = () => {
      const current = open.get(wanted.getToken)?.get(wanted.server);
      const wait = current !== undefined && LEVEL[current.reason] < LEVEL[wanted.reason];
      call = current ?? new Call(wanted);
      waiter = wait ? { resolve: join, reject: join } : { resolve, reject };
      call.waiters.add(waiter);
    };
    join();
    cancel = (error) => (call.leave(waiter), reject(error));
  });
  return { promise, cancel };
}

/**
 * Stop further requests from joining the open call, because its user has signed out.
 *
 * @param {GetToken} getToken @param {string} server
 */
export function abandonRequest(getToken, server) {
  open.get(getToken)?.get(server)?.abandon();
}

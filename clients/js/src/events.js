// What the application is told.

/** @typedef {import("socket.io-client").Socket} Socket */
/** @typedef {import("./index.js").Refusal} Refusal */

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
  for (const listener of [...socket.listeners(event)]) guarded(() => listener.call(socket, detail));
}

/**
 * Calls a function of the application. What it throws is reported as the error of any listener, and stops nothing here.
 *
 * @param {() => void} call
 */
export function guarded(call) {
  try {
    call();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

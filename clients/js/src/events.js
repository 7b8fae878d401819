// Events and errors for the application.

/** @typedef {import("socket.io-client").Socket} Socket */
/** @typedef {import("./index.js").Refusal} Refusal */

/** An error like that of `connect_error`: its `data` is the server's rejection. */
export class RefusedError extends Error {
  /** @param {Refusal} data @param {ErrorOptions} [options] */
  constructor(data, options) {
    super(data?.message, options);
    this.data = data;
  }
}

/**
 * Call the listeners of an event in this client. `emit` would send the event to the server.
 *
 * @param {Socket} socket @param {string} event @param {unknown} detail
 */
export function announce(socket, event, detail) {
  for (const listener of [...socket.listeners(event)]) guarded(() => listener.call(socket, detail));
}

/**
 * Call a function of the application. If it throws, the error is reported as uncaught, and this package continues.
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

import type { ManagerOptions, Socket, SocketOptions } from "socket.io-client";

/** Why a token is needed. */
export type Reason =
  /** The application connects for the first time, or again after `disconnect()`, which is a sign-out. */
  | "connect"
  /** The connection was lost, or the server was busy. A token that is at hand will do, while it lasts. */
  | "reconnect"
  /** The token in use ends soon; the connection lives. A newer one is needed. */
  | "expiring"
  /** The server took the token for expired. A newer one is needed. */
  | "expired"
  /** The server takes no token of this sign-in any more: the person has to sign in. */
  | "login";

/**
 * Gives a token.
 *
 * `null` or `undefined` is "there is none": a guest, or, when a newer one was asked for, somebody to be asked to sign in.
 * An error is "not now": it is asked again later. For the reason `login` both mean that the person has given up.
 *
 * There is one call at a time per function and server: connections that were given the same function share it.
 */
export type GetToken = (request: { reason: Reason }) => Token | Promise<Token>;
export type Token = string | null | undefined;

/** What the server says when it refuses: the `data` of a `connect_error` or an `unauthorized`. */
export interface Refusal {
  message: string;
  /** For programs: `invalid_token`, `revoked_token`, `too_many`...; `no_token`, where `getToken` gave none. */
  code: string;
  type?: string;
  /** What to do about it. Without one there is nothing to be done. */
  retry?: "refresh" | "login" | "later" | "never";
}

/** An error with the refusal in `data`. An error of `getToken` is its `cause`. */
export interface RefusedError extends Error {
  data: Refusal;
}

export interface Authenticated {
  /** Whose token it is. */
  sub?: string;
  /** When it ends: Unix time in seconds. */
  exp?: number;
}

/** The events of the gate. */
export interface GateEvents {
  /** From the server: `authenticate` was accepted. With `inBand`, the socket is in from here on. */
  authenticated: (identity: Authenticated) => void;
  /** From the server: the socket is about to be ended, or a refresh was refused. */
  unauthorized: (refusal: { message: string; inner: { message: string }; data: Refusal }) => void;
  /** From the server: the token ends soon. It is being refreshed already. */
  token_expiring: (notice: { expires_at: number; refresh_by: number }) => void;
  /** From the server: the token does not allow an event. */
  forbidden: (refusal: { event: string; code: string; required: string[] }) => void;
  /** From this package: the connection has a new token. */
  token_refreshed: (identity: Authenticated) => void;
  /** From this package: an attempt to refresh failed. Unless the server refused for good, there will be another. */
  token_refresh_failed: (error: Error & { data?: Refusal }) => void;
  /** From this package: it has stopped. Call `socket.connect()` when the person has signed in again. */
  login_required: (error: RefusedError) => void;
}

export interface EventsMap {
  [event: string]: any;
}

/** Any event, as in the official client, and those of the gate with their types. */
export interface DefaultEvents extends GateEvents {
  [event: string]: (...args: any[]) => void;
}

export interface ConnectOptions extends Partial<Omit<ManagerOptions & SocketOptions, "auth">> {
  getToken: GetToken;
  /** Connect first and send the token by `authenticate`, for servers with `authenticate_within`. Default: false. */
  inBand?: boolean;
  /** Milliseconds of the first back-off. Default: 1000. */
  retryDelay?: number;
  /** Milliseconds of the longest back-off. Default: 60 000. */
  retryDelayMax?: number;
  /** What else goes into the CONNECT payload, as in the official client. */
  auth?: { [key: string]: any } | ((give: (payload: object) => void) => void);
}

export type AnySocket = Socket<any, any>;

/**
 * Open a socket as the official `io()` does, and keep its token fresh for as long as it lives.
 *
 * `socket.disconnect()` signs the user out: nothing of them is sent or used after it, and `connect()` calls `getToken` again.
 *
 * @throws {TypeError} there is no `getToken`, or this version of socket.io-client is not one that the package knows.
 */
export function connect<ListenEvents extends EventsMap = DefaultEvents, EmitEvents extends EventsMap = EventsMap>(
  url: string,
  options: ConnectOptions,
): Socket<ListenEvents & GateEvents, EmitEvents>;

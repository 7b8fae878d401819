import type { ManagerOptions, Socket, SocketOptions } from "socket.io-client";

/** The reason why a token is needed. */
export type Reason =
  /** The application connects for the first time, or again after `disconnect()`, which is a sign-out. */
  | "connect"
  /** The connection was lost, or the server was busy. A cached token is sufficient while it is valid. */
  | "reconnect"
  /** The token in use expires soon, and the connection is open. A newer token is needed. */
  | "expiring"
  /** The server rejected the token as expired. A newer token is needed. */
  | "expired"
  /** The server accepts no token of this sign-in any more. The user must sign in again. */
  | "login";

/**
 * A function that returns a token.
 *
 * `null` or `undefined` means that there is no token: the client connects as a guest or, if a newer token was needed,
 * the user must sign in. An error means that there is no token now: the function is called again later. For the reason
 * `login`, both mean that the user did not sign in.
 *
 * The function is called once at a time per server. Connections with the same function share the call.
 */
export type GetToken = (request: { reason: Reason }) => Token | Promise<Token>;
export type Token = string | null | undefined;

/** A rejection by the server: the `data` of a `connect_error` or an `unauthorized`. */
export interface Refusal {
  message: string;
  /** The error code: `invalid_token`, `revoked_token`, `too_many`...; `no_token` if `getToken` gave no token. */
  code: string;
  type?: string;
  /** What the client should do. A missing value means the same as `never`. */
  retry?: "refresh" | "login" | "later" | "never";
}

/** An error with the rejection in `data`. If `getToken` threw, that error is its `cause`. */
export interface RefusedError extends Error {
  data: Refusal;
}

export interface Authenticated {
  /** The subject of the token. */
  sub?: string;
  /** The expiry of the token: Unix time in seconds. */
  exp?: number;
}

/** The events of the gate. */
export interface GateEvents {
  /** From the server: `authenticate` was accepted. With `inBand`, this admits the socket. */
  authenticated: (identity: Authenticated) => void;
  /** From the server: the socket is about to be disconnected, or a refresh was rejected. */
  unauthorized: (refusal: { message: string; inner: { message: string }; data: Refusal }) => void;
  /** From the server: the token expires soon. This package refreshes it by itself. */
  token_expiring: (notice: { expires_at: number; refresh_by: number }) => void;
  /** From the server: the token does not allow an event. */
  forbidden: (refusal: { event: string; code: string; required: string[] }) => void;
  /** From this package: the connection has a new token. */
  token_refreshed: (identity: Authenticated) => void;
  /** From this package: a refresh attempt failed. It is repeated unless `retry` of the error is `login` or `never`. */
  token_refresh_failed: (error: Error & { data?: Refusal }) => void;
  /** From this package: it does not retry any more. Call `socket.connect()` when the user has signed in again. */
  login_required: (error: RefusedError) => void;
}

export interface EventsMap {
  [event: string]: any;
}

/** Any event, as in the official client, and the events of the gate with their types. */
export interface DefaultEvents extends GateEvents {
  [event: string]: (...args: any[]) => void;
}

export interface ConnectOptions extends Partial<Omit<ManagerOptions & SocketOptions, "auth">> {
  getToken: GetToken;
  /** Connect first and send the token with `authenticate`, for servers with `authenticate_within`. Default: false. */
  inBand?: boolean;
  /** The first back-off in milliseconds. Default: 1000. */
  retryDelay?: number;
  /** The longest back-off in milliseconds. Default: 60 000. */
  retryDelayMax?: number;
  /** Other data for the CONNECT payload, as in the official client. */
  auth?: { [key: string]: any } | ((give: (payload: object) => void) => void);
}

export type AnySocket = Socket<any, any>;

/**
 * Open a socket as the official `io()` does, and keep its token fresh while it is in use.
 *
 * `socket.disconnect()` signs the user out: no data of the user is sent or used afterwards, and `connect()` calls
 * `getToken` again.
 *
 * @throws {TypeError} `getToken` is missing, or this package does not support the version of socket.io-client.
 */
export function connect<ListenEvents extends EventsMap = DefaultEvents, EmitEvents extends EventsMap = EventsMap>(
  url: string,
  options: ConnectOptions,
): Socket<ListenEvents & GateEvents, EmitEvents>;

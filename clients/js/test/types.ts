// The types, checked by `npm run types`: what must compile does, and each `@ts-expect-error` marks what must not.

import { connect, type GetToken, type Reason, type Refusal } from "iogate-client";
import type { Socket } from "socket.io-client";

const getToken: GetToken = async ({ reason }) => (reason === "login" ? null : "a token");

const socket = connect("https://chat.example.com", { getToken, transports: ["websocket"], inBand: true });
const official: Socket = socket;
official.disconnect().connect();
socket.on("connect", () => socket.emit("message", "hello", (answer: string) => answer));
socket.on("anything", (one: string, two: number) => one.repeat(two));
socket.on("token_refreshed", ({ sub, exp }) => `${sub?.toUpperCase()} ${exp?.toFixed()}`);
socket.on("token_refresh_failed", (error) => error.data?.retry === "later");
socket.on("login_required", ({ message, data }) => message + data.code);
socket.on("token_expiring", ({ refresh_by }) => refresh_by.toFixed());
socket.on("forbidden", ({ required }) => required.join());
socket.on("connect_error", (error) => error.message);

connect("/", { getToken: () => "a token", auth: { room: "lobby" }, retryDelay: 100, retryDelayMax: 1000 });
connect("/", { getToken: () => undefined, auth: (give) => give({ room: "lobby" }) });

interface FromServer {
  message: (text: string) => void;
}
interface ToServer {
  message: (text: string, done: (ok: boolean) => void) => void;
}
const typed = connect<FromServer, ToServer>("/", { getToken });
typed.on("message", (text) => text.toUpperCase());
typed.on("token_refreshed", ({ exp }) => exp);
typed.emit("message", "hello", (ok) => !ok);
const plain: Socket<FromServer, ToServer> = typed;
plain.close();
// @ts-expect-error: not an event of the application
typed.on("massage", () => {});
// @ts-expect-error: a number is no text
typed.emit("message", 1, () => {});

// @ts-expect-error: without getToken there is nothing to connect with
connect("/", {});
// @ts-expect-error: a token is a string
connect("/", { getToken: () => 1 });
// @ts-expect-error: no such reason
const reason: Reason = "bored";
// @ts-expect-error: no such retry
const refusal: Refusal = { message: "", code: "", retry: "always" };
export { reason, refusal };

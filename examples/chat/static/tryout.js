// Knocking on the door without a good token, with the real client, to see what the server says.

import { io } from "./socket.io.js";

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const json = (value) => base64url(new TextEncoder().encode(JSON.stringify(value)));

function claims() {
  const now = Math.floor(Date.now() / 1000);
  return {
    iss: "iogate-chat",
    aud: "iogate-chat",
    sub: "somebody-else",
    name: "Somebody Else",
    iat: now,
    exp: now + 600,
  };
}

const TOKENS = {
  none: () => undefined,
  // Well formed, and every claim is right; only the signature does not belong to it.
  changed: () =>
    [json({ alg: "HS256", typ: "JWT" }), json(claims()), base64url(crypto.getRandomValues(new Uint8Array(32)))].join("."),
  unsigned: () => `${json({ alg: "none", typ: "JWT" })}.${json(claims())}.`,
};

export function knock(kind) {
  const token = TOKENS[kind]();
  const shown = token === undefined ? "" : ` { token: "${token.slice(0, 12)}…${token.slice(-6)}" }`;
  return new Promise((resolve) => {
    let heard = 0;
    const socket = io({ forceNew: true, reconnection: false, auth: token === undefined ? {} : { token } });
    const finish = (answer) => {
      socket.disconnect();
      resolve(`→ CONNECT${shown}\n← ${answer}\n\nEvents of the chat received: ${heard}`);
    };
    socket.onAny(() => (heard += 1));
    socket.on("connect", () => finish("CONNECT (this should not have happened)"));
    socket.on("connect_error", (error) =>
      finish(
        error.data
          ? `CONNECT_ERROR\n${JSON.stringify({ message: error.message, data: error.data }, null, 2)}`
          : `no answer: ${error.message}`,
      ),
    );
  });
}

// The flow of the page: who is signed in, a socket that shows it, and what to do with the answers.
// That the token is a new one every minute is seen to by `iogate-client`, which asks `getToken` for it.

import { connect as open } from "iogate-client";
import * as chat from "./chat.js";
import * as door from "./door.js";
import * as life from "./life.js";
import { explain } from "./refusals.js";
import * as session from "./session.js";
import { knock } from "./tryout.js";

const byId = (id) => document.getElementById(id);

let socket = null;
let me = null; // who this tab belongs to, once the server has said so
let other = null; // who else has signed in in this browser since

// The token of this tab will do for a connection. A newer one is asked for when the server says that it is needed.
async function getToken({ reason }) {
  if (reason === "connect" || reason === "reconnect") {
    const known = session.token.get();
    if (known !== null) return known;
  }
  const found = await session.refresh();
  // A tab does not become somebody else's while somebody looks at it.
  other = found !== null && me !== null && found.id !== me.id ? found : null;
  if (found === null || other !== null) return null;
  session.token.keep(found.token);
  return found.token;
}

function connect() {
  hangUp();
  const mine = open("/", { forceNew: true, getToken });
  socket = mine;
  const on = (event, handler) => mine.on(event, (...args) => socket === mine && handler(...args));
  let refusal = null;

  on("connect", () => {
    refusal = null;
    const { engine } = mine.io;
    chat.connected(engine.transport.name);
    engine.on("upgrade", (transport) => chat.connected(transport.name));
  });
  on("connect_error", (error) => {
    const { code, retry } = error.data ?? {};
    if (mine.active || (code === "no_token" && retry === "later")) {
      waiting("The server cannot be reached. Trying again …");
    } else if (retry === "later") {
      waiting("The server asks us to come back a little later.");
    } else if (retry !== "refresh" && retry !== "login") {
      out(error); // The others are seen to; `login_required` is how that ends when it does not end well.
    }
  });
  on("unauthorized", ({ data }) => (refusal = data));
  on("login_required", out);
  on("disconnect", (reason) => {
    if (reason === "io server disconnect" && refusal === null) out(new Error("The server ended the connection."));
    else waiting(refusal ? `${refusal.message}. One moment …` : "Connection lost. Trying again …");
  });

  on("welcome", ({ you, token, history }) => {
    me = you;
    location.hash = "chat";
    door.hide();
    chat.show(you);
    life.show(token, { refreshed: false });
    history.forEach((message) => chat.message(message, { old: true }));
  });
  on("token", (token) => life.show(token, { refreshed: true }));
  on("people", chat.people);
  on("joined", ({ name }) => chat.notice(`${name} came in`));
  on("left", ({ name }) => chat.notice(`${name} left`));
  on("typing", ({ name }) => chat.typing(name));
  on("message", (message) => chat.message(message, { old: false }));
}

function waiting(text) {
  chat.waiting(text);
  if (byId("chat").hidden && byId("door").hidden) door.show(null);
  door.problem(text);
}

function out(error) {
  shut(explain(error, other));
}

function shut(refusal) {
  hangUp();
  session.token.drop();
  me = other = null;
  chat.forget();
  life.forget();
  if (location.hash) history.replaceState(null, "", location.pathname);
  door.show(refusal);
}

function hangUp() {
  const old = socket;
  socket = null;
  old?.disconnect();
}

async function signOut(where) {
  hangUp(); // First, or this tab would be told that it has been signed out.
  chat.waiting("Signing out …");
  try {
    await session.end(where);
    shut(null);
  } catch (error) {
    connect();
    chat.problem(`You are still signed in. ${session.why(error)}`);
  }
}

door.onSign(async (credentials) => {
  try {
    await session.begin(credentials);
    connect();
  } catch (error) {
    door.problem(session.why(error));
  }
});
byId("sign-out").addEventListener("click", () => signOut({ everywhere: false }));
byId("sign-out-everywhere").addEventListener("click", () => signOut({ everywhere: true }));

chat.onSend((text, failed) => {
  if (!socket?.connected) return failed("Not connected. Your text stays here until we are back.");
  socket.timeout(8000).emit("message", text, (late, answer) => {
    if (late) failed("No answer from the server. Try again.");
    else if (answer?.error) failed(answer.error);
  });
});
chat.onTyping(() => socket?.connected && socket.volatile.emit("typing"));

for (const button of document.querySelectorAll("[data-try]")) {
  button.addEventListener("click", async () => {
    door.answer("Knocking …");
    door.answer(await knock(button.dataset.try));
  });
}

// Whoever has a token, or a session in another tab, goes in. A tab that was sent to the chat knocks with what it has, be
// it nothing: the server decides, not the page.
async function begin() {
  if (location.hash === "#chat" || session.token.get() !== null) return connect();
  const found = await session.refresh().catch(() => null);
  if (found === null) return shut(null);
  session.token.keep(found.token);
  connect();
}

addEventListener("hashchange", () => location.hash === "#chat" && socket === null && connect());
begin();

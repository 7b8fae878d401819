// The chat on the screen. Everything that people wrote goes in as text, never as markup.

const byId = (id) => document.getElementById(id);
const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const KEPT = 500; // messages on the page at most
const GROUP = 5 * 60_000; // messages of one person within this many ms stand together

let me = null;
let last = null; // the message above, when the next may join it
let unread = 0;
const seen = new Set(); // ids on the page: after a reconnection the history comes again
const typists = new Map();

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function avatar(node, person) {
  let sum = 0;
  for (const letter of person.id) sum = (sum * 31 + letter.codePointAt(0)) % 997;
  node.dataset.hue = String(sum % 8);
  node.textContent = person.name.replace(/[^\p{L}\p{N}]/gu, "").slice(0, 2);
  node.setAttribute("aria-hidden", "true");
  return node;
}

export function show(you) {
  me = you;
  byId("chat").hidden = false;
  avatar(byId("you-avatar"), you);
  byId("you-name").textContent = you.name;
  byId("text").focus();
}

// Nothing of the chat may be left on the page of somebody who is out.
export function forget() {
  byId("chat").hidden = true;
  me = last = null;
  seen.clear();
  typists.forEach(clearTimeout);
  typists.clear();
  for (const id of ["log", "people", "typing", "count", "you-name", "you-avatar", "send-error", "left"]) {
    byId(id).replaceChildren();
  }
  byId("text").value = "";
  byId("empty").hidden = false;
  byId("newest").hidden = true;
  read();
}

export function connected(transport) {
  state("connected", transport === "websocket" ? "Connected · WebSocket" : "Connected · polling");
}

export function waiting(text) {
  state("waiting", text);
}

function state(name, text) {
  byId("state").dataset.state = name;
  byId("state").textContent = text;
  byId("send").disabled = name !== "connected";
}

export function problem(text) {
  byId("send-error").textContent = text;
}

export function people(list) {
  byId("count").textContent = String(list.length);
  byId("people").replaceChildren(
    ...list.map((person) => {
      const item = element("li");
      item.append(avatar(element("span", "avatar"), person), element("span", "name", person.name));
      if (person.id === me?.id) item.append(element("span", "tag", "you"));
      return item;
    }),
  );
}

export function message({ id, from, text, at }, { old }) {
  if (seen.has(id)) return;
  seen.add(id);
  stopTyping(from.name);
  const own = from.id === me?.id;
  const time = element("time", "", clock.format(new Date(at)));
  time.dateTime = new Date(at).toISOString();
  const item = element("li", own ? "message own" : "message");
  if (last && last.from === from.id && at - last.at < GROUP) item.classList.add("more");
  const body = element("div", "body");
  const head = element("p", "head");
  head.append(element("span", "name", own ? "You" : from.name), time);
  const bubble = element("p", "bubble", text);
  bubble.dir = "auto";
  body.append(head, bubble);
  item.append(avatar(element("span", "avatar"), from), body);
  last = { from: from.id, at };
  append(item, own || old);
  if (document.hidden && !old) {
    unread += 1;
    document.title = `(${unread}) iogate chat`;
  }
}

export function notice(text) {
  last = null;
  append(element("li", "notice", text), false);
}

function append(item, follow) {
  const scroll = byId("scroll");
  const atEnd = follow || scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
  const log = byId("log");
  byId("empty").hidden = true;
  log.append(item);
  while (log.children.length > KEPT) log.firstChild.remove();
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
  else byId("newest").hidden = false;
}

function read() {
  unread = 0;
  document.title = "iogate chat";
}

export function typing(name) {
  clearTimeout(typists.get(name));
  typists.set(name, setTimeout(stopTyping, 3500, name));
  showTypists();
}

function stopTyping(name) {
  clearTimeout(typists.get(name));
  if (typists.delete(name)) showTypists();
}

function showTypists() {
  const names = [...typists.keys()];
  byId("typing").textContent =
    names.length === 0 ? "" : names.length === 1 ? `${names[0]} is writing …` : `${names.length} people are writing …`;
}

const text = byId("text");
let sendHandler = () => {};
let typingHandler = () => {};
let toldAt = 0;

export const onSend = (handler) => (sendHandler = handler);
export const onTyping = (handler) => (typingHandler = handler);

function fit() {
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight, 160)}px`;
  const left = text.maxLength - text.value.length;
  byId("left").textContent = left <= 200 ? `${left} left` : "";
}

text.addEventListener("input", () => {
  fit();
  problem("");
  if (text.value && Date.now() - toldAt > 2000) {
    toldAt = Date.now();
    typingHandler();
  }
});
text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("composer").requestSubmit();
});
byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const said = text.value;
  if (!said.trim() || byId("send").disabled) return;
  text.value = "";
  toldAt = 0;
  fit();
  sendHandler(said, (reason) => {
    problem(reason);
    if (text.value === "") text.value = said; // not lost, unless something newer stands there
    fit();
  });
});
byId("scroll").addEventListener("scroll", ({ target }) => {
  if (target.scrollHeight - target.scrollTop - target.clientHeight < 80) byId("newest").hidden = true;
});
byId("newest").addEventListener("click", () => {
  byId("scroll").scrollTop = byId("scroll").scrollHeight;
});
document.addEventListener("visibilitychange", () => document.hidden || read());

// The door: sign in, create an account, and why somebody is not let in.

const byId = (id) => document.getElementById(id);

let isNew = false;
let signHandler = async () => {};

export const onSign = (handler) => (signHandler = handler);

export function show(refusal) {
  byId("door").hidden = false;
  byId("refusal").hidden = refusal === null;
  byId("refusal-title").textContent = refusal?.title ?? "";
  byId("refusal-text").textContent = refusal?.text ?? "";
  byId("refusal-code").textContent = refusal?.code ?? "";
  mode(false);
  byId(byId("username").value ? "password" : "username").focus();
}

export function hide() {
  byId("door").hidden = true;
  byId("refusal").hidden = true;
  byId("password").value = "";
  reveal(false);
  problem(null);
}

export function problem(text) {
  byId("sign-error").textContent = text ?? "";
  byId("sign-error").hidden = !text;
  busy(false);
}

export function answer(text) {
  byId("answer").hidden = false;
  byId("answer").textContent = text;
}

function mode(wantsNew) {
  isNew = wantsNew;
  byId("mode-in").setAttribute("aria-pressed", String(!isNew));
  byId("mode-new").setAttribute("aria-pressed", String(isNew));
  byId("name-hint").hidden = byId("password-hint").hidden = !isNew;
  byId("password").autocomplete = isNew ? "new-password" : "current-password";
  problem(null);
}

function busy(on) {
  byId("submit").disabled = on;
  byId("submit").textContent = on ? "One moment …" : isNew ? "Create account" : "Sign in";
}

function reveal(on) {
  byId("reveal").setAttribute("aria-pressed", String(on));
  byId("reveal").setAttribute("aria-label", on ? "Hide the password" : "Show the password");
  byId("reveal").textContent = on ? "Hide" : "Show";
  byId("password").type = on ? "text" : "password";
}

byId("mode-in").addEventListener("click", () => mode(false));
byId("mode-new").addEventListener("click", () => mode(true));
byId("reveal").addEventListener("click", () => reveal(byId("password").type === "password"));
byId("sign").addEventListener("submit", (event) => {
  event.preventDefault();
  const username = byId("username").value.trim();
  const password = byId("password").value;
  if (!username || !password) return problem("Type a name and a password.");
  problem(null);
  busy(true);
  return signHandler({ isNew, username, password });
});

// Being signed in. The refresh token is a cookie that no script can read; all tabs of the browser share it. The access
// token, which the socket shows, is this tab's own.

const PATIENCE = 5000; // ms; less than the server's grace for an answer that was lost

export const token = {
  get: () => sessionStorage.getItem("token"),
  keep: (text) => sessionStorage.setItem("token", text),
  drop: () => sessionStorage.removeItem("token"),
};

// One tab at a time: each refresh replaces the cookie, and one that had been replaced would end the session.
// Browsers have locks on localhost and over TLS; elsewhere the server's grace has to do.
const alone = (work) => (navigator.locks ? navigator.locks.request("session", work) : work());

async function call(method, path, body) {
  const response = await alone(() =>
    fetch(path, {
      method,
      headers: body ? { "Content-Type": "application/json" } : {},
      body: body && JSON.stringify(body),
      keepalive: true, // so that the new cookie arrives even if the page is being left
      signal: AbortSignal.timeout(PATIENCE),
    }),
  );
  return { response, answer: await response.json().catch(() => ({})) };
}

const problem = ({ response, answer }) => new Error(answer.message ?? `The server answered ${response.status}.`);

// Signs in, in a new account or an old one.
export async function begin({ isNew, username, password }) {
  const said = await call("POST", isNew ? "/api/accounts" : "/api/sessions", { username, password });
  if (!said.response.ok) throw problem(said);
  token.keep(said.answer.token);
}

// Gives the next access token and whose it is; null: nobody is signed in here.
export async function refresh() {
  const said = await call("POST", "/api/sessions/refresh");
  if (said.response.status === 204 || said.response.status === 401) return null;
  if (!said.response.ok) throw problem(said);
  return said.answer;
}

// Signs out: all tabs of this browser, or everywhere.
export async function end({ everywhere }) {
  const said = await call("DELETE", everywhere ? "/api/sessions" : "/api/sessions/current");
  if (!said.response.ok && said.response.status !== 401) throw problem(said);
  token.drop();
}

// What is read by a person when a call failed.
export const why = (error) =>
  error instanceof TypeError || error.name === "TimeoutError" ? "The server cannot be reached." : error.message;

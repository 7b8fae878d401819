// What a refusal means to a person. `code` and `retry` are the server's; the words are the page's.

const WORDS = {
  credentials_required: [
    "You are not signed in",
    "This browser has no session, so the server let nothing of the chat through. Sign in to come in.",
  ],
  no_token: [
    "Your sign-in has run out",
    "The token had ended, and there is no session to get the next one from. Sign in again and you are back.",
  ],
  invalid_token: [
    "Your token was not accepted",
    "It was changed, or made by another server, and there is no session to get a good one from. Sign in again.",
  ],
  revoked_token: [
    "You have been signed out",
    "In another tab, from another device, or because the key of your session was used twice: then somebody may have " +
      "had a copy of it, and everybody who has one is out.",
  ],
  timeout: ["It took too long", "The server waited for a token and closed the door. Sign in again."],
};

export function explain(error, other) {
  const { code = "", retry = "" } = error.data ?? {};
  const [title, text] = other
    ? [`${other.name} has signed in`, "That was in another tab; a browser is one person at a time. Sign in to be it again."]
    : (WORDS[code] ?? ["The server did not let you in", error.message]);
  return { title, text, code: [code, error.message, retry && `retry:\u00a0${retry}`].filter(Boolean).join(" · ") };
}

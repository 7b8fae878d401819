// An OpenID provider on loopback, for the tests. It writes one JSON object a line: where it listens, then one answer to
// each command, which it reads as one JSON object a line from stdin (`commands`, below). It ends when stdin is closed.
//
// The version is the newest that runs on Node 18, the oldest that `make test` is content with.
//
// Clients: `machine` gets tokens by its secret; `chat` is an application whose users sign in (authorization code with
// PKCE). Access tokens are JWTs (RFC 9068) for the resource server `chat-api`; those of users name the session at the
// provider in `sid`, which oidc-provider does not write by itself.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

// oidc-provider says there what else to set for production: on stdout, between the answers, in part.
console.info = console.warn = () => {};
const { default: Provider } = await import("oidc-provider");

const RESOURCE = "https://chat-api.example.com";
const SCOPES = "chat:read chat:write";
const LIFETIME = 300; // seconds of an access token
const KINDS = { RS256: ["rsa", { modulusLength: 2048 }], ES256: ["ec", { namedCurve: "P-256" }] };

let keys = [makeKey("RS256", "rs-1")]; // the first one signs
let logoutUri; // of the application `chat`
let provider; // made anew whenever one of these changes: oidc-provider reads its configuration once
let serve;

const server = createServer(async (request, response) => {
  try {
    await (request.url.startsWith("/interaction/") ? interact : serve)(request, response);
  } catch (error) {
    console.error(error);
    if (!response.headersSent) response.writeHead(500).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
// An issuer with plain http: oidc-provider takes one anywhere, OpenID Connect nowhere. On loopback nobody listens in.
const ISSUER = `http://127.0.0.1:${server.address().port}`;
configure();

const commands = {
  // Publishes one more key; nothing is signed with it yet.
  add: ({ alg, kid }) => void keys.push(makeKey(alg, kid)),
  // Signs with this key from now on. The others stay published.
  sign: ({ kid }) => void (keys = [find(kid), ...keys.filter((key) => key.kid !== kid)]),
  // Publishes a key no longer.
  remove: ({ kid }) => void (keys = keys.filter((key) => key !== find(kid))),
  // Where to POST the logout tokens for users of `chat`.
  logout_to: ({ url }) => void (logoutUri = url),
};

say({ issuer: ISSUER });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    commands[command.do](command);
    configure();
    say({ done: command.do });
  } catch (error) {
    say({ failed: command.do, why: String(error) });
  }
}
process.exit(0);

function say(object) {
  process.stdout.write(JSON.stringify(object) + "\n");
}

function makeKey(alg, kid) {
  const [kind, options] = KINDS[alg];
  return { ...generateKeyPairSync(kind, options).privateKey.export({ format: "jwk" }), kid, alg, use: "sig" };
}

function find(kid) {
  const found = keys.find((key) => key.kid === kid);
  if (found === undefined) throw new Error(`there is no key ${kid}`);
  return found;
}

// Sessions and grants outlive this: they are in oidc-provider's own memory, which all providers of a process share.
function configure() {
  provider = new Provider(ISSUER, configuration());
  serve = provider.callback();
  provider.on("server_error", (_context, error) => console.error(error));
  provider.on("backchannel.error", (_context, error) => console.error(error));
}

function configuration() {
  const signing = keys[0];
  return {
    jwks: { keys },
    clients: [
      {
        client_id: "machine",
        client_secret: "the-machine-has-a-secret-for-the-tests",
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: signing.alg,
      },
      {
        client_id: "chat",
        token_endpoint_auth_method: "none",
        grant_types: ["authorization_code"],
        redirect_uris: ["http://127.0.0.1/signed-in"],
        id_token_signed_response_alg: signing.alg,
        ...(logoutUri && { backchannel_logout_uri: logoutUri, backchannel_logout_session_required: true }),
      },
    ],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => RESOURCE,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: SCOPES,
          audience: "chat-api",
          accessTokenFormat: "jwt",
          accessTokenTTL: LIFETIME,
          jwt: { sign: { alg: signing.alg, kid: signing.kid } },
        }),
      },
    },
    findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    extraTokenClaims: (_context, token) => (token.sid ? { sid: token.sid } : undefined),
    interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
    loadExistingGrant,
    cookies: { keys: ["signs the cookies of a provider that lives for one test"] },
    ttl: { Session: 3600, Grant: 3600, Interaction: 600, IdToken: LIFETIME, ClientCredentials: LIFETIME },
  };
}

// Whoever signs in has agreed to everything: consent is none of the tests' business.
async function loadExistingGrant({ oidc }) {
  const known = oidc.session.grantIdFor(oidc.client.clientId);
  if (known) return oidc.provider.Grant.find(known);
  const grant = new oidc.provider.Grant({ accountId: oidc.session.accountId, clientId: oidc.client.clientId });
  grant.addOIDCScope("openid");
  grant.addResourceScope(RESOURCE, SCOPES);
  await grant.save();
  return grant;
}

// The page of the sign-in: a form that asks for a name, and believes it.
async function interact(request, response) {
  if (request.method !== "POST") {
    response.writeHead(200, { "content-type": "text/html" });
    response.end('<form method="post"><input name="login"><button>Sign in</button></form>');
    return;
  }
  let body = "";
  for await (const chunk of request) body += chunk;
  const accountId = new URLSearchParams(body).get("login");
  await provider.interactionFinished(request, response, { login: { accountId } });
}

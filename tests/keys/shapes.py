"""Discovery documents, key sets and access tokens as the large identity providers write them.

Members, their order and their oddities are those of the provider; the keys, certificates and names are our own. Each
function takes the origin under which the provider is to be found, so that a test can serve it from a `KeyServer`.
"""

from __future__ import annotations

import base64
import datetime as dt
import functools
import hashlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc.jwk import RSAKey

from tests.auth.tokens import sign
from tests.keys.keyserver import CONFIGURATION, KeyServer, document

JWK = dict[str, Any]

LIFETIME = 300  # seconds of a token


@dataclass
class Shape:
    """A provider: what it publishes, and the tokens that it issues for the chat."""

    issuer: str
    configuration: dict[str, Any]
    keys: list[JWK]
    private: dict[str, RSAKey]  # The private keys, by their `kid`.
    header: dict[str, Any]  # Its `kid` is that of the key for access tokens.
    claims: dict[str, Any]  # But for the times.
    scopes: frozenset[str]  # What the token allows.
    settings: dict[str, Any] = field(default_factory=dict)  # What `JWTAuth` is told beside where the keys are.

    def token(self, *, kid: str | None = None, **claims: Any) -> str:
        """Return a good access token, or one that is signed by another of the keys.

        Claims win over its own, and None leaves one out.
        """
        now = int(time.time())
        body = self.claims | {"iat": now, "exp": now + LIFETIME} | claims
        header = self.header if kid is None else self.header | {"kid": kid}
        given = {name: value for name, value in body.items() if value is not None}
        return sign("RS256", self.private[header["kid"]], given, **header)

    def serve(self, server: KeyServer, keys: KeyServer | None = None) -> None:
        """Publish all of it under the issuer's own paths; the keys on another server where the provider has one."""
        server.answers[urlsplit(self.issuer.removesuffix("/")).path + CONFIGURATION] = document(self.configuration)
        (keys or server).answers[self.keys_path] = document({"keys": self.keys}, cache_control="max-age=3600")

    @property
    def keys_path(self) -> str:
        """The path of the key set."""
        path: str = urlsplit(self.configuration["jwks_uri"]).path
        return path


def auth0(origin: str = "https://chat.eu.auth0.com") -> Shape:
    """Two keys with certificates, an issuer that ends in a slash, two audiences, and permissions beside scopes."""
    issuer = f"{origin}/"
    first, second = _key("auth0", 1), _key("auth0", 2)

    def kid(key: RSAKey) -> str:
        return _kid(key)[:21]

    def jwk(key: RSAKey) -> JWK:
        chain = certificate(key)
        return {
            "kty": "RSA",
            "use": "sig",
            **_modulus(key, "n", "e"),
            "kid": kid(key),
            "x5t": _thumbprint(chain, "sha1"),
            "x5c": [base64.b64encode(chain).decode()],
            "alg": "RS256",
        }

    return Shape(
        issuer=issuer,
        configuration={
            "issuer": issuer,
            "authorization_endpoint": f"{origin}/authorize",
            "token_endpoint": f"{origin}/oauth/token",
            "device_authorization_endpoint": f"{origin}/oauth/device/code",
            "userinfo_endpoint": f"{origin}/userinfo",
            "mfa_challenge_endpoint": f"{origin}/mfa/challenge",
            "jwks_uri": f"{origin}/.well-known/jwks.json",
            "registration_endpoint": f"{origin}/oidc/register",
            "revocation_endpoint": f"{origin}/oauth/revoke",
            "scopes_supported": ["openid", "profile", "offline_access", "email", "phone"],
            "response_types_supported": ["code", "token", "id_token", "code token id_token"],
            "code_challenge_methods_supported": ["S256", "plain"],
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["public"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
            "claims_supported": ["aud", "auth_time", "email", "exp", "iat", "iss", "name", "sub"],
            "request_uri_parameter_supported": False,
            "request_parameter_supported": False,
            "id_token_signing_alg_values_supported": ["HS256", "RS256", "PS256"],
            "end_session_endpoint": f"{origin}/oidc/logout",
            "backchannel_logout_supported": True,
            "backchannel_logout_session_supported": True,
        },
        keys=[jwk(first), jwk(second)],
        private={kid(first): first, kid(second): second},
        header={"typ": "JWT", "kid": kid(first)},
        claims={
            "iss": issuer,
            "sub": "auth0|66a1f0c4d9e8b7a6c5d4e3f2",
            "aud": ["https://chat.example.com", f"{origin}/userinfo"],
            "scope": "openid profile chat:read",
            "azp": "my_client_id",
            "permissions": ["chat:read", "chat:write"],
        },
        scopes=frozenset(("openid", "profile", "chat:read", "chat:write")),
        settings={"audience": "https://chat.example.com"},
    )


def keycloak(origin: str = "https://id.example.com") -> Shape:
    """A key for encryption beside the one for signatures, and a token that says in a claim what use it is for."""
    issuer = f"{origin}/realms/chat"
    protocol = f"{issuer}/protocol/openid-connect"
    signing, encrypting = _key("keycloak", 1), _key("keycloak", 2)

    def jwk(key: RSAKey, algorithm: str, use: str) -> JWK:
        chain = certificate(key)
        return {
            "kid": _kid(key),
            "kty": "RSA",
            "alg": algorithm,
            "use": use,
            "x5c": [base64.b64encode(chain).decode()],
            "x5t": _thumbprint(chain, "sha1"),
            "x5t#S256": _thumbprint(chain, "sha256"),
            **_modulus(key, "n", "e"),
        }

    return Shape(
        issuer=issuer,
        configuration={
            "issuer": issuer,
            "authorization_endpoint": f"{protocol}/auth",
            "token_endpoint": f"{protocol}/token",
            "introspection_endpoint": f"{protocol}/token/introspect",
            "userinfo_endpoint": f"{protocol}/userinfo",
            "end_session_endpoint": f"{protocol}/logout",
            "frontchannel_logout_session_supported": True,
            "frontchannel_logout_supported": True,
            "jwks_uri": f"{protocol}/certs",
            "check_session_iframe": f"{protocol}/login-status-iframe.html",
            "grant_types_supported": ["authorization_code", "client_credentials", "implicit", "refresh_token"],
            "acr_values_supported": ["0", "1"],
            "response_types_supported": ["code", "none", "id_token", "token"],
            "subject_types_supported": ["public", "pairwise"],
            "id_token_signing_alg_values_supported": ["PS384", "RS384", "EdDSA", "ES384", "HS256", "RS256", "ES256"],
            "id_token_encryption_alg_values_supported": ["RSA-OAEP", "RSA-OAEP-256"],
            "claims_supported": ["aud", "sub", "iss", "auth_time", "name", "preferred_username", "email", "acr"],
            "request_parameter_supported": True,
            "scopes_supported": ["openid", "profile", "email", "roles", "offline_access"],
            "code_challenge_methods_supported": ["plain", "S256"],
            "tls_client_certificate_bound_access_tokens": True,
            "revocation_endpoint": f"{protocol}/revoke",
            "backchannel_logout_supported": True,
            "backchannel_logout_session_supported": True,
            "mtls_endpoint_aliases": {"token_endpoint": f"{protocol}/token"},
            "authorization_response_iss_parameter_supported": True,
        },
        keys=[jwk(encrypting, "RSA-OAEP", "enc"), jwk(signing, "RS256", "sig")],
        private={_kid(signing): signing, _kid(encrypting): encrypting},
        header={"typ": "JWT", "kid": _kid(signing)},
        claims={
            "jti": _uuid("keycloak jti"),
            "iss": issuer,
            "aud": ["chat-api", "account"],
            "sub": _uuid("keycloak sub"),
            "typ": "Bearer",
            "azp": "chat",
            "sid": _uuid("keycloak sid"),
            "acr": "1",
            "allowed-origins": ["https://chat.example.com"],
            "realm_access": {"roles": ["offline_access", "uma_authorization"]},
            "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
            "scope": "openid profile chat:write",
            "email_verified": True,
            "preferred_username": "ann",
        },
        scopes=frozenset(("openid", "profile", "chat:write")),
        settings={"audience": "chat-api"},
    )


def entra(origin: str = "https://login.microsoftonline.com") -> Shape:
    """Several keys without `alg`, each naming its issuer, some of them by a template; scopes in `scp`."""
    tenant, api = "0f6b2c1e-4d5a-4b7c-9e8f-1a2b3c4d5e6f", "9c8b7a65-4321-4fed-8cba-0987654321fe"
    issuer = f"{origin}/{tenant}/v2.0"
    keys = [_key("entra", number) for number in range(1, 4)]

    def kid(key: RSAKey) -> str:
        return _thumbprint(certificate(key), "sha1")

    def jwk(key: RSAKey, key_issuer: str) -> JWK:
        return {
            "kty": "RSA",
            "use": "sig",
            "kid": kid(key),
            "x5t": kid(key),
            **_modulus(key, "n", "e"),
            "x5c": [base64.b64encode(certificate(key)).decode()],
            "cloud_instance_name": "microsoftonline.com",
            "issuer": key_issuer,
        }

    return Shape(
        issuer=issuer,
        configuration={
            "token_endpoint": f"{origin}/{tenant}/oauth2/v2.0/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": f"{origin}/{tenant}/discovery/v2.0/keys",
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": issuer,
            "request_uri_parameter_supported": False,
            "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
            "authorization_endpoint": f"{origin}/{tenant}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{origin}/{tenant}/oauth2/v2.0/devicecode",
            "http_logout_supported": True,
            "frontchannel_logout_supported": True,
            "end_session_endpoint": f"{origin}/{tenant}/oauth2/v2.0/logout",
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nonce", "name", "tid", "ver", "email"],
            "kerberos_endpoint": f"{origin}/{tenant}/kerberos",
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": "graph.microsoft.com",
            "rbac_url": "https://pas.windows.net",
        },
        keys=[jwk(keys[0], f"{origin}/{{tenantid}}/v2.0"), jwk(keys[1], issuer), jwk(keys[2], issuer)],
        private={kid(key): key for key in keys},
        header={"typ": "JWT", "kid": kid(keys[1])},
        claims={
            "aud": api,
            "iss": issuer,
            "aio": "ATQAy/8TAAAA",
            "azp": _uuid("entra client"),
            "azpacr": "0",
            "name": "Ann",
            "oid": _uuid("entra oid"),
            "preferred_username": "ann@example.com",
            "rh": "0.AXkA.",
            "roles": ["Moderator"],
            "scp": "Chat.Read Chat.Write",
            "sub": "hKNu5eJ0Q8lG3vF1mD7pZxYcWbTsRnAo",
            "tid": tenant,
            "uti": "mJ7kP2qRsEeVhTz0AbCdAA",
            "ver": "2.0",
        },
        scopes=frozenset(("Chat.Read", "Chat.Write")),
        settings={"audience": api},
    )


def google(origin: str = "https://accounts.google.com", keys_origin: str = "https://www.googleapis.com") -> Shape:
    """Keys on another host, several at a time. What is shown here is an ID token: no JWT is made for others' APIs."""
    signing, other = _key("google", 1), _key("google", 2)
    return Shape(
        issuer=origin,
        configuration={
            "issuer": origin,
            "authorization_endpoint": f"{origin}/o/oauth2/v2/auth",
            "device_authorization_endpoint": "https://oauth2.googleapis.com/device/code",
            "token_endpoint": "https://oauth2.googleapis.com/token",
            "userinfo_endpoint": "https://openidconnect.googleapis.com/v1/userinfo",
            "revocation_endpoint": "https://oauth2.googleapis.com/revoke",
            "jwks_uri": f"{keys_origin}/oauth2/v3/certs",
            "response_types_supported": ["code", "token", "id_token", "code token", "code id_token", "none"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "email", "profile"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "claims_supported": ["aud", "email", "email_verified", "exp", "iat", "iss", "name", "picture", "sub"],
            "code_challenge_methods_supported": ["plain", "S256"],
        },
        keys=[
            {**_modulus(other, "n"), "use": "sig", "kid": _hex(other), "alg": "RS256", "kty": "RSA", "e": "AQAB"},
            {"e": "AQAB", "alg": "RS256", "kid": _hex(signing), **_modulus(signing, "n"), "kty": "RSA", "use": "sig"},
        ],
        private={_hex(signing): signing, _hex(other): other},
        header={"kid": _hex(signing), "typ": "JWT"},
        claims={
            "iss": origin,
            "azp": "501234567890-chat.apps.googleusercontent.com",
            "aud": "501234567890-chat.apps.googleusercontent.com",
            "sub": "104321098765432109876",
            "hd": "example.com",
            "email": "ann@example.com",
            "email_verified": True,
            "at_hash": "q0w9e8r7t6y5u4i3o2p1aA",
            "name": "Ann",
        },
        scopes=frozenset(),
        settings={
            "audience": "501234567890-chat.apps.googleusercontent.com",
            "token_types": ["JWT", "id_token"],
        },
    )


def cognito(origin: str = "https://cognito-idp.eu-central-1.amazonaws.com") -> Shape:
    """A key for ID tokens and one for access tokens, `kid`s in plain base64, and tokens without `aud` and `typ`."""
    issuer = f"{origin}/eu-central-1_Ab12Cd34E"
    domain = "https://chat.auth.eu-central-1.amazoncognito.com"
    for_id_tokens, for_access_tokens = _key("cognito", 1), _key("cognito", 2)

    def kid(key: RSAKey) -> str:
        return base64.b64encode(key.thumbprint().encode()[:32]).decode()

    def jwk(key: RSAKey) -> JWK:
        modulus = _modulus(key, "e", "n")
        return {"alg": "RS256", "e": modulus["e"], "kid": kid(key), "kty": "RSA", "n": modulus["n"], "use": "sig"}

    return Shape(
        issuer=issuer,
        configuration={
            "authorization_endpoint": f"{domain}/oauth2/authorize",
            "end_session_endpoint": f"{domain}/logout",
            "id_token_signing_alg_values_supported": ["RS256"],
            "issuer": issuer,
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "response_types_supported": ["code", "token"],
            "revocation_endpoint": f"{domain}/oauth2/revoke",
            "scopes_supported": ["openid", "email", "phone", "profile"],
            "subject_types_supported": ["public"],
            "token_endpoint": f"{domain}/oauth2/token",
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "userinfo_endpoint": f"{domain}/oauth2/userInfo",
        },
        keys=[jwk(for_id_tokens), jwk(for_access_tokens)],
        private={kid(for_id_tokens): for_id_tokens, kid(for_access_tokens): for_access_tokens},
        header={"kid": kid(for_access_tokens)},
        claims={
            "sub": _uuid("cognito sub"),
            "cognito:groups": ["moderators"],
            "iss": issuer,
            "version": 2,
            "client_id": "5h1k2m3n4p5q6r7s8t9u0v1w2x",
            "origin_jti": _uuid("cognito origin"),
            "event_id": _uuid("cognito event"),
            "token_use": "access",
            "scope": "openid chat/write",
            "auth_time": int(time.time()),
            "jti": _uuid("cognito jti"),
            "username": "ann",
        },
        scopes=frozenset(("openid", "chat/write")),
    )


PROVIDERS: dict[str, Callable[..., Shape]] = {
    "auth0": auth0,
    "keycloak": keycloak,
    "entra": entra,
    "google": google,
    "cognito": cognito,
}


def certificate(key: RSAKey) -> bytes:
    """Return a self-signed certificate for a key, as DER; always the same one."""
    kid = _kid(key)
    if kid not in _certificates:
        _certificates[kid] = _certify(key)
    return _certificates[kid]


_certificates: dict[str, bytes] = {}


def _certify(key: RSAKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "chat")])
    today = dt.datetime.now(dt.UTC)
    private: Any = key.private_key
    builder = x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today).not_valid_after(today + dt.timedelta(days=3650))
    return builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)


@functools.cache
def _key(provider: str, number: int) -> RSAKey:
    """Make a key; it is the same one whenever the provider's shape is made in this process."""
    return RSAKey.generate_key(2048)


def _modulus(key: RSAKey, *members: str) -> JWK:
    public = key.as_dict(private=False)
    return {member: public[member] for member in members}


def _kid(key: RSAKey) -> str:
    return key.thumbprint()


def _hex(key: RSAKey) -> str:
    return hashlib.sha1(_kid(key).encode(), usedforsecurity=False).hexdigest()


def _thumbprint(chain: bytes, digest: str) -> str:
    return base64.urlsafe_b64encode(hashlib.new(digest, chain, usedforsecurity=False).digest()).rstrip(b"=").decode()


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))

"""Checks of what a `JWTAuth` requires of tokens, and of where it accepts them from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from iogate.auth import Auth, Cookie, JWTAuth, Query
from iogate.auth.keys import ALGORITHMS
from iogate.auth.policy import Policy
from iogate.cli.checks.finding import Finding, listing, span

DAY = 86400.0
"""Seconds: the longest lifetime of access tokens that is common. Most issuers set an hour or less."""
_LONG_LEEWAY = 120.0
"""Seconds. Clocks synchronized with NTP differ by less than one; RFC 7519, section 4.1.4, allows "a few minutes"."""
_LONG_GRACE = 300.0
_LONG_WAIT = 60.0


def of_auth(auth: Auth) -> Iterator[Finding]:
    """Check an authenticator, except its keys."""
    if isinstance(auth, JWTAuth):
        yield from _algorithms(auth.policy)
        yield from _issuer(auth.policy)
        yield from _audience(auth.policy)
        yield from _expiry(auth.policy)
        yield from _use(auth.policy)
    else:
        yield Finding(
            "note",
            "auth",
            f"it is {type(auth).__name__}, a class of yours: how it judges tokens cannot be seen from here",
        )
        yield from _lifetime(auth.max_lifetime)
    yield from _leeway(auth.leeway)
    yield from _sources(auth)
    yield from _strangers(auth)


def signs_itself(policy: Policy) -> bool:
    """Return True if tokens may be signed with a shared secret, which usually means that the application signs them."""
    return any(ALGORITHMS[name].family == "secret" for name in policy.algorithms)


def _algorithms(policy: Policy) -> Iterator[Finding]:
    yield Finding("good", "algorithms", f"only {listing(policy.algorithms)}, whatever a token says")


def _issuer(policy: Policy) -> Iterator[Finding]:
    issuers = policy.rules.issuers
    if issuers is not None:
        yield Finding("good", "issuer", f"only {listing(issuers)}")
    elif signs_itself(policy):
        yield Finding("note", "issuer", "any: whoever has the secret may call himself what he likes", 'issuer="..."')
    else:
        yield Finding(
            "weak",
            "issuer",
            "any: iss is not compared, so that nothing ties the keys to whose they are (RFC 8725, section 3.8)",
            'issuer="https://...", as the tokens have it in iss',
        )


def _audience(policy: Policy) -> Iterator[Finding]:
    audiences = policy.rules.audiences
    if isinstance(audiences, Mapping):
        named = "; ".join(f"{listing(names)} at {issuer}" for issuer, names in sorted(audiences.items()))
        yield Finding("good", "audience", f"only tokens for {named}")
    elif audiences is not None:
        yield Finding("good", "audience", f"only tokens for {listing(audiences)}")
    elif signs_itself(policy):
        yield Finding(
            "note",
            "audience",
            "any: a token that is made with the same secret for something else is accepted here too",
            'audience="..." here, and aud in the tokens, if the secret is used for anything else',
        )
    else:
        yield Finding(
            "weak",
            "audience",
            "any: a token that the issuer made for another service is accepted here too, so that who runs that one can"
            " come as any of its users (RFC 8725, section 3.9)",
            'audience="...", the name of this server in aud',
        )


def _expiry(policy: Policy) -> Iterator[Finding]:
    rules = policy.rules
    if "exp" in rules.require:
        yield Finding("good", "require", f"a token without {' or '.join(rules.require)} is refused")
        yield from _lifetime(rules.max_lifetime)
    elif rules.max_age is None:
        yield Finding(
            "wrong",
            "require",
            "a token without exp is accepted, and nothing else ends it: one that is stolen is good for ever",
            'require=["exp", "sub"], the default; or max_age=, if the issuer writes no exp',
        )
    else:
        yield Finding(
            "note", "require", f"a token without exp is accepted, for {span(rules.max_age)} from its iat (max_age)"
        )
    if "sub" not in rules.require:
        yield Finding(
            "weak",
            "require",
            "a token without sub is accepted: its subject is empty, and limits and revocations of a subject do not"
            " hold for it",
            'require=["exp", "sub"], the default',
        )
    if policy.expiry_grace > _LONG_GRACE:
        yield Finding(
            "weak",
            "expiry_grace",
            f"a socket is left for {span(policy.expiry_grace)} after its token has expired",
            "expiry_grace=0; refresh_before= is what gives a client time for a new token",
        )


def _lifetime(seconds: float) -> Iterator[Finding]:
    if seconds > DAY:
        yield Finding(
            "weak",
            "max_lifetime",
            f"a token may be good for {span(seconds)}, and so is one that is stolen: what is usual is an hour, and a"
            " day at most (RFC 6750, section 5.3)",
            "max_lifetime=3600, or what your issuer gives, in seconds",
        )
    else:
        yield Finding("good", "max_lifetime", f"a token is good for {span(seconds)} at most")


def _use(policy: Policy) -> Iterator[Finding]:
    if policy.rules.id_tokens:
        alone = policy.rules.audiences is None
        yield Finding(
            "wrong" if alone else "weak",
            "token_types",
            "ID tokens are accepted. They tell an application who has signed in, and are no key to a server"
            + (
                ": without audience, every application at the same issuer that you sign in to can come here as you"
                if alone
                else " (RFC 8725, section 3.12)"
            ),
            'token_types=["JWT", "at+jwt"], the default, and access tokens in the clients',
        )
    if policy.rules.bound_tokens:
        yield Finding(
            "weak",
            "accept_bound_tokens",
            "a token that is bound to a key (cnf) is accepted without a proof of that key, so a copy of it works too"
            " (RFC 9449, section 7)",
            "accept_bound_tokens=False, the default, and bearer tokens for this server",
        )
    if policy.type_required:
        yield Finding("good", "profile", "access tokens after RFC 9068, and nothing else")


def _leeway(seconds: float) -> Iterator[Finding]:
    if seconds > _LONG_LEEWAY:
        yield Finding(
            "weak",
            "leeway",
            f"clocks may differ by {span(seconds)}: for as long an expired token is still accepted",
            "leeway=30, and clocks that are set by the network (NTP)",
        )


def _sources(auth: Auth) -> Iterator[Finding]:
    for source in auth.sources:
        if isinstance(source, Query):
            yield Finding(
                "weak",
                "sources",
                f"tokens are taken from URLs ({source!r}): what is in a URL is in the logs of proxies and in the"
                " history of browsers (RFC 9700, section 4.3.2)",
                "leave Query out: io(url, { auth: { token } }) in the clients needs AuthPayload alone",
            )
        elif isinstance(source, Cookie) and not source.name.startswith("__Host-"):
            yield Finding(
                "note",
                "sources",
                f"the cookie {source.name!r} can be set by other hosts of the same domain, and over plain http",
                f'Cookie("__Host-{source.name.removeprefix("__Secure-")}"), which browsers keep to one host and https',
            )


def _strangers(auth: Auth) -> Iterator[Finding]:
    if auth.guests:
        yield Finding(
            "note",
            "guests",
            "who gives no token is let in, as a guest: every handler has to ask socket.authenticated",
            "guests=False, if there are to be none",
        )
    wait = auth.authenticate_within
    if wait is not None and wait > _LONG_WAIT:
        yield Finding(
            "note",
            "authenticate_within",
            f"a client that has shown no token may stay for {span(wait)}",
            "authenticate_within=15, the customary figure",
        )

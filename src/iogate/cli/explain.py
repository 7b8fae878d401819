"""Explain a token to the operator, rule by rule.

The rules are those of `iogate.auth`. Each is checked separately, so that all problems are reported, not only the first.
These explanations decide nothing: the verdict on a token comes from the gate (`iogate.cli.judge`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from iogate.auth import JWTAuth, jws
from iogate.auth.claims import ClaimRules
from iogate.auth.interface import Keys
from iogate.auth.keyset import Key
from iogate.auth.policy import Policy
from iogate.cli.checks.finding import listing, span
from iogate.cli.checks.keys import key_set
from iogate.errors import AuthError, AuthUnavailable, TokenExpired
from iogate.keys.fixed import NO_KEY, FixedKey
from iogate.keys.function import FunctionKeys
from iogate.keys.issuers import Issuers
from iogate.keys.refreshed import Refreshed

_T = TypeVar("_T")

_INSTEAD = {
    "algorithm": "a token signed with an accepted one; or, if the issuer itself has gone over to another, that one in"
    " algorithms=",
    "type": "an access token, whose typ is one of these",
    "required": "an issuer that writes all of them; or require= without it",
    "use": "the access token, in the client",
    "binding": "a bearer token, without cnf; or accept_bound_tokens=True in the server, if a copied token may be used",
    "iss": "issuer= as the token has it, letter by letter, a slash at its end too; if that one is to be trusted",
    "aud": "a token that the client gets for this server; or that name in audience=, if it is one of this server's",
    "expired": "a new token, which a client gets before the old one ends",
    "signature": "a token of this issuer: this one is another's (that of a test system?), or was changed",
    "key": "a token of this issuer, signed with one of its published keys; or its new key in the set, if it has one",
    "nbf, iat": "dates that are past; if only the clocks differ, leeway=10 in the server",
}
"""The advice for a token that breaks a rule, by the subject of the rule."""


class Line(NamedTuple):
    """The result of one rule for the token."""

    verdict: Literal["good", "wrong", "not checked"]
    subject: str
    text: str


class Explanation:
    """The contents of a token, and the result of each rule for it.

    Args:
        policy: the rules.
        now: Unix time in seconds at which the rules are checked.
    """

    def __init__(self, policy: Policy, now: float) -> None:
        self.header: dict[str, Any] | None = None
        self.claims: dict[str, Any] | None = None
        self.lines: list[Line] = []
        self._policy = policy
        self._now = now
        self._reasons: set[str] = set()

    async def of(self, token: str, auth: JWTAuth | None) -> None:
        """Check a token against all rules.

        Args:
            token: the token.
            auth: the authenticator with the keys; without one the signature is not checked.
        """
        policy = self._policy
        size = f"{len(token)} bytes, of {policy.max_token_bytes} at most"
        compact = self._check("structure", size, lambda: jws.split(policy.check_size(token)), instead=_form(token))
        if compact is None:
            return
        header = self.header = compact.header
        self._check(
            "algorithm",
            f"the token says {_said(header, 'alg')}; accepted: {listing(policy.algorithms)}",
            lambda: jws.check_algorithm(header, policy.algorithms),
        )
        self._check(
            "type",
            f"the token says {_said(header, 'typ')}; accepted: {listing(policy.types)}"
            + ("" if policy.type_required else ", or none"),
            lambda: jws.check_type(header, policy.types, required=policy.type_required),
        )
        self._check("header", f"it has {listing(header)}", lambda: jws.check_parameters(header))
        claims = self._check("claims", "", lambda: jws.members(compact.payload, "claims"), good="strict JSON")
        self.claims = claims
        await self._check_signature(token, auth)
        if claims is not None:
            self._check_claims(claims, policy.rules)

    def only_parts(self, token: str) -> None:
        """Parse the header and claims of a token without checking rules. A token that is not a JWT is ignored."""
        with suppress(AuthError):
            compact = jws.split(self._policy.check_size(token))
            self.header = compact.header
            self.claims = jws.members(compact.payload, "claims")

    def add(self, verdict: Literal["good", "wrong", "not checked"], subject: str, text: str) -> None:
        """Add the result of one rule."""
        self.lines.append(Line(verdict, subject, text))

    async def _check_signature(self, token: str, auth: JWTAuth | None) -> None:
        if auth is None:
            self.add("not checked", "signature", "there is no key to check it with")
            return
        source = _source(auth.keys, self.claims)
        header = self.header or {}
        try:
            await auth.signed(token, _AnyType())
        except AuthUnavailable as error:
            self.add("not checked", "signature", error.reason)
        except AuthError as error:
            if error.reason in self._reasons:
                self.add("not checked", "signature", "what is wrong above comes first")
                return
            if error.reason == NO_KEY:
                self._wrong("signature", error.reason, _why_no_key(source, header), _INSTEAD["key"])
            else:
                self._wrong("signature", error.reason, _which_key(source, header), _INSTEAD["signature"])
        except (Exception, SystemExit):  # From a key function of the application. The verdict reports it.
            self.add("not checked", "signature", "the key cannot be had")
        else:
            self.add("good", "signature", _which_key(source, header))

    def _check_claims(self, claims: dict[str, Any], rules: ClaimRules) -> None:
        now = self._now
        leeway = f"leeway: {span(rules.leeway)}" if rules.leeway else ""
        age = "" if rules.max_age is None else f"max_age: {span(rules.max_age)}"
        self._check("required", f"required: {listing(set(rules.require))}", lambda: rules.check_required(claims))
        self._check("use", "", lambda: rules.check_use(claims), good="nothing says that it is for anything but access")
        self._check(
            "binding",
            "",
            lambda: rules.check_binding(claims),
            good="it is bound to a key (cnf), and accepted without a proof"
            if "cnf" in claims
            else "it is a bearer token",
        )
        self._check("sub", f"the token says {_said(claims, 'sub')}", lambda: rules.check_subject(claims))
        for name, accepted, rule in (
            ("iss", rules.issuers, rules.check_issuer),
            ("aud", rules.audiences, rules.check_audience),
        ):
            facts = f"the token says {_said(claims, name)}; accepted: {_names(accepted)}"
            self._check(name, facts, partial(rule, claims))
        self._check(
            "nbf, iat",
            "; ".join(filter(None, (leeway, age))),
            lambda: rules.check_start(claims, now),
            good="not in the future",
        )
        self._check(
            "exp",
            leeway,
            lambda: rules.check_expiry(rules.check_lifetime(claims, now), now),
            good="in the future",
            instead="seconds since 1970, from now to max_lifetime= of the server"
            f" ({span(rules.max_lifetime)}), counted from now and from iat",
        )
        # Check all rules once more, as the gate does, so that a rule without its own line above is not left out.
        self._check("other", None, lambda: rules.principal(claims, now))

    def _check(
        self, subject: str, facts: str | None, check: Callable[[], _T], *, good: str = "", instead: str = ""
    ) -> _T | None:
        """Check a rule, add its result, and return what the rule returned, or None if the token breaks it.

        Args:
            subject: what the rule is about.
            facts: what the rule compares; with None, only a broken rule is added.
            check: the rule.
            good: what it means if the token follows the rule, shown before the facts.
            instead: the advice if the token breaks the rule; by default the one for the subject.
        """
        try:
            result = check()
        except AuthError as error:
            if error.reason not in self._reasons:
                if isinstance(error, TokenExpired):
                    instead = _INSTEAD["expired"]
                self._wrong(subject, error.reason, facts or "", instead or _INSTEAD.get(subject, ""))
            return None
        if facts is not None:
            self.add("good", subject, f"{good} ({facts})" if good and facts else good or facts)
        return result

    def _wrong(self, subject: str, reason: str, facts: str, instead: str) -> None:
        self._reasons.add(reason)
        text = f"{reason} ({facts})" if facts else reason
        self.add("wrong", subject, f"{text}. Instead: {instead}" if instead else text)


class _AnyType:
    """A container with every `typ`, because the accepted types and the signature are two separate rules."""

    def __contains__(self, kind: object) -> bool:
        return True


def keys_in_words(auth: JWTAuth) -> Iterator[str]:
    """Describe the keys of each source, one line per source, plus one line per key that was left out."""
    sources = auth.keys.sources.values() if isinstance(auth.keys, Issuers) else [auth.keys]
    for source in sources:
        name, found = _name(source), key_set(source)
        if isinstance(source, FixedKey):
            yield f"one key, for {listing(source.key.verifiers)}"
        elif isinstance(source, FunctionKeys):
            yield f"{name}: which keys that function returns cannot be seen from here"
        elif found is None:
            trouble = source.trouble if isinstance(source, Refreshed) else "they cannot be seen from here"
            yield f"{name}: {trouble}"
        else:
            yield f"{name}: {', '.join(_key(key, auth.policy) for key in found.keys)}"
            yield from (f"{name}: left out: {problem}" for problem in found.problems)


def _key(key: Key, policy: Policy) -> str:
    name = "one without a kid" if key.key_id is None else f"{key.key_id!r:.100}"
    accepted = policy.algorithms & frozenset(key.verifiers)
    return f"{name} ({listing(accepted) if accepted else f'{listing(key.verifiers)}, not accepted'})"


def _name(source: Keys) -> str:
    return repr(source) if isinstance(source, (Refreshed, FunctionKeys)) else "the key set"


def _source(keys: Keys, claims: Mapping[str, Any] | None) -> Keys:
    """Return the source that has the key of a token, for a message: with several issuers, the source of its `iss`."""
    if isinstance(keys, Issuers):
        issuer = (claims or {}).get("iss")
        return keys.sources.get(issuer, keys) if isinstance(issuer, str) else keys
    return keys


def _which_key(source: Keys, header: Mapping[str, Any]) -> str:
    if isinstance(source, FixedKey):
        return "checked with the one key"
    if isinstance(source, FunctionKeys):
        return f"checked with the key that {source!r} returned"
    kid = header.get("kid")
    named = f"the key {kid!r:.100}" if kid is not None else f"the only key for {header.get('alg')}"
    return f"checked with {named} of {_name(source)}"


def _why_no_key(source: Keys, header: Mapping[str, Any]) -> str:
    """Return why a source has no key for a token: what the token asks for, and what the key set contains."""
    found, kid, algorithm = key_set(source), header.get("kid"), header.get("alg")
    if found is None:
        return f"the token asks for the kid {_said(header, 'kid')}"
    if kid is None:
        fitting = sum(algorithm in key.verifiers for key in found.keys)
        return f"the token names no kid, and {fitting} keys of {_name(source)} go with {algorithm}"
    named = [key for key in found.keys if key.key_id == kid]
    if not named:
        kids = ", ".join("one without a kid" if key.key_id is None else f"{key.key_id!r:.100}" for key in found.keys)
        return f"no key of {_name(source)} is named {kid!r:.100}; it has {kids}"
    if any(algorithm in key.verifiers for key in named):
        return f"several keys of {_name(source)} are named {kid!r:.100}, and which is meant is not guessed"
    kinds = listing({name for key in named for name in key.verifiers})
    return f"the key {kid!r:.100} of {_name(source)} is for {kinds}, and the token says {algorithm}"


def _form(token: str) -> str:
    if token.count(".") == 4:
        return "a signed token: one with five parts is encrypted (JWE), and cannot be looked into here"
    if "." not in token and token:
        return "a JWT: an opaque token is what a client gets that has not asked the issuer for one for this server"
    if token.endswith("."):
        return "a signed token: what follows the second dot is the signature, and there is none"
    return "all of the token, and nothing but it"


def _said(members: Mapping[str, Any], name: str) -> str:
    return f"{json.dumps(members[name], ensure_ascii=False):.200}" if name in members else "nothing"


def _names(names: frozenset[str] | Mapping[str, frozenset[str]] | None) -> str:
    if names is None:
        return "any"
    if isinstance(names, Mapping):
        return "; ".join(f"{listing(own)} at {issuer}" for issuer, own in sorted(names.items()))
    return ", ".join(json.dumps(name, ensure_ascii=False) for name in sorted(names))

"""More bad tokens: rightly signed texts that must not be read, and claims that must not count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from iogate.errors import CredentialsBadFormat, CredentialsBadScheme, TokenExpired
from tests.attacks.doors import ISSUER, STRICT
from tests.attacks.tokens import Bad
from tests.auth.tokens import GOOD, NOW, SECRET, forge, with_claims, with_header

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
WIRE = 900_000  # What fits into one packet of a client.

# Row 11.


def with_duplicates() -> Iterator[Bad]:
    """A member that is given twice: two parsers take two different ones."""
    for claims in (
        '{"sub":"alice","exp":%d,"sub":"root"}',
        '{"sub":"root","exp":%d,"sub":"alice"}',
        '{"sub":"alice","exp":1,"exp":%d}',
        '{"sub":"alice","exp":%d,"s\\u0075b":"root"}',
        '{"sub":"alice","exp":%d,"sub":"alice"}',
        '{"sub":"alice","exp":%d,"realm":{"role":"user","role":"admin"}}',
        '{"sub":"alice","exp":%d,"roles":[{"role":"user","role":"admin"}]}',
    ):
        yield Bad(f"claims {claims}", forge(claims % (NOW + 60)))
    for header in (
        '{"alg":"none","alg":"HS256"}',
        '{"alg":"HS256","alg":"none"}',
        '{"alg":"HS256","\\u0061lg":"HS256"}',
        '{"alg":"HS256","typ":"JWT","typ":"JWT"}',
        '{"alg":"HS256","kid":"a","kid":"b"}',
    ):
        yield Bad(f"header {header}", forge(header=header))


# Row 12.


def to_be_repaired() -> Iterator[Bad]:
    """What is not exactly a token, and would be one if it were trimmed, unescaped or padded."""
    token = forge()
    head, body, seal = token.split(".")
    for addition in ("\n", "\r\n", "\t", "\v", "=", "==", ".", "%3D", "%2E", "\0", "\u200b", "\ufeff", "é", "*", "/"):
        for where, changed in {
            "after": token + addition,
            "before": addition + token,
            "in the header": f"{head[:4]}{addition}{head[4:]}.{body}.{seal}",
            "after the header": f"{head}{addition}.{body}.{seal}",
            "after the claims": f"{head}.{body}{addition}.{seal}",
        }.items():
            yield Bad(f"{addition!r} {where}", changed)
    # A space is where the scheme ends, for whoever reads a credential before it is one.
    yield Bad("a space after", f"{token} ", told=CredentialsBadFormat)
    yield Bad("a space before", f" {token}", told=CredentialsBadFormat)
    yield Bad("a space after the header", f"{head} .{body}.{seal}", told=CredentialsBadScheme)
    yield Bad("two tokens", f"Bearer {token} {token}", told=CredentialsBadFormat)
    yield Bad("two tokens and a comma", f"{token},{token}")
    yield Bad("percent-encoding of a letter", f"%{ord(token[0]):02X}{token[1:]}")
    yield Bad("percent-encoding of the dots", token.replace(".", "%2E"))
    yield Bad("dots of another script", token.replace(".", "\uff0e"))
    yield Bad("quotes around it", f'"{token}"')
    yield Bad("the other alphabet", of_the_other_alphabet()[1])
    for stray in (1, 2, 3):
        yield Bad(f"stray bits {stray}", token[:-1] + ALPHABET[ALPHABET.index(token[-1]) + stray])


def of_the_other_alphabet() -> tuple[str, str]:
    """Return a good token that has `-` or `_`, and what it is with `+` and `/`."""
    for number in range(1000):
        token = with_claims(n=number)
        if "-" in token or "_" in token:
            return token, token.replace("-", "+").replace("_", "/")
    raise AssertionError("no token has a letter of the second alphabet")


# Row 13.


def of_no_plain_text() -> Iterator[Bad]:
    """Claims in another encoding, and names that are not what they look like."""
    text = json.dumps(GOOD)
    yield Bad("a byte order mark", forge(b"\xef\xbb\xbf" + text.encode()))
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        yield Bad(encoding, forge(text.encode(encoding)))
        yield Bad(f"{encoding}, in the header", forge(header='{"alg":"HS256"}'.encode(encoding)))
    yield Bad("a byte order mark in the header", forge(header=b'\xef\xbb\xbf{"alg":"HS256"}'))
    others: dict[str, bytes | str] = {
        "a lone surrogate in sub": json.dumps(GOOD | {"sub": "\ud800"}),
        "a lone surrogate after alice": json.dumps(GOOD | {"sub": "alice\udfff"}),
        "a lone surrogate in another claim": json.dumps(GOOD | {"name": "\udfff"}),
        "surrogates in the wrong order": json.dumps(GOOD | {"name": "\ude00\ud83d"}),
        "a lone surrogate in the name of a claim": json.dumps(GOOD | {"\ud800": 1}),
        "NUL in sub": json.dumps(GOOD | {"sub": "alice\0"}),
        "NUL before sub": json.dumps(GOOD | {"sub": "\0alice"}),
        "empty sub": json.dumps(GOOD | {"sub": ""}),
        "Latin-1": b'{"sub":"ali\xe7e","exp":1700000060}',
        "a byte that is no UTF-8": b'{"sub":"ali\xffce","exp":1700000060}',
        "UTF-8 of a surrogate": b'{"sub":"ali\xed\xa0\x80ce","exp":1700000060}',
        "UTF-8 longer than it need be": b'{"sub":"\xc1\xa1lice","exp":1700000060}',
        "a line break in a text": '{"sub":"ali\nce","exp":1700000060}',
        "something after the object": f"{text}{{}}",
        "a list": f"[{text}]",
        "a text": json.dumps(text),
    }
    for name, claims in others.items():
        yield Bad(name, forge(claims))


# Row 14.


def of_no_date() -> Iterator[Bad]:
    """`exp`, `nbf` and `iat` that are no number, or one out of all bounds."""
    values = {
        "a text": f'"{NOW + 30}"',
        "Unicode digits": "\u0661\u0667\u0660\u0660",
        "Unicode digits in a text": '"\u0661\u0667\u0660\u0660"',
        **{value: value for value in ("true", "null", "-1", "NaN", "Infinity", "-Infinity", "1e400", "[1700000060]")},
        "10^30": "1" + "0" * 30,
        "in 100 years": str(NOW + 100 * 365 * 86400),
        "in the year 10000": "253402300800",
        "5000 digits": "9" * 5000,
        "5000 digits after the point": "1." + "9" * 5000 + "e400",
    }
    for claim in ("exp", "nbf", "iat"):
        others = "" if claim == "exp" else f',"exp":{NOW + 60}'
        for name, value in values.items():
            yield Bad(f"{claim}: {name}", forge(f'{{"sub":"alice","{claim}":{value}{others}}}'))
    for name, value in {"10^30": "1" + "0" * 30, "in the year 10000": "253402300800"}.items():
        yield Bad(f"exp: {name}, any lifetime", forge(f'{{"sub":"alice","exp":{value}}}'), "patient")
    # What is no number is none in a claim that nobody looks at either.
    for value in ("NaN", "-Infinity", "1e400", "9" * 4000, "\u0661"):
        yield Bad(f"another claim: {value[:20]}", forge(f'{{"sub":"alice","exp":{NOW + 60},"n":{value}}}'))


def nested_deeply() -> Iterator[Bad]:
    """As deep as the size allows, in the claims and in the header, for a server that allows much."""
    for what, opening, closing in (("lists", "[", "]"), ("objects", '{"a":', "}")):
        for depth in (100, 900, 4_000):
            inner = opening * depth + "1" + closing * depth
            yield Bad(f"{depth} {what}", forge(f'{{"sub":"alice","exp":{NOW + 60},"a":{inner}}}'), "roomy")
            yield Bad(f"{depth} {what} in the header", forge(header=f'{{"alg":"HS256","a":{inner}}}'), "roomy")
    for opened in ("[", '{"a":'):
        text = '{"a":' + opened * 9_000
        yield Bad(f"never closed {opened}", forge(text), "roomy")
        yield Bad(f"never closed {opened} in the header", forge(header=text), "roomy")
    levels = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    yield Bad("100 000 levels", forge(levels), "roomy", CredentialsBadFormat)


# Row 15.


def too_large(size: int = WIRE) -> Iterator[Bad]:
    """Nothing but dots, nothing but letters, and one part that is too large."""
    for name, token in {
        "dots": "." * size,
        "letters": "a" * size,
        "a large signature": f"{forge().rpartition('.')[0]}.{'c' * size}",
        "a large claim": forge(json.dumps(GOOD | {"pad": "x" * (size // 2)})),
        "a byte too many": "a" * 8193,
        "letters of four bytes": "\U0001f600" * (size // 16),
    }.items():
        yield Bad(name, token, error=CredentialsBadFormat)
    yield Bad("nothing", "", error=CredentialsBadFormat)
    yield Bad("as many dots as allowed", "." * 8192)


# Row 16.


def almost_right() -> Iterator[Bad]:
    """Issuer, audience, subject and dates that are nearly those that are expected."""
    values: tuple[dict[str, Any], ...] = (
        *({"iss": "https://id.exampl"}, {"iss": f"{ISSUER}/"}, {"iss": f"{ISSUER}.evil.test"}, {"iss": [ISSUER]}),
        *({"iss": None}, {"iss": ""}, {"iss": "HTTPS://id.example"}, {"iss": {"url": ISSUER}}, {"iss": 1}),
        *(
            {"aud": "chatter"},
            {"aud": "cha"},
            {"aud": "CHAT"},
            {"aud": "mail"},
            {"aud": ["mail"]},
            {"aud": ["chat", 1]},
        ),
        *({"aud": ["chat", 1]}, {"aud": "mail chat"}, {"aud": "mail,chat"}, {"aud": [["chat"]]}, {"aud": {"chat": 1}}),
        *({"aud": 7}, {"aud": None}, {"aud": []}, {"aud": ""}),
        *({"sub": 7}, {"sub": ["alice"]}, {"sub": None}, {"sub": True}, {"iat": NOW + 1}, {"nbf": NOW + 1}),
    )
    for wrong in values:
        yield Bad(json.dumps(wrong), forge(STRICT | wrong), "strict")
    for name in ("iss", "aud", "sub", "exp"):
        yield Bad(f"no {name}", forge({key: value for key, value in STRICT.items() if key != name}), "strict")


def expired() -> Iterator[Bad]:
    """Only what is right otherwise is called expired: or the answer would tell a forger that all else is right."""
    yield Bad("expired", with_claims(exp=NOW - 1), error=TokenExpired)
    yield Bad("expired now", with_claims(exp=NOW), error=TokenExpired)
    yield Bad("expired and issued in the future", with_claims(exp=NOW - 1, iat=NOW + 1))
    yield Bad("expired and without a subject", with_claims(exp=NOW - 1, sub=""))
    yield Bad("expired and of another use", with_header(typ="logout+jwt").partition(".")[0] + ".e30.AA")
    yield Bad("expired and forged", forge(GOOD | {"exp": NOW - 1}, secret=SECRET[:-1]))
    yield Bad("expired and of another audience", forge(STRICT | {"exp": NOW - 1, "aud": "mail"}), "strict")


# Row 17.


def of_another_use() -> Iterator[Bad]:
    """Logout tokens, security events, proofs of possession, ID and refresh tokens: signed by the right issuer."""
    for typ in (
        *("logout+jwt", "LOGOUT+JWT", "application/logout+jwt", "secevent+jwt", "dpop+jwt", "token-introspection+jwt"),
        *("kb+jwt", "JOSE", "JWE", "", " JWT", "JWT ", "application/application/jwt", None, 1, ["JWT"], {"JWT": 1}),
    ):
        yield Bad(f"typ {typ!r}", with_header(typ=typ))
    logout = "http://schemas.openid.net/event/backchannel-logout"
    others: tuple[dict[str, Any], ...] = (
        {"at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng", "nonce": "n"},
        {"c_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"},
        *({"typ": "ID"}, {"typ": "Refresh"}, {"typ": "Offline"}, {"typ": "Logout"}),
        {"events": {logout: {}}, "jti": "1", "sid": "1"},
        # Bound to a key (RFC 7800): by DPoP (RFC 9449), by a certificate (RFC 8705), by a secret, by something unknown.
        {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
        {"cnf": {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}},
        *({"cnf": {"jwk": {"kty": "oct", "k": "AA"}}}, {"cnf": {}}, {"cnf": None}, {"cnf": "x"}),
    )
    for claims in others:
        yield Bad(f"claims {json.dumps(claims)}", with_claims(**claims))

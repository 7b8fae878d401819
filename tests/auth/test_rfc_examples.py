"""The examples of the RFCs verify with our verifiers, and with one bit changed, wherever it is, they do not.

RFC 7515, appendix A; RFC 7520, sections 3 and 4; RFC 8037, appendix A. The verifiers are those that `JWTAuth` uses;
what its policy refuses of the examples (a private key, a payload that is no claims, another form) is said here too.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from joserfc.jwk import import_key

from iogate import JWTAuth
from iogate.auth import jws
from iogate.auth.keys import Verifier, from_public_key, from_secret
from iogate.errors import ConfigurationError, InvalidToken, TokenExpired

from .tokens import FixedClock, b64

_CLAIMS = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
_JOE = b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}'
_EXPIRY = 1300819380
_ADVICE = (
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5k"
    "IGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"
)
_FRODO = (
    "It\u2019s a dangerous business, Frodo, going out your door. You step onto the road, and if you don't keep your "
    "feet, there\u2019s no knowing where you might be swept off to."
).encode()

# RFC 7515, sections A.1.1, A.2.1, A.3.1, A.4.1
_A1_KEY = {
    "kty": "oct",
    "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
}
_A2_KEY = {
    "kty": "RSA",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZ"
    "S-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2Ca"
    "pHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h"
    "4FRWyuXpoQ",
    "e": "AQAB",
}
_A3_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
_A4_KEY = {
    "kty": "EC",
    "crv": "P-521",
    "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
    "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
}
# RFC 8037, section A.2
_ED_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
# RFC 7520, sections 3.1, 3.3 and 3.5
_BILBO = "bilbo.baggins@hobbiton.example"
_EC_KEY = {
    "kty": "EC",
    "kid": _BILBO,
    "use": "sig",
    "crv": "P-521",
    "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
    "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
}
_RSA_KEY = {
    "kty": "RSA",
    "kid": _BILBO,
    "use": "sig",
    "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2w"
    "qVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJls"
    "de3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc"
    "5gHdrNP5zw",
    "e": "AQAB",
}
_HMAC_KEY = {
    "kty": "oct",
    "kid": "018c0ae5-4d9b-471b-bfd6-eef314bc7037",
    "use": "sig",
    "alg": "HS256",
    "k": "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
}


class Example(NamedTuple):
    """A token of an RFC. Its key is a JWK, of which only the public part is taken."""

    section: str
    algorithm: str
    key: dict[str, str]
    token: str
    payload: bytes


EXAMPLES = [
    Example(
        "RFC 7515, A.1",
        "HS256",
        _A1_KEY,
        f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{_CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        _JOE,
    ),
    Example(
        "RFC 7515, A.2",
        "RS256",
        _A2_KEY,
        f"eyJhbGciOiJSUzI1NiJ9.{_CLAIMS}."
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU"
        "Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d"
        "O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig"
        "cN_IoypGlUPQGe77Rw",
        _JOE,
    ),
    Example(
        "RFC 7515, A.3",
        "ES256",
        _A3_KEY,
        f"eyJhbGciOiJFUzI1NiJ9.{_CLAIMS}."
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        _JOE,
    ),
    Example(
        "RFC 7515, A.4",
        "ES512",
        _A4_KEY,
        "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA."
        "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2Y"
        "BJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
        b"Payload",
    ),
    Example(
        "RFC 8037, A.4",
        "EdDSA",
        _ED_KEY,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        b"Example of Ed25519 signing",
    ),
    Example(
        "RFC 7520, 4.1",
        "RS256",
        _RSA_KEY,
        f"eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{_ADVICE}."
        "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDk"
        "oBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9Uzp"
        "ERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogo"
        "ree7vjbU5y18kDquDg",
        _FRODO,
    ),
    Example(
        "RFC 7520, 4.2",
        "PS384",
        _RSA_KEY,
        f"eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{_ADVICE}."
        "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OL"
        "PpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shn"
        "r2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6"
        "oD4ifKo8DYM-X72Eaw",
        _FRODO,
    ),
    Example(
        "RFC 7520, 4.3",
        "ES512",
        _EC_KEY,
        f"eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{_ADVICE}."
        "AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnA"
        "MDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
        _FRODO,
    ),
    Example(
        "RFC 7520, 4.4",
        "HS256",
        _HMAC_KEY,
        f"eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9.{_ADVICE}."
        "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
        _FRODO,
    ),
]

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.section)

_KEY_MEMBERS = ("k", "n", "e", "x", "y")
"""The members of a JWK that are numbers, or the secret."""

PRIVATE_KEYS = {
    # RFC 7515, section A.2.1, of which `d` is enough to be refused.
    "RFC 7515, A.2": _A2_KEY
    | {
        "d": "Eq5xpGnNCivDflJsRQBXHx1hdR1k6Ulwe2JZD50LpXyWPEAeP88vLNO97IjlA7_GQ5sLKMgvfTeXZx9SE-7YwVol2NXOoAJe46sui395"
        "IW_GO-pWJ1O0BkTGoVEn2bKVRUCgu-GjBVaYLU6f3l9kJfFNS3E0QbVdxzubSu3Mkqzjkn439X0M_V51gfpRLI9JYanrC4D4qAdGcopV_0ZH"
        "HzQlBjudU2QvXt4ehNYTCBr6XCLQUShb1juUO1ZdiYoFaFQT5Tw8bGUl_x_jTj3ccPDVZFD9pIuhLhBOneufuBiB4cS98l2SR_RQyGWSeWjn"
        "czT0QU91p1DhOVRuOopznQ",
    },
    "RFC 7515, A.3": _A3_KEY | {"d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"},
    "RFC 7515, A.4": _A4_KEY
    | {"d": "AY5pb7A0UFiB3RELSD64fTLOSV_jazdF7fLYyuTw8lOfRhWg6Y6rUrPAxerEzgdRhajnu0ferB0d53vM9mE15j2C"},
    "RFC 8037, A.1": _ED_KEY | {"d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"},
    "RFC 7520, 3.2": _EC_KEY
    | {"d": "AAhRON2r9cqXX1hg-RoI6R1tX5p2rUAYdmpHZoC1XNM56KtscrX6zbKipQrCW9CGZH3T4ubpnoTKLDYJ_fF3_rJt"},
}


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def key_argument(key: dict[str, str]) -> dict[str, Any]:
    """Return a JWK as the argument that `JWTAuth` takes it by."""
    return {"secret": unb64(key["k"])} if key["kty"] == "oct" else {"public_key": key}


def verifier(key: Mapping[str, str], algorithm: str) -> Verifier:
    load = from_secret(unb64(key["k"]), [algorithm]) if key["kty"] == "oct" else from_public_key(key, [algorithm])
    return load[algorithm]


def flipped(data: bytes) -> Iterator[bytes]:
    """Give `data` with one bit changed: in every byte of it, each time another one of the eight."""
    for index, byte in enumerate(data):
        yield data[:index] + bytes([byte ^ 1 << index % 8]) + data[index + 1 :]


@every_example
def test_an_example_is_read_and_verifies(example: Example) -> None:
    compact = jws.split(example.token)
    assert jws.check_algorithm(compact.header, [example.algorithm]) == example.algorithm
    assert compact.header.get("kid") == example.key.get("kid")
    assert compact.payload == example.payload
    assert compact.signing_input == example.token.rpartition(".")[0].encode()
    assert verifier(example.key, example.algorithm)(compact.signing_input, compact.signature) is True


@every_example
def test_no_bit_of_the_signature_can_be_changed(example: Example) -> None:
    compact, verify = jws.split(example.token), verifier(example.key, example.algorithm)
    for signature in flipped(compact.signature):
        assert verify(compact.signing_input, signature) is False
    for signature in (b"", compact.signature[:-1], compact.signature + b"\0", b"\0" + compact.signature):
        assert verify(compact.signing_input, signature) is False


@every_example
def test_no_bit_of_what_is_signed_can_be_changed(example: Example) -> None:
    compact, verify = jws.split(example.token), verifier(example.key, example.algorithm)
    for signing_input in flipped(compact.signing_input):
        assert verify(signing_input, compact.signature) is False


@every_example
def test_with_one_bit_of_the_key_changed_it_is_refused_or_verifies_nothing(example: Example) -> None:
    compact, verified, refused = jws.split(example.token), 0, 0
    for name in _KEY_MEMBERS:
        for value in flipped(unb64(example.key.get(name, ""))):
            try:
                verify = verifier(example.key | {name: b64(value)}, example.algorithm)
            except ConfigurationError:
                refused += 1
                continue
            verified += 1
            assert verify(compact.signing_input, compact.signature) is False
    # A point of a NIST curve with one bit changed lies on it no more: all such keys are refused. Of RSA those are that
    # lose their size or exponent; a secret or the text of an Ed25519 point is read, whatever its bits.
    assert (verified > 0) is (example.key["kty"] != "EC")
    assert (refused > 0) is (example.key["kty"] in ("EC", "RSA"))


@every_example
def test_a_signature_belongs_to_one_algorithm_and_one_key(example: Example) -> None:
    compact = jws.split(example.token)
    for other in EXAMPLES:
        if other.section != example.section:
            assert verifier(other.key, other.algorithm)(compact.signing_input, compact.signature) is False


def test_ed25519_is_the_same_by_its_newer_name() -> None:
    example = next(example for example in EXAMPLES if example.algorithm == "EdDSA")
    compact = jws.split(example.token)
    assert verifier(example.key, "Ed25519")(compact.signing_input, compact.signature) is True


# What the policy of `JWTAuth` makes of them


@pytest.mark.parametrize("example", EXAMPLES[:3], ids=lambda example: example.section)
def test_joe_is_let_in_until_his_token_expires(example: Example) -> None:
    # The claims have no subject, which is asked for unless the server says that it is not.
    key = key_argument(example.key)
    clock = FixedClock(_EXPIRY - 1)
    auth = JWTAuth(**key, algorithms=[example.algorithm], issuer="joe", require=["exp"], clock=clock)
    principal = auth.verify(example.token)
    assert (principal.issuer, principal.expires_at) == ("joe", _EXPIRY)
    assert principal.claims == json.loads(_JOE)
    clock.now = _EXPIRY
    with pytest.raises(TokenExpired):
        auth.verify(example.token)
    clock.now = _EXPIRY - 1
    strict = JWTAuth(**key, algorithms=[example.algorithm], clock=clock)
    with pytest.raises(InvalidToken, match="'sub' is required"):
        strict.verify(example.token)


@pytest.mark.parametrize("example", EXAMPLES[3:], ids=lambda example: example.section)
def test_a_payload_that_is_no_claims_is_refused_after_its_signature_was_found_good(example: Example) -> None:
    key = key_argument(example.key)
    auth = JWTAuth(**key, algorithms=[example.algorithm], require=[])
    with pytest.raises(InvalidToken, match="the claims is not a JSON object"):
        auth.verify(example.token)


@pytest.mark.parametrize("section", PRIVATE_KEYS)
def test_the_private_keys_of_the_examples_are_refused_where_a_public_key_is_expected(section: str) -> None:
    key = PRIVATE_KEYS[section]
    algorithm = {"RSA": "RS256", "Ed25519": "EdDSA", "P-256": "ES256", "P-521": "ES512"}[key.get("crv", key["kty"])]
    with pytest.raises(ConfigurationError, match="private JWK"):
        from_public_key(key, [algorithm])
    # They are written down without an error: together with `d` the public part is a key pair.
    private: Any = import_key({**key}).private_key
    public: Any = import_key({name: value for name, value in key.items() if name != "d"}).public_key
    assert private.public_key() == public


@pytest.mark.parametrize("key", [_A1_KEY, _HMAC_KEY], ids=["RFC 7515, A.1", "RFC 7520, 3.5"])
def test_a_secret_as_jwk_is_refused_where_a_public_key_is_expected(key: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="shared secret"):
        from_public_key(key, ["HS256"])
    with pytest.raises(ConfigurationError, match="others may know"):
        from_secret(json.dumps(key), ["HS256"])


def test_the_unsecured_example_is_refused() -> None:
    """RFC 7515, section A.5: `alg` is none, and there is no signature."""
    with pytest.raises(InvalidToken, match="empty"):
        jws.split(f"eyJhbGciOiJub25lIn0.{_CLAIMS}.")
    header = jws.split(f"eyJhbGciOiJub25lIn0.{_CLAIMS}.AA").header
    assert header == {"alg": "none"}
    for algorithms in (["HS256"], ["RS256", "PS256"], ["EdDSA"]):
        with pytest.raises(InvalidToken, match="not one that is accepted"):
            jws.check_algorithm(header, algorithms)


def test_the_critical_extension_that_nobody_understands_is_refused() -> None:
    """RFC 7515, appendix E."""
    extension = "http://example.invalid/UNDEFINED"
    header = {"alg": "none", "crit": [extension], extension: True}
    with pytest.raises(InvalidToken, match="a parameter that is refused"):
        jws.check_parameters(header)


def test_only_the_compact_form_is_read() -> None:
    """RFC 7515, section A.6, and RFC 7520, section 4.8, have the same signatures side by side, in JSON."""
    signatures = [{"protected": e.token.split(".")[0], "signature": e.token.split(".")[2]} for e in EXAMPLES[1:3]]
    flattened = {"payload": _CLAIMS, **signatures[0]}
    for form in ({"payload": _CLAIMS, "signatures": signatures}, flattened):
        with pytest.raises(InvalidToken):
            jws.split(json.dumps(form))


def test_detached_content_is_refused() -> None:
    """RFC 7520, section 4.5: the payload is sent apart, and its place in the token is empty."""
    head, _, seal = EXAMPLES[-1].token.split(".")
    with pytest.raises(InvalidToken, match="empty"):
        jws.split(f"{head}..{seal}")


@pytest.mark.parametrize(
    ("head", "seal"),
    [
        ("eyJhbGciOiJIUzI1NiJ9", "bWUSVaxorn7bEF1djytBd0kHv70Ly5pvbomzMWSOr20"),
        ("", "xuLifqLGiblpv9zBpuZczWhNj1gARaLV3UxvxhJxZuk"),
    ],
    ids=["RFC 7520, 4.6", "RFC 7520, 4.7"],
)
def test_a_header_beside_the_token_is_not_seen(head: str, seal: str) -> None:
    """The signature is good, of what it covers; what stands outside of it has no place in the compact form."""
    verify = verifier(_HMAC_KEY, "HS256")
    assert verify(f"{head}.{_ADVICE}".encode(), unb64(seal)) is True
    if head:
        assert jws.split(f"{head}.{_ADVICE}.{seal}").header == {"alg": "HS256"}
    else:
        with pytest.raises(InvalidToken, match="empty"):
            jws.split(f"{head}.{_ADVICE}.{seal}")

"""Known attacks on tokens, each through the one call that servers use. The parts have their own, closer tests.

The numbers are those of the project's list of attacks. "Bounded" means 20 ms and 1 MB.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import tracemalloc
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey

from iogate.auth import JWTAuth
from iogate.errors import ConfigurationError, CredentialsBadFormat, InvalidToken, TokenExpired

from ..refusals import BAD_FORMAT, INVALID
from .tokens import CLOCK, GOOD, NOW, SECRET, b64, ec_key, forge, key_for, public_pem, rsa_key, sign
from .tokens import with_claims as claim
from .tokens import with_header as header

SHARED = JWTAuth(secret=SECRET, algorithms=["HS256"], clock=CLOCK)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def gate(algorithm: str) -> JWTAuth:
    return JWTAuth(public_key=public_pem(key_for(algorithm)), algorithms=[algorithm], clock=CLOCK)


def assert_refused(token: str, auth: JWTAuth = SHARED) -> None:
    with pytest.raises(InvalidToken) as error:
        auth.verify(token)
    assert error.value.payload() == INVALID
    assert error.value.__cause__ is None, "the refusal was foreseen"


def assert_bounded(token: str, auth: JWTAuth = SHARED) -> None:
    def refuse() -> float:
        start = time.process_time()
        with pytest.raises((InvalidToken, CredentialsBadFormat)):
            auth.verify(token)
        return time.process_time() - start

    assert min(refuse() for _ in range(3)) < 0.020
    tracemalloc.start()
    try:
        refuse()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("alg", ["none", "None", "NoNe", "NONE", "hs256", "", None, 256, ["HS256"], {}, True])
def test_01_an_algorithm_that_is_none_or_not_exactly_a_name_is_refused(alg: Any) -> None:
    assert_refused(header(alg=alg))
    head, body, _ = header(alg=alg).split(".")
    assert_refused(f"{head}.{body}.")
    assert_refused(f"{head}.{body}.AA")


def test_01_a_missing_algorithm_is_refused() -> None:
    assert_refused(forge(header={"typ": "JWT"}))


def test_02_a_public_key_is_not_a_secret_that_verifies() -> None:
    pem = public_pem(rsa_key())
    native = rsa_key().public_key
    texts: list[str | bytes] = [
        *(pem, pem.strip(), pem.decode(), b"\n" + pem),
        native.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        native.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        native.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(rsa_key().as_dict(private=False)),
    ]
    auth = gate("RS256")
    for text in texts:
        assert_refused(forge(secret=text), auth)
        with pytest.raises(ConfigurationError, match="public_key="):
            JWTAuth(secret=text, algorithms=["HS256"])


@pytest.mark.parametrize(
    ("accepted", "used"),
    [("RS256", "RS512"), ("RS256", "PS256"), ("ES256", "ES384"), ("ES256", "RS256"), ("EdDSA", "ES256")],
)
def test_03_an_algorithm_other_than_the_accepted_is_refused(accepted: str, used: str) -> None:
    assert_refused(sign(used, key_for(used)), gate(accepted))
    renamed = sign(used, key_for(used)).split(".")
    assert_refused(".".join([b64(json.dumps({"alg": accepted})), *renamed[1:]]), gate(accepted))


def test_03_an_accepted_algorithm_whose_signature_is_of_another_is_refused() -> None:
    auth = JWTAuth(public_key=public_pem(rsa_key()), algorithms=["RS256", "PS256"], clock=CLOCK)
    _, body, _ = sign("PS256", rsa_key()).split(".")
    assert auth.verify(sign("PS256", rsa_key())).subject == "alice"
    head = b64('{"alg":"RS256"}')
    assert_refused(f"{head}.{body}.{sign('PS256', rsa_key()).split('.')[2]}", auth)


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_04_a_key_offered_in_the_header_is_not_used(name: str) -> None:
    mallory = ECKey.generate_key("P-256")
    jwk = mallory.as_dict(private=False)
    offers: dict[str, Any] = {
        "jwk": jwk,
        "jku": "http://127.0.0.1:9/keys",
        "x5u": "http://127.0.0.1:9/cert",
        "x5c": ["MIIB"],
    }
    for key in (mallory, ec_key()):
        assert_refused(sign("ES256", key, GOOD, **{name: offers[name]}), gate("ES256"))
    assert_refused(header(**{name: offers[name]}))


def test_05_an_empty_signature_and_an_empty_key_are_refused() -> None:
    head, body, _ = forge().split(".")
    assert_refused(f"{head}.{body}.")
    assert_refused(f"{head}.{body}")
    assert_refused(forge(secret=b"\0"))
    for secret in ("", "secret", "password", "x" * 31, "your-256-bit-secret", "secret" * 6):
        with pytest.raises(ConfigurationError, match="make one with"):
            JWTAuth(secret=secret, algorithms=["HS256"])


def test_05_a_signature_that_is_cut_short_or_longer_is_refused() -> None:
    head, body, seal = forge().split(".")
    raw = urlsafe_b64decode(seal + "==")
    for changed in (raw[:1], raw[:16], raw[:31], raw + b"\0", raw * 2, bytes(32)):
        assert_refused(f"{head}.{body}.{b64(changed)}")


def test_06_an_ecdsa_signature_out_of_range_or_in_another_form_is_refused() -> None:
    auth = gate("ES256")
    token = sign("ES256", ec_key())
    assert auth.verify(token).subject == "alice"
    signing_input, _, seal = token.rpartition(".")
    raw = urlsafe_b64decode(seal + "==")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    for x in (0, 1, P256_ORDER, P256_ORDER - 1, 2**256 - 1):
        for pair in ((x, s), (r, x), (x, x)):
            assert_refused(f"{signing_input}.{b64(b''.join(part.to_bytes(32, 'big') for part in pair))}", auth)
    for changed in (encode_dss_signature(r, s), raw[:-1], raw + b"\0", b"\0" + raw, raw[:32], raw[32:] + raw[:32]):
        assert_refused(f"{signing_input}.{b64(changed)}", auth)


def test_06_two_texts_of_one_token_have_one_identity() -> None:
    """An ECDSA signature can be negated by anybody: what is revoked or compared must be a claim, never the text."""
    auth = gate("ES256")
    signing_input, _, seal = sign("ES256", ec_key(), GOOD | {"jti": "1"}).rpartition(".")
    raw = urlsafe_b64decode(seal + "==")
    s = P256_ORDER - int.from_bytes(raw[32:], "big")
    other = f"{signing_input}.{b64(raw[:32] + s.to_bytes(32, 'big'))}"
    assert auth.verify(other).token_id == auth.verify(f"{signing_input}.{seal}").token_id == "1"


def test_07_weak_and_huge_rsa_keys_are_refused_at_the_start() -> None:
    modulus = b64(rsa_key().public_key.public_numbers().n.to_bytes(256, "big"))
    weak = [
        {"n": modulus, "e": b64(b"\x01")},
        {"n": modulus, "e": b64(b"\x03")},
        {"n": modulus, "e": b64(b"\xff" * 200)},
        {"n": b64(b"\xff" * 128), "e": "AQAB"},
        {"n": b64(b"\xff" * 4096), "e": "AQAB"},
    ]
    for numbers in weak:
        with pytest.raises(ConfigurationError):
            JWTAuth(public_key={"kty": "RSA", **numbers}, algorithms=["RS256"])


def test_07_an_rsa_signature_of_another_length_is_refused() -> None:
    signing_input, _, seal = sign("RS256", rsa_key()).rpartition(".")
    raw = urlsafe_b64decode(seal + "==")
    for changed in (b"\0", b"\x01", raw[:-1], b"\0" + raw, raw + b"\0", bytes(256), b"\xff" * 256):
        assert_refused(f"{signing_input}.{b64(changed)}", gate("RS256"))


def test_08_encrypted_nested_and_json_tokens_are_refused() -> None:
    parts = ('{"alg":"dir","enc":"A256GCM"}', "", "iv", "text", "tag")
    assert_refused(".".join(map(b64, parts)))
    head, body, seal = forge().split(".")
    assert_refused(json.dumps({"protected": head, "payload": body, "signature": seal}))
    assert_refused(json.dumps({"payload": body, "signatures": [{"protected": head, "signature": seal}]}))
    assert_refused(header(cty="JWT"))
    assert_refused(forge(forge(), {"alg": "HS256", "cty": "jwt"}))
    assert_refused(forge(forge()))


@pytest.mark.parametrize(
    "text",
    [
        '{"alg":"HS256","crit":["exp"],"exp":1}',
        '{"alg":"HS256","crit":["unknown"],"unknown":1}',
        '{"alg":"HS256","crit":[]}',
        '{"alg":"HS256","crit":["b64","b64"],"b64":true}',
        '{"alg":"HS256","crit":[],"crit":["b64"]}',
        '{"alg":"HS256","crit":"b64"}',
        '{"alg":"HS256","crit":null}',
        '{"alg":"HS256","b64":false,"crit":["b64"]}',
        '{"alg":"HS256","b64":false}',
        '{"alg":"HS256","zip":"DEF"}',
    ],
)
def test_09_extensions_and_other_encodings_are_refused(text: str) -> None:
    assert_refused(forge(header=text))


def test_09_an_unencoded_payload_is_refused() -> None:
    head = b64('{"alg":"HS256","b64":false,"crit":["b64"]}')
    body = json.dumps(GOOD).replace(".", "")
    seal = hmac.new(SECRET.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    assert_refused(f"{head}.{body}.{b64(seal)}")


def test_10_a_key_derivation_without_end_and_a_compression_bomb_are_refused_in_bounds() -> None:
    for parameters in (
        {"alg": "PBES2-HS256+A128KW", "enc": "A128CBC-HS256", "p2c": 2**31, "p2s": "AAAA"},
        {"alg": "HS256", "zip": "DEF", "p2c": 2**31},
    ):
        token = forge(b"\0" * 3000, parameters)
        assert_refused(token)
        assert_bounded(token)


@pytest.mark.parametrize("text", ['{"sub":"alice","exp":%d,"sub":"root"}', '{"sub":"alice","exp":1,"exp":%d}'])
def test_11_a_claim_given_twice_is_refused(text: str) -> None:
    assert_refused(forge(text % (NOW + 60)))
    assert_refused(forge((text % (NOW + 60)).replace('"sub":"root"', '"s\\u0075b":"root"')))


@pytest.mark.parametrize("text", ['{"alg":"none","alg":"HS256"}', '{"alg":"HS256","typ":"JWT","typ":"JWT"}'])
def test_11_a_header_parameter_given_twice_is_refused(text: str) -> None:
    assert_refused(forge(header=text))


@pytest.mark.parametrize(
    "addition", [" ", "\n", "\r\n", "\t", "=", "==", ".", "%3D", "\0", "\u200b", "\ufeff", "é", "*"]
)
def test_12_a_token_is_neither_trimmed_nor_repaired(addition: str) -> None:
    token = forge()
    head, body, seal = token.split(".")
    for changed in (
        token + addition,
        addition + token,
        f"{head}{addition}.{body}.{seal}",
        f"{head}.{body}{addition}.{seal}",
    ):
        assert_refused(changed)


def test_12_the_other_alphabet_is_refused() -> None:
    for number in range(500):
        token = claim(n=number)
        if "-" in token or "_" in token:
            assert SHARED.verify(token).subject == "alice"
            assert_refused(token.replace("-", "+").replace("_", "/"))
            break
    else:
        pytest.fail("no token had a letter of the second alphabet")


def test_12_stray_bits_at_the_end_of_the_signature_are_refused() -> None:
    token = forge()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    assert last % 4 == 0, "32 bytes leave two bits over"
    for stray in (1, 2, 3):
        assert_refused(token[:-1] + alphabet[last + stray])


@pytest.mark.parametrize(
    "claims",
    [
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        *(json.dumps(GOOD).encode(encoding) for encoding in ("utf-16", "utf-16-le", "utf-32")),
        json.dumps(GOOD | {"sub": "\ud800"}),
        json.dumps(GOOD | {"name": "\udfff"}),
        json.dumps(GOOD | {"sub": "alice\0"}),
        json.dumps(GOOD | {"sub": ""}),
        b'{"sub":"ali\xffce","exp":1700000060}',
    ],
)
def test_13_claims_that_are_no_plain_text_are_refused(claims: bytes | str) -> None:
    assert_refused(forge(claims))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    [
        *(f'"{NOW}"', "\u0661\u0667", "true", "null", "-1", "NaN", "Infinity", "1e400", "1" + "0" * 30, "[1700000060]"),
        str(NOW + 100 * 365 * 86400),
        "9" * 5000,
    ],
    ids=lambda value: value[:20],
)
def test_14_a_date_that_is_not_a_number_in_bounds_is_refused(name: str, value: str) -> None:
    other = "" if name == "exp" else f',"exp":{NOW + 60}'
    token = forge(f'{{"sub":"alice","{name}":{value}{other}}}')
    assert_refused(token)
    assert_bounded(token)


def test_14_deep_nesting_is_refused_in_bounds_whatever_size_is_allowed() -> None:
    roomy = JWTAuth(secret=SECRET, algorithms=["HS256"], clock=CLOCK, max_token_bytes=65536)
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        for depth in (100, 900, 5_000):
            text = '{"sub":"alice","exp":1700000060,"a":' + opening * depth + "1" + closing * depth + "}"
            assert_refused(forge(text), roomy)
            assert_bounded(forge(text), roomy)
            assert_bounded(forge(header=text), roomy)
    assert_bounded(forge('{"a":' + "[" * 100_000), roomy)


@pytest.mark.parametrize(
    "token", ["." * 1_000_000, "a" * 1_000_000, "a.b." + "c" * 1_000_000], ids=["dots", "letters", "part"]
)
def test_15_a_huge_token_is_refused_before_it_is_split(token: str) -> None:
    with pytest.raises(CredentialsBadFormat) as error:
        SHARED.verify(token)
    assert error.value.payload() == BAD_FORMAT
    assert_bounded(token)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"iss": "https://id.exampl"}, {"iss": "https://id.example/"}, {"iss": ["https://id.example"]}, {"iss": None}),
        *({"aud": "chatter"}, {"aud": ["mail"]}, {"aud": ["chat", 1]}, {"aud": 7}, {"aud": None}, {"aud": []}),
        *({"sub": 7}, {"sub": ["alice"]}, {"iat": NOW + 1}),
    ],
)
def test_16_claims_that_are_almost_right_are_refused(wrong: dict[str, Any]) -> None:
    auth = JWTAuth(secret=SECRET, algorithms=["HS256"], clock=CLOCK, issuer="https://id.example", audience="chat")
    right = GOOD | {"iss": "https://id.example", "aud": ["mail", "chat"], "iat": NOW}
    assert auth.verify(forge(right)).audience == ("mail", "chat")
    assert_refused(forge(right | wrong), auth)
    for name in ("iss", "aud", "sub", "exp"):
        assert_refused(forge({key: value for key, value in right.items() if key != name}), auth)


@pytest.mark.parametrize(
    "kind", ["logout+jwt", "secevent+jwt", "dpop+jwt", "application/logout+jwt", "token-introspection+jwt"]
)
def test_17_a_token_made_for_another_use_is_refused(kind: str) -> None:
    assert_refused(header(typ=kind))


@pytest.mark.parametrize(
    "claims",
    [
        {"at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng", "nonce": "n"},
        {"typ": "ID"},
        {"typ": "Refresh"},
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    ],
)
def test_17_a_token_made_for_another_use_is_refused_by_its_claims(claims: dict[str, Any]) -> None:
    assert_refused(claim(**claims))


@pytest.mark.parametrize("kid", ["../../../dev/null", "' OR 1=1 --", "a\0b", "k" * 3000, "http://127.0.0.1:9/key"])
def test_18_a_key_id_changes_nothing(kid: str) -> None:
    assert SHARED.verify(header(kid=kid)).subject == "alice"
    assert_refused(forge(header={"alg": "HS256", "kid": kid}, secret=b"\0"))


def test_18_a_key_id_that_is_no_text_is_refused() -> None:
    for kid in (None, 1, ["a"], {"a": 1}):
        assert_refused(header(kid=kid))


def test_expired_is_said_of_a_token_that_is_right_otherwise_and_only_then() -> None:
    with pytest.raises(TokenExpired):
        SHARED.verify(claim(exp=NOW - 1))
    assert_refused(claim(exp=NOW - 1, iat=NOW + 1))
    assert_refused(forge(GOOD | {"exp": NOW - 1}, secret=SECRET[:-1]))

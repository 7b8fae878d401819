"""A key that is weak, of another kind, or not what its argument says is refused with what to write instead."""

from __future__ import annotations

import json
from base64 import b64encode, encodebytes, urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x25519
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from iogate.auth.keys import ALGORITHMS, algorithm_names, from_public_key, from_secret
from iogate.errors import ConfigurationError

from .tokens import (
    SECRET,
    b64,
    brainpool_pem,
    ec_key,
    ed_key,
    key_for,
    other_pem,
    private_pem,
    public_jwk,
    public_pem,
    rsa_key,
    sign,
)

PUBLIC_KEY_ALGORITHMS = [name for name, algorithm in ALGORITHMS.items() if algorithm.family != "secret"]


def refusal(load: Any, *args: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        load(*args)
    assert error.value.__cause__ is None
    return str(error.value)


def parts(token: str) -> tuple[bytes, bytes]:
    signing_input, _, signature = token.rpartition(".")
    return signing_input.encode(), urlsafe_b64decode(signature + "==")


# Algorithms


@pytest.mark.parametrize("empty", [[], (), set(), None, 5, {}])
def test_no_algorithm_is_refused_with_an_example(empty: object) -> None:
    assert 'algorithms=["HS256"]' in refusal(algorithm_names, empty)


def test_a_bare_name_is_refused_with_the_list_to_write() -> None:
    assert "algorithms=['HS256']" in refusal(algorithm_names, "HS256")


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
def test_the_algorithm_none_is_refused_in_any_case(name: str) -> None:
    assert "leave it out" in refusal(algorithm_names, ["HS256", name])


@pytest.mark.parametrize("name", ["hs256", "HS1", "ES256K", "Ed448", "", None, 256, ["HS256"], "A128KW", "HS256 "])
def test_an_unknown_algorithm_is_refused_with_the_known_ones(name: Any) -> None:
    assert "RS256" in refusal(algorithm_names, ["HS256", name])


# Secrets


@pytest.mark.parametrize(("name", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_at_least_as_long_as_the_hash(name: str, size: int) -> None:
    assert set(from_secret(SECRET[:size], [name])) == {name}
    message = refusal(from_secret, SECRET[: size - 1], [name])
    assert str(size) in message
    assert "token_urlsafe" in message
    assert SECRET[: size - 1] not in message


def test_a_secret_is_long_enough_for_the_strongest_of_its_algorithms() -> None:
    assert "64" in refusal(from_secret, SECRET[:40], ["HS256", "HS512"])
    assert set(from_secret(SECRET.encode(), ["HS256", "HS512"])) == {"HS256", "HS512"}


@pytest.mark.parametrize("secret", ["", b"", "\ud800" * 40])
def test_a_secret_that_is_empty_or_no_text_is_refused(secret: str | bytes) -> None:
    assert "empty" in refusal(from_secret, secret, ["HS256"])


@pytest.mark.parametrize("secret", [{"kty": "oct", "k": "YQ"}, 5, ["a"]])
def test_a_secret_is_text_or_bytes(secret: Any) -> None:
    assert "public_key=" in refusal(from_secret, secret, ["HS256"])


@pytest.mark.parametrize(
    "secret",
    [
        "x" * 40,
        "secret" * 8,
        "12345678901234567890123456789012345",
        b"\x00" * 64,
        "a-string-secret-at-least-256-bits-long",
        "my-Your-256-Bit-Secret-is-long-enough-now",
        "changeme-changeme!-changeme-now-ok",
    ],
)
def test_a_secret_that_repeats_itself_or_is_published_is_refused(secret: str | bytes) -> None:
    assert "can be guessed" in refusal(from_secret, secret, ["HS256"])


@pytest.mark.parametrize("name", ["RS256", "ES256", "EdDSA", "PS512"])
def test_a_secret_does_not_go_with_the_algorithms_of_public_keys(name: str) -> None:
    message = refusal(from_secret, SECRET, ["HS256", name])
    assert name in message
    assert "public_key=" in message


def openssh(key: Any) -> bytes:
    line: bytes = key.public_key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return line


def der(key: Any) -> bytes:
    data: bytes = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return data


PUBLIC_FORMS: dict[str, Callable[[], bytes]] = {
    "PEM": lambda: public_pem(rsa_key()),
    "PEM with leading white space": lambda: b"\n \t" + public_pem(rsa_key()),
    "PEM with text before it": lambda: b"# key\n" + public_pem(rsa_key()),
    "PEM cut short": lambda: public_pem(rsa_key())[:100],
    "PKCS#1 PEM": lambda: rsa_key().public_key.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    "private PEM": lambda: private_pem(rsa_key()),
    "SSH2": lambda: b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----",
    "OpenSSH line": lambda: openssh(rsa_key()),
    "OpenSSH line, Ed25519": lambda: openssh(ed_key()),
    "OpenSSH line, EC": lambda: openssh(ec_key()),
    "DER": lambda: der(rsa_key()),
    "DER, EC": lambda: der(ec_key()),
    "base64 of DER": lambda: b64encode(der(rsa_key())),
    "base64 of DER in lines": lambda: encodebytes(der(rsa_key())),
    "JWK": lambda: json.dumps(public_jwk(rsa_key())).encode(),
    "JWK with leading white space": lambda: b"  " + json.dumps(public_jwk(ec_key())).encode(),
}


@pytest.mark.parametrize("form", PUBLIC_FORMS)
def test_a_public_key_in_any_form_is_no_secret(form: str) -> None:
    assert "public_key=" in refusal(from_secret, PUBLIC_FORMS[form](), ["HS256"])


@settings(max_examples=30)
@given(st.binary(min_size=64, max_size=80).filter(lambda raw: len(set(raw)) > 20))
def test_random_bytes_are_a_good_secret(secret: bytes) -> None:
    assert len(from_secret(secret, ["HS256", "HS384", "HS512"])) == 3


# Public keys


@pytest.mark.parametrize("name", PUBLIC_KEY_ALGORITHMS)
def test_a_key_in_any_form_checks_what_its_private_half_signed(name: str) -> None:
    key = key_for(name)
    signing_input, signature = parts(sign(name, key))
    pem = public_pem(key)
    jwk = public_jwk(key)
    forms = (pem, pem.decode(), b"\n  " + pem, jwk, json.dumps(jwk), "\n" + json.dumps(jwk), json.dumps(jwk).encode())
    for form in forms:
        verifiers = from_public_key(form, [name])
        assert set(verifiers) == {name}
        assert verifiers[name](signing_input, signature)
        assert not verifiers[name](signing_input + b"x", signature)
        for changed in (b"", signature[:-1], signature + b"\0", signature[:-1] + bytes([signature[-1] ^ 1])):
            assert not verifiers[name](signing_input, changed)


def test_one_rsa_key_serves_several_algorithms() -> None:
    assert set(from_public_key(public_pem(rsa_key()), ["RS256", "PS512"])) == {"RS256", "PS512"}


def test_an_ed25519_key_serves_both_names_of_its_algorithm() -> None:
    assert set(from_public_key(public_pem(ed_key()), ["EdDSA", "Ed25519"])) == {"EdDSA", "Ed25519"}
    assert from_public_key(public_jwk(ed_key(), alg="EdDSA"), ["EdDSA", "Ed25519"])
    assert from_public_key(public_jwk(ed_key(), alg="Ed25519"), ["EdDSA"])


@pytest.mark.parametrize(
    ("key", "algorithm", "instead"),
    [
        (rsa_key(), "HS256", "RS256"),
        (rsa_key(), "ES256", "RS256"),
        (ec_key(), "RS256", "ES256"),
        (ec_key(), "ES384", "ES256"),
        (ec_key("P-384"), "ES256", "ES384"),
        (ec_key("P-521"), "ES256", "ES512"),
        (ec_key(), "HS256", "ES256"),
        (ed_key(), "ES256", "EdDSA"),
        (ed_key(), "HS512", "EdDSA"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.key_type,
)
def test_an_algorithm_of_another_family_or_curve_is_refused(key: Any, algorithm: str, instead: str) -> None:
    for form in (public_pem(key), public_jwk(key)):
        message = refusal(from_public_key, form, [instead, algorithm])
        assert repr(algorithm) in message
        assert instead in message


@pytest.mark.parametrize("form", [public_pem, public_jwk])
def test_a_small_rsa_key_is_refused(form: Any) -> None:
    assert "1024 bits: use 2048" in refusal(from_public_key, form(rsa_key(1024)), ["RS256"])


def test_a_huge_rsa_key_is_refused() -> None:
    jwk = {"kty": "RSA", "e": "AQAB", "n": b64(b"\xff" * 2048)}
    assert "16384 bits" in refusal(from_public_key, jwk, ["RS256"])


@pytest.mark.parametrize("exponent", [3, 17, 65536 * 2 + 1, 2**32 + 1, 2**256 + 1])
def test_an_unusual_exponent_is_refused(exponent: int) -> None:
    modulus = rsa_key().public_key.public_numbers().n
    pem = RSAPublicNumbers(exponent, modulus).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if 65537 <= exponent < 2**32:
        assert from_public_key(pem, ["RS256"])
    else:
        assert "exponent: use 65537" in refusal(from_public_key, pem, ["RS256"])


@pytest.mark.parametrize("exponent", [0, 1, 2, 65538])
def test_an_exponent_that_makes_no_signature_is_refused(exponent: int) -> None:
    number = exponent.to_bytes(max(1, (exponent.bit_length() + 7) // 8), "big")
    refusal(from_public_key, public_jwk(rsa_key(), e=b64(number)), ["RS256"])


@pytest.mark.parametrize(
    "pem",
    [other_pem(ed448.Ed448PrivateKey.generate()), other_pem(x25519.X25519PrivateKey.generate())],
    ids=["Ed448", "X25519"],
)
def test_a_key_of_another_kind_is_refused(pem: bytes) -> None:
    assert "RSA, EC or Ed25519" in refusal(from_public_key, pem, ["EdDSA"])


def test_a_curve_that_no_algorithm_uses_is_refused() -> None:
    for pem in (brainpool_pem(), other_pem(ec.generate_private_key(ec.SECP256K1()))):
        assert "a key on P-256" in refusal(from_public_key, pem, ["ES256"])


def test_a_private_key_is_refused() -> None:
    for key, name in ((rsa_key(), "RS256"), (ec_key(), "ES256"), (ed_key(), "EdDSA")):
        assert "-pubout" in refusal(from_public_key, private_pem(key), [name])
        private = key.as_dict(private=True)
        message = refusal(from_public_key, private, [name])
        assert "private" in message
        assert str(private["d"]) not in message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "BEGIN PUBLIC KEY"),
        ("secret", "BEGIN PUBLIC KEY"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ", "ssh-keygen"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "openssl x509"),
        ("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----", "copy it again"),
        ("{not json", "not a JSON object"),
        ("{" * 100_000, "not a JSON object"),
        ('{"keys": []}', "JWKS"),
        ('{"kty": "oct", "k": "c2VjcmV0"}', "secret="),
        ('{"kty": "RSA"}', "cannot be read"),
        ('{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}', "cannot be read"),
        ('{"kty": "AKP"}', "cannot be read"),
        ("{}", "cannot be read"),
    ],
)
def test_what_is_no_public_key_is_refused_with_the_way_to_one(text: str, hint: str) -> None:
    assert hint in refusal(from_public_key, text, ["RS256"])


def test_line_breaks_lost_in_an_environment_variable_are_recognised() -> None:
    text = public_pem(rsa_key()).decode().replace("\n", "\\n")
    assert 'replace("\\\\n", "\\n")' in refusal(from_public_key, text, ["RS256"])


def test_several_pem_blocks_are_refused() -> None:
    assert "several" in refusal(from_public_key, public_pem(rsa_key()) + public_pem(ec_key()), ["RS256"])


@pytest.mark.parametrize("value", [5, ["pem"], object()])
def test_a_public_key_is_a_text_or_a_mapping(value: Any) -> None:
    assert "PEM text" in refusal(from_public_key, value, ["RS256"])


@pytest.mark.parametrize(
    ("members", "hint"),
    [
        ({"use": "enc"}, "`use`"),
        ({"use": None}, "`use`"),
        ({"key_ops": ["sign"]}, "`key_ops`"),
        ({"key_ops": []}, "`key_ops`"),
        ({"key_ops": "verify"}, "`key_ops`"),
        ({"alg": "RS512"}, "algorithms=['RS512']"),
        ({"alg": ["RS256"]}, "for ['RS256'] alone"),
    ],
)
def test_a_jwk_that_contradicts_its_use_is_refused(members: dict[str, Any], hint: str) -> None:
    assert hint in refusal(from_public_key, public_jwk(rsa_key(), **members), ["RS256"])


def test_a_jwk_for_one_algorithm_does_not_serve_another() -> None:
    jwk = public_jwk(rsa_key(), alg="RS256")
    assert "'RS256' alone" in refusal(from_public_key, jwk, ["RS256", "PS256"])
    assert from_public_key(jwk | {"use": "sig", "key_ops": ["verify"], "kid": "1"}, ["RS256"])

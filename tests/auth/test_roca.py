"""RSA keys of faulty chips, which can be factored (CVE-2017-15361), are refused in every form that a key comes in."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateNumbers,
    RSAPublicNumbers,
    rsa_crt_dmp1,
    rsa_crt_dmq1,
    rsa_crt_iqmp,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import RSAKey

from iogate import AuthUnavailable, ConfigurationError, JWTAuth
from iogate.auth.keyset import KeySet
from iogate.auth.roca import has_fingerprint

from .tokens import CLOCK, public_jwk, public_pem, rsa_key, sign

SMALL = [number for number in range(2, 702) if all(number % divisor for divisor in range(2, math.isqrt(number) + 1))]
M = math.prod(SMALL)
"""The product of the first 126 primes: what the chips took for keys of 2048 bits."""


def _prime(chance: random.Random) -> int:
    """Return a prime of 1024 bits as the chips made them."""
    while True:
        found = (chance.getrandbits(1024 - M.bit_length()) | 1 << (1023 - M.bit_length())) * M
        found += pow(65537, chance.getrandbits(256), M)
        if found.bit_length() == 1024 and pow(2, found - 1, found) == 1:
            return found


@cache
def weak() -> RSAKey:
    """Return a key as the chips made them."""
    chance = random.Random("ROCA")  # noqa: S311
    while True:
        p, q = _prime(chance), _prime(chance)
        if (p * q).bit_length() == 2048 and p > q:
            break
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = RSAPublicNumbers(65537, p * q)
    private = RSAPrivateNumbers(p, q, d, rsa_crt_dmp1(d, p), rsa_crt_dmq1(d, q), rsa_crt_iqmp(p, q), public)
    return RSAKey.import_key(private.private_key())


def test_the_fingerprint_of_a_chip_is_known() -> None:
    assert has_fingerprint(weak().public_key.public_numbers().n)


def test_no_good_key_has_it() -> None:
    """One in 200 million would: neither do moduli of real keys, nor odd numbers without small factors."""
    assert not any(has_fingerprint(rsa_key(bits).public_key.public_numbers().n) for bits in (2048, 3072, 4096))
    chance = random.Random(1)  # noqa: S311
    numbers = (chance.getrandbits(2048) | 1 << 2047 | 1 for _ in range(60_000))
    assert not any(has_fingerprint(number) for number in numbers if math.gcd(number, M) == 1)


def test_a_product_with_one_prime_of_a_chip_has_it_not() -> None:
    """Both are of the chip, or the modulus tells nothing."""
    good: Any = rsa_key().private_key
    assert not has_fingerprint(_prime(random.Random(2)) * good.private_numbers().p)  # noqa: S311


FORMS: dict[str, Callable[[RSAKey], Any]] = {
    "PEM": public_pem,
    "PKCS#1 PEM": lambda key: key.public_key.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    "JWK": public_jwk,
    "JWK text": lambda key: json.dumps(public_jwk(key)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("algorithm", ["RS256", "PS512"])
def test_a_key_that_can_be_factored_is_refused_in_every_form(form: str, algorithm: str) -> None:
    JWTAuth(public_key=FORMS[form](rsa_key()), algorithms=[algorithm])
    with pytest.raises(ConfigurationError, match="CVE-2017-15361"):
        JWTAuth(public_key=FORMS[form](weak()), algorithms=[algorithm])


def test_in_a_key_set_it_is_left_out_and_the_others_serve() -> None:
    found = KeySet.read({"keys": [public_jwk(weak(), kid="weak"), public_jwk(rsa_key(), kid="good")]})
    assert [key.key_id for key in found.keys] == ["good"]
    [problem] = found.problems
    assert "'weak'" in problem
    assert "CVE-2017-15361" in problem
    with pytest.raises(ConfigurationError, match="CVE-2017-15361"):
        JWTAuth(jwks={"keys": [public_jwk(weak())]}, algorithms=["RS256"])


@pytest.mark.parametrize("form", FORMS)
def test_from_a_key_function_it_verifies_nothing(form: str, caplog: pytest.LogCaptureFixture) -> None:
    auth = JWTAuth(keys=lambda header, claims: FORMS[form](weak()), algorithms=["RS256"], clock=CLOCK)
    with pytest.raises(AuthUnavailable):
        auth.verify(sign("RS256", weak()))
    assert "CVE-2017-15361" in caplog.text

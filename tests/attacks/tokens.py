"""Bad tokens: by the row of the attack, each with a name and the error that `JWTAuth.verify` must give."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import zlib
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Iterator
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from iogate.errors import AuthError, CredentialsBadFormat, CredentialsBadScheme, InvalidToken, TokenExpired
from tests import refusals
from tests.auth.tokens import (
    GOOD,
    NOW,
    SECRET,
    PrivateKey,
    b64,
    ec_key,
    forge,
    key_for,
    public_jwk,
    public_pem,
    rsa_key,
    sign,
    with_header,
)

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

_TOLD: dict[type[AuthError], dict[str, Any]] = {
    InvalidToken: refusals.INVALID,
    TokenExpired: refusals.EXPIRED,
    CredentialsBadFormat: refusals.BAD_FORMAT,
    CredentialsBadScheme: refusals.BAD_SCHEME,
}


class Bad(NamedTuple):
    """A token that nobody may be let in with.

    Args:
        name: what is wrong with it.
        token: the token.
        door: which verifier it is for (`doors.py`).
        error: what `JWTAuth.verify` raises, exactly.
        told: what stands for `error` on the wire, where the token is not even taken for one.
    """

    name: str
    token: str
    door: str = "HS256"
    error: type[AuthError] = InvalidToken
    told: type[AuthError] | None = None

    @property
    def refusal(self) -> dict[str, Any]:
        """What a client is told."""
        return _TOLD[self.told or self.error]


# Row 1.


def without_algorithm() -> Iterator[Bad]:
    """`alg` none in its spellings, missing, in another case, of another type; with the right signature and without."""
    values: tuple[Any, ...] = ("none", "None", "NoNe", "NONE", "hs256", " HS256", "", None, 256, ["HS256"], {}, True)
    for alg in values:
        token = with_header(alg=alg)
        unsigned = token.rpartition(".")[0]
        yield Bad(f"alg {alg!r}", token)
        yield Bad(f"alg {alg!r}, no signature", f"{unsigned}.")
        yield Bad(f"alg {alg!r}, a signature of one byte", f"{unsigned}.AA")
    yield Bad("alg missing", forge(header={"typ": "JWT"}))
    none = b64('{"alg":"none"}')
    yield Bad("alg none, for a public key", f"{none}.{b64(json.dumps(GOOD))}.", "RS256")


# Row 2.


def signed_with_public_key() -> Iterator[Bad]:
    """HMAC with what everybody knows, in every form that it is written in."""
    for algorithm in ("RS256", "ES256", "EdDSA"):
        key = key_for(algorithm)
        pem, native = public_pem(key), key.public_key
        forms: dict[str, bytes | str] = {
            "PEM": pem,
            "PEM without the last line break": pem.strip(),
            "PEM with leading white space": b"\n \t" + pem,
            "OpenSSH line": native.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            "DER": native.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "JWK": json.dumps(public_jwk(key)),
        }
        if algorithm == "RS256":
            forms["PKCS#1 PEM"] = native.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
        for form, text in forms.items():
            for alg in ("HS256", algorithm):
                header = {"alg": alg, "typ": "JWT"}
                yield Bad(f"{algorithm}: {form} as a secret, alg {alg}", forge(header=header, secret=text), algorithm)


# Row 3.


def of_another_algorithm() -> Iterator[Bad]:
    """Another algorithm, curve or family than that of the key, by its own name and by that of the key."""
    for accepted, used in (
        *(("RS256", "RS512"), ("RS256", "PS256"), ("ES256", "ES384"), ("ES256", "RS256")),
        *(("EdDSA", "ES256"), ("ES256", "EdDSA"), ("RS256", "ES256")),
    ):
        key = key_for(used)
        yield Bad(f"{used} in place of {accepted}", sign(used, key), accepted)
        yield Bad(f"{used} that calls itself {accepted}", _seal(used, key, {"alg": accepted}), accepted)
    yield Bad("Ed25519 in place of its other name", sign("Ed25519", key_for("Ed25519")), "EdDSA")
    renamed = _seal("PS256", rsa_key(), {"alg": "RS256"})
    yield Bad("PS256 that calls itself RS256, both accepted", renamed, "RS256 PS256")
    for algorithm, digest in (("HS384", "sha384"), ("HS512", "sha512"), ("HS256", "sha512")):
        yield Bad(f"{algorithm} by {digest}", forge(header={"alg": algorithm}, digest=digest))


# Row 4.


def offers_a_key(url: str) -> Iterator[Bad]:
    """A key, or where to fetch one, in the header: signed by the owner of the offered key, and by the right one.

    Args:
        url: where somebody listens.
    """
    mallory = ECKey.generate_key("P-256")
    offers: dict[str, dict[str, Any]] = {
        "jwk": {"jwk": public_jwk(mallory)},
        "jku": {"jku": f"{url}/keys"},
        "x5u": {"x5u": f"{url}/certificate"},
        "x5c": {"x5c": [b64encode(_certificate(mallory)).decode()]},
        "jku and kid": {"jku": f"{url}/keys", "kid": mallory.thumbprint()},
    }
    for name, parameters in offers.items():
        header = {"alg": "ES256", **parameters}
        yield Bad(f"{name}, signed by its owner", _seal("ES256", mallory, header), "ES256")
        yield Bad(f"{name}, rightly signed", _seal("ES256", ec_key(), header), "ES256")
        yield Bad(f"{name}, rightly signed, HS256", with_header(**parameters))
    header = {"alg": "ES256", "kid": f"{url}/key"}
    yield Bad("kid that is a URL, signed by its owner", _seal("ES256", mallory, header), "ES256")


def _certificate(key: ECKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "id.example")])
    start = dt.datetime.fromtimestamp(NOW - 86400, dt.UTC)
    private: Any = key.private_key
    builder = x509.CertificateBuilder(name, name, key.public_key, 1, start, start + dt.timedelta(days=365))
    return builder.sign(private, SHA256()).public_bytes(Encoding.DER)


# Row 5.


def barely_signed() -> Iterator[Bad]:
    """No signature, a part of one, more than one; an empty or short key, or one that everybody knows."""
    token = forge()
    head, body, seal = token.split(".")
    unsigned, raw = f"{head}.{body}", urlsafe_b64decode(seal + "==")
    yield Bad("empty signature", f"{unsigned}.")
    yield Bad("no signature", unsigned)
    for name, changed in {
        "1 byte of the signature": raw[:1],
        "16 bytes of the signature": raw[:16],
        "all of the signature but a byte": raw[:31],
        "a byte more": raw + b"\0",
        "the signature twice": raw * 2,
        "32 null bytes": bytes(32),
        "the signature as hexadecimal text": raw.hex().encode(),
    }.items():
        yield Bad(name, f"{unsigned}.{b64(changed)}")
    # HMAC fills a short key up with null bytes: that is what an empty one is.
    for secret in ("", "\0", "secret", "password", "your-256-bit-secret", SECRET[:-1], SECRET + "\n"):
        yield Bad(f"secret {secret[:20]!r} of {len(secret)}", forge(secret=secret))
    yield Bad("claims changed", f"{head}.{b64(json.dumps(GOOD | {'sub': 'root'}))}.{seal}")
    other = b64('{"alg":"HS256"}')
    yield Bad("header changed", f"{other}.{body}.{seal}")


# Row 6.


def ecdsa_out_of_range() -> Iterator[Bad]:
    """r or s of 0, 1, n, n-1 and more; other lengths; DER."""
    unsigned, r, s = ecdsa_parts(sign("ES256", ec_key()))
    raw = _p1363(r, s)
    for name, x in {"0": 0, "1": 1, "n": P256_ORDER, "n-1": P256_ORDER - 1, "2^256-1": 2**256 - 1}.items():
        for what, pair in {"r": (x, s), "s": (r, x), "r and s": (x, x)}.items():
            yield Bad(f"{what} of {name}", f"{unsigned}.{b64(_p1363(*pair))}", "ES256")
    for name, changed in {
        "DER": encode_dss_signature(r, s),
        "a byte less": raw[:-1],
        "a byte more": raw + b"\0",
        "a byte before": b"\0" + raw,
        "r alone": raw[:32],
        "s before r": raw[32:] + raw[:32],
        "64 null bytes": bytes(64),
        "132 null bytes, as of P-521": bytes(132),
    }.items():
        yield Bad(name, f"{unsigned}.{b64(changed)}", "ES256")


def ecdsa_parts(token: str) -> tuple[str, int, int]:
    """Return what an ES256 token signs, and the two numbers of its signature."""
    unsigned, _, seal = token.rpartition(".")
    raw = urlsafe_b64decode(seal + "==")
    return unsigned, int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")


def negated(token: str) -> str:
    """Return another text of an ES256 token, which anybody can make: (r, n-s) is a signature where (r, s) is."""
    unsigned, r, s = ecdsa_parts(token)
    return f"{unsigned}.{b64(_p1363(r, P256_ORDER - s))}"


def _p1363(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


# Row 7.


def rsa_of_another_length() -> Iterator[Bad]:
    """What is no number below the modulus, or is one whose power anybody knows."""
    unsigned, _, seal = sign("RS256", rsa_key()).rpartition(".")
    raw = urlsafe_b64decode(seal + "==")
    for name, changed in {
        "0": b"\0",
        "1": b"\x01",
        "0 in full": bytes(256),
        "1 in full": bytes(255) + b"\x01",
        "the modulus": rsa_key().public_key.public_numbers().n.to_bytes(256, "big"),
        "2^2048-1": b"\xff" * 256,
        "a byte less": raw[:-1],
        "a byte before": b"\0" + raw,
        "a byte more": raw + b"\0",
    }.items():
        yield Bad(name, f"{unsigned}.{b64(changed)}", "RS256")


# Row 8.


def of_another_form() -> Iterator[Bad]:
    """Encrypted, nested, and in JSON."""
    for alg in ("dir", "RSA-OAEP", "ECDH-ES", "A256KW"):
        yield Bad(f"JWE {alg}", ".".join(map(b64, (f'{{"alg":"{alg}","enc":"A256GCM"}}', "key", "iv", "text", "tag"))))
    yield Bad("JWE without a key", ".".join(map(b64, ('{"alg":"dir","enc":"A256GCM"}', "", "iv", "text", "tag"))))
    token = forge()
    head, body, seal = token.split(".")
    flat = {"protected": head, "payload": body, "signature": seal}
    yield Bad("JSON, flattened", json.dumps(flat, separators=(",", ":")))
    general = {"payload": body, "signatures": [{"protected": head, "signature": seal}]}
    yield Bad("JSON, general", json.dumps(general, separators=(",", ":")))
    yield Bad("five parts that begin with a good token", f"{token}.{body}.{seal}")
    for cty in ("JWT", "jwt", "application/jwt"):
        yield Bad(f"cty {cty}", forge(token, {"alg": "HS256", "typ": "JWT", "cty": cty}))
        yield Bad(f"cty {cty}, with claims", with_header(cty=cty))


def nested_in_secret() -> Iterator[Bad]:
    """A token in a token whose header says nothing of it."""
    yield Bad("nested without cty", forge(forge()))
    yield Bad("nested as a JSON text", forge(json.dumps(forge())))


# Row 9.


def with_extensions() -> Iterator[Bad]:
    """`crit` in all forms, an unencoded payload, a compressed one."""
    for header in (
        '{"alg":"HS256","crit":["exp"],"exp":1}',
        '{"alg":"HS256","crit":["unknown"],"unknown":1}',
        '{"alg":"HS256","crit":[]}',
        '{"alg":"HS256","crit":["alg"]}',
        '{"alg":"HS256","crit":["b64","b64"],"b64":true}',
        '{"alg":"HS256","crit":[],"crit":["b64"]}',
        '{"alg":"HS256","crit":"b64"}',
        '{"alg":"HS256","crit":null}',
        '{"alg":"HS256","b64":false,"crit":["b64"]}',
        '{"alg":"HS256","b64":false}',
        '{"alg":"HS256","b64":true}',
        '{"alg":"HS256","zip":"DEF"}',
    ):
        yield Bad(header, forge(header=header))
    head = b64('{"alg":"HS256","b64":false,"crit":["b64"]}')
    body = json.dumps(GOOD, separators=(",", ":"))
    seal = hmac.new(SECRET.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    yield Bad("a payload that is not encoded", f"{head}.{body}.{b64(seal)}")
    compressor = zlib.compressobj(wbits=-15)
    deflated = compressor.compress(json.dumps(GOOD).encode()) + compressor.flush()
    yield Bad("a payload that is compressed", forge(deflated, {"alg": "HS256", "zip": "DEF"}))


# Row 10.


def that_take_long() -> Iterator[Bad]:
    """A key derivation without end, and a payload that unpacks to a gigabyte."""
    for alg in ("PBES2-HS256+A128KW", "PBES2-HS512+A256KW"):
        header = {"alg": alg, "enc": "A128CBC-HS256", "p2c": 2**31, "p2s": "AAAA"}
        yield Bad(f"{alg} in three parts", forge(header=header))
        yield Bad(f"{alg} in five parts", ".".join((b64(json.dumps(header)), *map(b64, ("key", "iv", "text", "tag")))))
    yield Bad("zip and p2c", with_header(zip="DEF", p2c=2**31))
    compressor = zlib.compressobj(level=9, wbits=-15)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(4)) + compressor.flush()
    yield Bad("a compression bomb", forge(bomb, {"alg": "HS256", "zip": "DEF"}))


def _seal(algorithm: str, key: PrivateKey, header: dict[str, Any]) -> str:
    """Sign by an algorithm under a header that may name another."""
    signing_input = f"{b64(json.dumps(header))}.{b64(json.dumps(GOOD))}"
    model = JWSRegistry.algorithms[algorithm]
    return f"{signing_input}.{b64(model.sign(signing_input.encode(), key))}"

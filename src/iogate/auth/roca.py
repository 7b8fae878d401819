"""The fingerprint of the RSA keys of faulty chips, which can be factored (ROCA, CVE-2017-15361).

Those chips made primes p = k*M + (65537**a mod M), where M is the product of the first primes. So a modulus of two such
primes is a power of 65537 modulo each of the first primes. For those up to 167, so is one good key in 2**27.

Nemec, Sys, Svenda, Klinec, Matyas: "The Return of Coppersmith's Attack", ACM CCS 2017, section 2.
"""

from __future__ import annotations

_GENERATOR = 65537
_PRIMES = tuple(number for number in range(3, 168) if all(number % divisor for divisor in range(2, number)))
"""The primes of the smallest M, which every larger M contains; 2 is left out, because every modulus is odd."""


def _powers(prime: int) -> frozenset[int]:
    return frozenset(pow(_GENERATOR, exponent, prime) for exponent in range(prime - 1))


_FINGERPRINT = tuple((prime, powers) for prime in _PRIMES if len(powers := _powers(prime)) < prime - 1)
"""For each prime, the remainders of such a modulus; primes for which every remainder occurs are left out."""


def has_fingerprint(modulus: int) -> bool:
    """Return True if an RSA modulus has the fingerprint of the faulty chips."""
    return all(modulus % prime in powers for prime, powers in _FINGERPRINT)

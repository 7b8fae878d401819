"""The fingerprint of RSA keys from faulty chips, which can be factored (ROCA, CVE-2017-15361).

Those chips generate primes p = k*M + (65537**a mod M), where M is the product of the first primes. Therefore the
modulus of such a key is a power of 65537 modulo each of the first primes. This code tests the primes up to 167, which
gives a false positive for one good key in 2**27.

Nemec, Sys, Svenda, Klinec, Matyas: "The Return of Coppersmith's Attack", ACM CCS 2017, section 2.
"""

from __future__ import annotations

_GENERATOR = 65537
_PRIMES = tuple(number for number in range(3, 168) if all(number % divisor for divisor in range(2, number)))
"""The primes of the smallest M, which are factors of every larger M; without 2, because every modulus is odd."""


def _powers(prime: int) -> frozenset[int]:
    return frozenset(pow(_GENERATOR, exponent, prime) for exponent in range(prime - 1))


_FINGERPRINT = tuple((prime, powers) for prime in _PRIMES if len(powers := _powers(prime)) < prime - 1)
"""For each prime, the possible remainders of such a modulus. Primes for which every remainder occurs are left out."""


def has_fingerprint(modulus: int) -> bool:
    """Return True if an RSA modulus has the fingerprint of the faulty chips."""
    return all(modulus % prime in powers for prime, powers in _FINGERPRINT)

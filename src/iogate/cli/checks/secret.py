"""An estimate of how hard a shared secret is to guess.

The strength of a secret cannot be measured: it depends on how the secret was generated, which its text does not show.
The text gives an upper bound, from the number of different characters, from repetitions, and from words in it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import NamedTuple

ENOUGH = 100
"""Bits from which a secret is good. RFC 6749, section 10.10, requires 128, but the estimate is not that exact:
`secrets.token_hex(16)` has 128 bits, and its estimates are between 100 and 140."""
GUESSABLE = 64
"""Bits below which an attacker who has one token can find the secret by brute force, offline and unnoticed."""

_WORD_LETTER_BITS = 2.2
"""Bits per letter of a word: a word of five or six letters, chosen at random from a list of 4000, has 12 bits."""
_REPEAT_BITS = 8
"""Bits of a repeated piece: they encode which earlier piece it repeats, and its length."""
_SHORTEST_REPEAT = 4

_PAIRS = re.compile(
    "th|he|in|er|an|re|on|at|en|nd|ti|es|or|te|of|ed|is|it|al|ar|st|to|nt|ng|se|ha|as|ou|io|le|ve|co|me|de|hi|ri|ro|ic"
    "|ne|ea|ra|ce|li|ch|ll|be|ma|si|om|ur|ca|el|ta|la|ns|di|fo|ho|pe|ec|pr|no|ct|us|ac|ot|il|tr|ly|nc|et|ut|ss|so|rs|un"
    "|lo|wa|ge|ie|wh|ee|wi|em|ad|ol|rt|po|we|na|ul|ni"
)
"""Common pairs of letters. They make up three in four pairs of English text, more than half in other languages, and one
in seven in random letters."""
_WORDY = 0.45
"""The fraction of common pairs from which a text counts as made of words."""
_FEWEST_PAIRS = 16

_HEXADECIMAL = re.compile(r"[0-9a-fA-F-]*")
_LETTERS = re.compile(r"[a-z]+")
_INNER_DIGIT = re.compile(r"(?<=[a-z])[01345$@7](?=[a-z])")
_AS_LETTERS = str.maketrans("01345$@7", "oleassat")


class Estimate(NamedTuple):
    """An upper bound of the strength of a secret."""

    bits: int
    why: str
    """The property of the text that the bound comes from."""


def estimate(secret: bytes) -> Estimate:
    """Return an upper bound of the bits that an attacker must guess, with the reason for it."""
    text = secret.decode("latin-1")
    fresh, repeats = _without_repeats(text)
    why = f"{len(set(text))} different characters in {len(text)}"
    if repeats:
        why += ", parts of which come again"
    bits = len(fresh) * _bits_a_letter(fresh)
    letters, rest = _words(fresh)
    if letters:
        as_words = letters * _WORD_LETTER_BITS + len(set(rest)) * _bits_a_letter(rest)
        if as_words < bits:
            bits, why = as_words, "it seems to be made of words"
    return Estimate(round(bits + repeats * _REPEAT_BITS), why)


def _without_repeats(text: str) -> tuple[str, int]:
    """Return a text without its repeated pieces, and the number of these pieces."""
    fresh, repeats, at = "", 0, 0
    while at < len(text):
        size = _SHORTEST_REPEAT
        while at + size <= len(text) and text[at : at + size] in text[: at + size - 1]:
            size += 1
        if size > _SHORTEST_REPEAT:
            repeats += 1
            at += size - 1
        else:
            fresh += text[at]
            at += 1
    return fresh, repeats


def _bits_a_letter(text: str) -> float:
    """Return the Shannon entropy per character in bits, with the Miller-Madow correction for short texts."""
    if not text:
        return 0.0
    counts = Counter(text).values()
    entropy = -sum(count / len(text) * math.log2(count / len(text)) for count in counts)
    return entropy + (len(counts) - 1) / (2 * len(text) * math.log(2))


def _words(text: str) -> tuple[int, str]:
    """Return the number of letters in words, and the rest of the text; 0 and the whole text if it has no words."""
    if _HEXADECIMAL.fullmatch(text):
        return 0, text
    plain = _INNER_DIGIT.sub(lambda digit: digit[0].translate(_AS_LETTERS), text.lower())
    runs = _LETTERS.findall(plain)
    pairs = [run[at : at + 2] for run in runs for at in range(len(run) - 1)]
    if len(pairs) < _FEWEST_PAIRS or sum(_PAIRS.fullmatch(pair) is not None for pair in pairs) < _WORDY * len(pairs):
        return 0, text
    return sum(map(len, runs)), _LETTERS.sub("", plain)

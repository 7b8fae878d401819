"""Row 18: the name of a key."""

from __future__ import annotations

import pytest

from iogate.errors import InvalidToken
from tests.attacks.doors import door
from tests.auth.tokens import forge, with_header


@pytest.mark.parametrize("kid", ["../../../dev/null", "' OR 1=1 --", "a\0b", "k" * 3000, "http://127.0.0.1:9/key"])
def test_a_key_id_that_is_a_path_or_a_query(kid: str) -> None:
    """Row 18: where there is one key, the name that a token gives it changes nothing."""
    auth = door("HS256").auth
    assert auth.verify(with_header(kid=kid)).subject == "alice"
    with pytest.raises(InvalidToken):
        auth.verify(forge(header={"alg": "HS256", "kid": kid}, secret=b"\0"))


@pytest.mark.parametrize("kid", [None, 1, ["a"], {"a": 1}], ids=repr)
def test_a_key_id_that_is_no_text(kid: object) -> None:
    """Row 18."""
    with pytest.raises(InvalidToken):
        door("HS256").auth.verify(with_header(kid=kid))

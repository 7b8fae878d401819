"""Scopes as an application writes them: what is meant, and what cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies

from iogate import ConfigurationError, InsufficientScope, Server
from iogate.server.namespaces.scopes import parse_scopes

GOOD = ["chat:write", "https://www.googleapis.com/auth/chat", "a", "read-only", "\u00e4", "a,b", "*"]


@pytest.mark.parametrize("name", GOOD)
def test_a_name_is_one_scope(name: str) -> None:
    assert parse_scopes(name) == parse_scopes([name]) == {name}


@pytest.mark.parametrize("text", ["read write", " read  write ", "write read", "read\twrite", "read write read"])
def test_names_with_spaces_between_them_are_several(text: str) -> None:
    assert parse_scopes(text) == {"read", "write"}


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_a_list_of_names_is_several(kind: Any) -> None:
    assert parse_scopes(kind(("read", "write"))) == {"read", "write"}


def test_an_iterator_is_read_once() -> None:
    assert parse_scopes(name for name in ("read", "write")) == {"read", "write"}


@pytest.mark.parametrize("nothing", [(), [], set()])
def test_an_empty_list_asks_for_nothing(nothing: Any) -> None:
    assert parse_scopes(nothing) == frozenset()


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_text_is_refused(blank: str) -> None:
    """It is what an environment variable that is not set gives, and it would leave open what was to be protected."""
    with pytest.raises(ConfigurationError, match="scopes are names without spaces"):
        parse_scopes(blank)


@pytest.mark.parametrize(
    "wrong",
    [None, 5, True, b"read", [None], [b"read"], [5], ["read", ""], ["read write"], [" read"], ["read\n"], [["read"]]],
    ids=repr,
)
def test_what_is_no_scope_is_refused_with_what_to_write(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'write scopes="chat:write" or scopes=\["a", "b"\]'):
        parse_scopes(wrong)


@given(names=strategies.lists(strategies.text(max_size=5), max_size=4))
def test_a_list_is_taken_as_it_is_or_refused(names: list[str]) -> None:
    """No scope is lost or made on the way."""
    try:
        assert parse_scopes(names) == set(names)
    except ConfigurationError:
        assert any(name.split() != [name] for name in names)


def test_wrong_scopes_are_refused_wherever_they_are_written() -> None:
    """When the server is put together, and not when the first client comes."""
    io = Server(auth=None)
    with pytest.raises(ConfigurationError, match="scopes are names"):
        io.of("/admin", scopes="")
    with pytest.raises(ConfigurationError, match="scopes are names"):
        io.on("message", lambda socket: None, scopes=["a b"])


def test_scopes_of_a_namespace_add_up() -> None:
    """Whoever asks for it again with fewer does not open it."""
    io = Server(auth=None)
    io.of("/admin", scopes="admin")
    io.of("/admin", scopes="write")
    assert io.of("/admin").scopes == {"admin", "write"}


@pytest.mark.parametrize("event", ["connect", "disconnect", "refresh"])
def test_what_no_client_sends_has_no_scopes(event: str) -> None:
    def handler(socket: Any, *args: Any) -> None:
        raise AssertionError

    with pytest.raises(ConfigurationError, match=r"scopes belong to io\.of"):
        Server(auth=None).on(event, handler, scopes="admin")


def test_the_refusal_names_the_scopes_in_order() -> None:
    refusal = InsufficientScope({"write", "admin"})
    assert refusal.required == ["admin", "write"]
    assert refusal.code == "insufficient_scope"

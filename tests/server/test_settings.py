"""A server that is put together wrongly is refused at once, with a message that says what to write instead."""

from __future__ import annotations

import re
from typing import Any

import pytest

from iogate import ConfigurationError, Cookie, JWTAuth, Query, Server
from tests.servers import SECRET


def jwt(**settings: Any) -> JWTAuth:
    return JWTAuth(secret=SECRET, algorithms=["HS256"], **settings)


def test_a_server_does_not_choose_for_you_whether_it_is_open_to_everybody() -> None:
    with pytest.raises(TypeError, match="auth"):
        Server()  # type: ignore[call-arg]


def test_there_are_defaults_for_all_the_rest() -> None:
    settings = Server(auth=None)._core.settings
    assert (settings.path, settings.ping_interval, settings.ping_timeout, settings.connect_timeout) == (
        "/socket.io",
        25.0,
        20.0,
        10.0,
    )
    assert (settings.max_payload, settings.max_buffered, settings.max_attachments) == (1_000_000, 1_048_576, 10)


def test_all_is_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        Server(jwt())  # type: ignore[call-arg]


@pytest.mark.parametrize("auth", [JWTAuth, SECRET, True, {"secret": SECRET}, object()])
def test_what_is_no_gatekeeper_is_refused(auth: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"auth is JWTAuth\(\.\.\.\), or None") as caught:
        Server(auth=auth)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["", "/", "socket.io", "/socket.io/", "//", "/a//b", "/a b", "/a?b", "/a#b", "/a\n", "https://example.com"]
)
def test_a_path_that_no_request_has_is_refused(path: str) -> None:
    message = f'path is {path!r}: write it like "/socket.io", without a slash at the end'
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        Server(auth=None, path=path)


@pytest.mark.parametrize("path", ["/socket.io", "/a/b/c", "/~ann/socket.io", "/\u00fc"])
def test_a_path_may_have_several_parts(path: str) -> None:
    assert Server(auth=None, path=path)._core.settings.path == path


@pytest.mark.parametrize("name", ["ping_interval", "ping_timeout", "connect_timeout"])
@pytest.mark.parametrize("value", [0, -1, 3600.1, float("nan"), float("inf"), "25", None, True])
def test_times_are_numbers_of_seconds_within_an_hour(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is a number of seconds, more than 0 and at most 3600"):
        Server(auth=None, **{name: value})


@pytest.mark.parametrize(("name", "least"), [("max_payload", 1024), ("max_buffered", 1024), ("max_attachments", 0)])
@pytest.mark.parametrize("wrong", [-1, -0.5, "a lot", None, float("nan"), float("inf"), 2048.5, True])
def test_sizes_have_a_least_value_and_are_whole_numbers(name: str, least: int, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is a whole number, at least {least}"):
        Server(auth=None, **{name: wrong})
    fitting: dict[str, Any] = {name: least}
    assert getattr(Server(auth=None, **fitting)._core.settings, name) == least


def test_a_cookie_needs_a_list_of_origins() -> None:
    """A browser sends it along with what any page asks for."""
    auth = jwt(sources=[Cookie("token")])
    for origins in ((), ["*"], ["*", "https://app.example.com"]):
        with pytest.raises(ConfigurationError, match=r'cors_allowed_origins=\["https://app.example.com"\]'):
            Server(auth=auth, cors_allowed_origins=origins)
    assert Server(auth=auth, cors_allowed_origins=["https://app.example.com"])._core.origins.listed


def test_a_function_that_finds_the_token_may_find_it_in_a_cookie_so_that_not_any_page_may_connect() -> None:
    auth = jwt(sources=[lambda request: request.cookies.get("token")])
    for origins in (["*"], ["*", "https://app.example.com"]):
        with pytest.raises(ConfigurationError, match="list the pages that may connect"):
            Server(auth=auth, cors_allowed_origins=origins)
    for origins in ([], ["https://app.example.com"]):  # None: those of the same origin.
        assert not Server(auth=auth, cors_allowed_origins=origins)._core.origins.any


def test_origins_are_checked_when_the_server_is_made() -> None:
    with pytest.raises(ConfigurationError, match="is no origin"):
        Server(auth=None, cors_allowed_origins=["app.example.com"])


def test_parameters_that_hold_a_token_are_known() -> None:
    assert Server(auth=jwt(sources=[Query("token"), Query("jwt")]))._core.hidden_parameters == {
        "token",
        "access_token",
        "jwt",
    }
    assert Server(auth=None)._core.hidden_parameters == {"token", "access_token"}


def test_a_server_shows_its_path_and_nothing_of_its_keys() -> None:
    io = Server(auth=jwt(), path="/live")
    assert repr(io) == "<Server on /live with 0 connections>"
    assert SECRET not in repr(io._core.gate) + repr(io._core.settings)


@pytest.mark.parametrize("name", ["a,b", "/a,b", "/" + "x" * 256])
def test_a_name_that_no_namespace_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="a namespace has no comma in its name and at most 256 bytes"):
        Server(auth=None).of(name)


def test_a_namespace_has_one_object_with_or_without_its_slash() -> None:
    io = Server(auth=None)
    assert io.of("admin") is io.of("/admin")
    assert io.of("") is io.of("/")
    assert repr(io.of("admin")) == "<Namespace /admin with 0 sockets>"


@pytest.mark.parametrize("name", [None, 5, ["/admin"], b"/admin"])
def test_what_is_neither_a_name_nor_a_pattern_nor_a_predicate_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="is neither a name, a compiled pattern nor a predicate"):
        Server(auth=None).of(name)


def test_a_server_does_not_need_an_event_loop_to_be_made() -> None:
    """It is a global of a module, imported long before anything runs."""
    io = Server(auth=jwt())
    io.on("message", lambda socket: None)
    io.emit("nobody", "hears it")
    assert callable(io.asgi())

"""Which pages may connect: the table of the allow-list, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, strategies

from iogate import ConfigurationError
from iogate.server.origins import Origins

APP = "https://app.example.com"


@pytest.mark.parametrize(
    ("origin", "host", "secure", "allowed"),
    [
        ("https://example.com", "example.com", True, True),
        ("https://example.com", "example.com:443", True, True),
        ("https://example.com:443", "example.com", True, True),
        ("http://example.com", "example.com:80", False, True),
        ("http://127.0.0.1:3000", "127.0.0.1:3000", False, True),
        ("http://[::1]:3000", "[::1]:3000", False, True),
        ("http://example.com", "EXAMPLE.com", False, True),
        ("http://example.com", "example.com", True, False),
        ("https://example.com", "example.com", False, False),
        ("https://example.com:8443", "example.com", True, False),
        ("https://example.com", "example.com:8443", True, False),
        ("https://evil.example.com", "example.com", True, False),
        ("https://example.com.evil.net", "example.com", True, False),
        ("https://notexample.com", "example.com", True, False),
        ("https://example.com@evil.net", "example.com", True, False),
        ("https://evil.net@example.com", "example.com", True, False),
        ("https://example.com/", "example.com", True, False),
        ("null", "example.com", True, False),
        ("null", "null", True, False),
        ("", "", True, False),
        ("https://", "", True, False),
        ("https://example.com", "", True, False),
        ("https://example.com", "example.com, example.com", True, False),
        ("https://example.com, https://example.com", "example.com", True, False),
        ("file://", "example.com", True, False),
        ("https://example.com:99999", "example.com:99999", True, False),
        ("https://example.com:0", "example.com", True, False),
        ("https://[::1", "[::1", True, False),
        ("https://example.com.", "example.com", True, False),
    ],
)
def test_without_a_list_a_page_of_the_same_origin_may_connect(
    origin: str, host: str, secure: bool, allowed: bool
) -> None:
    assert Origins(()).allow(origin, host=host, secure=secure) is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (APP, True),
        ("http://localhost:5173", True),
        ("https://app.example.com:443", False),
        ("http://app.example.com", False),
        ("https://APP.example.com", False),
        ("https://example.com", False),
        ("https://app.example.com.evil.net", False),
        ("https://app.example.com/", False),
        ("http://localhost", False),
        ("null", False),
        ("*", False),
        ("", False),
    ],
)
def test_with_a_list_those_in_it_may_connect(origin: str, allowed: bool) -> None:
    origins = Origins([APP, "http://localhost:5173"])
    assert origins.listed
    assert origins.allow(origin, host="server.example.com", secure=True) is allowed


def test_with_a_list_the_own_origin_is_not_in_it_unless_it_is_named() -> None:
    assert not Origins([APP]).allow("https://example.com", host="example.com", secure=True)


@pytest.mark.parametrize("origin", ["https://anything.example", "null", "", "no origin at all"])
def test_an_asterisk_lets_every_page_connect(origin: str) -> None:
    for origins in (Origins(["*"]), Origins(["*", APP])):
        assert origins.any
        assert not origins.listed
        assert origins.allow(origin, host="example.com", secure=True)


def test_nothing_is_listed_in_an_empty_list() -> None:
    assert not Origins(()).listed
    assert not Origins([]).any


@pytest.mark.parametrize(
    "origin",
    [
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/chat",
        "https://app.example.com?x",
        "https://app.example.com#x",
        "https://ann@app.example.com",
        "https://App.example.com",
        "HTTPS://app.example.com",
        "ws://app.example.com",
        "null",
        "",
        "https://",
        "https://*.example.com",
        "https://app.example.com:port",
        "https://app.example.com:70000",
        "https://app.example.com:",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "https://a b.example.com",
        " https://app.example.com",
        "https://a.example.com,https://b.example.com",
    ],
)
def test_what_no_browser_would_send_as_an_origin_is_refused_when_the_server_is_made(origin: str) -> None:
    """It could never match, and whoever wrote it believes that it does."""
    with pytest.raises(ConfigurationError, match="is no origin: write scheme and host in lower case"):
        Origins([origin])


def test_one_origin_that_is_no_list_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r'write \["https://app.example.com"\]'):
        Origins(APP)


@pytest.mark.parametrize("allowed", [None, 5, [None], [b"https://app.example.com"]])
def test_a_list_of_something_else_is_refused(allowed: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"the allowed origins are a list|is no origin"):
        Origins(allowed)


LIST = frozenset({APP, "https://b.example", "http://localhost:5173"})
labels = strategies.from_regex(r"[a-z0-9.-]{1,12}", fullmatch=True)
near = strategies.builds(
    lambda origin, before, after, cut: (before + origin + after)[cut:],
    strategies.sampled_from(sorted(LIST)),
    strategies.sampled_from(["", " ", "x", "https://", "\t", "null ", "a.b@"]),
    strategies.one_of(labels, strategies.sampled_from(["", " ", "/", ".", ":443", ":", "#", "?x", "\\", "@", "%00"])),
    strategies.integers(min_value=0, max_value=10),
)


@given(origin=strategies.one_of(strategies.text(max_size=40), near), host=strategies.one_of(labels, strategies.text()))
@example(origin="HTTPS://APP.EXAMPLE.COM", host="app.example.com")
@example(origin="https://app.example.com\n", host="app.example.com")
def test_an_allow_list_never_lets_in_what_is_not_in_it(origin: str, host: str) -> None:
    origins = Origins(LIST)
    for secure in (True, False):
        assert origins.allow(origin, host=host, secure=secure) is (origin in LIST)


@given(origin=strategies.one_of(strategies.text(max_size=40), near), host=labels)
def test_the_own_origin_has_the_same_host(origin: str, host: str) -> None:
    if Origins(()).allow(origin, host=host, secure=True):
        assert origin.lower().removesuffix(":443") == f"https://{host}".removesuffix(":443")

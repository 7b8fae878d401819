"""What a handshake says to the application, and what it never shows."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

from iogate import Handshake
from iogate.printable import redact_parameters
from iogate.server.session.handshake import MAX_QUERY_FIELDS, parse_query

SECRET = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0.signature"


def cookies(*headers: str) -> dict[str, str]:
    return dict(Handshake([(b"cookie", header.encode("latin-1")) for header in headers]).cookies)


def test_header_names_are_as_asgi_gives_them_and_values_are_latin_1() -> None:
    handshake = Handshake([(b"user-agent", "caf\xe9".encode("latin-1")), (b"x-empty", b"")])
    assert handshake.headers == {"user-agent": "caf\xe9", "x-empty": ""}


def test_a_header_that_came_twice_is_joined() -> None:
    handshake = Handshake([(b"authorization", b"Bearer a"), (b"accept", b"x"), (b"authorization", b"Bearer b")])
    assert handshake.headers == {"authorization": "Bearer a, Bearer b", "accept": "x"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("a=1", {"a": "1"}),
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2;", {"a": "1", "b": "2"}),
        (' a = 1 ; b="two" ', {"a": "1", "b": "two"}),
        ("a=", {"a": ""}),
        ("a=b=c==", {"a": "b=c=="}),
        ("noequals; b=2", {"b": "2"}),
        ("=nameless", {"": "nameless"}),
        ("a=1; a=2", {"a": "1, 2"}),
        ("", {}),
        (";;;", {}),
    ],
)
def test_cookies_are_read_as_browsers_write_them(header: str, expected: dict[str, str]) -> None:
    assert cookies(header) == expected


def test_cookies_in_two_headers_are_all_read() -> None:
    """HTTP/2 may carry each cookie in a field of its own (RFC 9113, section 8.2.3)."""
    assert cookies("a=1", "b=2") == {"a": "1", "b": "2"}
    assert cookies("a=1", "a=2") == {"a": "1, 2"}


@pytest.mark.parametrize(
    "header", ["a=1, __Host-t=x", "\xa0__Host-t=x", "\x85__Host-t=x", "a=1,__Host-t=x", '"__Host-t=x']
)
def test_a_cookie_with_a_prefix_cannot_be_made_up_in_another(header: str) -> None:
    """A browser lets a subdomain set these: for it, the prefix is not at their beginning."""
    assert "__Host-t" not in cookies(header)


def test_without_headers_there_are_no_cookies() -> None:
    assert Handshake().cookies == {}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", {}),
        (b"EIO=4&transport=polling", {"EIO": "4", "transport": "polling"}),
        (b"a=1&a=2&b=3", {"a": "1, 2", "b": "3"}),
        (b"a=&b", {"a": "", "b": ""}),
        (b"name=J%C3%BCrgen+M", {"name": "J\xfcrgen M"}),
        (b"tok%65n=x&token=y", {"token": "x, y"}),
        (b"a=1%262&c==", {"a": "1&2", "c": "="}),
        (b"a=%ff%00&%zz=1", {"a": "\ufffd\x00", "%zz": "1"}),
    ],
)
def test_parameters_are_decoded_and_those_that_came_twice_are_joined(query: bytes, expected: dict[str, str]) -> None:
    assert parse_query(query) == expected


def test_a_query_has_a_limited_number_of_parameters() -> None:
    assert len(parse_query(b"&".join(b"%d=" % number for number in range(MAX_QUERY_FIELDS)))) == MAX_QUERY_FIELDS
    with pytest.raises(ValueError, match="fields"):
        parse_query(b"&".join(b"%d=" % number for number in range(MAX_QUERY_FIELDS + 1)))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", b""),
        (b"EIO=4&a=%20b", b"EIO=4&a=%20b"),
        (b"EIO=4&token=x&sid=1", b"EIO=4&token=REDACTED&sid=1"),
        (b"token=x&token=y", b"token=REDACTED&token=REDACTED"),
        (b"tok%65n=x", b"tok%65n=REDACTED"),
        (b"token=a=b==", b"token=REDACTED"),
        (b"token=", b"token=REDACTED"),
        (b"token", b"token"),
        (b"my_token=x&Token=y", b"my_token=x&Token=REDACTED"),
        (b"a=1;token=x;y&b=2", b"a=1;token=REDACTED&b=2"),
        (b"a=1&amp;token=x&amp;b=2", b"a=1&amp;token=REDACTED&amp;b=2"),
        (b"a=1%26token%3Dx%26y&b=2", b"a=1%26token%3DREDACTED&b=2"),
        (b"a=1%2526tok%2565n%253dx", b"a=1%2526tok%2565n%253dREDACTED"),
        (b"tokens=x&xtoken=y&a=token", b"tokens=x&xtoken=y&a=token"),
    ],
)
def test_the_values_of_hidden_parameters_are_taken_out_and_all_else_stays(query: bytes, expected: bytes) -> None:
    assert redact_parameters(query.decode(), frozenset({"token"})) == expected.decode()


@given(strategies.binary(max_size=40), strategies.binary(max_size=40), strategies.sampled_from([b"token", b"t%6fken"]))
def test_a_hidden_value_is_taken_out_wherever_it_is(before: bytes, after: bytes, name: bytes) -> None:
    """Whatever stands around it, what the server would read as the token is in no log."""
    query = before + b"&" + name + b"=" + SECRET.encode() + b"&" + after
    assert SECRET not in redact_parameters(query.decode("latin-1"), frozenset({"token"}))


def test_no_credential_is_in_a_repr() -> None:
    handshake = Handshake(
        [(b"authorization", f"Bearer {SECRET}".encode()), (b"cookie", f"token={SECRET}".encode())],
        {"token": SECRET},
        "/socket.io/",
        "192.0.2.1",
        auth={"token": SECRET},
    )
    assert SECRET in handshake.headers["authorization"]
    assert repr(handshake) == "<Handshake /socket.io/ from 192.0.2.1>"
    assert SECRET not in f"{handshake} {handshake!r} {handshake!s}"


def test_the_same_handshake_serves_several_namespaces() -> None:
    handshake = Handshake([(b"a", b"1")], {"q": "1"}, "/socket.io/", "192.0.2.1", secure=True)
    other = handshake.with_auth({"room": "a"})
    assert handshake.auth is None
    assert other.auth == {"room": "a"}
    assert (other.headers, other.query, other.path, other.address, other.secure) == (
        {"a": "1"},
        {"q": "1"},
        "/socket.io/",
        "192.0.2.1",
        True,
    )


@pytest.mark.parametrize(
    ("scheme", "secure"), [("http", False), ("https", True), ("ws", False), ("wss", True), (None, False)]
)
def test_a_handshake_is_made_from_the_scope_of_a_request(scheme: str | None, secure: bool) -> None:
    scope = {"headers": [(b"a", b"1")], "path": "/socket.io/", "client": ("192.0.2.1", 1234), "scheme": scheme}
    if scheme is None:
        del scope["scheme"]
    handshake = Handshake.of_scope({**scope, "query_string": b"q=1"})
    assert handshake.secure is secure
    assert (handshake.headers, handshake.query, handshake.address) == ({"a": "1"}, {"q": "1"}, "192.0.2.1")


def test_a_client_on_a_unix_socket_has_no_address() -> None:
    assert Handshake.of_scope({"headers": [], "path": "/", "client": None}).address is None
    assert Handshake.of_scope({"headers": [], "path": "/"}).address is None

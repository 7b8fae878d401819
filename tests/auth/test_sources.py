"""A source finds the token, finds nothing, or refuses: what was meant as a credential never counts as none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.auth import AuthPayload, BearerHeader, BodyField, Cookie, CredentialRequest, Header, Query, Source
from iogate.auth.sources import Function
from iogate.errors import ConfigurationError, CredentialsBadFormat, CredentialsBadScheme

from ..refusals import BAD_FORMAT, BAD_SCHEME


@dataclass
class Request:
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    payload: object = None


EMPTY = Request()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.just("token"), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    "source", [AuthPayload(), BearerHeader(), Query(), Cookie("session"), Header("X-Token"), BodyField("token")]
)
def test_a_request_without_anything_has_no_token(source: Source) -> None:
    request: CredentialRequest = EMPTY
    assert source.read(request) is None


@pytest.mark.parametrize("value", ["abc.def.ghi", "Bearer abc.def.ghi", "bearer abc.def.ghi", "BEARER  abc.def.ghi"])
def test_the_payload_gives_the_token_with_and_without_the_scheme(value: str) -> None:
    assert AuthPayload().read(Request(payload={"token": value, "room": "lobby"})) == "abc.def.ghi"


def test_the_payload_is_read_from_the_field_that_was_chosen() -> None:
    payload = {"token": "other", "jwt": "abc"}
    assert AuthPayload("jwt").read(Request(payload=payload)) == "abc"


@pytest.mark.parametrize("payload", [{}, {"token": None}, {"name": "Alice"}])
def test_a_payload_without_the_field_or_with_null_in_it_has_no_token(payload: object) -> None:
    assert AuthPayload().read(Request(payload=payload)) is None


@pytest.mark.parametrize(
    "payload",
    [{"token": 1}, {"token": ["a"]}, {"token": {"a": 1}}, {"token": False}, {"token": ""}, ["token"], "token", 7, False]
    + [{"token": f"{scheme} "} for scheme in ("Bearer", "bearer", "")]
    + [{"token": "Bearer a b"}, {"token": "Bearer a,b"}, {"token": " a"}],
)
def test_a_payload_with_something_else_in_place_of_a_token_is_badly_formed(payload: object) -> None:
    with pytest.raises(CredentialsBadFormat) as error:
        AuthPayload().read(Request(payload=payload))
    assert error.value.payload() == BAD_FORMAT


def test_a_payload_with_another_scheme_is_refused_for_it() -> None:
    with pytest.raises(CredentialsBadScheme) as error:
        AuthPayload().read(Request(payload={"token": "Basic YTpi"}))
    assert error.value.payload() == BAD_SCHEME


@given(JSON)
def test_any_payload_gives_a_text_or_nothing_or_a_documented_refusal(payload: object) -> None:
    try:
        found = AuthPayload().read(Request(payload=payload))
    except (CredentialsBadFormat, CredentialsBadScheme):
        return
    assert found is None or (found and " " not in found)


def test_the_application_sees_the_payload_without_the_token_and_the_original_is_kept() -> None:
    payload = {"token": "abc", "name": "Alice"}
    assert AuthPayload().redact(payload) == {"name": "Alice"}
    assert payload == {"token": "abc", "name": "Alice"}


@pytest.mark.parametrize("payload", [None, {"name": "Alice"}, ["token"], "token"])
def test_a_payload_without_a_token_is_seen_as_it_is(payload: object) -> None:
    assert AuthPayload().redact(payload) is payload


@given(JSON)
def test_a_redacted_payload_never_has_the_field(payload: object) -> None:
    seen: Any = AuthPayload().redact(payload)
    assert not isinstance(seen, dict) or "token" not in seen


@pytest.mark.parametrize("value", ["Bearer abc", "bearer abc", "BeArEr   abc"])
def test_the_header_gives_the_token_after_the_scheme_in_any_case(value: str) -> None:
    assert BearerHeader().read(Request(headers={"authorization": value})) == "abc"


@pytest.mark.parametrize(
    "value", ["Basic YTpi", "DPoP a.b.c", 'Digest username="a", realm="b"', "Token abc", "Bearertoken abc"]
)
def test_a_header_with_another_scheme_is_refused_for_it(value: str) -> None:
    with pytest.raises(CredentialsBadScheme):
        BearerHeader().read(Request(headers={"authorization": value}))


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "abc.def.ghi",
        " Bearer abc",
        "Bearer abc def",
        "Bearer abc, Bearer def",
        "Bearer abc, Bearer abc",
        "Bearer abc,def",
        "Bearer abc, Basic YTpi",
    ],
)
def test_a_header_that_is_empty_or_came_twice_is_badly_formed(value: str) -> None:
    with pytest.raises(CredentialsBadFormat):
        BearerHeader().read(Request(headers={"authorization": value}))


@given(st.text())
def test_any_header_gives_a_token_or_a_documented_refusal(value: str) -> None:
    try:
        token = BearerHeader().read(Request(headers={"authorization": value}))
    except (CredentialsBadFormat, CredentialsBadScheme):
        return
    assert token
    assert value.endswith(token)


def test_the_query_and_the_cookie_give_the_token_as_it_is() -> None:
    assert Query().read(Request(query={"token": "abc", "EIO": "4"})) == "abc"
    assert Query("jwt").read(Request(query={"token": "abc"})) is None
    assert Cookie("__Host-token").read(Request(cookies={"__Host-token": "abc"})) == "abc"


def test_an_empty_query_parameter_or_cookie_is_badly_formed() -> None:
    with pytest.raises(CredentialsBadFormat):
        Query().read(Request(query={"token": ""}))
    with pytest.raises(CredentialsBadFormat):
        Query().read(Request(query={"token": "abc, abc"}))
    with pytest.raises(CredentialsBadFormat):
        Cookie("c").read(Request(cookies={"c": "abc, abc"}))
    with pytest.raises(CredentialsBadFormat):
        Cookie("c").read(Request(cookies={"c": ""}))


@pytest.mark.parametrize("kind", [AuthPayload, Query, Cookie])
@pytest.mark.parametrize("name", ["", None, 5])
def test_a_source_without_a_name_is_refused_with_what_to_write(kind: Any, name: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf'{kind.__name__}\("token"\)'):
        kind(name)


def test_sources_are_compared_by_what_they_read_and_say_so() -> None:
    assert AuthPayload("a") == AuthPayload("a") != AuthPayload("b")
    assert repr(Query("jwt")) == "Query(name='jwt')"
    assert Query("jwt").name == "jwt"


def test_a_header_of_any_name_gives_the_token_with_the_scheme_that_was_chosen_or_with_none() -> None:
    request = Request(headers={"x-token": "abc", "authorization": "jwt  abc"})
    assert Header("X-Token").read(request) == "abc"
    assert Header("Authorization", scheme="JWT").read(request) == "abc"
    with pytest.raises(CredentialsBadScheme):
        Header("Authorization", scheme="Bearer").read(request)


@pytest.mark.parametrize("value", ["", " ", "a b", "Bearer abc", "a,b", "a, b"])
def test_a_header_of_any_name_that_is_empty_or_came_twice_is_badly_formed(value: str) -> None:
    with pytest.raises(CredentialsBadFormat):
        Header("X-Token").read(Request(headers={"x-token": value}))


@pytest.mark.parametrize("value", ["", b"abc", 1, True, ["abc"], {"token": "abc"}])
async def test_what_a_function_returns_that_is_neither_a_text_nor_none_is_badly_formed(value: Any) -> None:
    async def found(request: Any) -> Any:
        return value

    with pytest.raises(CredentialsBadFormat):
        Function(lambda request: value).read(EMPTY)
    for function in (found, lambda request: value):
        with pytest.raises(CredentialsBadFormat):
            await Function(function).read_async(EMPTY)

"""Only the one strict form of a token is read, in bounded time; its header must be harmless."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.auth import jws
from iogate.errors import InvalidToken

from .tokens import b64

HEAD = b64('{"alg":"HS256"}')


def refuses(token: str) -> str:
    with pytest.raises(InvalidToken) as error:
        jws.split(token)
    return error.value.reason


def test_a_token_is_taken_apart_without_loss() -> None:
    compact = jws.split(f"{HEAD}.{b64('body')}.AP_-")
    assert compact.header == {"alg": "HS256"}
    assert (compact.payload, compact.signature) == (b"body", b"\x00\xff\xfe")
    assert compact.signing_input == f"{HEAD}.{b64('body')}".encode()


@pytest.mark.parametrize("token", ["", "a", "a.b", f"{HEAD}.YQ.YQ.YQ", f"{HEAD}.YQ.YQ.YQ.YQ", "." * 1_000_000])
def test_a_token_has_exactly_three_parts(token: str) -> None:
    assert "three parts" in refuses(token)


@pytest.mark.parametrize("token", [f"{HEAD}..YQ", f"{HEAD}.YQ.", f".{HEAD}.YQ", ".."])
def test_no_part_may_be_empty(token: str) -> None:
    assert "empty" in refuses(token)


@pytest.mark.parametrize(
    "part",
    [
        "YQ==",
        "YQ=",
        "Y Q",
        " YQ",
        "YQ ",
        "YQ\n",
        "YQ\r\n",
        "\tYQ",
        "Y",
        "YWJjZ",
        "+/+/",
        "YR",
        "YWJ",
        "YQ%3D",
        "Y*Q",
        "Y\0Q",
    ],
)
def test_a_part_that_is_not_canonical_base64url_is_refused_not_repaired(part: str) -> None:
    assert "base64url" in refuses(f"{HEAD}.{part}.YQ")
    assert "base64url" in refuses(f"{HEAD}.YQ.{part}")
    assert "base64url" in refuses(f"{part}.YQ.YQ")


@pytest.mark.parametrize("part", ["YQé", "\u0661", "\ud800"])
def test_letters_outside_ascii_are_refused(part: str) -> None:
    assert "letters" in refuses(f"{HEAD}.{part}.YQ")


@given(st.text(alphabet=st.sampled_from("ABYQabgw019-_+/= \n"), min_size=1, max_size=12))
def test_a_part_is_accepted_only_as_the_one_text_of_its_bytes(part: str) -> None:
    try:
        compact = jws.split(f"{HEAD}.{part}.YQ")
    except InvalidToken:
        return
    assert b64(compact.payload) == part
    assert compact.payload == urlsafe_b64decode(part + "==")


@given(st.text(max_size=40))
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    with suppress(InvalidToken):
        jws.split(text)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(st.none() | st.integers(-(2**60), 2**60) | st.text(max_size=9), st.lists, max_leaves=5),
        max_size=5,
    )
)
def test_every_json_object_is_read_as_the_standard_library_writes_it(value: dict[str, Any]) -> None:
    assert jws.members(json.dumps(value).encode(), "claims") == value
    assert jws.members(json.dumps(value, ensure_ascii=False).encode(), "claims") == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[]",
            '"a"',
            "1",
            "null",
            "true",
            "",
            "{",
            "{}x",
            "{'a':1}",
            '{"a":1,}',
            '{"a":01}',
            '{"a":+1}',
            '{"a":"\n"}',
        ),
        *('{"a":NaN}', '{"a":Infinity}', '{"a":-Infinity}', '{"a":1e400}', '{"a":-1e400}', '{"a":\u0661}'),
        *('{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '{"x":{"a":1,"a":2}}', '{"x":[{"a":1,"a":2}]}'),
        '{"a":' + "9" * 5000 + "}",
    ],
)
def test_what_is_not_strict_json_or_no_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken, match="claims is not a JSON object"):
        jws.members(text.encode(), "claims")


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
    ],
)
def test_what_is_not_plain_utf8_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidToken):
        jws.members(data, "claims")


@pytest.mark.parametrize("text", ['{"a":"\\ud800"}', '{"a":"\\uD800"}', '{"\\udfff":1}', '{"a":[["\\ude00\\ud83d"]]}'])
def test_a_lone_surrogate_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken, match="surrogate"):
        jws.members(text.encode(), "claims")


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert jws.members(b'{"a":"\\ud83d\\ude00","b":"\\uD83D\\uDE00"}', "claims") == {"a": "😀", "b": "😀"}


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_that_nests_too_deep_is_refused(opening: str) -> None:
    closing = "]" if opening == "[" else "}"

    def nested(depth: int) -> bytes:
        return ('{"a":' + opening * (depth - 1) + "1" + closing * (depth - 1) + "}").encode()

    assert jws.members(nested(jws.MAX_DEPTH), "claims")
    with pytest.raises(InvalidToken, match="too deep"):
        jws.members(nested(jws.MAX_DEPTH + 1), "claims")
    with pytest.raises(InvalidToken, match="claims"):
        jws.members(nested(100_000), "claims")


def test_many_brackets_in_one_level_or_in_a_text_are_not_deep() -> None:
    value = {"roles": [[] for _ in range(100)], "text": "[{" * 100}
    assert jws.members(json.dumps(value).encode(), "claims") == value


def test_integers_are_read_up_to_a_length() -> None:
    assert jws.members(b'{"a":' + b"9" * 40 + b"}", "claims") == {"a": 10**40 - 1}
    with pytest.raises(InvalidToken):
        jws.members(b'{"a":' + b"9" * 41 + b"}", "claims")


def test_fractions_are_read() -> None:
    assert jws.members(b'{"exp":1700000000.25,"a":-1e3}', "claims") == {"exp": 1700000000.25, "a": -1000.0}


def test_no_error_brings_the_text_of_the_token_along() -> None:
    for data in (b'{"secret": ', b'{"secret": "\xff"}', b'{"secret": 1, "secret": 2}', b'{"secret": "\\ud800"}'):
        with pytest.raises(InvalidToken) as error:
            jws.members(data, "claims")
        assert error.value.__cause__ is None
        assert error.value.__context__ is None
        assert "secret" not in str(error.value) + repr(error.value)


def test_the_algorithm_is_one_of_the_accepted_by_exact_name() -> None:
    assert jws.check_algorithm({"alg": "HS256"}, ["HS256", "HS512"]) == "HS256"


@pytest.mark.parametrize(
    "value", ["none", "None", "NoNe", "hs256", "HS384", "", None, 256, ["HS256"], {"HS256": 1}, True]
)
def test_any_other_algorithm_is_refused(value: Any) -> None:
    for header in ({"alg": value}, {}):
        with pytest.raises(InvalidToken, match="algorithm"):
            jws.check_algorithm(header, {"HS256": 1})


@pytest.mark.parametrize(
    "parameter",
    [
        {"crit": []},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"jwk": {}},
        {"jku": "https://evil.example"},
        {"x5u": "https://evil.example"},
        {"x5c": ["MII"]},
        {"jwk": None},
    ],
)
def test_a_header_that_brings_a_key_or_changes_the_reading_is_refused(parameter: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken, match="refused"):
        jws.check_parameters({"alg": "HS256", **parameter})


def test_a_key_id_is_a_text_and_other_parameters_are_ignored() -> None:
    jws.check_parameters({"alg": "HS256", "kid": "../../etc/passwd", "x": 1})
    for kid in (None, 5, ["a"]):
        with pytest.raises(InvalidToken, match="kid"):
            jws.check_parameters({"kid": kid})


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", "Application/JWT", "AT+JWT"])
def test_a_type_is_compared_as_a_media_type(kind: str) -> None:
    jws.check_type({"typ": kind}, {"jwt", "at+jwt"})


def test_a_header_without_a_type_is_accepted() -> None:
    jws.check_type({}, {"jwt"})


@pytest.mark.parametrize("kind", ["logout+jwt", "secevent+jwt", "dpop+jwt", "JOSE", "", " JWT", None, 1, ["JWT"]])
def test_a_type_of_another_use_is_refused(kind: Any) -> None:
    with pytest.raises(InvalidToken, match="type"):
        jws.check_type({"typ": kind}, {"jwt", "at+jwt"})

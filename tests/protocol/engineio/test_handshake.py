"""A request that is not exactly one of those that the protocol knows is refused with the code that says why."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.protocol.engineio.handshake import TRANSPORTS, RequestError, check_request

POLLING = {"EIO": "4", "transport": "polling"}
WEBSOCKET = {"EIO": "4", "transport": "websocket"}
SID = {"sid": "lv_VI97HAXpY6yYWAAAC"}


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (RequestError.UNKNOWN_TRANSPORT, 400, b'{"code":0,"message":"Transport unknown"}'),
        (RequestError.UNKNOWN_SID, 400, b'{"code":1,"message":"Session ID unknown"}'),
        (RequestError.BAD_METHOD, 400, b'{"code":2,"message":"Bad handshake method"}'),
        (RequestError.BAD_REQUEST, 400, b'{"code":3,"message":"Bad request"}'),
        (RequestError.FORBIDDEN, 403, b'{"code":4,"message":"Forbidden"}'),
        (RequestError.UNSUPPORTED_VERSION, 400, b'{"code":5,"message":"Unsupported protocol version"}'),
    ],
)
def test_an_error_has_the_status_and_the_body_of_the_reference_server(
    error: RequestError, status: int, body: bytes
) -> None:
    assert error.status == status
    assert error.body == body


def test_no_two_errors_have_the_same_code() -> None:
    assert sorted(json.loads(error.body)["code"] for error in RequestError) == list(range(len(RequestError)))


def test_the_transports_are_polling_and_websocket() -> None:
    assert TRANSPORTS == ("polling", "websocket")


@pytest.mark.parametrize(
    ("method", "query", "websocket"),
    [
        pytest.param("GET", POLLING, False, id="a handshake by polling"),
        pytest.param("GET", POLLING | {"t": "N8hyd6w"}, False, id="a handshake with a parameter against caches"),
        pytest.param("GET", POLLING | SID, False, id="a poll"),
        pytest.param("POST", POLLING | SID, False, id="a POST"),
        pytest.param("GET", WEBSOCKET, True, id="a handshake by WebSocket"),
        pytest.param("GET", WEBSOCKET | SID, True, id="an upgrade"),
    ],
)
def test_a_request_of_the_protocol_is_taken(method: str, query: dict[str, str], websocket: bool) -> None:
    assert check_request(method, query, websocket=websocket) is None


@pytest.mark.parametrize("transport", ["", "abc", "Polling", "polling ", "webtransport", "polling,websocket"])
def test_a_transport_that_there_is_not_is_refused(transport: str) -> None:
    for websocket in (False, True):
        query = {"EIO": "4", "transport": transport}
        assert check_request("GET", query, websocket=websocket) is RequestError.UNKNOWN_TRANSPORT


def test_a_request_without_a_transport_is_refused() -> None:
    assert check_request("GET", {"EIO": "4"}, websocket=False) is RequestError.UNKNOWN_TRANSPORT


@pytest.mark.parametrize("revision", ["", "2", "3", "5", "04", "4.0", " 4", "abc", "٤"])
def test_another_revision_is_refused(revision: str) -> None:
    for query, websocket in ((POLLING, False), (WEBSOCKET, True), (POLLING | SID, False)):
        found = check_request("GET", query | {"EIO": revision}, websocket=websocket)
        assert found is RequestError.UNSUPPORTED_VERSION


def test_a_request_without_a_revision_is_refused() -> None:
    assert check_request("GET", {"transport": "polling"}, websocket=False) is RequestError.UNSUPPORTED_VERSION


def test_the_names_of_the_parameters_are_taken_as_they_are() -> None:
    assert check_request("GET", {"eio": "4", "transport": "polling"}, websocket=False) is not None
    assert check_request("GET", {"EIO": "4", "Transport": "polling"}, websocket=False) is not None


def test_a_transport_that_the_request_does_not_use_is_refused() -> None:
    assert check_request("GET", WEBSOCKET, websocket=False) is RequestError.BAD_REQUEST
    assert check_request("GET", POLLING, websocket=True) is RequestError.BAD_REQUEST
    assert check_request("POST", WEBSOCKET | SID, websocket=False) is RequestError.BAD_REQUEST


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "get", "post", ""])
def test_a_method_other_than_get_and_post_is_refused_with_and_without_a_session(method: str) -> None:
    for query in (POLLING, POLLING | SID):
        assert check_request(method, query, websocket=False) is RequestError.BAD_METHOD


def test_a_post_without_a_session_is_refused() -> None:
    assert check_request("POST", POLLING, websocket=False) is RequestError.BAD_METHOD


def test_of_several_errors_the_one_that_the_client_can_act_on_first_is_named() -> None:
    assert check_request("PUT", {}, websocket=False) is RequestError.UNKNOWN_TRANSPORT
    assert check_request("PUT", {"transport": "polling"}, websocket=True) is RequestError.UNSUPPORTED_VERSION
    assert check_request("PUT", POLLING, websocket=True) is RequestError.BAD_REQUEST


@given(
    method=st.sampled_from(["GET", "POST", "PUT", ""]) | st.text(max_size=8),
    query=st.dictionaries(
        st.sampled_from(["EIO", "transport", "sid", "t"]),
        st.sampled_from(["4", "3", "", "polling", "websocket"]) | st.text(max_size=8),
    ),
    websocket=st.booleans(),
)
def test_nothing_is_taken_but_the_requests_of_the_protocol(method: str, query: dict[str, str], websocket: bool) -> None:
    if check_request(method, query, websocket=websocket) is None:
        assert query["EIO"] == "4"
        assert query["transport"] == ("websocket" if websocket else "polling")
        assert method == "GET" or (method == "POST" and "sid" in query)

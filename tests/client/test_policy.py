"""What a client does next: every row of the table, and that none of it loops."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.client.policy import (
    Ask,
    Backoff,
    Life,
    Reason,
    Refusal,
    Retry,
    Standing,
    Stop,
    Try,
    member,
    most_urgent,
    read_error,
    read_refusal,
    refresh_again,
)

BACKOFF = Backoff(first=1.0, most=8.0)
NEW = Standing(BACKOFF)
INSIDE = NEW.let_in(["/"]).refreshed("old")
LONG = 60.0
CHANCE = 1.0  # The longest of every delay.


def no(retry: Retry) -> Refusal:
    return Refusal("no", retry, {"retry": retry})


def life(lived: float = LONG, refusal: Refusal | None = None, *, sent_out: bool = False) -> Life:
    """Return a connection that began at 0 and ended; `ended` is to be told the time `lived`."""
    result = Life()
    result.since, result.sent_out = 0.0, sent_out
    if refusal is not None:
        result.refusals["/"] = refusal
    return result


def ended(standing: Standing, refusal: Refusal | None = None, lived: float = LONG, **how: Any) -> tuple[Standing, Any]:
    return standing.ended(life(lived, refusal, **how), lived, CHANCE)


# What the server said.


@pytest.mark.parametrize("retry", ["refresh", "login", "later", "never"])
def test_a_refusal_is_read_wherever_it_stands(retry: Retry) -> None:
    data = {"message": "m", "code": "c", "type": "UnauthorizedError", "retry": retry}
    expected = Refusal("m", retry, data)
    assert read_refusal({"message": "m", "data": data}) == expected
    assert read_refusal({"message": "m", "inner": {"message": "m"}, "data": data}) == expected
    assert read_refusal(data) == expected  # the body of an HTTP 401
    assert read_error(data) == expected
    assert expected.code == "c"


@pytest.mark.parametrize(
    "payload", [None, "refused", 7, [], {}, {"message": 1}, {"code": 1, "message": "Session ID unknown"}]
)
def test_what_is_no_refusal_is_the_network(payload: object) -> None:
    assert read_refusal(payload) is None


@pytest.mark.parametrize(
    "payload",
    [
        {"message": "Invalid namespace"},
        {"message": "closed", "data": {"code": "closed"}},
        {"message": "m", "data": {"retry": "soon"}},
        {"message": "m", "data": {"retry": ["refresh"]}},
        {"message": "m", "data": "text"},
    ],
)
def test_a_refusal_that_does_not_say_what_to_do_is_for_good(payload: dict[str, Any]) -> None:
    refusal = read_refusal(payload)
    assert refusal is not None
    assert refusal.retry == "never"


@pytest.mark.parametrize("data", [None, "text", {}, {"message": 3}])
def test_an_error_in_an_acknowledgement_is_always_a_refusal(data: object) -> None:
    assert read_error(data) == Refusal("refused", "never", data)
    assert read_error(data).code is None


def test_of_several_refusals_the_one_that_promises_most_is_followed() -> None:
    refusals = {"/a": no("never"), "/b": no("later"), "/c": no("login")}
    assert most_urgent(refusals) == no("login")
    assert most_urgent(refusals | {"/d": no("refresh")}) == no("refresh")
    assert most_urgent({}) is None


def test_members_of_an_event_that_are_not_there_are_none() -> None:
    assert member(({"a": 1},), "a") == 1
    assert member(({"a": 1},), "b") is None
    assert member((), "a") is None
    assert member(("text",), "a") is None


# How long.


def test_the_back_off_doubles_up_to_its_most_and_is_never_less_than_half() -> None:
    assert [BACKOFF.delay(failures, 1.0) for failures in range(6)] == [1, 2, 4, 8, 8, 8]
    assert [BACKOFF.delay(failures, 0.0) for failures in range(6)] == [0.5, 1, 2, 4, 4, 4]
    assert BACKOFF.delay(10_000, 1.0) == 8


# The table.


def test_a_token_that_was_given_is_tried() -> None:
    standing, action = NEW.answered("connect", "token", CHANCE)
    assert (standing.token, action) == ("token", Try())


def test_no_token_is_tried_too_at_a_connect_for_the_server_may_welcome_guests() -> None:
    assert NEW.answered("connect", None, CHANCE) == (NEW, Try())
    assert INSIDE.answered("reconnect", None, CHANCE)[1] == Try()


def test_refresh_asks_at_once_and_once() -> None:
    standing, action = NEW.refused({"/": no("refresh")}, CHANCE)
    assert action == Ask("expired", 0)
    standing, action = standing.answered("expired", "second", CHANCE)
    assert action == Try()
    standing, action = standing.refused({"/": no("refresh")}, CHANCE)
    assert action == Ask("expired", 1)
    standing, action = standing.answered("expired", "third", CHANCE)
    standing, action = standing.refused({"/": no("refresh")}, CHANCE)
    assert action == Ask("expired", 2)


def test_the_token_that_has_just_been_refused_as_expired_is_not_shown_again() -> None:
    standing, _ = NEW.refreshed("old").refused({"/": no("refresh")}, CHANCE)
    standing, action = standing.answered("expired", "old", CHANCE)
    assert action == Ask("expired", 1)


def test_without_a_new_token_for_an_expired_one_the_person_is_asked() -> None:
    standing, _ = INSIDE.refused({"/": no("refresh")}, CHANCE)
    standing, action = standing.answered("expired", None, CHANCE)
    assert action == Ask("login", 0)
    standing, action = standing.answered("login", None, CHANCE)
    assert action == Stop()
    assert standing.refusal is not None
    assert standing.refusal.retry == "login"


@pytest.mark.parametrize("answer", [None, "old"])
def test_login_without_a_new_token_stops(answer: str | None) -> None:
    standing, action = INSIDE.refused({"/": no("login")}, CHANCE)
    assert action == Ask("login", 0)
    standing, action = standing.answered("login", answer, CHANCE)
    assert (action, standing.refusal) == (Stop(), no("login"))


def test_login_asks_the_person_once() -> None:
    standing, _ = INSIDE.refused({"/": no("login")}, CHANCE)
    standing, action = standing.answered("login", "new", CHANCE)
    assert action == Try()
    standing, action = standing.refused({"/": no("login")}, CHANCE)
    assert (action, standing.refusal) == (Stop(), no("login"))


def test_login_whose_source_fails_stops() -> None:
    standing, _ = INSIDE.refused({"/": no("login")}, CHANCE)
    standing, action = standing.failed("login", CHANCE)
    assert (action, standing.refusal) == (Stop(), no("login"))


def test_later_backs_off() -> None:
    standing, action = NEW.refused({"/": no("later")}, CHANCE)
    assert action == Ask("connect", 1)
    standing, action = standing.refused({"/": no("later")}, CHANCE)
    assert action == Ask("connect", 2)
    assert INSIDE.refused({"/": no("later")}, CHANCE)[1] == Ask("reconnect", 1)


def test_never_stops() -> None:
    standing, action = INSIDE.refused({"/": no("never")}, CHANCE)
    assert (action, standing.refusal) == (Stop(), no("never"))


def test_a_namespace_that_is_lost_for_good_does_not_take_the_others_along() -> None:
    standing = NEW.let_in(["/", "/admin"])
    standing, action = standing.refused({"/admin": no("never")}, CHANCE)
    assert (standing.namespaces, action) == (("/",), Ask("reconnect", 0))
    standing, action = standing.refused({"/": no("never")}, CHANCE)
    assert action == Stop()


def test_at_the_first_connect_one_namespace_that_is_refused_for_good_is_enough_to_stop() -> None:
    assert NEW.refused({"/admin": no("never")}, CHANCE)[1] == Stop()


def test_the_network_is_tried_again_with_back_off() -> None:
    standing, action = NEW.refused({}, CHANCE)
    assert action == Ask("connect", 1)
    assert standing.refused({}, CHANCE)[1] == Ask("connect", 2)
    assert INSIDE.refused({}, CHANCE)[1] == Ask("reconnect", 1)


def test_a_source_that_fails_is_asked_again_for_the_same_reason() -> None:
    standing, action = INSIDE.failed("expired", CHANCE)
    assert action == Ask("expired", 1)
    assert standing.failed("expired", CHANCE)[1] == Ask("expired", 2)


def test_so_many_attempts_are_enough_if_there_is_a_limit() -> None:
    standing = Standing(Backoff(1.0, 8.0, attempts=2))
    standing, action = standing.failed("connect", CHANCE)
    standing, action = standing.failed("connect", CHANCE)
    assert action == Ask("connect", 2)
    assert standing.failed("connect", CHANCE)[1] == Stop()


# The end of a connection.


@pytest.mark.parametrize(
    ("refusal", "sent_out", "action"),
    [
        (None, False, Ask("reconnect", 1)),
        (None, True, Stop()),
        (no("refresh"), True, Ask("expired", 0)),
        (no("refresh"), False, Ask("expired", 0)),
        (no("login"), True, Ask("login", 0)),
        (no("later"), True, Ask("reconnect", 1)),
        (no("never"), True, Stop()),
    ],
)
def test_the_end_is_followed_by_what_the_server_said(refusal: Refusal | None, sent_out: bool, action: object) -> None:
    assert ended(INSIDE, refusal, sent_out=sent_out)[1] == action


def test_who_has_stayed_for_a_while_begins_anew() -> None:
    tired = INSIDE.failed("reconnect", CHANCE)[0].refused({"/": no("refresh")}, CHANCE)[0]
    assert ended(tired, no("refresh"), lived=1.0)[1] == Ask("expired", 0)
    assert ended(tired, None, lived=1.0)[1] == Ask("reconnect", 1)


def test_who_was_put_out_at_once_does_not_begin_anew() -> None:
    tired = INSIDE.refused({"/": no("refresh")}, CHANCE)[0]
    assert ended(tired, no("refresh"), lived=0.5)[1] == Ask("expired", 1)
    asked = INSIDE.refused({"/": no("login")}, CHANCE)[0]
    assert ended(asked, no("login"), lived=0.5)[1] == Stop()


def test_namespaces_that_the_server_sent_the_client_out_of_are_not_come_back_to() -> None:
    connection = life()
    connection.left.add("/admin")
    standing, action = NEW.let_in(["/", "/admin"]).ended(connection, LONG, CHANCE)
    assert (standing.namespaces, action) == (("/",), Ask("reconnect", 1))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["refused", "network", "in and out"]),
            st.sampled_from(["refresh", "login", "later", "never"]),
            st.sampled_from([None, "old", "new", "newer"]),
            st.booleans(),
            st.floats(0, 1),
        ),
        max_size=60,
    )
)
def test_whatever_the_server_and_the_source_say_no_more_than_three_attempts_in_a_row_are_made_at_once(
    story: list[tuple[str, Retry, str | None, bool, float]],
) -> None:
    standing: Standing = INSIDE
    action: Any = Ask("reconnect", 1)
    at_once = 0
    for what, retry, token, fails, chance in story:
        if isinstance(action, Stop):
            break
        if isinstance(action, Ask):
            at_once = at_once + 1 if action.delay == 0 else 0
            assert at_once <= 3
            assert 0 <= action.delay <= BACKOFF.most
            standing, action = (
                standing.failed(action.reason, chance) if fails else standing.answered(action.reason, token, chance)
            )
        elif what == "refused":
            standing, action = standing.refused({"/": no(retry)}, chance)
        elif what == "network":
            standing, action = standing.refused({}, chance)
        else:
            standing, action = standing.ended(life(0.1, no(retry)), 0.1, chance)


# The refresh of a live connection.


@pytest.mark.parametrize(
    ("refusal", "delays"),
    [
        (None, [1, 2, 4]),
        (no("refresh"), [0, 2, 4]),
        (no("later"), [1, 2, 4]),
        (no("login"), [None, None, None]),
        (no("never"), [None, None, None]),
    ],
)
def test_a_refresh_is_tried_again_while_that_may_help(refusal: Refusal | None, delays: list[float | None]) -> None:
    assert [refresh_again(refusal, failures, BACKOFF, CHANCE) for failures in range(3)] == delays


def test_namespaces_share_one_refresh() -> None:
    connection = life()
    assert connection.notice(1000)
    assert not connection.notice(1000)
    connection.refreshing = False
    assert not connection.notice(1000), "it says what was known"
    assert connection.notice(2000)


def test_a_notice_without_a_time_is_followed_all_the_same() -> None:
    connection = life()
    assert connection.notice(None)
    connection.refreshing = False
    assert connection.notice("soon")


def test_a_connection_that_is_over_is_not_refreshed() -> None:
    connection = life()
    connection.over = True
    assert not connection.notice(1000)


UNAUTHORIZED = {
    "message": "jwt expired",
    "data": {"message": "jwt expired", "code": "invalid_token", "retry": "refresh"},
}


@pytest.mark.parametrize("order", ["event first", "acknowledgement first"])
def test_the_refusal_of_a_refresh_is_not_the_end(order: str) -> None:
    connection = life()
    if order == "event first":
        connection.told("unauthorized", "/", UNAUTHORIZED)
        connection.forgive()
    else:
        connection.forgive()
        connection.told("unauthorized", "/", UNAUTHORIZED)
    assert connection.refusals == {}
    connection.told("unauthorized", "/", UNAUTHORIZED)
    assert [refusal.retry for refusal in connection.refusals.values()] == ["refresh"]


def test_what_is_no_refusal_is_not_kept() -> None:
    connection = Life()
    connection.told("connect_error", "/", "Connection error")
    assert connection.refusals == {}


@pytest.mark.parametrize("reason", ["connect", "login"])
def test_no_token_is_in_a_repr(reason: Reason) -> None:
    assert "secret" not in repr(NEW.answered(reason, "a.secret.token", CHANCE)[0])

"""When a key set is read again is a matter of sums: no clock runs here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iogate.keys.schedule import LAST_RETRY, SHOWN, Schedule


def schedule(chance: float = 0.0, **settings: float) -> Schedule:
    return Schedule(**{"every": 100, "keep_for": 1000, "cooldown": 30, "now": 50} | settings, chance=lambda: chance)


def test_the_first_reading_is_due_at_once() -> None:
    plan = schedule()
    assert plan.due == 50
    assert not plan.usable(50)
    assert not plan.failing


def test_a_good_reading_is_repeated_ahead_of_its_age() -> None:
    plan = schedule()
    plan.succeeded(60)
    assert plan.due == 60 + 80


def test_servers_that_started_together_do_not_ask_together() -> None:
    plan = schedule(chance=1.0)
    plan.succeeded(60)
    assert plan.due == 60 + 72


@pytest.mark.parametrize(("fresh_for", "life"), [(70, 70), (0, 50), (10**9, 100), (None, 100)])
def test_what_the_answer_says_of_its_freshness_counts_within_bounds(fresh_for: float | None, life: float) -> None:
    plan = schedule()
    plan.succeeded(0, fresh_for)
    assert plan.due == life * 0.8


def test_a_failure_is_repeated_after_one_second_then_two_then_four() -> None:
    plan = schedule()
    waits = []
    for _ in range(9):
        plan.failed(0)
        waits.append(plan.due)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert plan.failing


def test_a_failure_is_not_waited_on_for_longer_than_the_usual_interval() -> None:
    plan = schedule(every=5)
    for _ in range(20):
        plan.failed(0)
    assert plan.due == 5


def test_after_a_success_failures_count_from_one_again() -> None:
    plan = schedule()
    for _ in range(5):
        plan.failed(0)
    plan.succeeded(10)
    assert not plan.failing
    plan.failed(20)
    assert plan.due == 21


def test_keys_serve_for_the_stated_time_after_the_last_good_reading() -> None:
    plan = schedule()
    plan.succeeded(100)
    plan.failed(200)
    assert plan.usable(1100)
    assert not plan.usable(1100.001)


def test_unknown_keys_cause_one_reading_a_cooldown() -> None:
    plan = schedule()
    plan.succeeded(0)
    assert [now for now in range(100) if plan.look(now)] == [0, 30, 60, 90]


def test_a_regular_reading_does_not_use_up_the_look() -> None:
    plan = schedule()
    plan.succeeded(10)
    assert plan.look(10)


def test_a_reading_counts_for_a_token_if_it_began_after_the_token_was_shown() -> None:
    plan = schedule()
    plan.begun()
    shown = plan.first_shown(b"a")
    plan.succeeded(0)
    assert not plan.read_since(shown)  # It had begun before.
    plan.begun()
    plan.failed(1)
    assert not plan.read_since(shown)  # It has not told anything.
    late = plan.first_shown(b"late")
    plan.begun()
    assert not plan.read_since(shown)
    plan.succeeded(2)
    assert plan.read_since(late)
    assert plan.read_since(shown)
    assert plan.read_since(plan.first_shown(b"a"))
    assert not plan.read_since(plan.first_shown(b"b"))


def test_so_many_tokens_are_remembered_and_the_oldest_is_forgotten() -> None:
    """A flood of them takes no more memory; what is forgotten is told to come later once more."""
    plan = schedule()
    plan.first_shown(b"first")
    plan.begun()
    plan.succeeded(0)
    for number in range(SHOWN - 1):
        plan.first_shown(b"%d" % number)
    assert plan.read_since(plan.first_shown(b"first"))
    plan.first_shown(b"one more")
    assert len(plan._first_shown) == SHOWN
    assert not plan.read_since(plan.first_shown(b"first"))


@given(st.lists(st.tuples(st.sampled_from(["succeeded", "failed"]), st.floats(0, 1000)), max_size=50), st.floats(0, 1))
def test_whatever_happens_there_is_a_next_reading_and_it_is_not_far(events: list[tuple[str, float]], by: float) -> None:
    plan, now = schedule(chance=by), 0.0
    for event, wait in events:
        now += wait
        getattr(plan, event)(now)
        assert now < plan.due <= now + max(100, LAST_RETRY)

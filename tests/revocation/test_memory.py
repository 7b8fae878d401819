"""Revocations in memory: they are found as if each were looked at, and do not pile up."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iogate import MemoryRevocations, Principal, Revocation
from iogate.revocation import memory
from tests.revocation.identities import NOW, principal, revocation
from tests.revocation.test_records import principals, revocations


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.one_of(revocations.map(lambda fields: Revocation(**fields)), principals)),
        max_size=40,
    )
)
def test_it_answers_as_a_plain_list_would(steps: list[tuple[int, Revocation | Principal]]) -> None:
    """Whatever is added and asked, in any order, while time passes and revocations end."""
    store, plain = MemoryRevocations(), list[Revocation]()
    now = NOW - 15
    for seconds, step in steps:
        now += seconds
        if isinstance(step, Revocation):
            store.add(step, now)
            plain.append(step)
        else:
            expected = any(other.until > now and other.matches(step) for other in plain)
            assert store.revoked(step, now) == expected
            found = store.find(step, now)
            assert found is None if not expected else found is not None and found.matches(step) and found.until > now
        assert len(store) <= len(plain)


def test_a_revocation_ends_when_it_says() -> None:
    """At `until` it is over, whether or not it has been forgotten."""
    store = MemoryRevocations()
    store.add(revocation(token_id="t1", until=NOW + 10), NOW)
    assert store.revoked(principal(), NOW + 9.999)
    assert not store.revoked(principal(), NOW + 10)


def test_the_same_person_revoked_again_and_again_is_remembered_once() -> None:
    """The last one covers those before; so does one that means every token of that person."""
    store = MemoryRevocations()
    for second in range(1000):
        store.add(revocation(subject="ann", issued_before=NOW + second, until=NOW + 3600 + second), NOW + second)
    assert len(store) == 1
    assert store.revoked(principal(issued_at=NOW + 999), NOW)
    store.add(revocation(subject="ann", issued_before=NOW), NOW)
    assert len(store) == 1
    for _ in range(3):
        store.add(revocation(token_id="t1"), NOW)
    assert len(store) == 2


def test_what_has_ended_is_forgotten_as_others_come() -> None:
    """As many lists as are filled are cleared out, and many at once, so that memory follows what still holds."""
    store = MemoryRevocations()
    for number in range(5000):
        store.add(revocation(token_id=f"t{number}", until=NOW + 1 + number / 1000), NOW)
    assert len(store) == 5000
    for second in range(10, 20):
        store.add(revocation(session_id=f"s{second}"), NOW + second)
    assert len(store) == 10


def test_clearing_out_takes_a_bounded_time(monkeypatch: Any) -> None:
    """When a great many end together, the loop is not held up: each call clears out some."""
    monkeypatch.setattr(memory, "FORGOTTEN_AT_ONCE", 10)
    store = MemoryRevocations()
    for number in range(100):
        store.add(revocation(token_id=f"t{number}", until=NOW + 1), NOW)
    sizes = []
    for number in range(12):
        store.add(revocation(session_id=f"s{number}"), NOW + 2)
        sizes.append(len(store))
    assert sizes[:3] == [91, 82, 73]
    assert sizes[-1] == 12


def test_what_still_holds_outlives_what_ended_beside_it() -> None:
    """Two of one person that end at different times are forgotten one by one."""
    store = MemoryRevocations()
    store.add(revocation(subject="ann", key_id="k1", until=NOW + 1), NOW)
    store.add(revocation(subject="ann", key_id="k2", until=NOW + 5), NOW)
    store.add(revocation(subject="ann", key_id="k3", until=NOW + 3), NOW)
    store.add(revocation(token_id="other"), NOW + 1)
    assert len(store) == 3
    assert store.revoked(principal(key_id="k2"), NOW + 1)
    store.add(revocation(token_id="other"), NOW + 3)
    assert len(store) == 2
    assert store.revoked(principal(key_id="k2"), NOW + 3)
    store.add(revocation(token_id="other"), NOW + 5)
    assert len(store) == 1


def test_what_ends_does_not_pile_up_beside_what_is_for_ever() -> None:
    """What is for ever is remembered, and what ended beside it makes room."""
    store = MemoryRevocations()
    store.add(revocation(session_id="s1", key_id="k1", until=float("inf")), NOW)
    for number in range(100):
        store.add(revocation(session_id="s1", issuer=f"i{number}", until=NOW + number + 1), NOW + number)
    assert len(store) == 2
    who = principal(session_id="s1", key_id="k1", issuer=None)
    assert store.revoked(who, NOW + 10**10)
    for number in range(memory.FORGOTTEN_AT_ONCE):
        store.add(revocation(token_id=f"t{number}"), NOW + 10**10)
    assert store.revoked(who, NOW + 10**10)


async def test_there_is_nothing_to_open_save_or_close() -> None:
    """It is the interface of the others all the same, and keeps what it has."""
    store = MemoryRevocations()
    store.open()
    assert not store.revoked(principal(), NOW)
    store.add(revocation(token_id="t1"), NOW)
    await store.save(revocation(token_id="t1"))
    store.close()
    assert store.revoked(principal(), NOW)
    assert not store.revoked(principal(token_id=None, session_id=None, key_id=None), NOW)


def test_who_looks_while_another_thread_adds_skips_none() -> None:
    """The first one in the list goes, the second is what the token is revoked by, and the look is at the first."""
    store = MemoryRevocations()
    store.add(revocation(subject="alice", issued_before=NOW - 100), NOW)
    store.add(revocation(subject="alice", issuer="me"), NOW)

    class Looked:
        token_id = session_id = key_id = None
        subject, issuer = "alice", "me"

        @property
        def issued_at(self) -> float:
            store.add(revocation(subject="alice", issued_before=NOW - 50), NOW)
            return NOW

    asked: Any = Looked()
    assert store.revoked(asked, NOW)

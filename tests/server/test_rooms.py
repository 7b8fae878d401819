"""Rooms: who is in which, from both sides, and nothing behind who has gone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from iogate import Server, Socket
from iogate.server.gate.connection import Connection
from iogate.server.namespaces.rooms import Rooms
from iogate.server.session.handshake import Handshake

NAMES = ["news", "sport", "user:ann", "id-0", "id-1"]  # A room may have the name of somebody's id.


def make_socket(number: int) -> Socket:
    """Return a socket that nobody has let in yet: rooms ask for its id and for nothing else."""
    io = Server(auth=None)
    connection = Connection(io._core.gate, "sid", Handshake())
    return Socket(f"id-{number}", io.of("/"), connection, Handshake(), None)


@pytest.fixture
async def rooms() -> Rooms:
    return Rooms()


async def test_a_socket_is_in_the_room_of_its_own_id_from_the_start(rooms: Rooms) -> None:
    ann, bob = make_socket(1), make_socket(2)
    rooms.add(ann)
    rooms.add(bob)
    assert rooms.rooms_of(ann) == {"id-1"}
    assert rooms.select(("id-1",)) == [ann]
    assert rooms.select() == [ann, bob]


async def test_the_own_room_cannot_be_left_and_joining_it_changes_nothing(rooms: Rooms) -> None:
    ann = make_socket(1)
    rooms.add(ann)
    rooms.join(ann, ["id-1"])
    rooms.leave(ann, ["id-1"])
    assert rooms.rooms_of(ann) == {"id-1"}
    assert rooms.select(("id-1",)) == [ann]
    assert len(rooms) == 0


async def test_who_has_not_been_added_is_in_no_room(rooms: Rooms) -> None:
    ann = make_socket(1)
    rooms.leave(ann, ["news"])
    rooms.remove(ann)
    assert rooms.rooms_of(ann) == frozenset()
    assert rooms.select(("id-1", "news")) == []


async def test_no_room_chooses_nobody_and_no_choice_everybody(rooms: Rooms) -> None:
    ann = make_socket(1)
    rooms.add(ann)
    assert rooms.select(()) == rooms.select((), ()) == []
    assert rooms.select(None) == rooms.select(None, ()) == [ann]


async def test_a_socket_in_several_of_the_rooms_is_chosen_once(rooms: Rooms) -> None:
    ann = make_socket(1)
    rooms.add(ann)
    rooms.join(ann, ["news", "sport"])
    assert rooms.select(("news", "sport", "id-1", "news")) == [ann]


async def test_the_excluded_are_left_out_by_room_and_by_id(rooms: Rooms) -> None:
    ann, bob, eve = everybody = [make_socket(number) for number in range(3)]
    for socket in everybody:
        rooms.add(socket)
        rooms.join(socket, ["news"])
    rooms.join(bob, ["muted"])
    assert rooms.select(None, ("muted",)) == [ann, eve]
    assert set(rooms.select(("news",), ("muted", ann.id))) == {eve}
    assert rooms.select((ann.id,), (ann.id,)) == []
    assert rooms.select(None, ("nobody is here",)) == everybody


async def test_the_order_of_a_choice_of_everybody_is_the_order_of_arrival(rooms: Rooms) -> None:
    everybody = [make_socket(number) for number in range(100)]
    for socket in everybody:
        rooms.add(socket)
    assert rooms.select() == everybody


async def test_a_choice_is_not_changed_by_who_goes_meanwhile(rooms: Rooms) -> None:
    everybody = [make_socket(number) for number in range(3)]
    for socket in everybody:
        rooms.add(socket)
        rooms.join(socket, ["news"])
    for chosen in (rooms.select(), rooms.select(("news",)), rooms.select(("news", "sport"))):
        assert len(chosen) == 3
        for socket in chosen:
            rooms.remove(socket)
        for socket in everybody:
            rooms.add(socket)
            rooms.join(socket, ["news"])


async def test_nothing_is_left_when_everybody_has_gone(rooms: Rooms) -> None:
    everybody = [make_socket(number) for number in range(50)]
    for socket in everybody:
        rooms.add(socket)
        rooms.join(socket, [f"room-{int(socket.id[3:]) % 7}", "news"])
    assert len(rooms) == 8
    for socket in everybody:
        rooms.remove(socket)
    assert (rooms.sockets, rooms._members, rooms._rooms, rooms.loop) == ({}, {}, {}, None)


async def test_a_room_goes_with_the_last_who_leaves_it(rooms: Rooms) -> None:
    ann, bob = make_socket(1), make_socket(2)
    for socket in (ann, bob):
        rooms.add(socket)
        rooms.join(socket, ["news"])
    rooms.leave(ann, ["news", "never joined"])
    assert len(rooms) == 1
    rooms.leave(bob, ["news"])
    assert len(rooms) == 0


class Model(RuleBasedStateMachine):
    """Rooms against the plainest thing that could be right: a set of names for each socket."""

    present = Bundle("present")

    def __init__(self) -> None:
        super().__init__()
        self.rooms = Rooms()
        self.model: dict[Socket, set[str]] = {}
        self.numbers: Iterator[int] = iter(range(1_000_000))

    names = strategies.lists(strategies.sampled_from(NAMES), max_size=3)

    @rule(target=present)
    def add(self) -> Socket:
        socket = make_socket(next(self.numbers))
        # `add` notes the running loop, which a state machine has not.
        self.rooms.sockets[socket.id] = socket
        self.model[socket] = {socket.id}
        return socket

    @rule(socket=present, names=names)
    def join(self, socket: Socket, names: list[str]) -> None:
        self.rooms.join(socket, names)
        self.model[socket].update(names)

    @rule(socket=present, names=names)
    def leave(self, socket: Socket, names: list[str]) -> None:
        self.rooms.leave(socket, names)
        self.model[socket] -= set(names) - {socket.id}

    @rule(socket=consumes(present))
    def remove(self, socket: Socket) -> None:
        self.rooms.remove(socket)
        del self.model[socket]
        assert self.rooms.rooms_of(socket) == frozenset()

    @rule(chosen=strategies.none() | names, excluded=names)
    def select(self, chosen: list[str] | None, excluded: list[str]) -> None:
        found = self.rooms.select(None if chosen is None else tuple(chosen), tuple(excluded))
        assert len(found) == len(set(found))
        assert set(found) == {
            socket
            for socket, names in self.model.items()
            if (chosen is None or names & set(chosen)) and not names & set(excluded)
        }

    @invariant()
    def everybody_is_where_the_model_says(self) -> None:
        for socket, names in self.model.items():
            assert self.rooms.rooms_of(socket) == names

    @invariant()
    def no_room_is_empty(self) -> None:
        assert len(self.rooms) == len(
            {name for socket, names in self.model.items() for name in names if name != socket.id}
        )

    def teardown(self) -> None:
        for socket in list(self.model):
            self.remove(socket)
        assert (self.rooms.sockets, self.rooms._members, self.rooms._rooms) == ({}, {}, {})


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestModel = Model.TestCase

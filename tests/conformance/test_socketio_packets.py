"""Socket.IO v5: namespaces, events and acknowledgements packet by packet, and what is no packet at all."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from iogate import Server, Socket
from tests.conformance.wire import echoes, ends, enter, session, within
from tests.servers import make_token

ATTACHED = '["echo",{"_placeholder":true,"num":0}]'


async def test_connect_is_answered_with_the_id_of_the_socket(io: Server, url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await opened.send("40" + json.dumps({"token": make_token()}))
        answer = await within(opened.receive())
        assert isinstance(answer, str)
        payload = json.loads(answer.removeprefix("40"))
        [socket] = await io.fetch_sockets()
        assert payload == {"sid": socket.id}
        # The id of the session is a secret of the client's, the id of the socket is told to others.
        assert socket.id != opened.handshake["sid"]


async def test_connect_to_a_namespace_is_answered_in_it(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await opened.send("40/other," + json.dumps({"token": make_token()}))
        answer = await within(opened.receive())
        assert isinstance(answer, str)
        assert re.fullmatch(r'40/other,\{"sid":"[\w-]{20,}"\}', answer)


async def test_an_unknown_namespace_is_refused_and_the_connection_lives_on(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await enter(opened)
        await opened.send("40/nope,")
        assert await within(opened.receive()) == '44/nope,{"message":"Invalid namespace"}'
        await echoes(opened)


async def test_an_unknown_namespace_alone_ends_the_connection(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await opened.send("40/nope," + json.dumps({"token": make_token()}))
        assert await within(opened.receive()) == '44/nope,{"message":"Invalid namespace"}'
        await ends(opened)


async def test_names_of_namespaces_are_exact(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await enter(opened)
        for name in ("/Other", "/other/", "/othe", "/other?token=x", "//other", "/%6Fther"):
            await opened.send(f"40{name},")
            assert await within(opened.receive()) == f'44{name},{{"message":"Invalid namespace"}}'


async def test_an_acknowledgement_carries_the_id_that_was_asked_for(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await enter(opened)
        await opened.send('42456["echo",1,"two"]')
        assert await within(opened.receive()) == '42["echo",1,"two"]'
        assert await within(opened.receive()) == '43456[1,"two"]'


async def test_a_binary_acknowledgement_is_announced_as_one(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await enter(opened)
        await opened.send("451-7" + ATTACHED, b"\x01\x02")
        assert await within(opened.receive()) == "451-" + ATTACHED
        assert await within(opened.receive()) == b"\x01\x02"
        assert await within(opened.receive()) == '461-7[{"_placeholder":true,"num":0}]'
        assert await within(opened.receive()) == b"\x01\x02"


async def test_the_server_asks_with_an_id_and_takes_the_answer(io: Server, url: str, transport: str) -> None:
    answers: asyncio.Queue[Any] = asyncio.Queue()

    @io.on("ask me")
    async def ask(socket: Socket) -> None:
        answers.put_nowait(await socket.call("question", {"n": 1}, timeout=5))

    async with session(url, transport) as opened:
        await enter(opened)
        for reply, answer in (
            ("43{}[]", None),
            ('43{}["one"]', "one"),
            ("43{}[1,2]", (1, 2)),
            ('461-{}[{{"_placeholder":true,"num":0}}]', b"\x00"),
        ):
            await opened.send('42["ask me"]')
            question = await within(opened.receive())
            assert isinstance(question, str)
            found = re.fullmatch(r'42(\d+)\["question",\{"n":1\}\]', question)
            assert found
            attachments = [b"\x00"] if reply.startswith("46") else []
            await opened.send(reply.format(found[1]), *attachments)
            assert await within(answers.get()) == answer


async def test_an_acknowledgement_that_nobody_asked_for_is_dropped(url: str, transport: str) -> None:
    async with session(url, transport) as opened:
        await enter(opened)
        await opened.send('4399["surprise"]')
        await echoes(opened)


async def test_disconnect_leaves_one_namespace_and_it_may_be_entered_again(
    io: Server, url: str, transport: str
) -> None:
    reasons: asyncio.Queue[str] = asyncio.Queue()
    io.of("/other").on("disconnect", lambda socket, reason: reasons.put_nowait(reason))
    async with session(url, transport) as opened:
        await enter(opened)
        first = await enter(opened, "/other")
        await opened.send("41/other,")
        assert await within(reasons.get()) == "client namespace disconnect"
        await echoes(opened)
        assert await enter(opened, "/other") != first


async def test_a_server_side_disconnect_is_a_packet(io: Server, url: str, transport: str) -> None:
    io.on("kick me", lambda socket: socket.disconnect())
    async with session(url, transport) as opened:
        await enter(opened)
        await enter(opened, "/other")
        await opened.send('42["kick me"]')
        assert await within(opened.receive()) == "41"


@pytest.mark.parametrize(
    "packets",
    [
        ["4"],
        ["4abc"],
        ["47"],
        ["49[]"],
        ["4-1"],
        ["42"],
        ["42{}"],
        ["42[]"],
        ["42null"],
        ["42[null]"],
        ["42[{}]"],
        ['42["unfinished'],
        ['42["echo"]trailing'],
        ['42["connect"]'],
        ['42["disconnect","io server disconnect"]'],
        ['42abc["echo"]'],
        ['42-1["echo"]'],
        ['42/other["echo"]'],
        ['42/other,["echo"]'],
        ["43[]"],
        ["431"],
        ["431{}"],
        ['44{"message":"to the server"}'],
        ["41{}"],
        ["411"],
        ["40/other,[]"],
        ['40/other,"token"'],
        ["40/other,17"],
        ["40/other,{"],
        ["40/other,1{}"],
        ["45" + ATTACHED],
        ["451" + ATTACHED],
        ["45-" + ATTACHED],
        ["45x-" + ATTACHED],
        ["45-1-" + ATTACHED],
        ["451.0-" + ATTACHED],
        [b"nobody announced this"],
        ["451-" + ATTACHED, '42["echo"]'],
        ["451-" + ATTACHED, "451-" + ATTACHED],
        ["451-" + ATTACHED, b"one", b"one too many"],
        ['451-["echo",{"_placeholder":true,"num":1}]', b"one"],
        ['451-["echo",{"_placeholder":true,"num":-1}]', b"one"],
        ['451-["echo",{"_placeholder":true,"num":"0"}]', b"one"],
        ['451-["echo",{"_placeholder":true}]', b"one"],
        ['451-[{"_placeholder":true,"num":0}]', b"the name of an event"],
    ],
    ids=repr,
)
async def test_what_is_no_packet_ends_the_connection_and_harms_nobody_else(
    url: str, transport: str, packets: list[str | bytes]
) -> None:
    async with session(url, transport) as bad, session(url, transport) as other:
        await enter(bad)
        await enter(other)
        await bad.send(*packets)
        await ends(bad)
        await echoes(other)


async def test_who_asks_for_a_namespace_again_gets_another_socket(io: Server, url: str, transport: str) -> None:
    """The official JavaScript client does that when it is told to disconnect and connect at once."""
    left: list[str] = []
    io.on("disconnect", lambda socket, reason: left.append(f"{socket.id} {reason}"))
    async with session(url, transport) as client:
        first = await enter(client)
        second = await enter(client)
        await echoes(client)
        assert left == [f"{first} client namespace disconnect"]
    assert first != second

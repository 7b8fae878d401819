"""What the server sends on a WebSocket is read by others as what it was, and is framed once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from iogate.protocol.engineio.packets import PING, Encoded
from iogate.protocol.websocket import frames

LENGTHS = [0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 65_534, 65_535, 65_536, 65_537, 200_000]
"""Around each of the three ways in which a length is written."""


def read(data: bytes) -> list[tuple[Opcode, bytes]]:
    """Read frames as another implementation does: strictly, and to the last byte."""
    stream = StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    found = []
    while not _at_end(stream):
        parsing = Frame.parse(stream.read_exact, mask=False)
        with pytest.raises(StopIteration) as parsed:
            next(parsing)
        frame = parsed.value.value
        assert frame.fin
        assert (frame.rsv1, frame.rsv2, frame.rsv3) == (False, False, False)
        found.append((frame.opcode, bytes(frame.data)))
    return found


def _at_end(stream: StreamReader) -> bool:
    with pytest.raises(StopIteration) as asked:
        next(stream.at_eof())
    return bool(asked.value.value)


@pytest.mark.parametrize("length", [length for length in LENGTHS if length])
def test_a_text_of_any_length_is_one_whole_frame(length: int) -> None:
    text = b"x" * length
    assert read(frames(Encoded(text))) == [(Opcode.TEXT, text)]


@pytest.mark.parametrize("length", LENGTHS)
def test_an_attachment_of_any_length_is_one_whole_frame_after_the_text(length: int) -> None:
    data = b"\xff" * length
    assert read(frames(Encoded(b"4text", [data, b"last"]))) == [
        (Opcode.TEXT, b"4text"),
        (Opcode.BINARY, data),
        (Opcode.BINARY, b"last"),
    ]


def test_a_packet_that_is_all_binary_has_no_text_frame() -> None:
    assert read(frames(Encoded(b"", [b"all"]))) == [(Opcode.BINARY, b"all")]


def test_an_empty_attachment_is_a_frame_too() -> None:
    """The client waits for as many as were announced."""
    assert read(frames(Encoded(b"", [b""]))) == [(Opcode.BINARY, b"")]


def test_the_bytes_are_those_of_the_rfc() -> None:
    """RFC 6455, section 5.7: an unmasked text message, and lengths in 16 and in 64 bits."""
    assert frames(Encoded(b"Hello")) == b"\x81\x05Hello"
    assert frames(Encoded(b"", [bytes(256)])) == b"\x82\x7e\x01\x00" + bytes(256)
    assert frames(Encoded(b"", [bytes(65_536)])) == b"\x82\x7f" + (65_536).to_bytes(8, "big") + bytes(65_536)


@given(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=4))
def test_any_packet_is_read_as_it_was_written(text: bytes, attachments: list[bytes]) -> None:
    expected = [(Opcode.TEXT, text)] if text else []
    expected += [(Opcode.BINARY, data) for data in attachments]
    assert read(frames(Encoded(text, attachments))) == expected


@pytest.mark.parametrize("attachments", [[], [b"a"]])
def test_every_recipient_of_a_packet_is_sent_the_same_bytes(attachments: list[bytes]) -> None:
    packet = Encoded(b"4text", attachments)
    assert packet.frames is None
    made = frames(packet)
    assert frames(packet) is made
    assert packet.frames is made
    assert frames(PING) == b"\x81\x012"

"""Frames: what is built is read back, in whatever pieces it arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.protocol import (
    AgentState,
    Answer,
    FrameReader,
    Kind,
    LoadReport,
    ProtocolError,
    Refusal,
    Request,
    build_answer,
    build_frame,
    build_refusal,
    build_request,
    parse_answer,
    parse_refusal,
    parse_request,
)

U32 = st.integers(0, 2**32 - 1)
SHORT = st.text(max_size=60)
REPORT = LoadReport(
    1, "a", "d", "r", AgentState.READY, 2, 8, 24, 1, 2, 3, 4, 5, 6, 7, 8, 1.5, 10.0, 20.0, 100, 200, 3.25
)  # fmt: skip


def read_one(frame: bytes) -> tuple[Kind, int, bytes]:
    (found,) = FrameReader().feed(frame)
    return found


@pytest.mark.slow
@given(U32, st.builds(Request, U32, SHORT, SHORT, st.binary(max_size=300)))
def test_request_comes_back(stream, request):
    """A request is the same after the wire."""
    kind, number, payload = read_one(build_request(stream, request))
    assert (kind, number, parse_request(payload)) == (Kind.REQUEST, stream, request)


@given(U32, st.builds(Answer, st.integers(0, 65535), U32, U32, U32, SHORT, st.binary(max_size=300)))
def test_answer_comes_back(stream, answer):
    """An answer is the same after the wire."""
    kind, number, payload = read_one(build_answer(stream, answer))
    assert (kind, number, parse_answer(payload)) == (Kind.ANSWER, stream, answer)


@pytest.mark.parametrize("reason", Refusal)
def test_refusal_comes_back(reason):
    """Each reason is the same after the wire."""
    kind, number, payload = read_one(build_refusal(9, reason))
    assert (kind, number, parse_refusal(payload)) == (Kind.REFUSED, 9, reason)


def test_load_report_comes_back_and_may_say_more():
    """A report survives JSON, and names that a newer agent adds are ignored."""
    raw = REPORT.to_json()
    assert LoadReport.from_json(raw) == REPORT
    assert LoadReport.from_json(raw[:-1] + b',"more":1}').agent == "a"


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"state":"asleep"}', b"\xff"])
def test_load_report_that_is_none(raw):
    """What is no report is a breach of the protocol."""
    with pytest.raises(ProtocolError):
        LoadReport.from_json(raw)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.sampled_from(Kind), U32, st.binary(max_size=50)), max_size=12),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_frames_in_any_pieces(frames, sizes):
    """However a stream is cut, the same frames come out, once and in order."""
    raw = b"".join(build_frame(*frame) for frame in frames)
    found: list[tuple[Kind, int, bytes]] = []
    reader, at, turn = FrameReader(), 0, 0
    while at < len(raw):
        size = sizes[turn % len(sizes)]
        found += reader.feed(raw[at : at + size])
        at, turn = at + size, turn + 1
    assert found == frames


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x00\x00\x00\x00\x63\x00\x00\x00\x01", id="unknown kind"),
        pytest.param(b"\x00\x00\x00\xff\x63\x00\x00\x00\x01", id="unknown kind, payload still to come"),
        pytest.param(b"\xff\xff\xff\xff\x02\x00\x00\x00\x01", id="longer than accepted"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
    ],
)
def test_reader_refuses(raw):
    """A breach is told from the frame's head, before its payload is waited for."""
    with pytest.raises(ProtocolError):
        list(FrameReader().feed(raw))


def test_frames_before_a_breach_are_served():
    """What came whole before the garbage is still yielded."""
    feed = FrameReader().feed(build_frame(Kind.CANCEL, 3) + b"\xff" * 9)
    assert next(feed) == (Kind.CANCEL, 3, b"")
    with pytest.raises(ProtocolError):
        next(feed)


@pytest.mark.parametrize("parse", [parse_request, parse_answer, parse_refusal])
@pytest.mark.parametrize("payload", [b"", b"\xff" * 5, b"\xff" * 20])
def test_payloads_that_are_none(parse, payload):
    """A payload cut short or senseless is a breach, not an IndexError."""
    with pytest.raises(ProtocolError):
        parse(payload)


def test_long_names_are_refused_by_the_builder():
    """Lengths that do not fit their byte are an error where they are made."""
    with pytest.raises(ValueError, match="255"):
        build_request(1, Request(0, "/" * 256, "", b""))

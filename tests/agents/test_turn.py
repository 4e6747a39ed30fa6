"""What is put off to the end of a turn."""

import pytest

from agents.turn import Turn


@pytest.fixture
def turn():
    """A turn whose `soon` collects; `turn.later` runs what was collected."""
    collected = []
    made = Turn(collected.append)
    made.later = lambda: [action() for action in collected]
    made.collected = collected
    return made


def test_what_is_put_off_is_done_once_at_the_end(turn):
    """However often it was put off, in the order in which it first was."""
    done = []
    first, second = lambda: done.append("first"), lambda: done.append("second")
    with turn:
        for action in (first, second, first):
            turn.put_off(action)
        assert done == []
    assert done == ["first", "second"]
    with turn:
        turn.put_off(second)
    assert done == ["first", "second", "second"]
    assert turn.collected == []


def test_outside_of_a_turn_it_is_done_soon(turn):
    """Asked for once, and not lost where a turn ends in between."""
    done = []
    turn.put_off(lambda: done.append(1))
    turn.put_off(lambda: done.append(2))
    assert (len(turn.collected), done) == (1, [])
    with turn:
        turn.put_off(lambda: done.append(3))
    assert done == [1, 2, 3]
    turn.later()
    assert done == [1, 2, 3]


def test_turn_that_fails_still_ends(turn):
    """What came before the fault is done."""
    done = []

    def read():
        with turn:
            turn.put_off(lambda: done.append(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        read()
    assert done == [1]


def test_action_that_fails_keeps_no_other_from_being_done(turn, caplog):
    """They belong to other connections; the fault is in the log."""
    done = []
    with turn:
        turn.put_off(lambda: 1 // 0)
        turn.put_off(lambda: done.append(1))
    assert done == [1]
    assert "ZeroDivisionError" in caplog.text

"""Where the seconds of a load step go, of what boxes say."""

from tests.bench.live_stages import Said, Stages, in_words, nth, sort


def test_stages_are_read_from_journals():
    """Each agent's first line of each stage counts, whoever of both stewards' verbs said it."""
    lines = [
        Said(3.0, "python3", "millwright-agent-m-1.service", "loaded: loading -> ready"),
        Said(1.0, "millwright-steward", "ssh.service", "bring m-1 m-2"),
        Said(1.5, "millwright-steward", "ssh.service", "write_agent m-1"),
        Said(2.0, "systemd", "millwright-agent-m-2.service", "Started millwright-agent-m-2.service - m-2."),
        Said(2.5, "systemd", "ssh.service", "Started ssh.service"),
    ]
    assert sort(lines) == {"told": {"m-1": 1.0, "m-2": 1.0}, "process": {"m-2": 2.0}, "ready": {"m-1": 3.0}}


def test_the_time_of_the_fourth_counts_those_that_were_there():
    """With one from before the third new one is the fourth; without enough there is no time."""
    reached = {"m-0": -9.0, "m-1": 1.0, "m-2": 3.0, "m-3": 2.0}
    assert nth(reached, ["m-0"], 4) == 3.0
    assert nth(reached, ["m-0"], 5) is None
    assert nth(reached, ["m-0"], 1) == 0.0


def test_stages_in_words_are_medians():
    """Of three steps the middle; a stage that two never reached has none."""
    steps = [Stages(at, at, at, at, at, None if at > 1 else at) for at in (1.0, 2.0, 4.0)]
    assert in_words(steps) == "decided 2.0, created 2.0, told 2.0, process 2.0, ready 2.0, answered -"

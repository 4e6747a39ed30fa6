"""A node on its way to sleep and back, stage by stage. Standard library only.

A stage is kept in the node's row, so that a killed loop goes on where it was:

- '': it is awake, or it should be and is not there
- leaving (agents leave, and none come) -> sleeping (it was told) -> asleep (it answers no more)
- asleep -> waking (it was sent for, at most `TRIES` times) -> '' once it answers

What does not come about is a problem, and the node is left alone.
"""

from appliance.policies.node_care import LOST_AFTER_S
from appliance.policies.power_facts import DID_NOT_SLEEP, DID_NOT_WAKE, PowerNode, PowerSettings, PowerStep

#: A machine that goes on answering for so long was not put to sleep; it is told again half-way.
SLEEP_S = 60.0
#: How often a machine is sent for before it counts as one that does not come back.
TRIES = 3
#: Where not even the message could be sent, the next try comes so soon.
SEND_AGAIN_S = 10.0


def next_step(node: PowerNode, settings: PowerSettings, now: float) -> PowerStep | None:
    """What follows from its stage and from what people ordered; None where nothing does."""
    if node.local:
        return None
    stages = {"leaving": _leave, "sleeping": _fall_asleep, "asleep": _sleep_on}
    if node.stage == "waking":
        return _wake_up(node, settings, now)
    return stages.get(node.stage, _stand)(node, now)


def send_to_sleep(node: PowerNode, now: float, words: str, *, by_load: bool = False) -> PowerStep:
    """Begin: from now on no agent comes to it."""
    changes = _stage("leaving", now, idle_since=None)
    if by_load:
        changes |= {"power_changes": _changes(node, now)}
    return PowerStep(node.name, changes=changes, words=words, by_load=by_load)


def send_for(node: PowerNode, now: float, words: str, *, by_load: bool = False) -> PowerStep:
    """Begin to wake it; what people ordered before is over where load asks."""
    changes = _stage("waking", now, power_tries=1)
    if by_load:
        changes |= {"power_wanted": "", "power_changes": _changes(node, now)}
    return PowerStep(node.name, "wake", changes, words, clears=True, by_load=by_load)


def is_gone(node: PowerNode, now: float) -> bool:
    """Whether it has not answered for so long that it counts as not there."""
    return node.seen_at is None or now - node.seen_at >= LOST_AFTER_S


def _stand(node: PowerNode, now: float) -> PowerStep | None:
    """Not on its way anywhere."""
    if node.ordered == "asleep" and not node.busy:
        return send_to_sleep(node, now, "ordered to sleep: its agents leave")
    if node.ordered == "awake":
        if node.awake:
            return PowerStep(node.name, changes={"power_wanted": ""}, clears=True)
        return send_for(node, now, "ordered awake") if is_gone(node, now) else None
    if node.failed == DID_NOT_WAKE and node.awake:
        return PowerStep(node.name, changes={"awake_since": now}, words="is back", clears=True)
    return _note_idleness(node, now)


def _note_idleness(node: PowerNode, now: float) -> PowerStep | None:
    """Keep since when nothing is on it."""
    idle = node.awake and not node.agents and not node.busy
    if idle and node.idle_since is None:
        return PowerStep(node.name, changes={"idle_since": now})
    if not idle and node.idle_since is not None:
        return PowerStep(node.name, changes={"idle_since": None})
    return None


def _leave(node: PowerNode, now: float) -> PowerStep | None:
    if node.ordered == "awake" and not node.awake:  # it went meanwhile: the order holds, and it is sent for
        return PowerStep(node.name, changes=_stage("", now), words="sleeps no more, and is not there")
    if node.ordered == "awake" or node.wanted == "retired":
        return PowerStep(node.name, changes=_stage("", now, power_wanted=""), words="stays awake")
    if node.ordered != "asleep" and (node.agents or node.busy):
        return PowerStep(node.name, changes=_stage("", now), words=f"stays awake: {node.busy or 'agents'}")
    if node.agents or node.busy or not node.awake:
        return None
    changes = _stage("sleeping", now, power_tries=1)
    return PowerStep(node.name, "sleep", changes, "told to sleep", clears=True)


def _fall_asleep(node: PowerNode, now: float) -> PowerStep | None:
    if node.told:
        return _not_asleep(node, now, node.told)
    if is_gone(node, now):
        return PowerStep(node.name, changes=_stage("asleep", now), words="asleep")
    waited_s = now - node.stage_at
    if waited_s > SLEEP_S:
        return _not_asleep(node, now, f"it was told to sleep and goes on answering after {SLEEP_S:g} s")
    if node.tries == 1 and waited_s > SLEEP_S / 2:
        return PowerStep(node.name, "sleep", {"power_tries": 2}, "told to sleep again")
    return None


def _sleep_on(node: PowerNode, now: float) -> PowerStep | None:
    if node.ordered == "awake":
        return send_for(node, now, "ordered awake")
    if node.wanted == "retired":
        return send_for(node, now, "woken to be retired")
    return send_for(node, now, f"woken for {node.busy}") if node.busy else None


def _wake_up(node: PowerNode, settings: PowerSettings, now: float) -> PowerStep | None:
    put_back = node.stage_at > now + 1  # the clock
    if node.awake and node.seen_at is not None and (node.seen_at > node.stage_at or put_back):
        changes = _stage("", now, power_tries=0, power_how="", idle_since=None, awake_since=now)
        if node.ordered == "awake":
            changes["power_wanted"] = ""
        return PowerStep(node.name, changes=changes, words="awake", clears=True)
    limit_s = min(SEND_AGAIN_S, settings.wake_timeout_s) if node.told else settings.wake_timeout_s
    if now - node.stage_at <= limit_s:
        return None
    if node.ordered == "asleep":
        return PowerStep(node.name, changes=_stage("asleep", now), words="asleep")
    if node.tries < TRIES:
        again = node.tries + 1
        changes = _stage("waking", now, power_tries=again)
        return PowerStep(
            node.name, "wake", changes, f"sent for, try {again} of {TRIES}", detail=node.told or ""
        )
    why = node.told or f"it did not answer within {settings.wake_timeout_s:g} s, {TRIES} times"
    changes = _stage("", now, power_tries=0, power_wanted="")
    return PowerStep(node.name, "", changes, "does not wake", problem=DID_NOT_WAKE, detail=why)


def _not_asleep(node: PowerNode, now: float, why: str) -> PowerStep:
    changes = _stage("", now, power_tries=0, power_wanted="", power_how="")
    return PowerStep(node.name, "", changes, "does not sleep", problem=DID_NOT_SLEEP, detail=why)


def _stage(stage: str, now: float, **changes: object) -> dict[str, object]:
    return {"power_stage": stage, "power_stage_at": now, **changes}


def _changes(node: PowerNode, now: float) -> tuple[float, ...]:
    return (*node.changes, now)

"""Waiting for the worker to have done to nodes what a verb asked for."""

import time
from collections.abc import Callable, Sequence

from appliance.models import Agent, Enrolment, Node, Transfer
from appliance.nodes import REBOOT_FAILED, UPGRADE_FAILED, refuse_problems
from appliance.policies.node_care import CALLED_OFF
from appliance.policies.power_facts import DID_NOT_SLEEP, DID_NOT_WAKE

_POLL_S = 0.2
#: Called with a node's name, what is being done, percent (None where that says nothing), and a note.
Tell = Callable[[str, str, float | None, str], None]


class NotDoneError(Exception):
    """It failed, or did not get done in time; `code` says how in one word, `hint` what to do."""

    def __init__(self, message: str, *, code: str = "timeout", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def wait_until_enrolled(enrolment: int, *, timeout_s: float, tell: Tell) -> Enrolment:
    """Wait for an enrolment to end. Raises NotDoneError."""
    deadline = time.monotonic() + timeout_s
    while True:
        row = Enrolment.objects.filter(pk=enrolment).first()
        if row is None:
            raise NotDoneError("its enrolment was removed", code="removed")
        if row.state == Enrolment.State.DONE:
            return row
        if row.state == Enrolment.State.FAILED:
            raise NotDoneError(row.error, code=row.code, hint=row.hint)
        stage, percent, note = _describe(row)
        tell(row.name, stage, percent, note)
        if time.monotonic() > deadline:
            said = "; ".join(filter(None, (row.error, row.hint)))
            raise NotDoneError(
                f"not ready after {timeout_s:g} s, at: {row.stage or 'its start'}; it goes on"
                + (f"; the last try said: {said}" if said else ""),
                hint="the same command waits on",
            )
        time.sleep(_POLL_S)


def wait_until_drained(name: str, *, timeout_s: float, tell: Tell) -> None:
    """Wait until no agents are on a node. Raises NotDoneError."""

    def look() -> str:
        node = _node(name)
        if node.wanted != Node.Wanted.DRAINED:
            raise NotDoneError(f"node {name!r} was told otherwise meanwhile", code="changed")
        return _agents_left(node)

    _wait(name, look, timeout_s, tell)


def wait_until_rebooted(name: str, *, timeout_s: float, tell: Tell) -> None:
    """Wait until an ordered reboot is over and the node was seen again. Raises NotDoneError."""

    def look() -> str:
        node = _node(name)
        _refuse_retired(node)
        if node.operation != Node.Operation.REBOOT:
            return ""
        return _operation_line(node)

    _wait(name, look, timeout_s, tell)
    failed = refuse_problems([_node(name)], REBOOT_FAILED)
    if failed:
        raise NotDoneError(failed[0], code=REBOOT_FAILED)


def wait_until_asleep(name: str, *, timeout_s: float, tell: Tell) -> None:
    """Wait until a node sleeps that was ordered to. Raises NotDoneError, also where it does not sleep."""

    def look() -> str:
        node = _node(name)
        _refuse_retired(node)
        if node.power_stage == Node.PowerStage.ASLEEP:
            return ""
        _refuse_problem(node, DID_NOT_SLEEP)
        if node.power_wanted != Node.PowerOrder.ASLEEP:
            raise NotDoneError(f"node {name!r} was told otherwise meanwhile", code="changed")
        return _agents_left(node) or "going to sleep"

    _wait(name, look, timeout_s, tell)


def wait_until_awake(name: str, *, timeout_s: float, tell: Tell) -> None:
    """Wait until a node is back that was ordered to wake. Raises NotDoneError, also where it does not."""

    def look() -> str:
        node = _node(name)
        _refuse_retired(node)
        _refuse_problem(node, DID_NOT_WAKE)
        if node.power_wanted == Node.PowerOrder.ASLEEP:
            raise NotDoneError(f"node {name!r} was told otherwise meanwhile", code="changed")
        if not node.power_stage and node.power_wanted != Node.PowerOrder.AWAKE:
            return ""
        return f"waking, try {node.power_tries}" if node.power_tries else "waking"

    _wait(name, look, timeout_s, tell)


def wait_until_upgraded(names: Sequence[str], *, timeout_s: float, tell: Tell) -> None:
    """Wait until every upgrade is over. Raises NotDoneError, also where one failed, with each that did."""
    left = list(names)

    def look() -> str:
        nodes = Node.objects.filter(name__in=left, operation=Node.Operation.UPGRADE).order_by("operation_at")
        waiting = list(nodes)
        for node in waiting:
            if node.operation_stage:
                tell(node.name, _operation_line(node), None, "")
        return f"{len(waiting)} of {len(left)} nodes to go" if waiting else ""

    _wait("upgrade", look, timeout_s, tell)
    nodes = list(Node.objects.filter(name__in=left))
    failed = refuse_problems(nodes, UPGRADE_FAILED)
    if failed:
        raise NotDoneError("\n".join(failed), code=UPGRADE_FAILED)
    for node in nodes:
        _refuse_retired(node)
        if node.steps.filter(step=CALLED_OFF, at__gte=node.operation_at).exists():
            raise NotDoneError(f"{node.name}: {CALLED_OFF}", code="called_off", hint="order it again")


def wait_until_calibrated(name: str, *, timeout_s: float, tell: Tell) -> None:
    """Wait until an ordered measurement is over. Raises NotDoneError, also where it came to nothing."""

    def look() -> str:
        node = _node(name)
        _refuse_retired(node)
        return "" if node.calibration_at is None else _measuring_line(node)

    _wait(name, look, timeout_s, tell)
    failed = _node(name).calibration_error
    if failed:
        raise NotDoneError(f"{name}: not measured: {failed}", code="not_measured")


def wait_until_retired(name: str, *, timeout_s: float, tell: Tell) -> None:
    """Wait until nothing of ours is on the box any more. Raises NotDoneError."""

    def look() -> str:
        node = _node(name)
        if node.retired_at is not None:
            return ""
        return _agents_left(node) or _problem_line(node) or "removing what is ours"

    _wait(name, look, timeout_s, tell)


def _wait(name: str, look: Callable[[], str], timeout_s: float, tell: Tell) -> None:
    """Look until there is nothing left to say."""
    deadline = time.monotonic() + timeout_s
    while line := look():
        tell(name, line, None, "")
        if time.monotonic() > deadline:
            raise NotDoneError(f"{name}: not done after {timeout_s:g} s: {line}; it goes on")
        time.sleep(_POLL_S)


def _node(name: str) -> Node:
    node = Node.objects.filter(name=name).first()
    if node is None:
        raise NotDoneError(f"node {name!r} was removed meanwhile", code="removed")
    return node


def _refuse_retired(node: Node) -> None:
    if node.wanted == Node.Wanted.RETIRED:
        raise NotDoneError(f"node {node.name!r} was retired meanwhile", code="changed")


def _refuse_problem(node: Node, code: str) -> None:
    for problem in node.problems:
        if problem.get("code") == code:
            raise NotDoneError(
                f"{node.name}: {problem.get('message', '')}", code=code, hint=str(problem.get("remedy", ""))
            )


def _measuring_line(node: Node) -> str:
    """What an ordered measurement waits for, or that it goes on."""
    ready = Agent.objects.filter(wanted=Agent.Wanted.WARM, state=Agent.State.READY)
    for agent in node.agents.select_related("deployment"):
        if not ready.filter(deployment=agent.deployment).exclude(pk=agent.pk).exists():
            name = agent.deployment.name
            return f"waiting for a moment without requests of {name}, or a second agent of it that is ready"
    return "measuring, while other agents carry the load"


def _agents_left(node: Node) -> str:
    left = node.agents.count()
    return f"{left} agent{'s' if left > 1 else ''} to leave" if left else ""


def _operation_line(node: Node) -> str:
    stage = node.operation_stage or "waiting for its turn"
    problem = _problem_line(node)
    return f"{node.operation}: {stage}" + (f" ({problem})" if problem else "")


def _problem_line(node: Node) -> str:
    return next((str(problem.get("message", "")) for problem in node.problems), "")


def _describe(row: Enrolment) -> tuple[str, float | None, str]:
    """Stage, percent where that says something, and a note, as megabytes sent or the last error."""
    if row.state == Enrolment.State.WAITING and row.error:
        return "trying again soon", None, row.error
    moving = row.stage == "sending the runtime"
    transfer = None
    if moving and row.node_id is not None:
        running = Transfer.objects.filter(node_id=row.node_id, state=Transfer.State.RUNNING)
        transfer = running.filter(kind="release").first()
    note = ""
    if transfer is not None:
        total_mb = transfer.total_bytes / 1e6
        note = f"{total_mb * row.percent / 100:.0f} of {total_mb:.0f} MB"
    return row.stage or "waiting for the worker", row.percent if moving else None, note

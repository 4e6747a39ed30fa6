"""What the node pages show, as plain texts. Pure; what nodes say is bounded here and escaped by the page."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from appliance.fleet import node_state
from appliance.models import Enrolment, Node, RemoteStep, Transfer
from dashboard.formats import UNKNOWN, format_age, format_bytes, format_count

#: A label and its text.
Fact = tuple[str, str]

MAX_TEXT = 300
_SSH_PORT = 22
#: From here on a step's day says more than its time.
_DAY_S = 20 * 3600
#: What decides how fast a processor computes; the others are shown on demand.
_TELLING_FLAGS = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8",
    "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


def name_facts(node: Node, now: float) -> list[Fact]:
    """Where it is, what was ordered of it, and what people say of it."""
    cost = node.cost_per_hour
    facts = [
        ("Address", node.address if node.is_local else _place(node.address, node.port)),
        ("Ordered", _ordered(node)),
        ("Measurement", "ordered" if node.calibration_at else ""),
        ("Not measured", node.calibration_error),
        ("Host key", node.host_key),
        ("Host key kind", node.host_key_kind),
        ("Region", node.region),
        ("Labels", ", ".join(f"{key}={value}" for key, value in dict(node.labels or {}).items())),
        ("Cost per hour", "" if cost is None else f"{cost.normalize():f}"),
        ("Preemptible", "yes" if node.preemptible else "no"),
        ("Power", node.power),
        ("Release", _release(node)),
        ("Seen", _ago(node.seen_at, now)),
        ("Enrolled", instant_text(node.enrolled_at)),
        ("Retired", instant_text(node.retired_at)),
    ]
    return [(label, bounded(text)) for label, text in facts if text]


def hardware_facts(node: Node) -> list[Fact]:
    """What was read off the machine; what it did not tell is left out."""
    said = node.hardware if isinstance(node.hardware, Mapping) else {}
    physical, logical = _number(said.get("cores_physical")), _number(said.get("cores_logical"))
    disk, free = _number(said.get("disk_bytes")), _number(said.get("disk_free_bytes"))
    skew = _number(said.get("skew_s"))
    cores = f"{format_count(physical)} physical, {format_count(logical)} logical"
    facts = [
        ("Processor", str(said.get("cpu_model") or "")),
        ("Cores", cores if physical or logical else ""),
        ("Instruction sets", ", ".join(flag for flag in _TELLING_FLAGS if flag in node_flags(node))),
        ("RAM", format_bytes(node.ram_bytes) if node.ram_bytes else ""),
        ("Disk", f"{format_bytes(free)} free of {format_bytes(disk)}" if disk else ""),
        ("System", str(said.get("os") or "")),
        ("Architecture", str(said.get("arch") or "")),
        ("Python", str(said.get("python") or "")),
        ("Clock", "" if skew is None else f"{skew:+.1f} s"),
    ]
    return [(label, bounded(text)) for label, text in facts if text]


def speed_facts(profiles: Iterable[Mapping[str, Any]]) -> list[Fact]:
    """How fast each deployment's model is there, and how that is known."""
    return [(bounded(str(one["deployment"]), 63), _speed_text(one)) for one in profiles]


def _speed_text(profile: Mapping[str, Any]) -> str:
    shape = f"{profile['workers']} x {profile['threads']} threads, batch {profile['batch_size']}"
    if profile["source"] == "default":
        return f"{shape} (not measured yet)"
    rates = f"{profile['capacity_rps']:.0f} requests/s, {profile['tokens_per_s']:.0f} tokens/s"
    return f"{rates} with {shape} ({profile['source']})"


def node_flags(node: Node) -> list[str]:
    """All instruction set flags that it named."""
    flags = node.hardware.get("flags") if isinstance(node.hardware, Mapping) else None
    return [bounded(str(flag), 40) for flag in flags[:400]] if isinstance(flags, (list, tuple)) else []


def problem_rows(node: Node, now: float) -> list[dict[str, str]]:
    """What is wrong with it now, and what to do."""
    return [
        {
            "message": bounded(str(problem.get("message") or problem.get("code") or "unknown")),
            "remedy": bounded(str(problem.get("remedy") or "")),
            "since": "" if (since := _number(problem.get("since"))) is None else format_age(now - since),
        }
        for problem in node.problems or ()
        if isinstance(problem, Mapping)
    ]


def problem_text(node: Node) -> str:
    """The same in one line, '' where all is well."""
    return "; ".join(row["message"] for row in problem_rows(node, 0.0))


def transfer_percent(transfer: Transfer) -> float:
    """How much of it is there, 0 to 100."""
    if transfer.state == Transfer.State.DONE:
        return 100.0
    return min(100.0, 100.0 * transfer.have_bytes / transfer.total_bytes) if transfer.total_bytes else 0.0


def transfer_text(transfer: Transfer) -> str:
    """A transfer in one line: `model minilm: 41 %`."""
    return f"{transfer.kind} {transfer.name}: {transfer_percent(transfer):.0f} %"


def transfer_row(transfer: Transfer, now: float) -> dict[str, Any]:
    """A transfer for its table."""
    until = transfer.finished_at.timestamp() if transfer.finished_at else now
    return {
        "what": bounded(f"{transfer.kind} {transfer.name}"),
        "state": transfer.state,
        "running": transfer.state == Transfer.State.RUNNING,
        "percent": f"{transfer_percent(transfer):.1f}",
        "size": f"{format_bytes(transfer.have_bytes)} of {format_bytes(transfer.total_bytes)}",
        "ago": _ago(transfer.started_at, now),
        "took": format_age(until - transfer.started_at.timestamp()) if transfer.started_at else UNKNOWN,
        "error": bounded(transfer.error),
    }


def step_row(step: RemoteStep, now: float) -> dict[str, str]:
    """A step for its table."""
    is_old = now - step.at.timestamp() > _DAY_S
    return {
        "at": f"{step.at.astimezone(UTC):%Y-%m-%d}" if is_old else f"{step.at.astimezone(UTC):%H:%M:%S}",
        "instant": instant_text(step.at),
        "step": bounded(step.step),
        "outcome": bounded(step.outcome, 16),
        "seconds": f"{step.seconds:.1f} s",
        "detail": bounded(step.detail, 1000),
    }


def enrolment_row(enrolment: Enrolment, now: float) -> dict[str, Any]:
    """One try for the list of them."""
    return {
        "pk": enrolment.pk,
        "name": enrolment.name,
        "where": bounded(_place(enrolment.address, enrolment.port)),
        "state": enrolment.state,
        "running": is_under_way(enrolment),
        "percent": f"{max(0.0, min(100.0, enrolment.percent)):.0f}",
        "stage": bounded(enrolment.stage),
        "error": bounded(enrolment.error),
        "hint": bounded(enrolment.hint),
        "ago": _ago(enrolment.created_at, now),
    }


def is_under_way(enrolment: Enrolment) -> bool:
    """Whether more is to come without anybody's doing."""
    return enrolment.state in {Enrolment.State.WAITING, Enrolment.State.RUNNING}


def node_row(node: Node, agents: int, transfers: Iterable[Transfer], now: float) -> dict[str, Any]:
    """A node for the list of them."""
    problem = problem_text(node)
    state = node_state(node, now)
    news = "; ".join(transfer_text(one) for one in transfers)
    if node.power_stage or node.power_wanted:
        news = power_text(node)
    if state == "unreachable":
        news = f"seen {_ago(node.seen_at, now)}" if node.seen_at else "never seen"
    if state == "retired" and node.retired_at is None:
        news = "its agents finish, then all that is ours is removed from it"
    said = node.hardware if isinstance(node.hardware, Mapping) else {}
    return {
        "name": node.name,
        "state": state,
        "address": bounded(node.address),
        "cores": format_count(_number(said.get("cores_physical"))),
        "ram": format_bytes(node.ram_bytes),
        "system": bounded(str(said.get("os") or ""), 60),
        "agents": str(agents),
        "problem": bounded(problem),
        "note": bounded(problem or news),
        "level": "warn" if problem else "",
    }


def group_by_node(transfers: Sequence[Transfer]) -> dict[int, list[Transfer]]:
    """Transfers by the node they go to."""
    found: dict[int, list[Transfer]] = {}
    for transfer in transfers:
        found.setdefault(transfer.node_id, []).append(transfer)
    return found


def bounded(text: str, limit: int = MAX_TEXT) -> str:
    """At most `limit` characters, an ellipsis where some are left out."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _ordered(node: Node) -> str:
    if node.power_stage or node.power_wanted:
        return f"{node.wanted}, {power_text(node)}"
    if not node.operation:
        return node.wanted
    return f"{node.wanted}, {node.operation} ({node.operation_stage or 'waits for its turn'})"


def power_text(node: Node) -> str:
    """How its power stands, and whether people or load wanted it so."""
    who = "by order" if node.power_wanted else "by load"
    words = {
        "": "ordered to sleep" if node.power_wanted == Node.PowerOrder.ASLEEP else "ordered awake",
        "leaving": f"goes to sleep {who}: its agents leave",
        "sleeping": f"goes to sleep {who}",
        "asleep": f"asleep {who}",
        "waking": f"waking {who}, try {max(1, node.power_tries)}",
    }
    return words.get(node.power_stage, "")


def _place(address: str, port: int) -> str:
    return address if port == _SSH_PORT else f"{address} port {port}"


def _release(node: Node) -> str:
    text = node.release_sha256[:12]
    if node.next_release_sha256 and node.next_release_sha256 != node.release_sha256:
        return f"{text or 'none'}, next {node.next_release_sha256[:12]}"
    return text


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _ago(at: datetime | None, now: float) -> str:
    return "" if at is None else f"{format_age(now - at.timestamp())} ago"


def instant_text(at: datetime | None) -> str:
    """A moment as it is written: in UTC, to the second."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"

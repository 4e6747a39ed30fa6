"""The log of decisions: which were made, what each means in words, and whether the loop's record agrees.

Rows are read newest first. A cursor names the last row that was read, so that rows that come meanwhile
shift nothing.
"""

import csv
import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from django.db.models import F, Q, QuerySet

from appliance.control.inputs import code_mark, read_ticks
from appliance.errors import BadArgument, VerbError
from appliance.models import Decision, Deployment, RecordedTick
from appliance.scaling_settings import say
from appliance.simulate.recorded import Tick, Verdict, verify

#: Rows of one export at most.
MOST_EXPORTED = 10_000
COLUMNS = (
    "at", "deployment", "from", "to", "want", "kind", "trigger", "dry_run", "wants", "clamps", "actions",
    "reason",
)  # fmt: skip
#: What each rule asks agents for, in words.
RULES = {
    "wait": "to keep waits short", "peak": "for bursts of late", "lasting": "for what came lately",
    "backlog": "for the queue", "breach": "for one that waits too long", "forecast": "by the forecast",
    "rps": "by requests/s", "cpu": "by CPU", "p95": "by p95 latency", "ttft": "by time to first token",
    "tokens": "by tokens/s",
}  # fmt: skip
_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_CURSOR = re.compile(r"([0-9]{1,17})-([0-9]{1,18})")
#: By these a spreadsheet takes a text for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_TRIGGERS = {
    "tick": "It was the loop's turn.",
    "want": "A gateway asked for it: a request had no agent, or an agent's connection broke.",
    "verb": "Somebody had just changed something.",
    "watchdog": "The last tick had failed, or was late.",
    "start": "The worker had just started.",
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which decisions. What is None, or empty, is not looked at; the time `until` is not among them."""

    deployment: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    kinds: tuple[str, ...] = ()
    changed: bool = False


def find_decisions(chosen: Chosen) -> "QuerySet[Decision]":
    """Those that were chosen, newest first."""
    rows = Decision.objects.order_by("-at", "-id")
    if chosen.deployment:
        rows = rows.filter(deployment=chosen.deployment)
    if chosen.since is not None:
        rows = rows.filter(at__gte=chosen.since)
    if chosen.until is not None:
        rows = rows.filter(at__lt=chosen.until)
    if chosen.kinds:
        rows = rows.filter(kind__in=chosen.kinds)
    return rows.exclude(before=F("after")) if chosen.changed else rows


def after_cursor(rows: "QuerySet[Decision]", cursor: str) -> "QuerySet[Decision]":
    """Those that follow the row a cursor names. Raises VerbError where it is none."""
    found = _CURSOR.fullmatch(cursor)
    if not found:
        raise VerbError(f"cursor {cursor[:40]!r} is not accepted: the `next` of an earlier answer is")
    at, pk = _EPOCH + int(found[1]) * _MICROSECOND, int(found[2])
    return rows.filter(Q(at__lt=at) | Q(at=at, pk__lt=pk))


def cursor_of(row: Decision) -> str:
    """What names a row for the page after it."""
    return f"{(row.at - _EPOCH) // _MICROSECOND}-{row.pk}"


def read_since(text: str, now: dt.datetime) -> dt.datetime:
    """A time from `90s`, `30m`, `1h`, `2d` before now, or from ISO 8601. Raises BadArgument."""
    span = _SPAN.fullmatch(text.strip())
    try:
        if span:
            return now - dt.timedelta(seconds=int(span[1]) * _UNIT_S[span[2]])
        at = dt.datetime.fromisoformat(text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise BadArgument(
            f"time {text[:40]!r} is not accepted: 90s, 30m, 1h, 2d, or a time as 2026-11-21T20:00:00Z, is"
        ) from None


def known_kinds() -> list[str]:
    """The kinds that there are."""
    kinds = Decision.objects.exclude(kind="").order_by().values_list("kind", flat=True).distinct()
    return sorted(kinds)


def require_known(name: str) -> None:
    """Raise VerbError where nothing was ever decided on a deployment of that name, and there is none."""
    if (
        not Deployment.objects.filter(name=name).exists()
        and not Decision.objects.filter(deployment=name).exists()
    ):
        known = ", ".join(Deployment.objects.values_list("name", flat=True)[:20])
        raise VerbError(f"no deployment is named {name!r}; there are: {known or '(none)'}")


def wants_of(row: Decision) -> dict[str, int | None]:
    """What each rule asked, by its name; None: it could not tell."""
    return {
        name.removeprefix("want_"): value for name, value in row.inputs.items() if name.startswith("want_")
    }


def wants_text(row: Decision) -> str:
    """The same in one line."""
    return ", ".join(f"{name} {'?' if number is None else number}" for name, number in wants_of(row).items())


def describe(row: Decision) -> dict[str, Any]:
    """A decision as JSON types, complete."""
    return {
        "id": row.pk, "at": row.at.isoformat(), "deployment": row.deployment, "trigger": row.trigger,
        "kind": row.kind, "before": row.before, "want": row.want, "after": row.after,
        "dry_run": row.dry_run, "reason": row.reason, "wants": wants_of(row), "clamps": list(row.clamps),
        "actions": list(row.actions), "inputs": dict(row.inputs), "policy": dict(row.policy),
        "gateways": list(row.gateways), "explanation": explain(row),
    }  # fmt: skip


def explain(row: Decision) -> list[str]:
    """One decision in sentences, for somebody who sees the appliance for the first time."""
    wants = wants_of(row)
    lines = [_happened(row)]
    if row.want is None and "cannot tell" in row.reason:
        lines.append("Nobody could tell how much load there is, and then nothing is changed.")
    elif row.want is not None:
        lines.append(f"The load asked for {_agents(row.want)}.")
    lines.append(f"Why: {_reason_alone(row)}.")
    if wants:
        said = ", ".join(_asked(name, one) for name, one in wants.items())
        lines.append(f"Each rule asked for so many, the largest counts: {said}.")
    if row.clamps:
        lines.append(f"What limited or raised it: {', '.join(map(str, row.clamps))}.")
    lines += _looked_at(row)
    if row.actions:
        lines.append(f"Done at once: {'; '.join(map(str, row.actions))}.")
    lines.append(_TRIGGERS.get(row.trigger, f"What made the loop look: {row.trigger}."))
    if row.policy:
        set_so = ", ".join(f"{name} {say(value)}" for name, value in row.policy.items())
        lines.append(f"Settings that are not the default, and what is known of its agents: {set_so}.")
    return lines


def _asked(rule: str, number: int | None) -> str:
    words = f" ({RULES[rule]})" if rule in RULES else ""
    return f"{rule} {'could not tell' if number is None else number}{words}"


def _reason_alone(row: Decision) -> str:
    """Without what was done for it, which the log puts beside it."""
    done = "; ".join(map(str, row.actions))
    reason = row.reason.removeprefix(f"{done}; ").removesuffix(f"; {done}") if done else row.reason
    return reason or row.reason


def _happened(row: Decision) -> str:
    if row.dry_run:
        change = "stay at" if row.before == row.after else f"go from {row.before} to"
        return f"In a dry run {row.deployment} would {change} {_agents(row.after)}; nothing was done."
    if row.before == row.after:
        return f"{row.deployment} stayed at {_agents(row.after)}."
    return f"{row.deployment} went from {row.before} to {_agents(row.after)}."


def _looked_at(row: Decision) -> list[str]:
    seen = row.inputs
    names = (
        ("in_flight", "requests executing"), ("queued", "waiting"),
        ("rate_rps", "requests/s expected"), ("service_s", "s each"),
        ("tokens_each", "tokens each"), ("p95_ms", "ms p95"), ("ttft_ms", "ms p95 to the first token"),
        ("cpu_percent", "% CPU"),
        ("stable", "there on average over the long window"), ("panic", "over the short one"),
    )  # fmt: skip
    said = [f"{seen[name]:g} {words}" for name, words in names if isinstance(seen.get(name), int | float)]
    if isinstance(seen.get("ready"), int):
        said.insert(0, f"{_agents(seen['ready'])} ready")
    lines = [f"What was seen: {', '.join(said)}."] if said else []
    if row.gateways:
        lines.append(f"Gateways that were heard: {', '.join(map(str, row.gateways))}.")
    if seen.get("problem"):
        lines.append(f"What kept it from being as wanted: {seen['problem']}")
    return lines


def _agents(number: int) -> str:
    return "1 agent" if number == 1 else f"{number} agents"


def write_csv(rows: Iterable[Decision], file: IO[str]) -> None:
    """Heads and rows, as spreadsheets read them."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(value) for value in csv_cells(row)])


def csv_cells(row: Decision) -> Iterator[object]:
    """By `COLUMNS`."""
    yield from (row.at.isoformat(), row.deployment, row.before, row.after)
    yield from ("" if row.want is None else row.want, row.kind, row.trigger, "yes" if row.dry_run else "no")
    yield from (
        wants_text(row),
        "; ".join(map(str, row.clamps)),
        "; ".join(map(str, row.actions)),
        row.reason,
    )


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def check_record(name: str, since: dt.datetime | None = None) -> Verdict:
    """Decide again what the loop recorded of a deployment, from the first whole tick since then on.

    What another version decided is left out, and all before it. Raises VerbError where nothing is recorded.
    """
    ticks: list[Tick] = []
    others = 0
    for tick in read_ticks(name, 0.0 if since is None else since.timestamp()):
        if tick.code != code_mark():
            others, ticks = others + len(ticks) + 1, []
        else:
            ticks.append(tick)
    if others and not ticks:
        raise VerbError(f"the {others} ticks of {name!r} were decided by another version of the policies")
    found = verify(ticks)
    if not found.ticks:
        none = "nothing is" if not RecordedTick.objects.exists() else "nothing of it is"
        raise VerbError(
            f"no tick of {name!r} can be replayed, {none} recorded: the loop keeps the last 2 h, "
            "and up to 10 min pass from a time to the next tick to begin from; ask for longer"
        )
    return found

"""Where the seconds of a load step go: from its first request until enough agents answer."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.live_site import Host, LiveSite
from tests.bench.open_load import OpenRun

#: What a box' journal says when a stage is reached: who says it, and how that begins.
_TOLD = ("bring ", "write_agent ")
_STARTED, _READY = "Started millwright-agent-", "loading -> ready"
_UNIT = "millwright-agent-"


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds from a step's first request until so many agents had come so far; None: they did not.

    `decided`: the loop wanted as many; `created`: they have rows; `told`: their boxes were asked for them;
    `process`: systemd started them; `ready`: they said so themselves; `answered`: each had given an answer.
    """

    decided_s: float | None
    created_s: float | None
    told_s: float | None
    process_s: float | None
    ready_s: float | None
    answered_s: float | None


@dataclass(frozen=True, slots=True)
class Said:
    """A line of a box' journal: when (Unix seconds), by whom, about which unit, and what."""

    at: float
    by: str
    unit: str
    words: str


def read_stages(site: LiveSite, name: str, run: OpenRun, created: Mapping[str, float], count: int) -> Stages:
    """The stages of a step by `run`, until `count` agents; `created`: when their rows were made (Unix)."""
    began = run.started_at + time.time() - time.monotonic()
    lines = [line for host in site.hosts for line in read_journal(host, began)]
    answered: dict[str, float] = {}
    for row in run.rows:
        if row.good:
            agent = row.by.rpartition("/")[2]
            answered[agent] = min(answered.get(agent, row.ended_s), row.ended_s)
    old = {agent for agent, at in created.items() if at < began}
    reached = {"created": created, **sort(lines)}
    since = {stage: {agent: at - began for agent, at in found.items()} for stage, found in reached.items()}
    return Stages(
        _decided(site, name, began, count),
        *(nth(since[stage], old, count) for stage in ("created", "told", "process", "ready")),
        nth(answered, old, count),
    )


def nth(reached: Mapping[str, float], old: Iterable[str], count: int) -> float | None:
    """When agent number `count` had come so far, those that were there before counted as the first."""
    old = set(old)
    new = sorted(at for agent, at in reached.items() if agent not in old)
    wanted = count - len(old)
    return (new[wanted - 1] if len(new) >= wanted else None) if wanted > 0 else 0.0


def sort(lines: Iterable[Said]) -> Mapping[str, Mapping[str, float]]:
    """When each agent reached each stage first, of what the boxes say."""
    found: dict[str, dict[str, float]] = {"told": {}, "process": {}, "ready": {}}
    for line in sorted(lines, key=lambda line: line.at):
        if line.by == "millwright-steward" and line.words.startswith(_TOLD):
            stage, agents = "told", line.words.split()[1:]
        elif line.by == "systemd" and line.words.startswith(_STARTED):
            stage, agents = "process", [agent_of(line.unit)]
        elif line.unit.startswith(_UNIT) and _READY in line.words:
            stage, agents = "ready", [agent_of(line.unit)]
        else:
            continue
        for agent in agents:
            found[stage].setdefault(agent, line.at)
    return found


def agent_of(unit: str) -> str:
    """Whose unit it is."""
    return unit.removeprefix(_UNIT).removesuffix(".service")


def read_journal(host: Host, since: float) -> list[Said]:
    """What a box' journal says since then."""
    fields = "MESSAGE,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER"
    text = host.run(f"journalctl --no-pager --output=json --since=@{since:.3f} --output-fields={fields}")
    return [_parse(json.loads(line)) for line in text.splitlines()]


def _parse(entry: Mapping[str, Any]) -> Said:
    return Said(
        int(entry["__REALTIME_TIMESTAMP"]) / 1e6,
        str(entry.get("SYSLOG_IDENTIFIER") or ""),
        str(entry.get("UNIT") or entry.get("_SYSTEMD_UNIT") or ""),
        str(entry.get("MESSAGE") or ""),
    )


def _decided(site: LiveSite, name: str, began: float, count: int) -> float | None:
    for at, after in site.decided_since(name, began):
        if after >= count and at >= began:
            return at - began
    return None


def in_words(steps: Sequence[Stages]) -> str:
    """`decided 0.9, created 0.9, ...`: of several steps the median of each stage, '-' where it never came."""
    told = [asdict(one) for one in steps]
    parts = []
    for stage in asdict(steps[0]) if steps else ():
        values = sorted(float("inf") if one[stage] is None else one[stage] for one in told)
        middle = values[len(values) // 2]
        parts.append(f"{stage.removesuffix('_s')} {'-' if middle == float('inf') else f'{middle:.1f}'}")
    return ", ".join(parts)

"""`manage.py decisions`."""

import datetime as dt
import io
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from appliance import decision_log
from appliance.management.base import ApplianceCommand, count, format_table
from appliance.models import Decision
from appliance.simulate.recorded import Answer, Verdict

DEFAULT_LIMIT = 50
_REASON_WIDTH = 100


class Command(ApplianceCommand):
    help = (
        "Show why deployments have as many agents as they have: each decision of the control loop with\n"
        "what the rules asked and what limited it, newest first.\n"
        "Example: manage.py decisions minilm --since 1h --changed\n"
        "Example: manage.py decisions minilm --explain --limit 1\n"
        "Example: manage.py decisions minilm --verify"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", help="a deployment's name; none: all")
        parser.add_argument("--since", metavar="TIME", help="90s, 30m, 1h, 2d ago, or 2026-11-21T20:00:00Z")
        parser.add_argument("--until", metavar="TIME", help="the same: only what is older")
        parser.add_argument(
            "--kind", action="append", default=[], metavar="KIND",
            help="only reasons of that kind, such as load, idle, cannot_tell; may be given again",
        )  # fmt: skip
        parser.add_argument("--changed", action="store_true", help="only where the number changed")
        parser.add_argument(
            "--limit",
            type=count,
            default=DEFAULT_LIMIT,
            metavar="N",
            help=f"at most so many ({DEFAULT_LIMIT})",
        )
        shape = parser.add_mutually_exclusive_group()
        shape.add_argument("--explain", action="store_true", help="each decision in sentences")
        shape.add_argument("--csv", action="store_true", help="rows for a spreadsheet")
        parser.add_argument(
            "--verify", action="store_true",
            help="decide again what was recorded of NAME in the last 2 h; exit code 1 where it differs",
        )  # fmt: skip
        self.add_json(parser)

    def run(self, **options: Any) -> None:
        if options["json"] and options["csv"]:
            raise CommandError("--json and --csv exclude each other: give one", returncode=2)
        now = timezone.now()
        times = {
            key: decision_log.read_since(options[key], now) if options[key] else None
            for key in ("since", "until")
        }
        if options["name"]:
            decision_log.require_known(options["name"])
        if options["verify"]:
            self._verify(options["name"], times["since"], in_json=options["json"])
            return
        chosen = decision_log.Chosen(
            options["name"], times["since"], times["until"], tuple(options["kind"]), options["changed"]
        )
        found = decision_log.find_decisions(chosen)
        rows = list(found[: min(options["limit"], decision_log.MOST_EXPORTED)])
        if options["json"]:
            self.print_json(
                {"decisions": [decision_log.describe(row) for row in rows], "total": found.count()}
            )
        elif options["csv"]:
            text = io.StringIO()
            decision_log.write_csv(rows, text)
            self.stdout.write(text.getvalue(), ending="")
        else:
            self._print(rows, found.count(), chosen, explained=options["explain"])

    def _print(
        self, rows: list[Decision], total: int, chosen: decision_log.Chosen, *, explained: bool
    ) -> None:
        if not total:
            self.stdout.write(_why_none(chosen))
            return
        if explained:
            for row in rows:
                self.stdout.write(f"{_when(row.at)}")
                self.stdout.write("\n".join(f"  {line}" for line in decision_log.explain(row)))
        else:
            heads = ("when (UTC)", "deployment", "agents", "asked", "rules asked", "limits", "why")
            self.stdout.write(format_table(heads, map(cells_of, rows)))
        if total > len(rows):
            self.say(f"{len(rows)} of {total}, the newest; more with --limit")

    def _verify(self, name: str | None, since: dt.datetime | None, *, in_json: bool) -> None:
        if not name:
            raise CommandError("--verify needs a deployment's name: decisions NAME --verify", returncode=2)
        found = decision_log.check_record(name, since)
        if in_json:
            self.print_json(verdict_document(name, found))
        else:
            self.stdout.write("\n".join(verdict_lines(name, found)))
        if not found.equal:
            raise CommandError(f"the record of {name} does not follow from itself")


def _why_none(chosen: decision_log.Chosen) -> str:
    """Where nothing fits, what there is."""
    known = decision_log.known_kinds()
    unknown = [kind for kind in chosen.kinds if kind not in known]
    if unknown:
        return f"no decisions of kind {unknown[0][:40]!r}; there are: {', '.join(known) or '(none)'}"
    if chosen == decision_log.Chosen(chosen.deployment):
        return "no decisions: nothing that was asked for has changed the number of agents"
    return "no decisions that fit: ask for a longer time, or for all kinds"


def cells_of(row: Decision) -> tuple[str, ...]:
    """A decision's line in the table."""
    change = f"{row.before}" if row.before == row.after else f"{row.before} -> {row.after}"
    reason = row.reason if len(row.reason) <= _REASON_WIDTH else f"{row.reason[: _REASON_WIDTH - 3]}..."
    return (
        _when(row.at), row.deployment, f"{change} (dry run)" if row.dry_run else change,
        "?" if row.want is None else str(row.want), decision_log.wants_text(row) or "-",
        ", ".join(map(str, row.clamps)) or "-", reason,
    )  # fmt: skip


def verdict_lines(name: str, found: Verdict) -> list[str]:
    """What a replay found, for people."""
    spoken = f"{found.different} differ" if found.different else "equal"
    over = f"{_moment(found.first)} to {_moment(found.last)}, at most {found.longest_gap_s:.1f} s apart"
    lines = [f"{name}: {found.ticks} ticks replayed, {spoken} ({over})"]
    lines += [f"  {_moment(at)}: the policy's memory is not what the tick before left" for at in found.breaks]
    lines += [
        f"  {_moment(one.at)}: recorded {_said(one.recorded)}, decided again {_said(one.replayed)}"
        for one in found.differences
    ]
    return lines


def verdict_document(name: str, found: Verdict) -> dict[str, Any]:
    """The same for programs."""
    return {
        "deployment": name, "equal": found.equal, "ticks": found.ticks, "different": found.different,
        "first": found.first, "last": found.last, "longest_gap_s": round(found.longest_gap_s, 3),
        "breaks": found.breaks,
        "differences": [
            {"at": one.at, "recorded": _said(one.recorded), "replayed": _said(one.replayed)}
            for one in found.differences
        ],
    }  # fmt: skip


def _said(answer: Answer) -> str:
    asked = "?" if answer.want is None else answer.want
    return f"{answer.replicas} ({answer.kind}, asked {asked}, {answer.said})"


def _when(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).strftime("%m-%d %H:%M:%S")


def _moment(at: float | None) -> str:
    return "-" if at is None else dt.datetime.fromtimestamp(at, dt.UTC).strftime("%H:%M:%S")

"""`manage.py simulate`."""

import argparse
import math
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from appliance.management.base import ApplianceCommand, count, format_table, positive_number
from appliance.policies.scaling_keys import BadKey
from appliance.simulate.chart import render_svg
from appliance.simulate.compare import build_document, build_rows, judge, run_policies
from appliance.simulate.plant import Plant, Traffic
from appliance.simulate.policies.ours import default_policy
from appliance.simulate.policy_file import read_policy
from appliance.simulate.synthetic import SYNTHETIC
from appliance.simulate.traces import BadTrace, ServiceTime, read_traffic

MAX_AGENTS = 10_000
SYNTHETIC_PREFIX = "synthetic:"


class Command(ApplianceCommand):
    help = (
        "Replay traffic through the decision code of the control loop, and tell what it would have\n"
        "cost and missed. Needs no appliance. The trace is a CSV file: one arrival per row (t_s or\n"
        "TIMESTAMP; optional service_s, or ContextTokens,GeneratedTokens) or counts per minute\n"
        f"(minute_1 ...); or {', '.join(SYNTHETIC_PREFIX + name for name in SYNTHETIC)}.\n"
        "Example: manage.py simulate --trace arrivals.csv --compare"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--trace", required=True, metavar="FILE", help="the traffic, a CSV file")
        parser.add_argument(
            "--policy", type=Path, metavar="FILE",
            help="what `set_scaling NAME --json` prints, or lines key=value; without it the defaults",
        )  # fmt: skip
        parser.add_argument(
            "--compare", action="store_true",
            help="run fixed-max, and policies as of HPA on CPU, Knative and Ray Serve at their defaults, too",
        )  # fmt: skip
        parser.add_argument(
            "--slots", type=_slots, default=1, metavar="N", help="requests an agent executes at once (1)"
        )
        parser.add_argument(
            "--start-s", type=_from_zero, default=3.0, metavar="S", help="an agent's start (3)"
        )
        parser.add_argument(
            "--max", type=_agents, default=64, metavar="N", help="at most so many agents (64)"
        )
        parser.add_argument("--min", type=count, default=0, metavar="N", help="at least so many agents (0)")
        parser.add_argument(
            "--slo-wait-s", type=positive_number, default=2.0, metavar="S", help="a longer wait is a miss (2)"
        )
        parser.add_argument(
            "--service", type=_service, default=ServiceTime(), metavar="A,B,C",
            help="seconds of a request: A + B x context + C x generated tokens (0.05,0.0004,0.004), or A",
        )  # fmt: skip
        parser.add_argument(
            "--row", type=_agents, metavar="N", help="of counts per minute only this row, from 1"
        )
        parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="write a picture, too")
        self.add_json(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        """Without a look at the database: nothing of an appliance is needed."""
        try:
            self.run(**options)
        except (BadTrace, BadKey) as error:
            raise CommandError(str(error), returncode=2) from None
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror or error}", returncode=2) from None

    def run(self, **options: Any) -> None:
        if options["min"] > options["max"]:
            raise CommandError(
                f"--min {options['min']} is above --max {options['max']}: raise --max or lower --min",
                returncode=2,
            )
        plant = Plant(
            slots=options["slots"], start_s=options["start_s"], max_agents=options["max"],
            min_agents=options["min"], slo_wait_s=options["slo_wait_s"],
        )  # fmt: skip
        policy = default_policy(plant)
        if options["policy"] is not None:
            policy = read_policy(options["policy"], policy)
        traffic = self._traffic(options)
        outcomes = run_policies(traffic, plant, policy, others=options["compare"], say=self._tell)
        if options["chart"] is not None:
            options["chart"].write_text(render_svg(traffic.name, outcomes))
        if options["json"]:
            self.print_json(build_document(traffic, outcomes))
            return
        self.stdout.write(f"{len(traffic.arrivals)} requests in {traffic.duration_s:.0f} s: {traffic.name}")
        self.stdout.write(format_table(*build_rows(outcomes)))
        verdict = judge(outcomes)
        if verdict is not None:
            self.stdout.write(
                f"against knative: {verdict.misses[0]} misses to {verdict.misses[1]}, agent-seconds x "
                f"{verdict.agent_seconds:.2f}, {verdict.changes[0]} changes to {verdict.changes[1]}"
            )

    def _tell(self, name: str) -> None:
        self.say(f"replaying {name}")

    def _traffic(self, options: dict[str, Any]) -> Traffic:
        name = str(options["trace"])
        if not name.startswith(SYNTHETIC_PREFIX):
            return read_traffic(Path(name), options["service"], options["row"])
        kind = name.removeprefix(SYNTHETIC_PREFIX)
        if kind not in SYNTHETIC:
            raise BadTrace(f"{name!r}: {', '.join(SYNTHETIC_PREFIX + one for one in SYNTHETIC)} are accepted")
        return SYNTHETIC[kind](1)


def _service(text: str) -> ServiceTime:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    sound = all(math.isfinite(one) and one >= 0 for one in numbers)
    if len(numbers) not in (1, 3) or not sound or numbers[0] <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not accepted: A,B,C or A alone, from 0 on, A above 0, is"
        )
    return ServiceTime(*numbers) if len(numbers) == 3 else ServiceTime(numbers[0], 0.0, 0.0)


def _agents(text: str) -> int:
    number = count(text)
    if not 1 <= number <= MAX_AGENTS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not accepted: a whole number from 1 to {MAX_AGENTS} is"
        )
    return number


def _slots(text: str) -> int:
    number = count(text)
    if not 1 <= number <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted: a whole number from 1 to 1024 is")
    return number


def _from_zero(text: str) -> float:
    return 0.0 if text.strip() in ("0", "0.0") else positive_number(text)

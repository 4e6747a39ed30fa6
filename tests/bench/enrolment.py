"""From bare boxes to answers, on real hosts of this machine: systemd, sshd, address and disk each."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.report import Mark, render_table
from tests.bench.servers import ROOT

sys.path += [str(ROOT / "tests" / name) for name in ("stack", "fleet")]

from fleet_appliance import FleetAppliance, copy_bare_home, make_bare_home
from fleet_trees import make_trees
from hosts import Fleet, Host, why_not

#: A bare box is a node in state ready within this time, with its Python's release collected before.
READY_MARK_S = 10.0
#: A deployment answers within this time after that.
ANSWER_MARK_S = 5.0
#: Three boxes at once cost less than so many times one.
THREE_MARK = 2.0


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of one round: a lone box to ready, from there to the first answer, three boxes at once."""

    one_s: float
    answer_s: float
    three_s: float


@dataclass(slots=True)
class Enrolments:
    """What was measured; `trouble` says why nothing was, `failed` that it was the appliance's fault."""

    rounds: list[Round] = field(default_factory=list)
    trouble: str = ""
    failed: bool = False


def measure_enrolment(template: Path, scratch: Path, rounds: int) -> Enrolments:
    """Enroll new boxes round after round, by an appliance that starts from a demo's state directory."""
    if reason := why_not():
        return Enrolments(trouble=reason)
    findings = Enrolments()
    try:
        make_trees(["bookworm"])
        bare = make_bare_home(template, scratch / "bare")
        with FleetAppliance(copy_bare_home(bare, scratch / "site")) as appliance, Fleet() as fleet:
            appliance.start()
            key = appliance.create_key("enrolment")
            hosts = [fleet.start(f"bench-{number}", wait=False) for number in range(4)]
            for _ in range(rounds):
                for host in hosts:
                    host.wait_ready()
                findings.rounds.append(_measure_round(appliance, key, hosts))
                appliance.clear()
                for host in hosts:
                    host.reset(wait=False)
    except (AssertionError, OSError, TimeoutError, RuntimeError) as error:
        findings.trouble, findings.failed = str(error).strip()[:2000] or type(error).__name__, True
    return findings


def _measure_round(appliance: FleetAppliance, key: str, hosts: Sequence[Host]) -> Round:
    one = appliance.enroll(hosts[0])
    began = time.monotonic()
    appliance.run("deploy", "minilm", "--model", "minilm")
    appliance.ask(key)
    answer_s = time.monotonic() - began
    return Round(one.seconds, answer_s, appliance.enroll(*hosts[1:]).seconds)


def render_enrolment(findings: Enrolments) -> str:
    """Medians, the best and the worst round."""
    if findings.trouble:
        return f"NOT MEASURED: {findings.trouble}"
    columns = {
        "a bare box, from the command to state ready": [one.one_s for one in findings.rounds],
        "from there: deploy, to its first answer": [one.answer_s for one in findings.rounds],
        "three bare boxes at once": [one.three_s for one in findings.rounds],
    }
    rows = [
        [name, "s", f"{median(told):.2f}", f"{min(told):.2f}", f"{max(told):.2f}"]
        for name, told in columns.items()
    ]
    return render_table(["Debian 12, release collected before", "", "median", "best", "worst"], rows)


def compute_enrolment_marks(findings: Enrolments) -> list[Mark]:
    """The marks that enrolment is held to."""
    texts = (
        f"a bare box is ready within {READY_MARK_S:g} s",
        f"and answers within {ANSWER_MARK_S:g} s more",
        f"three at once cost less than {THREE_MARK:g} x one",
    )
    if findings.trouble:
        return [Mark(text, None, "not measured") for text in texts]
    one = median(measured.one_s for measured in findings.rounds)
    answer = median(measured.answer_s for measured in findings.rounds)
    ratio = median(measured.three_s for measured in findings.rounds) / one
    return [
        Mark(texts[0], one <= READY_MARK_S, f"{one:.2f} s"),
        Mark(texts[1], answer <= ANSWER_MARK_S, f"{answer:.2f} s"),
        Mark(texts[2], ratio < THREE_MARK, f"x {ratio:.2f}"),
    ]

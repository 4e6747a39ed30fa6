"""Carries plans out on a box, one log line for each step. Running it again goes on where it stopped."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Self

from provisioning.commands import root as become
from provisioning.commands.probe import probe
from provisioning.commands.root import Root
from provisioning.errors import CommandFailed, DiskFull, Hung, ProvisioningError
from provisioning.facts.box import BoxFacts, parse_box
from provisioning.planning import Step, Wanted, check_box, plan_first_contact
from provisioning.transport import Carrier, Limits, Result, Secret

PROBE: Final = Limits(idle_s=15.0, total_s=30.0)
STEP: Final = Limits(idle_s=20.0, total_s=60.0)
#: All commands of a first contact together; each log-in has limits of its own.
CONTACT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class LogLine:
    """One remote step as it went; `detail` is untrusted text of the node, or an error's line."""

    step: str
    outcome: Literal["done", "failed"]
    seconds: float
    detail: str = ""


Log = Callable[[LogLine], None]


class Runner:
    """Does things on one box, in order, and tells a log; all of it within `total_s`."""

    def __init__(self, carrier: Carrier, log: Log, total_s: float = CONTACT_S) -> None:
        self._carrier = carrier
        self._log = log
        self._total_s = total_s
        self._until = time.monotonic() + total_s

    def first_contact(
        self, wanted: Wanted, password: Secret | None, clock: Callable[[], float] = time.time
    ) -> BoxFacts:
        """Make the box what is wanted, and return what it was. Nothing is done to one that is so already.

        Raises a NodeError of the tree in `errors.py`.
        """
        root = self.become_root(password)
        facts = self.read_facts(root)
        with self.told("check"):
            check_box(facts, clock())
        for step in plan_first_contact(facts, wanted):
            self.run_step(root, step)
        return facts

    def become_root(self, password: Secret | None) -> Root:
        """Find out how. Raises NoSudo, SudoMissing, SudoNeedsPassword."""
        with self.told("become root"):
            told = self._run(become.who(), (), PROBE)
            root = become.choose_root(told.stdout.decode(errors="replace"), password)
            if root.password is not None:
                line = root.password.reveal().encode() + b"\n"
                tried = self._run(become.try_password(), (line,), PROBE)
                if tried.exit_code != 0:
                    raise become.refused_password(tried.stderr.decode(errors="replace"))
        return root

    def read_facts(self, root: Root) -> BoxFacts:
        """What the box is."""
        with self.told("read facts"):
            done = self._as_root(root, probe(), b"", PROBE)
            return parse_box(done.stdout.decode(errors="replace"))

    def run_step(self, root: Root, step: Step) -> None:
        """Do one step. Raises CommandFailed or DiskFull with what the box said."""
        with self.told(step.name):
            done = self._as_root(root, step.command, step.stdin, STEP)
            if done.exit_code != 0:
                said = done.error_line
                if "No space left" in said or "Disk quota" in said:
                    raise DiskFull(f"{step.name}: {said}")
                raise CommandFailed(f"{step.name} ended with {done.exit_code}: {said}")

    def told(self, step: str) -> "_Told":
        """A step that is told to the log when it ends, however it ends."""
        return _Told(self._log, step)

    def _as_root(self, root: Root, command: str, stdin: bytes, limits: Limits) -> Result:
        line, before = become.as_root(root, command)
        return self._run(line, tuple(filter(None, (before, stdin))), limits)

    def _run(self, line: str, stdin: tuple[bytes, ...], limits: Limits) -> Result:
        left = self._until - time.monotonic()
        if left <= 0:
            raise Hung(f"first contact did not finish within {self._total_s:g} s")
        return self._carrier.run(
            line, stdin=stdin, limits=Limits(min(limits.idle_s, left), min(limits.total_s, left))
        )


class _Told:
    def __init__(self, log: Log, step: str) -> None:
        self._log, self._step = log, step
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        seconds = time.monotonic() - self._began
        if error is None:
            self._log(LogLine(self._step, "done", seconds))
            return
        line = error.line if isinstance(error, ProvisioningError) else type(error).__name__
        self._log(LogLine(self._step, "failed", seconds, line))

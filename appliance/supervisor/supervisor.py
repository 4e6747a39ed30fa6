"""Keeps the programs running until told to stop."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

from appliance.environment import Environment
from appliance.supervisor import leftovers
from appliance.supervisor.logs import rotate_logs
from appliance.supervisor.make_parent import make_was_interrupted
from appliance.supervisor.programs import (
    STEADY_S,
    ProcessIdentity,
    Program,
    Running,
    last_lines,
    restart_delay_s,
    start_program,
)
from provisioning import local

#: The gateway finishes what it has, the worker and the control plane have nothing to finish.
STOP_PROGRAMS_S = 8.0
STOP_AGENTS_S = 4.0
_POLL_S = 0.1
_ROTATE_EVERY_S = 60.0


class Supervisor:
    """Starts programs, starts again those that end, and ends everything on a signal.

    `say` prints one line for the operator. All methods but `request_stop` belong to one thread.
    """

    def __init__(
        self, environment: Environment, programs: Sequence[Program], say: Callable[[str], None]
    ) -> None:
        self._environment = environment
        self._programs = programs
        self._say = say
        self._running: dict[str, Running] = {}
        self._stop = threading.Event()
        self._signals = 0
        self._rotated_at = 0.0

    @property
    def stopping(self) -> threading.Event:
        """Set once the appliance is to end."""
        return self._stop

    def request_stop(self) -> None:
        """End the appliance; returns at once."""
        self._stop.set()

    def install_signal_handlers(self) -> None:
        """Take SIGINT, SIGTERM and SIGHUP, also where they were ignored when we were started.

        Handlers, unlike ignoring, are not handed down to the programs we start.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._stop.set()

    def end_leftovers(self) -> None:
        """End what an `up` that was killed left of this state directory."""
        run_dir = self._environment.run_dir
        old = [one for one in leftovers.read_record(run_dir) if one.is_alive()]
        if old:
            self._say(f"ending {len(old)} processes that an earlier start left behind")
        leftovers.end_processes(old, timeout_s=3.0)
        local.end_all(self._environment.home, timeout_s=3.0)
        leftovers.write_record(run_dir, ())

    def start(self) -> None:
        """Start every program."""
        for program in self._programs:
            self._start(program, restarts=0)

    def _start(self, program: Program, restarts: int) -> None:
        running = start_program(program, self._environment, time.monotonic())
        running.restarts = restarts
        self._running[program.name] = running
        leftovers.write_record(self._environment.run_dir, (one.identity for one in self._running.values()))

    def watch(self) -> None:
        """Keep the programs running until a stop is asked for."""
        while not self._stop.wait(_POLL_S):
            now = time.monotonic()
            for running in list(self._running.values()):
                self._look_after(running, now)
            if now - self._rotated_at > _ROTATE_EVERY_S:
                self._rotated_at = now
                rotate_logs(self._environment.logs_dir)
            if make_was_interrupted():
                self._stop.set()

    def _look_after(self, running: Running, now: float) -> None:
        code = running.process.poll()
        if code is None:
            return
        name = running.program.name
        if running.restart_at is None:
            delay = restart_delay_s(running.restarts, now - running.started_at)
            running.restart_at = now + delay
            cause = f"signal {-code}" if code < 0 else f"exit code {code}"
            self._say(f"{name} ended ({cause}); starting it again in {delay:.1f} s")
            for line in last_lines(self._environment.logs_dir / f"{name}.log") if delay else ():
                self._say(f"  {name}: {line}")
        if now >= running.restart_at:
            steady = running.restart_at - running.started_at >= STEADY_S
            self._start(running.program, restarts=1 if steady else running.restarts + 1)

    def end(self) -> None:
        """End programs and local agents: asked first, killed when the time is up or asked twice."""
        identities = [one.identity for one in self._running.values()]
        for one in identities:
            one.send(signal.SIGTERM)
        if self._wait(STOP_PROGRAMS_S):
            self._kill(identities)
        # The worker is gone by now: nobody starts an agent again.
        if self._signals > 1:
            local.end_all(self._environment.home, timeout_s=0.0)
        else:
            local.end_all(self._environment.home, timeout_s=STOP_AGENTS_S)
        leftovers.write_record(self._environment.run_dir, ())

    def _wait(self, timeout_s: float) -> list[Running]:
        """Wait for the programs to end; returns at once on a second signal."""
        deadline = time.monotonic() + timeout_s
        while True:
            left = [one for one in self._running.values() if one.process.poll() is None]
            if not left or self._signals > 1 or time.monotonic() > deadline:
                return left
            time.sleep(0.02)

    def _kill(self, identities: Sequence[ProcessIdentity]) -> None:
        for one in identities:
            one.send(signal.SIGKILL)
        for running in self._running.values():
            running.process.wait(timeout=5)

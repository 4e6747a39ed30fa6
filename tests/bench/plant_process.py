"""A process of a plant: started, hurt and ended by its pid."""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.servers import ROOT

#: How long a process may take to end after SIGTERM.
END_S = 15.0


class PlantProcess:
    """A process that may be started again at the same address, its log in one file."""

    def __init__(self, name: str, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False  # to stop

    @property
    def pid(self) -> int:
        """Of the process that runs, or ran last."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended; also while it is stopped."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; does not wait for anything."""
        assert not self.running, f"{self.name} runs already"
        self._told = False
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=self._env, cwd=ROOT, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL, and wait for its end; the pid stays to be asked for."""
        self.send(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """SIGSTOP: it stands still until `cont`."""
        self.send(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT."""
        self.send(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, once: a second one would cut short. An agent drains. Does not wait."""
        if not self._told:
            self._told = True
            self.send(signal.SIGTERM)

    def restart(self) -> None:
        """Kill it where it still runs, and start it again."""
        if self.running:
            self.kill()
        self.start()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing where it does not run."""
        if self._process is not None:
            self._process.send_signal(number)

    def end(self) -> None:
        """SIGTERM, after a time SIGKILL. Safe to call in every state."""
        if self.running:
            self.cont()
            self.terminate()
            self._wait()

    def last_line(self) -> str:
        """The last line of its log, at most 300 characters."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "(no output)"

    def _wait(self) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

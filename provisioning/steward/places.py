"""Where everything of ours lies on a node. Every path the steward touches is made here."""

from dataclasses import dataclass
from pathlib import Path

ACCOUNT = "millwright"
AGENT_ACCOUNT = "millwright-agent"
UNIT_PREFIX = "millwright-agent-"
#: Where a box has no sudo the key opens root's account: a line of its authorized_keys that begins so is ours.
ROOT_KEY_BEGINS = 'restrict,command="/usr/local/lib/millwright/steward" '


@dataclass(frozen=True)
class Places:
    """The steward's directories. Digests and names that come in here have passed `requests.py`."""

    home: Path = Path("/var/lib/millwright")
    units: Path = Path("/etc/systemd/system")
    programs: Path = Path("/usr/local/lib/millwright")
    sudo_rule: Path = Path("/etc/sudoers.d/millwright")
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    etc: Path = Path("/etc")
    root_home: Path = Path("/root")

    @property
    def program(self) -> Path:
        """The steward itself."""
        return self.programs / "steward"

    @property
    def made(self) -> Path:
        """What of root's authorized_keys and its folder was not there before enrolment: words, one a line."""
        return self.programs / "made"

    @property
    def root_keys(self) -> Path:
        """The keys that open root's account."""
        return self.root_home / ".ssh" / "authorized_keys"

    def blob(self, sha256: str) -> Path:
        """A file that was received whole."""
        return self.home / "blobs" / sha256

    def partial(self, sha256: str) -> Path:
        """A file of which the beginning was received."""
        return self.home / "partial" / sha256

    def release(self, sha256: str) -> Path:
        """An unpacked release."""
        return self.home / "releases" / sha256

    def model(self, digest: str) -> Path:
        """An installed model."""
        return self.home / "models" / digest

    def agent(self, name: str) -> Path:
        """What an agent starts from."""
        return self.home / "agents" / name

    def unit(self, name: str) -> Path:
        """An agent's unit file."""
        return self.units / unit_name(name)


def unit_name(agent: str) -> str:
    """The systemd unit of an agent."""
    return f"{UNIT_PREFIX}{agent}.service"

"""What is known of a remote node, and how the steward's answers become that. Values and pure functions.

Answers are untrusted: what is not understood stays empty, texts are cut, and lists are bounded.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Final

from provisioning.errors import printable
from provisioning.facts.box import parse_hardware
from provisioning.hostkeys import HostKey
from provisioning.login import Address
from provisioning.remote import LIVING, exit_code_of, number_of

#: Unit states that a node leaves by itself, soon.
PASSING: Final = ("activating", "deactivating", "reloading")
_MAX_AGENTS: Final = 1000
_MAX_TEXT: Final = 255
_FACT_TEXTS: Final = ("cpuinfo", "meminfo", "os_release", "arch")


@dataclass(frozen=True, slots=True)
class NodeAccess:
    """What a lane must know of its node; with a change of all but the release it connects anew."""

    name: str
    host: str
    port: int
    account: str
    host_key: str
    host_key_kind: str
    release_sha256: str

    @property
    def address(self) -> Address:
        """Where and as whom."""
        return Address(self.host, self.port, self.account)

    @property
    def pin(self) -> HostKey:
        """The host key that was pinned."""
        return HostKey(self.host_key, self.host_key_kind)

    @property
    def way_there(self) -> tuple[object, ...]:
        """What a connection depends on."""
        return self.host, self.port, self.account, self.host_key, self.host_key_kind


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps a node from being well now."""

    code: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class AgentSeen:
    """An agent as the node shows it.

    `active_state` is its unit's; `pid` is 0 while there is no process; `exit_code` is minus the signal
    that ended it, None while it runs; digests are '' where there is none.
    """

    pid: int
    active_state: str
    exit_code: int | None
    release: str
    model: str | None
    certificate_sha256: str
    ca_sha256: str

    @property
    def is_living(self) -> bool:
        """Whether its unit is not at rest."""
        return self.active_state in LIVING


@dataclass(frozen=True, slots=True)
class Observation:
    """The newest answer of a node.

    `at` is when it came, Unix seconds; `skew_s` is how far the node's clock is ahead. `hardware` is as
    `Node.hardware` has it, with disk_bytes and disk_free_bytes; None until it was read.
    """

    at: float
    boot_id: str
    steward_sha256: str
    skew_s: float
    hardware: Mapping[str, object] | None
    agents: Mapping[str, AgentSeen]


@dataclass(frozen=True, slots=True)
class Hello:
    """Who answered, and how its clock stands."""

    boot_id: str = ""
    steward_sha256: str = ""
    skew_s: float = 0.0


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended: `error` is '' where it was done, else cause and remedy in one line."""

    name: str
    error: str
    code: str


def parse_hello(told: Mapping[str, Any], middle: float) -> Hello:
    """`middle` is the appliance's time half-way between question and answer."""
    at = told.get("time")
    known = isinstance(at, (int, float)) and not isinstance(at, bool) and math.isfinite(at)
    skew_s = float(at) - middle if known and at is not None else 0.0
    return Hello(_text(told.get("boot_id")), _text(told.get("steward")), skew_s)


def parse_agents(told: Mapping[str, Any]) -> Mapping[str, AgentSeen]:
    """The agents of an answer to `status`, by id."""
    agents = told.get("agents")
    if not isinstance(agents, dict):
        return MappingProxyType({})
    first = list(agents.items())[:_MAX_AGENTS]
    return MappingProxyType({str(name): _agent(one) for name, one in first if isinstance(one, dict)})


def parse_facts(told: Mapping[str, Any]) -> dict[str, object]:
    """Hardware as a node's row has it, of an answer to `facts`: lists, since rows know no tuples."""
    texts = {name: str(told.get(name) or "") for name in _FACT_TEXTS}
    hardware = asdict(parse_hardware(texts, _text(told.get("python"))))
    hardware = {name: list(one) if isinstance(one, tuple) else one for name, one in hardware.items()}
    sizes = {name: told.get(name) for name in ("disk_bytes", "disk_free_bytes")}
    return hardware | {name: size for name, size in sizes.items() if type(size) is int and size >= 0}


def _agent(told: Mapping[str, Any]) -> AgentSeen:
    unit, written, digests = (_object(told.get(name)) for name in ("unit", "written", "sha256"))
    model = written.get("model")
    return AgentSeen(
        pid=number_of(unit.get("MainPID")),
        active_state=_state(unit),
        exit_code=exit_code_of(unit),
        release=_text(written.get("release")),
        model=None if model is None else _text(model),
        certificate_sha256=_text(told.get("certificate_sha256")),
        ca_sha256=_text(digests.get("ca.pem")),
    )


def _state(unit: Mapping[str, Any]) -> str:
    """A unit that is about to be started, as at boot, is not at rest."""
    state = _text(unit.get("ActiveState"))
    return "activating" if state == "inactive" and number_of(unit.get("Job")) else state


def _object(given: object) -> Mapping[str, Any]:
    return given if isinstance(given, dict) else {}


def _text(given: object) -> str:
    return printable(given[:_MAX_TEXT]) if isinstance(given, str) else ""

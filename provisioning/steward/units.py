"""The unit that an agent runs as. Pure: names and numbers in, unit text out."""

from dataclasses import dataclass

from .places import AGENT_ACCOUNT, Places

#: Nothing but computing and talking: what an agent needs of the system.
_HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0077
"""


@dataclass(frozen=True)
class Unit:
    """What an agent's unit is made of; `model` is None where the engine needs none."""

    agent: str
    release: str
    model: str | None
    memory_max_bytes: int | None = None
    cpus: tuple[int, ...] | None = None


def build_unit(unit: Unit, places: Places) -> str:
    """The text of the unit file.

    The agent sees of our directory its own release, model and files alone. It is stopped by SIGTERM, after
    which it drains; ten minutes later systemd ends it, so that a reboot comes to an end.
    """
    seen = [places.release(unit.release), places.agent(unit.agent)]
    if unit.model is not None:
        seen.append(places.model(unit.model))
    limits = [] if unit.memory_max_bytes is None else [f"MemoryMax={unit.memory_max_bytes}"]
    if unit.cpus:
        limits.append("CPUAffinity=" + " ".join(str(cpu) for cpu in unit.cpus))
    lines = [
        "# Written by millwright's steward; changes are overwritten.",
        "[Unit]",
        f"Description=millwright agent {unit.agent}",
        "Wants=network-online.target",
        "After=network-online.target",
        "StartLimitIntervalSec=30",
        "StartLimitBurst=10",
        "",
        "[Service]",
        f"ExecStart=/usr/bin/python3 -s -m agents --config {places.agent(unit.agent)}/config.json",
        f"WorkingDirectory={places.release(unit.release)}",
        f"Environment=PYTHONPATH={places.release(unit.release)} PYTHONDONTWRITEBYTECODE=1",
        f"User={AGENT_ACCOUNT}",
        f"Group={AGENT_ACCOUNT}",
        "Restart=on-failure",
        "RestartSec=100ms",
        "KillMode=mixed",
        "TimeoutStopSec=600",
        "LimitNOFILE=65536",
        "TasksMax=4096",
        *limits,
        f"TemporaryFileSystem={places.home}:ro",
        f"BindReadOnlyPaths={' '.join(str(path) for path in seen)}",
        _HARDENING,
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return "\n".join(lines)

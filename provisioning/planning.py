"""Facts and what is wanted in, steps out; no step where all is as wanted. Pure."""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from provisioning.commands import install, places
from provisioning.errors import (
    AccountTaken,
    ClockOff,
    DiskFull,
    NodeError,
    NoSystemd,
    PythonMissing,
    PythonTooOld,
    Unsupported,
)
from provisioning.facts.box import BoxFacts

MIN_PYTHON: Final = (3, 10)
MIN_LIBC: Final = (2, 28)
ARCHITECTURES: Final = ("x86_64", "aarch64")
#: Numbers of accounts that programs run in; people's begin beyond.
SYSTEM_ACCOUNTS: Final = range(1, 1000)
MIN_FREE_BYTES: Final = 512 * 1024 * 1024
#: Certificates are valid from one hour back; half of that is left for the clock to drift.
MAX_SKEW_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do as root; `stdin` is what it reads."""

    name: str
    command: str
    stdin: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a box should have after first contact: this steward, open to this public key alone."""

    steward: bytes = field(repr=False)
    public_key: str

    @property
    def steward_sha256(self) -> str:
        """The steward's version."""
        return hashlib.sha256(self.steward).hexdigest()


def check_box(facts: BoxFacts, now_s: float) -> None:
    """Raise what keeps this box from being a node: the first of what people have to mend."""
    found = (
        _python_problem(facts),
        _system_problem(facts),
        _account_problem(facts),
        _state_problem(facts, now_s),
    )
    for problem in found:
        if problem is not None:
            raise problem


def choose_account(facts: BoxFacts) -> str:
    """The account that the key opens: one of our own, or root's where there is no sudo to become root with.

    Only root gets so far on a box without sudo. What was chosen once stays, also when sudo is there later.
    """
    return places.ACCOUNT if facts.sudo and not facts.root_keys else places.ROOT


def plan_first_contact(facts: BoxFacts, wanted: Wanted) -> list[Step]:
    """The steps still missing, in order; the key comes last, when all that it opens is in place."""
    own = choose_account(facts) == places.ACCOUNT
    steps = _account_steps(facts, own=own)
    rule, key = install.sudo_rule(), install.authorized_keys(wanted.public_key)
    files = [("install steward", places.STEWARD, "755", install.write_steward(), wanted.steward)]
    if own:
        files += [
            ("install sudo rule", places.SUDO_RULE, "440", install.write_sudo_rule(), rule),
            ("install key", places.AUTHORIZED_KEYS, "644", install.write_authorized_keys(), key),
        ]
    for name, path, mode, command, content in files:
        if not _is_in_place(facts, path, mode, content):
            steps.append(Step(name, command, content))
    line = install.root_key(wanted.public_key)
    if not own and facts.root_keys != (line.decode().strip(),):
        steps.append(Step("install root's key", install.write_root_key(), line))
    return steps


def _account_steps(facts: BoxFacts, *, own: bool) -> list[Step]:
    account = facts.accounts.get(places.ACCOUNT)
    steps = []
    if own and account is None:
        steps.append(Step("create account", install.create_account()))
    elif own and account is not None and (account.home, account.shell) != (places.HOME, "/bin/sh"):
        steps.append(Step("mend account", install.mend_account()))
    if places.AGENT_ACCOUNT not in facts.accounts:
        steps.append(Step("create agents' account", install.create_agent_account()))
    return steps


def _is_in_place(facts: BoxFacts, path: str, mode: str, content: bytes) -> bool:
    found = facts.files.get(path)
    return found is not None and (found.sha256, found.mode, found.owner) == (
        hashlib.sha256(content).hexdigest(), mode, "0",
    )  # fmt: skip


def _python_problem(facts: BoxFacts) -> NodeError | None:
    version = facts.hardware.python
    if not version:
        return PythonMissing("the box has no /usr/bin/python3")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < MIN_PYTHON:
        return PythonTooOld(f"the box has Python {version}, {facts.hardware.os or 'an old system'}")
    return None


def _system_problem(facts: BoxFacts) -> NodeError | None:
    if facts.init != "systemd":
        return NoSystemd(f"process 1 of the box is {facts.init or 'unknown'!r}")
    arch = facts.hardware.arch
    if arch not in ARCHITECTURES:
        return Unsupported(f"the box's processor is {arch or 'unknown'!r}")
    if facts.libc is None or facts.libc < MIN_LIBC:
        found = "none" if facts.libc is None else ".".join(map(str, facts.libc))
        return Unsupported(f"the box's glibc is {found}")
    return None


def _account_problem(facts: BoxFacts) -> NodeError | None:
    """Accounts of ours are the system's own kind; whatever home and shell a person has, they stay."""
    for name, home in ((places.ACCOUNT, places.HOME), (places.AGENT_ACCOUNT, places.AGENT_HOME)):
        there = facts.accounts.get(name)
        if there is not None and there.home != home and there.number not in SYSTEM_ACCOUNTS:
            return AccountTaken(f"the box has an account {name!r} already, number {there.number}")
    return None


def _state_problem(facts: BoxFacts, now_s: float) -> NodeError | None:
    free = facts.disk_free_bytes
    if free is not None and free < MIN_FREE_BYTES:
        return DiskFull(f"{free // 2**20} MiB are free under /var/lib, {MIN_FREE_BYTES // 2**20} are needed")
    if facts.clock_s is not None and abs(facts.clock_s - now_s) > MAX_SKEW_S:
        ahead = facts.clock_s - now_s
        return ClockOff(f"the box's clock is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}")
    return None

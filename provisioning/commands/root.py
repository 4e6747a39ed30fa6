"""Becoming root on a box: as root already, through sudo, or through sudo with a password."""

from dataclasses import dataclass
from typing import Final, Literal

from provisioning.errors import NodeError, NoSudo, SudoMissing, SudoNeedsPassword
from provisioning.transport import Secret, quote


@dataclass(frozen=True, slots=True)
class Root:
    """How commands run as root; the password goes to sudo's standard input, never into a command line."""

    way: Literal["root", "sudo", "sudo_password"]
    password: Secret | None = None


_BEGIN: Final = "@@millwright:begin"
_FROM_BEGIN: Final = f'line=; until [ "$line" = {_BEGIN} ]; do IFS= read -r line || exit 97; done; '

#: Says who logged in, where sudo is, and whether it asks for a password.
WHO = "id -u; id -un; command -v sudo || echo -; sudo -n true </dev/null >/dev/null 2>&1; echo $?"


def who() -> str:
    """Asks what is needed to become root."""
    return quote("sh", "-c", WHO)


def try_password() -> str:
    """Lets sudo check a password given on standard input, whatever it remembers."""
    return quote("sudo", "-S", "-k", "-p", "", "--", "true")


def as_root(root: Root, command: str) -> tuple[str, bytes]:
    """The command line that runs `command` as root, and what to send before its own input.

    `-k` makes sudo read the password even where it remembers one. Where it asks for none for this command
    after all, the shell drops the line: a password must never become part of what is written on the box.
    """
    if root.way == "root":
        return quote("sh", "-c", command), b""
    if root.way == "sudo":
        return quote("sudo", "-n", "--", "sh", "-c", command), b""
    assert root.password is not None
    line = quote("sudo", "-S", "-k", "-p", "", "--", "sh", "-c", _FROM_BEGIN + command)
    return line, f"{root.password.reveal()}\n{_BEGIN}\n".encode()


def choose_root(told: str, password: Secret | None) -> Root:
    """How to become root, from the answer to `who`. Raises SudoMissing, SudoNeedsPassword.

    A password that was given still has to pass `try_password`.
    """
    lines = told.split("\n")
    if len(lines) < 4:
        raise NodeError("the box did not say who logged in", remedy="its shell must run sh -c")
    user_id, user, sudo, code = (line.strip() for line in lines[:4])
    if user_id == "0":
        return Root("root")
    if sudo == "-":
        raise SudoMissing(f"{user!r} is not root, and the box has no sudo")
    if code == "0":
        return Root("sudo")
    if password is None:
        raise SudoNeedsPassword(f"{user!r} is not root, and sudo asks for a password")
    return Root("sudo_password", password)


def refused_password(stderr: str) -> NodeError:
    """What sudo's refusal of a password means."""
    if "sudoers" in stderr or "not allowed" in stderr:
        return NoSudo("the account may not use sudo")
    return SudoNeedsPassword("sudo does not take this password")

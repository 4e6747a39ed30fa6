"""What can go wrong on the way to a node: one tree, each with a code, a cause and a remedy."""

from typing import ClassVar


def printable(text: str) -> str:
    """The text without what a terminal would obey and what cannot be written as UTF-8: blanks stand there."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


class ProvisioningError(Exception):
    """A node could not be read or changed; the message is one printable line for the operator.

    `permanent` says that trying again changes nothing.
    """

    code: ClassVar[str] = "provisioning"

    def __init__(self, message: str, *, permanent: bool = False, remedy: str = "") -> None:
        super().__init__(printable(message))
        self.permanent = permanent
        self.remedy = printable(remedy)

    @property
    def line(self) -> str:
        """Cause and remedy in one line."""
        return f"{self}; {self.remedy}" if self.remedy else str(self)


class NodeError(ProvisioningError):
    """A typed cause. Subclasses say which, whether trying again may help, and what to do."""

    code: ClassVar[str] = "node"
    lasting: ClassVar[bool] = True
    advice: ClassVar[str] = ""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message, permanent=self.lasting, remedy=remedy or self.advice)


class Unreachable(NodeError):
    """No connection: no such name, no route, no answer."""

    code, lasting = "unreachable", False
    advice = "check the address, that the box is on, and the network between"


class WrongPort(NodeError):
    """The box answers, but not with SSH on this port."""

    code = "wrong_port"
    advice = "check --port and that sshd runs on the box"


class HostKeyChanged(NodeError):
    """The box shows another host key than the one that was pinned: never connected to."""

    code = "host_key_changed"
    advice = (
        "somebody may be in between, or the box was installed anew: compare the fingerprint on its own "
        "console, then retire and enroll it again"
    )


class WrongPassword(NodeError):
    """The account does not open with this password."""

    code = "wrong_password"
    advice = "check --user and the password, and that sshd allows PasswordAuthentication"


class KeyRefused(NodeError):
    """The account does not open with the keys that were offered."""

    code = "key_refused"
    advice = "check --user, and that the public key stands in its authorized_keys"


class KeyUnusable(NodeError):
    """A private key file cannot be read, or needs a passphrase."""

    code = "key_unusable"
    advice = "give an unencrypted private key, or load it into ssh-agent"


class NoSudo(NodeError):
    """The account is not root and may not become root."""

    code = "no_sudo"
    advice = "log in as root, or allow the account to use sudo"


class SudoMissing(NodeError):
    """There is no sudo on the box."""

    code = "sudo_missing"
    advice = "log in as root, or install it on the box: apt-get install sudo"


class SudoNeedsPassword(NodeError):
    """sudo asks for a password that was not given, or does not take the one that was."""

    code = "sudo_needs_password"
    advice = "log in with that account's password (--password-stdin), or allow sudo without password"


class PythonMissing(NodeError):
    """There is no /usr/bin/python3."""

    code = "python_missing"
    advice = "install it on the box: apt-get install python3"


class PythonTooOld(NodeError):
    """/usr/bin/python3 is older than agents need."""

    code = "python_too_old"
    advice = "Python 3.10 or newer is needed, as in Debian 12: upgrade the box's system"


class NoSystemd(NodeError):
    """The box is not run by systemd."""

    code = "no_systemd"
    advice = "agents run as systemd units: use a system that systemd runs"


class Unsupported(NodeError):
    """A processor or C library that there are no agents for."""

    code = "unsupported"
    advice = "x86_64 and aarch64 with glibc 2.28 or newer are supported"


class AccountTaken(NodeError):
    """A person's account, or root's, has the name of one of ours: it is neither changed nor removed."""

    code = "account_taken"
    advice = "rename that account on the box: the appliance needs the name for its own"


class DiskFull(NodeError):
    """Not enough room on the node."""

    code, lasting = "disk_full", False
    advice = "make room under /var/lib on the box"


class ClockOff(NodeError):
    """The node's clock differs so much that certificates would not be valid."""

    code, lasting = "clock_off", False
    advice = "set the box's clock: timedatectl set-ntp true"


class Hung(NodeError):
    """The node did not answer within the time limit."""

    code, lasting = "hung", False
    advice = "look at the box's load and disk; the same command goes on where it stopped"


class ConnectionLost(NodeError):
    """The connection ended in the middle."""

    code, lasting = "connection_lost", False
    advice = "check the network; the same command goes on where it stopped"


class CommandFailed(NodeError):
    """A command on the node ended with an error."""

    code, lasting = "command_failed", False
    advice = "the message is the box's own; mend its cause, then run the same command again"


class StewardError(NodeError):
    """The steward refused; `reason` is its own code."""

    code, lasting = "steward_refused", False

    def __init__(self, message: str, *, reason: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason


class StewardMissing(NodeError):
    """The appliance's key opens the account, but no steward answers as it should."""

    code = "steward_missing"
    advice = "enroll the node again"


class BundleError(NodeError):
    """A release for this Python and processor could not be built on the appliance."""

    code, lasting = "bundle_failed", False
    advice = "check that the appliance reaches its package index, or collect the runtime ahead"

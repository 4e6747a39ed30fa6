"""What first contact installs: two accounts, the steward, the sudo rule, and last the key to it."""

from provisioning.commands.places import (
    ACCOUNT,
    AGENT_ACCOUNT,
    AGENT_HOME,
    AUTHORIZED_KEYS,
    FORCED_COMMAND,
    HOME,
    MADE,
    ROOT_KEY_BEGINS,
    ROOT_KEYS,
    STEWARD,
    SUDO_RULE,
)
from provisioning.transport import quote


def create_account() -> str:
    """The account that the appliance's key opens: no password, a home that is root's."""
    return quote(
        "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", HOME,
        "--shell", "/bin/sh", "--password", "*", ACCOUNT,
    )  # fmt: skip


def mend_account() -> str:
    """The same account where one of that name has another home or shell."""
    return quote("usermod", "--home", HOME, "--shell", "/bin/sh", "--password", "*", ACCOUNT)


def create_agent_account() -> str:
    """The account that agents run in: nobody logs in to it, and it owns nothing."""
    return quote(
        "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", AGENT_HOME,
        "--shell", "/usr/sbin/nologin", AGENT_ACCOUNT,
    )  # fmt: skip


def write_file(path: str, mode: str, check: str = "") -> str:
    """Write standard input to a file of root's, in one step; `check` runs on it before it counts."""
    folder, staged = path.rpartition("/")[0], f"{path}.new"
    steps = [
        "set -e",
        "umask 022",
        quote("mkdir", "-p", folder),
        f"cat > {quote(staged)}",
        quote("chown", "root:root", staged),
        quote("chmod", mode, staged),
        *([check] if check else []),
        "sync -f " + quote(staged),
        quote("mv", "-f", staged, path),
    ]
    return "; ".join(steps)


def write_steward() -> str:
    """The steward comes on standard input."""
    return write_file(STEWARD, "0755")


def write_sudo_rule() -> str:
    """The rule comes on standard input; sudo itself checks it, since a broken one would lock people out."""
    return write_file(SUDO_RULE, "0440", check=quote("visudo", "-cqf", f"{SUDO_RULE}.new") + " >/dev/null")


def write_authorized_keys() -> str:
    """The one line comes on standard input."""
    return write_file(AUTHORIZED_KEYS, "0644")


def write_root_key() -> str:
    """The line comes on standard input, and goes before the others in root's file, which stay byte for byte.

    A line of ours that is there is replaced. What had to be made is noted first, so that retiring
    the node removes no more than that.
    """
    ours = quote(rf"\|^{ROOT_KEY_BEGINS}|d")
    made = f'{{ [ -d ~root/.ssh ] || echo folder; [ -e "$keys" ] || echo keys; }} > {MADE}.new'
    steps = [
        "set -e",
        "umask 077",
        "IFS= read -r line",  # fails where it comes cut short
        f"keys={ROOT_KEYS}",
        f"[ -e {MADE} ] || {{ {made}; mv -f {MADE}.new {MADE}; }}",
        "mkdir -p ~root/.ssh",
        '[ -e "$keys" ] || : > "$keys"',
        'real=$(readlink -f "$keys")',
        'staged="${real%/*}/authorized_keys.millwright"',
        'cp -a "$real" "$staged"',
        f'{{ printf "%s\\n" "$line"; sed {ours} "$real"; }} > "$staged"',
        'sync -f "$staged"',
        'mv -f "$staged" "$real"',
    ]
    return "; ".join(steps)


def sudo_rule() -> bytes:
    """That account may run exactly that program, with no arguments, without a password, and nothing else.

    The steward logs what it changes itself; sudo logs what it refuses.
    """
    return (
        f"# Written by millwright: the appliance's key may run its steward, nothing else.\n"
        f"Defaults:{ACCOUNT} !requiretty, !use_pty, !pam_session, !log_allowed, env_reset, umask=0022\n"
        f'{ACCOUNT} ALL=(root) NOPASSWD: {STEWARD} ""\n'
    ).encode()


def authorized_keys(public_key: str) -> bytes:
    """The appliance's key, bound to the steward: no terminal, no forwarding, no other command."""
    return f'restrict,command="{FORCED_COMMAND}" {public_key.strip()} millwright\n'.encode()


def root_key(public_key: str) -> bytes:
    """The same for root's own account, where there is no sudo to become root with."""
    return f"{ROOT_KEY_BEGINS}{public_key.strip()} millwright\n".encode()

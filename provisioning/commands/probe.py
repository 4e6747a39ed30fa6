"""Reads everything that first contact decides on, in one round trip."""

from typing import Final

from provisioning.commands import places

#: Section name -> the command that fills it. `facts/box.py` parses the answer.
SECTIONS: Final = {
    "cpuinfo": "cat /proc/cpuinfo",
    "meminfo": "cat /proc/meminfo",
    "os_release": "cat /etc/os-release",
    "arch": "uname -m",
    "python": "/usr/bin/python3 -I -c 'import platform; print(platform.python_version()); "
    'print(" ".join(platform.libc_ver()))\'',
    "init": "cat /proc/1/comm",
    "disk": "df -Pk /var/lib | tail -n 1",
    "clock": "date +%s.%N",
    "sudo": "command -v sudo",
    "accounts": f"getent passwd {places.ACCOUNT} {places.AGENT_ACCOUNT}",
    "files": "; ".join(f"sha256sum {path}; stat -c '%a %u %n' {path}" for path in places.FILES),
    "root_keys": f"grep '^{places.ROOT_KEY_BEGINS}' {places.ROOT_KEYS}",
}
MARK: Final = "@@millwright:"


def probe() -> str:
    """A script for `sh -c`, as root; a command that fails leaves its section empty."""
    parts = [f"echo; echo {MARK}{name}; {{ {command}; }} 2>/dev/null" for name, command in SECTIONS.items()]
    return "LC_ALL=C; export LC_ALL; " + "; ".join(parts) + "; true"

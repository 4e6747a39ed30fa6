"""Where first contact puts things on a node. The steward's own list is `steward/places.py`."""

from provisioning.steward.places import ACCOUNT, AGENT_ACCOUNT, ROOT_KEY_BEGINS, Places

_PLACES = Places()
HOME = str(_PLACES.home)
STEWARD = str(_PLACES.program)
SUDO_RULE = str(_PLACES.sudo_rule)
AUTHORIZED_KEYS = f"{HOME}/.ssh/authorized_keys"
AGENT_HOME = "/nonexistent"
FILES = (STEWARD, SUDO_RULE, AUTHORIZED_KEYS)
#: What the appliance's key is bound to.
FORCED_COMMAND = f"sudo -n {STEWARD}"
#: Where there is no sudo: root's own file, in the shell's words; what enrolment made of it stands in MADE.
ROOT = "root"
ROOT_KEYS = "~root/.ssh/authorized_keys"
MADE = str(_PLACES.made)

__all__ = [
    "ACCOUNT",
    "AGENT_ACCOUNT",
    "AGENT_HOME",
    "AUTHORIZED_KEYS",
    "FILES",
    "FORCED_COMMAND",
    "HOME",
    "MADE",
    "ROOT",
    "ROOT_KEYS",
    "ROOT_KEY_BEGINS",
    "STEWARD",
    "SUDO_RULE",
]

"""What people say of a node: its name, where it is, and its attributes; checked and put in one form. Pure."""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from appliance.errors import VerbError
from appliance.models.names import NAME_PATTERN
from provisioning.power import PROGRAM_NAME

MAX_LABELS: Final = 32
MAX_COST: Final = Decimal(100_000)
ATTRIBUTES: Final = ("labels", "region", "cost_per_hour", "preemptible", "power")
_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)
#: The zone of a link-local IPv6 address, for which the standard library takes any text.
_ZONE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,15}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}")
_KEY = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9._-]{0,63}")
_REGION = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_MAC = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}")
_YES, _NO = ("yes", "true", "1", "on"), ("", "no", "false", "0", "off")


def check_attributes(given: Mapping[str, object]) -> dict[str, object]:
    """The attributes as rows keep them: cost as text, MAC in lower case. What is None is left out.

    Raises VerbError naming the value and what is accepted.
    """
    unknown = sorted(set(given) - set(ATTRIBUTES))
    if unknown:
        raise VerbError(f"unknown attribute {unknown[0]!r}; accepted are: {', '.join(ATTRIBUTES)}")
    checks = {
        "labels": check_labels,
        "region": check_region,
        "cost_per_hour": check_cost,
        "preemptible": check_flag,
        "power": check_power,
    }
    return {name: checks[name](value) for name, value in given.items() if value is not None}


def check_address(text: str) -> str:
    """A host name in lower case, or an IP address without brackets. Raises VerbError."""
    stripped = text.strip().lower().removeprefix("[").removesuffix("]")
    _, percent, zone = stripped.partition("%")
    if not percent or _ZONE.fullmatch(zone):
        try:
            return str(ipaddress.ip_address(stripped))
        except ValueError:
            pass
    if not _HOST.fullmatch(stripped) or stripped.replace(".", "").isdigit():
        raise VerbError(f"address {text[:80]!r} is not accepted: a host name or an IP address is")
    return stripped.rstrip(".")


def check_port(value: object) -> int:
    """A port. Raises VerbError."""
    text = str(value).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= 65535):
        raise VerbError(f"port {text[:40]!r} is not accepted: a number from 1 to 65535 is")
    return int(text)


def check_user(text: str) -> str:
    """An account to log in with. Raises VerbError."""
    if not _USER.fullmatch(text):
        raise VerbError(f"user {text[:80]!r} is not accepted: an account's name on the box is, as root")
    return text


def check_name(text: str) -> str:
    """A node's name. Raises VerbError."""
    if not re.fullmatch(NAME_PATTERN, text):
        raise VerbError(
            f"{text[:80]!r} is no name: 1 to 63 lower-case letters, digits, dots, dashes and underscores are "
            "accepted, the first and the last a letter or digit"
        )
    return text


def default_name(address: str) -> str:
    """What a node is called where nobody said: a host name's first part, or `node-10-77-0-2`."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return check_name(address.partition(".")[0].strip("-_"))
    return "node-" + re.sub(r"[^a-z0-9]+", "-", address).strip("-")


def parse_labels(pairs: Iterable[str]) -> dict[str, str]:
    """Labels of texts such as `rack=a1`. Raises VerbError."""
    labels: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise VerbError(f"label {pair[:80]!r} is not accepted: KEY=VALUE is")
        labels[key.strip()] = value.strip()
    return check_labels(labels)


def check_labels(value: object) -> dict[str, str]:
    """Labels. Raises VerbError."""
    if not isinstance(value, Mapping) or len(value) > MAX_LABELS:
        raise VerbError(f"labels are not accepted: at most {MAX_LABELS} pairs KEY=VALUE are")
    for key, label in value.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise VerbError(
                f"label key {str(key)[:80]!r} is not accepted: lower-case letters, digits and . _ / - are"
            )
        if not isinstance(label, str) or not _VALUE.fullmatch(label):
            raise VerbError(
                f"label {key}={str(label)[:80]!r} is not accepted: at most 63 letters, digits and . _ - are"
            )
    return dict(sorted(value.items()))


def check_region(value: object) -> str:
    """A region's name, '' for none. Raises VerbError."""
    if not isinstance(value, str) or not _REGION.fullmatch(value):
        raise VerbError(
            f"region {str(value)[:80]!r} is not accepted: at most 63 letters, digits and . _ - are"
        )
    return value


def check_cost(value: object) -> str:
    """What an hour costs, as text with at most four decimals; '' for not known. Raises VerbError."""
    text = str(value).strip()
    if not text:
        return ""
    cost = _decimal(text)
    if cost is None or not 0 <= cost < MAX_COST or cost != cost.quantize(Decimal("0.0001")):
        raise VerbError(
            f"cost per hour {text[:40]!r} is not accepted: a number from 0 with at most four decimals is"
        )
    return f"{cost.normalize():f}"


def check_flag(value: object) -> bool:
    """Yes or no. Raises VerbError."""
    text = str(value).strip().lower()
    if text not in (*_YES, *_NO):
        raise VerbError(f"preemptible {str(value)[:40]!r} is not accepted: yes or no is")
    return text in _YES


def check_power(value: object) -> str:
    """How the node is woken: `wol:` and a MAC address, `exec:` and a program's name, or '' for not at all.

    Raises VerbError.
    """
    text = str(value).strip().lower()
    kind, _, rest = text.partition(":")
    if kind == "wol" and _MAC.fullmatch(rest):
        return f"wol:{rest.replace('-', ':')}"
    if text and not (kind == "exec" and PROGRAM_NAME.fullmatch(rest)):
        raise VerbError(
            f"power {str(value)[:80]!r} is not accepted: wol:MAC is, as wol:52:54:00:12:34:56, or exec:NAME "
            "of a program in the state directory's power/"
        )
    return text


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and len(text) <= 20 else None

"""Credentials on their way to the worker: sealed into a row, with a key that is not in the database."""

import json
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from appliance.environment import Environment
from appliance.errors import VerbError
from appliance.secrets import read_or_create_secret
from provisioning.login import KeyText, Password, Way
from provisioning.transport import Secret

#: A sealed credential that was not used by then is erased.
SEALED_S = 600
MAX_PASSWORD = 1024
MAX_KEY = 64 * 1024


class Spoilt(Exception):
    """What was sealed cannot be opened: too old, or sealed with another key."""


def seal(environment: Environment, way: Way) -> bytes:
    """A password or a private key's text, encrypted. Raises VerbError for one that cannot be, OSError."""
    match way:
        case Password(secret):
            kind, limit = "password", MAX_PASSWORD
        case KeyText(secret):
            kind, limit = "key", MAX_KEY
        case _:
            raise VerbError("only a password or a private key's text can be handed to the worker")
    text = secret.reveal()
    if not 0 < len(text) <= limit:
        raise VerbError(f"the {kind} is not accepted: 1 to {limit} characters are")
    return _box(environment).encrypt(json.dumps([kind, text]).encode())


def unseal(environment: Environment, sealed: bytes) -> Password | KeyText:
    """What was sealed in the last ten minutes. Raises Spoilt, OSError."""
    try:
        kind, text = json.loads(_box(environment).decrypt(bytes(sealed), ttl=SEALED_S))
    except (InvalidToken, ValueError):
        raise Spoilt("the credential cannot be read any more") from None
    return Password(Secret(text)) if kind == "password" else KeyText(Secret(text))


def _box(environment: Environment) -> Fernet:
    path: Path = environment.home / "sealing-key"
    secret = read_or_create_secret(path)
    return Fernet(secret + "=" * (-len(secret) % 4))

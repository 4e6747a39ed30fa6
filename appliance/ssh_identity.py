"""The appliance's SSH key on disk: `ssh/id_ed25519` in the state directory, made once."""

from appliance.environment import Environment
from appliance.secrets import write_private
from provisioning.file_lock import hold_lock
from provisioning.identity import Identity, create_identity, load_identity

LOCK_TIMEOUT_S = 10.0


def ensure_identity(environment: Environment) -> Identity:
    """The key; made where there is none yet. Two processes that start at once get the same one.

    Raises OSError where the file cannot be read or written or stays locked, ValueError where it is damaged.
    """
    folder = environment.home / "ssh"
    path = folder / "id_ed25519"
    folder.mkdir(mode=0o700, exist_ok=True)
    with hold_lock(folder / ".lock", LOCK_TIMEOUT_S):
        try:
            return load_identity(path.read_text(encoding="ascii"))
        except FileNotFoundError:
            made = create_identity()
            write_private(path, made.private.reveal().encode())
            return made

"""From a bare box to a node whose steward answers the appliance's key; then what the steward is used for."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from provisioning import ssh
from provisioning.errors import KeyRefused, StewardMissing
from provisioning.facts.box import BoxFacts
from provisioning.hostkeys import HostKey
from provisioning.identity import Identity
from provisioning.login import Address, KeyText, Password, Way
from provisioning.planning import Wanted, choose_account
from provisioning.runner import PROBE, Log, Runner
from provisioning.steward_client import StewardClient
from provisioning.transport import Carrier

Connect = Callable[[Address, HostKey, Way], Carrier]


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What first contact learned: the box as it was, and the account that the appliance uses from now on."""

    facts: BoxFacts
    address: Address
    host_key: HostKey


def make_first_contact(
    address: Address,
    host_key: HostKey,
    way: Way,
    *,
    wanted: Wanted,
    identity: Identity,
    log: Log,
    connect: Connect = ssh.connect,
    clock: Callable[[], float] = time.time,
) -> Enrolled:
    """Log in as a person would, install account, steward, rule and key, and see that the key works.

    Running it again goes on where it stopped, and does nothing where all is done. Raises the errors of
    `errors.py`.
    """
    password = way.password if isinstance(way, Password) else None
    carrier = connect(address, host_key, way)
    try:
        facts = Runner(carrier, log).first_contact(wanted, password, clock)
        runner = Runner(carrier, log)
    finally:
        carrier.close()
    own = replace(address, user=choose_account(facts))
    with runner.told("greet the steward"), open_steward(own, host_key, identity, connect) as client:
        _greet(client, wanted)
    return Enrolled(facts, own, host_key)


@contextmanager
def open_steward(
    address: Address, host_key: HostKey, identity: Identity, connect: Connect = ssh.connect
) -> Iterator[StewardClient]:
    """A connection to a node's steward with the appliance's own key."""
    try:
        carrier = connect(address, host_key, KeyText(identity.private))
    except KeyRefused as refused:
        raise KeyRefused(
            str(refused),
            remedy=f"see that the box's sshd lets {address.user!r} in with a key (AllowUsers, AllowGroups, "
            "PubkeyAuthentication, PermitRootLogin), or enroll it again",
        ) from None
    try:
        yield StewardClient(carrier)
    finally:
        carrier.close()


def _greet(client: StewardClient, wanted: Wanted) -> None:
    told = client.ask("hello", limits=PROBE)
    if told.get("steward") != wanted.steward_sha256:
        raise StewardMissing("another steward than the one just installed answers")

"""The kept connection of a lane: opened and closed by its thread, cut by any."""

import threading
from contextlib import ExitStack

from appliance.control.lane_client import JobClient, Listener
from appliance.control.node_seen import NodeAccess
from provisioning.enrolment import Connect, open_steward
from provisioning.errors import ConnectionLost
from provisioning.hostkeys import HostKey
from provisioning.identity import Identity
from provisioning.login import Address, Way
from provisioning.transport import Carrier


class Line:
    """A connection to a node's steward, or none."""

    def __init__(self, identity: Identity, connect: Connect, listener: Listener) -> None:
        self._identity = identity
        self._connect = connect
        self._listener = listener
        self._stack = ExitStack()
        self._ended = threading.Event()
        self.carrier: Carrier | None = None
        self.client: JobClient | None = None
        #: What the newest connection, or try, was made by.
        self.way: tuple[object, ...] = ()

    def open(self, access: NodeAccess) -> JobClient:
        """Log in. Raises NodeError."""
        self.close()
        self.way = access.way_there
        with ExitStack() as stack:
            stack.enter_context(open_steward(access.address, access.pin, self._identity, self._dial))
            carrier = self.carrier
            if carrier is None or self._ended.is_set():
                raise ConnectionLost("nobody needs it any more")
            self._stack = stack.pop_all()
        self.client = JobClient(carrier, self._listener)
        return self.client

    def close(self) -> None:
        """Hang up."""
        self.client = self.carrier = None
        self._stack.close()

    def cut(self, *, for_good: bool = False) -> None:
        """From another thread: whatever waits for an answer ends; `for_good` lets none be opened again."""
        if for_good:
            self._ended.set()
        carrier = self.carrier
        if carrier is not None:
            carrier.close()

    def _dial(self, address: Address, host_key: HostKey, way: Way) -> Carrier:
        self.carrier = self._connect(address, host_key, way)
        return self.carrier

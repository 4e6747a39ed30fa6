"""What a lane's jobs ask their node with: the lane hears of every question, answer and sign of progress."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from provisioning.steward_client import ASK, StewardClient
from provisioning.transport import Carrier, Limits


class Listener(Protocol):
    """Whoever follows how the questions of jobs go."""

    def asks(self) -> None:
        """A question is put."""

    def progresses(self) -> None:
        """The node told how far it is. May ask the node other things, and may raise to break it off."""

    def answered(self) -> None:
        """The answer came."""


class JobClient(StewardClient):
    """A client with a listener."""

    def __init__(self, carrier: Carrier, listener: Listener) -> None:
        super().__init__(carrier)
        self._listener = listener

    def ask(
        self,
        verb: str,
        *,
        body: Iterable[bytes] = (),
        limits: Limits = ASK,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        **arguments: object,
    ) -> dict[str, Any]:
        """As `StewardClient.ask`."""

        def told(progress: dict[str, Any]) -> None:
            if on_progress is not None:
                on_progress(progress)
            self._listener.progresses()

        self._listener.asks()
        answer = super().ask(verb, body=body, limits=limits, on_progress=told, **arguments)
        self._listener.answered()
        return answer

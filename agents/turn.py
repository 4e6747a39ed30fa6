"""What is put off to the end of a turn, so that it is done once for all that came together."""

import logging
from collections.abc import Callable

logger = logging.getLogger(__name__)

Action = Callable[[], None]


class Turn:
    """A turn is one read of a connection, or one batch that came back: `with turn: ...`.

    What is put off while no turn is open is done `soon`, which must call what it is given before
    long. The same action is done once, however often it was put off.
    """

    def __init__(self, soon: Callable[[Action], object]) -> None:
        self._soon = soon
        self._open = False
        self._actions: dict[Action, None] = {}

    def put_off(self, action: Action) -> None:
        """Do this at the end of the turn."""
        if not self._open and not self._actions:
            self._soon(self._end)
        self._actions[action] = None

    def __enter__(self) -> None:
        self._open = True

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._end()

    def _end(self) -> None:
        actions, self._actions = self._actions, {}
        for action in actions:
            try:
                action()
            except Exception:  # the others are other connections', or wake the workers
                logger.exception("something put off to the end of a turn failed")

"""What can go wrong in an agent. Standard library only.

`StartError` ends the process with its exit code; `RequestError` becomes an answer to a client.
"""

import json


class AgentError(Exception):
    """Everything that an agent raises on purpose."""


class StartError(AgentError):
    """The agent cannot serve. The message is one line for the operator, `exit_code` the process's."""

    exit_code = 1


class BadConfig(StartError):
    """The configuration cannot be used; the message names key, value and what is accepted."""

    exit_code = 2


class ModelError(StartError):
    """The model is not there, is damaged, or the engine does not load it."""

    exit_code = 3


class PortTaken(StartError):
    """Another process listens on the agent's port."""

    exit_code = 4


class BadTransition(AgentError):
    """The agent cannot go from its present state to the wanted one."""


class RequestError(AgentError):
    """A request that is answered with an error of the public API.

    `param` names the field at fault, `code` is the API's word for it; both may be None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code

    def to_body(self) -> bytes:
        """The envelope `{"error": {...}}` as JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


def server_error(message: str) -> RequestError:
    """An answer for a fault of ours; the message must not tell of the inside."""
    return RequestError(message, status=500, kind="server_error", code="server_error")


def deadline_exceeded() -> RequestError:
    """The answer to a request whose deadline passed before its work began."""
    message = "the request's deadline passed before an engine was free for it"
    return RequestError(message, status=504, kind="server_error", code="deadline_exceeded")


def too_large(size: int, most: int) -> RequestError:
    """The answer to a body of more than `most` bytes."""
    message = f"the body has {size} bytes; at most {most} are accepted"
    return RequestError(message, status=413, code="request_too_large")


def unknown_path(path: str, known: str) -> RequestError:
    """The answer to a request for another task."""
    message = f"there is nothing at {path[:200]!r} here; this agent serves {known}"
    return RequestError(message, status=404, code="not_found")

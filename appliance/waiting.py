"""Waiting for the loop to have done what a verb asked for."""

import time
from collections.abc import Callable

from appliance.models import Agent, Deployment, InferenceModel, Transfer
from appliance.node_waiting import Tell

_POLL_S = 0.2


class DeploymentFailedError(Exception):
    """A deployment did not become ready; the message ends with the agent's last words."""


class ImportFailedError(Exception):
    """An import failed or took too long; the message says why and what to do."""


def _tell_nothing(_node: str, _stage: str, _percent: float | None, _note: str) -> None:
    """Nobody wants to know."""


def wait_until_ready(
    name: str, *, timeout_s: float, say: Callable[[str], None], tell: Tell = _tell_nothing
) -> None:
    """Wait until max(min, 1) agents of the wanted revision have been ready. Raises DeploymentFailedError.

    `say` gets a line when the number changes, `tell` how far the model is on its way to each node.
    """
    deadline = time.monotonic() + timeout_s
    shown = ""
    while True:
        deployment = Deployment.objects.filter(name=name).first()
        if deployment is None or deployment.removing:
            raise DeploymentFailedError(f"deployment {name!r} was removed while waiting for it")
        agents = list(deployment.agents.filter(revision=deployment.revision))
        wanted = max(deployment.min_agents, 1)
        proven = sum(agent.ready_at is not None for agent in agents)
        if proven >= wanted:
            return
        line = f"{name}: {proven} of {wanted} agents ready"
        if line != shown:
            shown = line
            say(line)
        _tell_transfers(deployment, tell)
        failed = [agent for agent in agents if agent.state == Agent.State.FAILED]
        if failed or time.monotonic() > deadline:
            cause = "failed to start" if failed else f"not ready within {timeout_s:g} s"
            error = next((agent.error for agent in (failed or agents) if agent.error), "")
            if error:
                raise DeploymentFailedError(f"deployment {name!r}: {cause}; its last log lines:\n{error}")
            why = deployment.problem or "see `manage.py fleet`"
            raise DeploymentFailedError(
                f"deployment {name!r}: {cause}, {proven} of {wanted} agents are; it goes on: {why}"
            )
        time.sleep(_POLL_S)


def _tell_transfers(deployment: Deployment, tell: Tell) -> None:
    if deployment.revision is None:
        return
    under_way = Transfer.objects.filter(
        kind="model", digest=deployment.revision.digest, state=Transfer.State.RUNNING, total_bytes__gt=0
    )
    for one in under_way.select_related("node"):
        note = f"{one.have_bytes / 1e6:.0f} of {one.total_bytes / 1e6:.0f} MB"
        tell(one.node.name, "sending the model", 100.0 * one.have_bytes / one.total_bytes, note)


def wait_until_imported(name: str, *, timeout_s: float, say: Callable[[str], None]) -> InferenceModel:
    """Wait for an import to end. Raises ImportFailedError."""
    deadline = time.monotonic() + timeout_s
    shown = ("", -10.0)
    while True:
        entry = InferenceModel.objects.filter(name=name).first()
        if entry is None:
            raise ImportFailedError(f"model {name!r} was removed while waiting for it")
        if entry.state == InferenceModel.State.READY:
            return entry
        if entry.state == InferenceModel.State.FAILED:
            why = "; ".join(filter(None, (entry.error, entry.hint)))
            raise ImportFailedError(f"the import of {name!r} failed: {why}")
        if entry.stage != shown[0] or entry.percent >= shown[1] + 10:
            shown = (entry.stage, entry.percent)
            say(f"{name}: {entry.stage or 'waiting for the worker'} {entry.percent:.0f} %")
        if time.monotonic() > deadline:
            raise ImportFailedError(
                f"the import of {name!r} is at {entry.stage or 'its start'} after {timeout_s:g} s; "
                "it goes on: ask again with a longer --timeout"
            )
        time.sleep(_POLL_S)

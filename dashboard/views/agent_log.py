"""The end of an agent's log, and how its process stands."""

import time

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from appliance.agent_logs import DEFAULT_LINES, MAX_LINES, AgentLog, LogUnavailable, UnitState, read_agent
from appliance.agent_shapes import describe_shape, read_starts
from appliance.fleet import agent_state
from appliance.models import Agent
from dashboard.access import needs
from dashboard.formats import format_age, format_bytes, format_count, format_shape
from dashboard.views.pages import render_live

CHOICES = (DEFAULT_LINES, 300, MAX_LINES)


@needs("appliance.view_agent")
@require_safe
def agent_log(request: HttpRequest, pk: str) -> HttpResponse:
    """Read it now, within limits; where that fails, say why in one line."""
    agent = get_object_or_404(Agent.objects.select_related("node", "deployment"), pk=pk)
    count = _asked_lines(request)
    log, problem = _read(agent, count)
    context = {
        "agent": agent,
        "state": agent_state(agent, ()),
        "shape": format_shape(describe_shape(agent, read_starts([agent]).get(agent.pk))),
        "lines": log.lines if log else (),
        "unit": unit_facts(log.unit, time.time()) if log and log.unit else (),
        "problem": problem,
        "read_at": time.strftime("%H:%M:%S UTC", time.gmtime()),
        "count": count,
        "choices": sorted({*CHOICES, count}),
        "auto": request.GET.get("auto") == "1",
    }
    return render_live(
        request, "dashboard/agent_log.html", "dashboard/_agent_log.html", f"Log of {agent.pk}", context
    )


def unit_facts(unit: UnitState, now: float) -> list[tuple[str, str]]:
    """A process in words; what is not known is left out."""
    facts = [
        ("Unit", f"{unit.active} ({unit.sub})" if unit.sub else unit.active),
        ("Process", "" if unit.pid is None else str(unit.pid)),
        ("Since", "" if unit.since is None else f"{format_age(now - unit.since)}"),
        ("Restarts", "" if unit.restarts is None else format_count(unit.restarts)),
        ("Memory", "" if unit.memory_bytes is None else format_bytes(unit.memory_bytes)),
    ]
    return [(label, text) for label, text in facts if text]


def _asked_lines(request: HttpRequest) -> int:
    text = request.GET.get("lines", "")
    asked = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else DEFAULT_LINES
    return max(1, min(asked, MAX_LINES))


def _read(agent: Agent, count: int) -> tuple[AgentLog | None, str]:
    try:
        return read_agent(agent, count), ""
    except LogUnavailable as unavailable:
        return None, str(unavailable)

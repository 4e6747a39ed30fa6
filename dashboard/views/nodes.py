"""Nodes: the list with what is being enrolled, and the page of each."""

import time
from typing import Any

from django.db.models import Count, Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_safe

from appliance.agent_shapes import describe_shape, read_starts
from appliance.fleet import agent_state, node_state
from appliance.models import Agent, Enrolment, Node, RemoteStep, Transfer
from appliance.profiles import profiles_of
from dashboard.access import needs
from dashboard.formats import format_shape
from dashboard.node_actions import CHANGE, offered_actions
from dashboard.node_presenters import (
    bounded,
    enrolment_row,
    group_by_node,
    hardware_facts,
    name_facts,
    node_flags,
    node_row,
    problem_rows,
    speed_facts,
    step_row,
    transfer_row,
)
from dashboard.views.pages import render_live

NODES_SHOWN = 500
ENROLMENTS_SHOWN = 20
STEPS_SHOWN = 50
TRANSFERS_SHOWN = 10


@needs("appliance.view_node")
@require_safe
def nodes(request: HttpRequest) -> HttpResponse:
    """All nodes but those that are gone, and the newest enrolments with how each went."""
    now = time.time()
    there = Node.objects.filter(retired_at__isnull=True)
    rows = there.annotate(agent_count=Count("agents")).order_by("name")[:NODES_SHOWN]
    moving = group_by_node(list(Transfer.objects.filter(state=Transfer.State.RUNNING)[:NODES_SHOWN]))
    context = {
        "nodes": [node_row(row, row.agent_count, moving.get(row.pk, ()), now) for row in rows],
        "retired": Node.objects.filter(retired_at__isnull=False).count(),
        "enrolments": [enrolment_row(row, now) for row in Enrolment.objects.all()[:ENROLMENTS_SHOWN]],
    }
    return render_live(request, "dashboard/nodes.html", "dashboard/_nodes.html", "Nodes", context)


@needs("appliance.view_node")
@require_safe
def node(request: HttpRequest, name: str) -> HttpResponse:
    """All that is known of one node, and what may be ordered of it."""
    row = get_object_or_404(
        Node.objects.prefetch_related(
            Prefetch("agents", Agent.objects.select_related("deployment").order_by("deployment", "pk"))
        ),
        name=name,
    )
    context = describe_node(row, request.user, time.time())
    return render_live(request, "dashboard/node.html", "dashboard/_node.html", f"Node {row.name}", context)


def describe_node(row: Node, user: Any, now: float) -> dict[str, Any]:
    """What the page of a node shows at one instant."""
    newest = row.transfers.all()[:TRANSFERS_SHOWN]
    starts = read_starts(row.agents.all())
    transfers = sorted(newest, key=lambda one: one.state != Transfer.State.RUNNING)
    return {
        "node": row,
        "state": node_state(row, now),
        "problems": problem_rows(row, now),
        "facts": name_facts(row, now),
        "hardware": hardware_facts(row),
        "speeds": speed_facts(profiles_of(row)),
        "flags": node_flags(row),
        "agents": [
            {
                "id": agent.pk,
                "deployment": agent.deployment.name,
                "state": agent_state(agent, ()),
                "wanted": agent.wanted,
                "shape": format_shape(describe_shape(agent, starts.get(agent.pk))),
                "release": agent.release_sha256[:12],
                "error": bounded(agent.error),
            }
            for agent in row.agents.all()
        ],
        "transfers": [transfer_row(transfer, now) for transfer in transfers],
        "steps": [step_row(step, now) for step in newest_steps(row)],
        "actions": offered_actions(row, user),
        "may_change": user.has_perm(CHANGE) and row.retired_at is None,
    }


def newest_steps(row: Node) -> list[RemoteStep]:
    """What was done on it last, newest first; first contact's steps hang on its enrolment."""
    own = RemoteStep.objects.filter(node=row) | RemoteStep.objects.filter(enrolment__node=row)
    return list(own.order_by("-at", "-id")[:STEPS_SHOWN])

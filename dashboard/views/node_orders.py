"""What is ordered of a node: each order is confirmed on a page of its own, and done by its verb."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from appliance.errors import VerbError
from appliance.models import Node
from appliance.nodes import retire_node, set_node
from dashboard.access import needs
from dashboard.forms.nodes import AttributesForm, attributes_of
from dashboard.node_actions import ACTIONS, NodeAction
from dashboard.views.pages import render_page


@needs("appliance.view_node")
@require_http_methods(["GET", "POST"])
def order(request: HttpRequest, name: str, key: str) -> HttpResponseBase:
    """Ask; on POST do it and go back to the node's page, where its outcome is told."""
    action = next((one for one in ACTIONS if one.key == key), None)
    if action is None:
        raise Http404
    if not request.user.has_perm(action.permission):
        raise PermissionDenied
    node = get_object_or_404(Node, name=name)
    typed = request.POST.get("typed", "").strip()
    if request.method == "POST" and (not action.is_grave or typed == node.name):
        return _carry_out(request, node, action)
    context = {
        "node": node,
        "action": action,
        "offered": action.offered(node),
        "mistyped": request.method == "POST",
    }
    return render_page(request, "dashboard/node_order.html", action.question, context)


def _carry_out(request: HttpRequest, node: Node, action: NodeAction) -> HttpResponseRedirect:
    actor = request.user.get_username()
    try:
        if action.is_grave and request.POST.get("force"):
            retire_node(node.name, force=True, actor=actor)
        else:
            action.order(node.name, actor)
    except VerbError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"{node.name} {action.done}.")
    return HttpResponseRedirect(reverse("node", args=(node.name,)))


@needs("appliance.change_node")
@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, name: str) -> HttpResponse:
    """Change what people say of a node."""
    node = get_object_or_404(Node, name=name)
    form = AttributesForm(request.POST if request.method == "POST" else None, initial=attributes_of(node))
    if form.is_bound and form.is_valid():
        try:
            set_node(node.name, **_cleared(form.attributes()), actor=request.user.get_username())
        except VerbError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"{node.name} is changed.")
            return HttpResponseRedirect(reverse("node", args=(node.name,)))
    return render_page(request, "dashboard/node_edit.html", f"Edit {node.name}", {"node": node, "form": form})


def _cleared(attributes: dict[str, Any]) -> dict[str, Any]:
    """For the verb None leaves a value as it is; an emptied field clears it."""
    return {name: "" if value is None else value for name, value in attributes.items()}

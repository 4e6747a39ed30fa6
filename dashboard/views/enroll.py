"""Enrolling a box: where it is, whether it is the right one, and how it goes.

A credential is asked on the page that sends it to the verb, and stands in no page, session or hidden field.
"""

import threading
import time
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods, require_safe

from appliance.enrolling import EnrolmentRequest, known_host_key, request_enrolment
from appliance.errors import VerbError
from appliance.models import Enrolment
from dashboard.access import needs
from dashboard.forms.nodes import BoxForm, ConfirmForm, CredentialForm
from dashboard.node_presenters import enrolment_row, is_under_way, step_row
from dashboard.views.pages import render_live, render_page
from provisioning import ssh
from provisioning.errors import ProvisioningError
from provisioning.hostkeys import HostKey, check_pin
from provisioning.login import Address

MAX_LOOKS = 4
STEPS_SHOWN = 100
_CONNECT_S = 5.0
_HOST_KEY_FILES = {
    "ssh-ed25519": "ssh_host_ed25519_key.pub",
    "ssh-rsa": "ssh_host_rsa_key.pub",
}
_ECDSA_FILE = "ssh_host_ecdsa_key.pub"

_looks = threading.BoundedSemaphore(MAX_LOOKS)


@sensitive_post_parameters("password", "private_key")
@needs("appliance.add_enrolment")
@require_http_methods(["GET", "POST"])
def enroll(request: HttpRequest) -> HttpResponseBase:
    """Ask where the box is; then show the key it has, and take the credential from who compared it."""
    if request.method != "POST":
        return _show_box(request, BoxForm())
    if request.POST.get("step") == "confirm":
        return _confirm(request)
    form = BoxForm(request.POST)
    if request.POST.get("step") == "back" or not form.is_valid():
        return _show_box(request, form)
    return _look(request, form)


def _look(request: HttpRequest, form: BoxForm) -> HttpResponse:
    """The second step: whom we have there."""
    said = form.cleaned_data
    try:
        key = _read_host_key(said["address"], said["port"])
    except (ProvisioningError, VerbError) as error:
        form.add_error(None, error.line if isinstance(error, ProvisioningError) else str(error))
        return _show_box(request, form)
    carried = {name: request.POST.get(name, "") for name in BoxForm.base_fields}
    carried |= {"host_key": key.fingerprint, "host_key_kind": key.kind}
    return _show_key(request, ConfirmForm(way=said["way"], initial=carried), key)


def _read_host_key(host: str, port: int) -> HostKey:
    """What the box shows a stranger. Raises ProvisioningError, VerbError."""
    known = known_host_key(host, port)
    if not _looks.acquire(blocking=False):
        raise VerbError(f"{MAX_LOOKS} boxes are being looked at already: try again in a moment")
    try:
        shown = ssh.read_host_key(Address(host, port), connect_s=_CONNECT_S)
    finally:
        _looks.release()
    if known is not None:
        check_pin(known, shown, f"{host} port {port}")
    return shown


@sensitive_variables("form", "way")
def _confirm(request: HttpRequest) -> HttpResponse:
    """The third step's beginning: the row is written, and its page shows the rest."""
    form = ConfirmForm(request.POST, way=_asked_way(request))
    if form.is_valid():
        way = form.take_way()
        try:
            row = request_enrolment(form.request(), way, actor=request.user.get_username())
        except VerbError as error:
            form.add_error(None, str(error))
        else:
            return HttpResponseRedirect(reverse("enrolment", args=(row.pk,)))
    key = HostKey(request.POST.get("host_key", "")[:64], request.POST.get("host_key_kind", "")[:32])
    return _show_key(request, form, key)


def _asked_way(request: HttpRequest) -> str:
    return Enrolment.Way.KEY if request.POST.get("way") == Enrolment.Way.KEY else Enrolment.Way.PASSWORD


@needs("appliance.view_enrolment")
@require_safe
def enrolment(request: HttpRequest, pk: int) -> HttpResponse:
    """How it goes, step by step; once it has ended the page stops asking."""
    row = get_object_or_404(Enrolment.objects.select_related("node"), pk=pk)
    newest = list(row.steps.order_by("-at", "-id")[:STEPS_SHOWN])
    now = time.time()
    context = {
        "enrolment": row,
        "row": enrolment_row(row, now),
        "steps": [step_row(step, now) for step in reversed(newest)],
        "may_retry": row.state == Enrolment.State.FAILED and request.user.has_perm("appliance.add_enrolment"),
    }
    title = f"Enrolment of {row.name}"
    return render_live(request, "dashboard/enrolment.html", "dashboard/_enrolment.html", title, context)


@sensitive_post_parameters("password", "private_key")
@sensitive_variables("form", "way")
@needs("appliance.add_enrolment")
@require_http_methods(["GET", "POST"])
def enroll_again(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Another try with what was said before; past first contact it needs no credential."""
    row = get_object_or_404(Enrolment.objects.select_related("node"), pk=pk)
    if is_under_way(row) or row.state == Enrolment.State.DONE:
        return HttpResponseRedirect(reverse("enrolment", args=(row.pk,)))
    form = None
    if row.node is None or not row.node.account:
        form = CredentialForm(request.POST if request.method == "POST" else None, way=row.way)
    problem = ""
    if request.method == "POST" and (form is None or form.is_valid()):
        way = None if form is None else form.take_way()
        try:
            new = request_enrolment(_same_request(row), way, actor=request.user.get_username())
        except VerbError as error:
            problem = str(error)
        else:
            return HttpResponseRedirect(reverse("enrolment", args=(new.pk,)))
    context = {"enrolment": row, "form": form, "problem": problem}
    return render_page(request, "dashboard/enroll_again.html", f"Enroll {row.name} again", context)


def _same_request(row: Enrolment) -> EnrolmentRequest:
    return EnrolmentRequest(
        address=row.address,
        host_key=row.host_key,
        host_key_kind=row.host_key_kind,
        name=row.name,
        port=row.port,
        user=row.user,
        attributes=row.attributes,
    )


def _show_box(request: HttpRequest, form: BoxForm) -> HttpResponse:
    return render_page(request, "dashboard/enroll_box.html", "Enroll a node", {"form": form})


def _show_key(request: HttpRequest, form: ConfirmForm, key: HostKey) -> HttpResponse:
    file = _HOST_KEY_FILES.get(key.kind, _ECDSA_FILE)
    context: dict[str, Any] = {
        "form": form,
        "key": key,
        "command": f"ssh-keygen -lf /etc/ssh/{file}",
        "box": {name: form[name].value() for name in ("address", "port", "user")},
    }
    return render_page(request, "dashboard/enroll_key.html", "Enroll a node", context)

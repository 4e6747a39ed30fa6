"""Enrolling boxes: the key a box shows, asking for an enrolment, and how it goes."""

import datetime as dt
import threading
from typing import Any, Final

from django.http import HttpResponse
from ninja import Query, Router, Status
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from appliance.api.access import ApiRequest, needs
from appliance.api.errors import ApiError
from appliance.api.nodes import AttributesBody
from appliance.api.nodes import router as nodes_router
from appliance.api.pages import Page, Paging, answers, page_of
from appliance.enrolling import EnrolmentRequest, known_host_key, request_enrolment
from appliance.models import Enrolment
from appliance.node_attributes import check_address, check_port
from provisioning import ssh
from provisioning.errors import ProvisioningError
from provisioning.login import Address, KeyText, Password, Way
from provisioning.transport import Secret

router = Router(tags=["enrolments"])

VIEW, ADD = "appliance.view_enrolment", "appliance.add_enrolment"
MAX_STEPS: Final = 200
MAX_READERS: Final = 4
_CONNECT_S: Final = 5.0

_turns = threading.BoundedSemaphore(MAX_READERS)


class EnrolBody(AttributesBody):
    """A box, and what opens it. Without password and private key the appliance's own key is tried."""

    address: str = Field(description="Host name or IP address.")
    host_key: str = Field(description="What the box must show: SHA256: and 43 characters.")
    port: int = 22
    name: str = ""
    user: str = "root"
    password: SecretStr | None = None
    private_key: SecretStr | None = Field(None, description="The text of an unencrypted private key.")

    def way(self) -> Way | None:
        """With what somebody logs in. Raises ApiError where both were given."""
        if self.password is not None and self.private_key is not None:
            raise ApiError(400, "password and private_key: one of them is accepted, not both")
        if self.password is not None:
            return Password(Secret(self.password.get_secret_value()))
        if self.private_key is not None:
            return KeyText(Secret(self.private_key.get_secret_value()))
        return None


class Step(BaseModel):
    """One thing done on the box; `detail` is text of the box."""

    model_config = ConfigDict(from_attributes=True)

    at: dt.datetime
    step: str
    outcome: str
    seconds: float
    detail: str


class EnrolmentAnswer(BaseModel):
    """A box on its way to being a node. `code`, `error` and `hint` say what went wrong last."""

    id: int
    name: str
    address: str
    port: int
    user: str
    way: str
    host_key: str
    host_key_kind: str
    node: str | None = Field(description="The node that came of it.")
    state: str
    stage: str
    percent: float
    code: str
    error: str
    hint: str
    actor: str
    created_at: dt.datetime
    finished_at: dt.datetime | None


class EnrolmentDetail(EnrolmentAnswer):
    """The same with what was done on the box: the newest 200 steps, oldest first."""

    steps: list[Step]


class Place(BaseModel):
    """Where a box is."""

    address: str
    port: int = 22


class ShownHostKey(BaseModel):
    """The key that a box shows to a stranger: compare it with what its own console says."""

    address: str
    port: int
    host_key: str
    host_key_kind: str
    pinned_host_key: str | None = Field(description="What is pinned, where the box is a node already.")


def describe_enrolment(row: Enrolment) -> dict[str, Any]:
    """The fields of EnrolmentAnswer."""
    said = {name: getattr(row, name) for name in EnrolmentAnswer.model_fields}
    return said | {"node": row.node.name if row.node else None}


@router.get("/host-key", response=answers({200: ShownHostKey}, 502), auth=needs(ADD))
def read_host_key(request: ApiRequest, place: Query[Place]) -> ShownHostKey:
    """Read the key that a box shows now. Nothing is logged in to, nothing is kept."""
    address = Address(check_address(place.address), check_port(place.port))
    if not _turns.acquire(blocking=False):
        raise ApiError(503, f"{MAX_READERS} host keys are being read already", hint="try again in a moment")
    try:
        shown = ssh.read_host_key(address, connect_s=_CONNECT_S)
    except ProvisioningError as error:
        raise ApiError(502, str(error), code=error.code, hint=error.remedy) from None
    finally:
        _turns.release()
    pinned = known_host_key(address.host, address.port)
    return ShownHostKey(
        address=address.host,
        port=address.port,
        host_key=shown.fingerprint,
        host_key_kind=shown.kind,
        pinned_host_key=pinned.fingerprint if pinned else None,
    )


# On the nodes' router: one path, one view.
@nodes_router.post(
    "/nodes", response=answers({202: EnrolmentDetail}, 409, 415), auth=needs(ADD), tags=["enrolments"]
)
def enroll_node(request: ApiRequest, body: EnrolBody, response: HttpResponse) -> Status[EnrolmentDetail]:
    """Have the worker make a box a node; `Location` is where to see how it goes."""
    wanted = EnrolmentRequest(
        address=body.address,
        host_key=body.host_key,
        name=body.name,
        port=body.port,
        user=body.user,
        attributes=body.given(),
    )
    row = request_enrolment(wanted, body.way(), actor=request.auth.actor)
    response["Location"] = f"/api/enrolments/{row.pk}"
    return Status(202, _detail(row))


@router.get("/enrolments", response=answers({200: Page[EnrolmentAnswer]}), auth=needs(VIEW))
def list_enrolments(request: ApiRequest, paging: Query[Paging]) -> dict[str, Any]:
    """All enrolments, newest first."""
    rows = Enrolment.objects.select_related("node")
    return page_of(rows, paging, lambda row: EnrolmentAnswer(**describe_enrolment(row)))


@router.get("/enrolments/{int:enrolment}", response=answers({200: EnrolmentDetail}, 404), auth=needs(VIEW))
def get_enrolment(request: ApiRequest, enrolment: int) -> EnrolmentDetail:
    """How an enrolment goes."""
    row = Enrolment.objects.select_related("node").filter(pk=enrolment).first()
    if row is None:
        raise ApiError(404, f"no enrolment has the id {str(enrolment)[:20]}")
    return _detail(row)


def _detail(row: Enrolment) -> EnrolmentDetail:
    newest = list(row.steps.order_by("-at", "-id")[:MAX_STEPS])
    steps = [Step.model_validate(step) for step in reversed(newest)]
    return EnrolmentDetail(**describe_enrolment(row), steps=steps)

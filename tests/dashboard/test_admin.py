"""The admin: who may look, and that nothing changes but through verbs."""

import re

import pytest
from django.contrib.auth.models import Group, User
from django.urls import reverse
from django.utils import timezone

from appliance.keys import create_key
from appliance.models import (
    Agent,
    ApiKey,
    AuditEvent,
    Decision,
    Deployment,
    Enrolment,
    InferenceModel,
    MetricPoint,
    Node,
    RemoteStep,
    Transfer,
)

pytestmark = pytest.mark.django_db(transaction=True)
READ_ONLY = (Agent, AuditEvent, Decision, Enrolment, Node, RemoteStep, Transfer)
CHANGED_BY_VERBS = (ApiKey, Deployment, InferenceModel)


def url(model, page="changelist", *args):
    return reverse(f"admin:appliance_{model._meta.model_name}_{page}", args=args)


@pytest.fixture
def rows(deployment):
    """One of each."""
    create_key("alpha", team="search", actor="somebody")
    Decision.objects.create(
        at=timezone.now(), deployment="minilm", trigger="tick", before=1, want=2, after=2,
        reason="<b>load</b>", inputs={"text": "<script>alert(1)</script>"},
    )  # fmt: skip
    Agent.objects.update(error="<script>alert(1)</script>")
    node = Node.objects.get()
    enrolment = Enrolment.objects.create(
        name="box", address="192.0.2.7", way="password", host_key="SHA256:x", sealed=b"sealed-credential",
        error="<script>alert(1)</script>",
    )  # fmt: skip
    RemoteStep.objects.create(
        enrolment=enrolment, node=node, step="check", outcome="failed", detail="<script>alert(1)</script>"
    )
    Transfer.objects.create(
        node=node, kind="model", name="minilm", digest="ab" * 32, error="<script>alert(1)</script>"
    )


@pytest.mark.parametrize("kind", [*READ_ONLY, *CHANGED_BY_VERBS], ids=lambda kind: kind.__name__)
def test_a_viewer_sees_and_cannot_act(viewer, rows, kind):
    """Lists and rows are shown, escaped; no page adds, and none saves."""
    listed = viewer.get(url(kind))
    assert listed.status_code == 200
    row = kind.objects.first()
    shown = viewer.get(url(kind, "change", row.pk)).content.decode()
    assert "<script>alert(1)" not in listed.content.decode() + shown
    assert "sealed-credential" not in listed.content.decode() + shown
    assert 'name="_save"' not in shown
    assert viewer.get(url(kind, "add")).status_code == 403
    assert viewer.post(url(kind, "change", row.pk), {"name": "other"}).status_code == 403
    assert viewer.post(url(kind, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert kind.objects.filter(pk=row.pk).exists()


@pytest.mark.parametrize("kind", [*READ_ONLY, *CHANGED_BY_VERBS], ids=lambda kind: kind.__name__)
def test_not_even_an_administrator_deletes_rows(log_in, rows, kind):
    """Rows leave through verbs alone, and observed ones are never edited."""
    client = log_in("alice")
    row = kind.objects.first()
    assert client.post(url(kind, "delete", row.pk), {"post": "yes"}).status_code == 403
    client.post(url(kind), {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    assert kind.objects.filter(pk=row.pk).exists()
    if kind in READ_ONLY:
        assert client.get(url(kind, "add")).status_code == 403
        assert client.post(url(kind, "change", row.pk), {}).status_code == 403


@pytest.mark.parametrize("kind", [*READ_ONLY, *CHANGED_BY_VERBS], ids=lambda kind: kind.__name__)
def test_outsiders_are_refused(client, log_in, rows, kind):
    """Strangers and accounts without a role are sent to log in."""
    for visitor in (client, log_in("charlie")):
        assert visitor.get(url(kind))["Location"].startswith("/admin/login/")


def test_history_is_no_page(log_in):
    """Metric history is for charts, not for the admin."""
    assert log_in("alice").get(f"/admin/appliance/{MetricPoint._meta.model_name}/").status_code == 404


def test_deploying(log_in, model):
    """The form calls the verb: deployment, revision and audit event are there."""
    client = log_in("oscar")
    form = {"name": "search", "model": model.pk, "min_agents": 0, "max_agents": 3}
    assert client.post(url(Deployment, "add"), form).status_code == 302
    row = Deployment.objects.get(name="search")
    assert (row.min_agents, row.max_agents, row.revision.number) == (0, 3, 1)
    event = AuditEvent.objects.get(verb="deploy")
    assert (event.actor, event.target) == ("oscar", "search")


def test_changing_bounds(log_in, deployment):
    """Changing goes through the same verb; the name cannot be changed."""
    client = log_in("oscar")
    form = {"name": "other", "model": deployment.model_id, "min_agents": 2, "max_agents": 5}
    assert client.post(url(Deployment, "change", deployment.pk), form).status_code == 302
    row = Deployment.objects.get()
    assert (row.name, row.min_agents, row.max_agents) == ("minilm", 2, 5)
    assert AuditEvent.objects.get(verb="deploy").detail == {"min": 2, "max": 5}


def test_what_the_verb_refuses_is_shown(log_in, model):
    """A refusal stands in the form, and nothing is written."""
    form = {"name": "search", "model": model.pk, "min_agents": 4, "max_agents": 3}
    page = log_in("oscar").post(url(Deployment, "add"), form)
    assert page.status_code == 200
    assert "max 3 is below min 4" in page.content.decode()
    assert not Deployment.objects.exists()
    assert not AuditEvent.objects.filter(verb="deploy").exists()


def test_a_model_that_is_not_ready_cannot_be_chosen(log_in, model):
    """Only ready models are offered."""
    InferenceModel.objects.update(state="importing")
    page = log_in("oscar").get(url(Deployment, "add")).content.decode()
    assert f'value="{model.pk}"' not in page


@pytest.mark.parametrize("way", ["list", "page"])
def test_undeploying_asks_first(log_in, deployment, way):
    """The question names what goes; the answer takes it out of service, audited."""
    client = log_in("oscar")
    chosen = {"action": "undeploy_chosen", "_selected_action": [deployment.pk]}
    if way == "list":
        asked = client.post(url(Deployment), chosen)
    else:
        asked = client.get(f"/admin/appliance/deployment/{deployment.pk}/undeploy_one/")
    assert "<li>minilm</li>" in asked.content.decode()
    assert not Deployment.objects.get().removing
    client.post(url(Deployment), {**chosen, "confirmed": "1"})
    assert Deployment.objects.get().removing
    assert AuditEvent.objects.get(verb="undeploy").actor == "oscar"


def test_a_viewer_cannot_undeploy(viewer, deployment):
    """Neither from the list nor from the page."""
    viewer.post(
        url(Deployment),
        {"action": "undeploy_chosen", "_selected_action": [deployment.pk], "confirmed": "1"},
    )
    assert viewer.get(f"/admin/appliance/deployment/{deployment.pk}/undeploy_one/").status_code == 403
    assert not Deployment.objects.get().removing


def test_a_key_is_shown_once(log_in):
    """The answer to the form holds the key and is not kept; later pages do not have it."""
    client = log_in("oscar")
    form = {"name": "beta", "team": "search", "rpm": "60", "scopes": ["inference"]}
    answer = client.post(url(ApiKey, "add"), form)
    page = answer.content.decode()
    secret = page[page.index("mw-secret") :].split(">")[1].split("<")[0]
    assert secret.startswith("mw-")
    assert len(secret) > 40
    assert "no-store" in answer["Cache-Control"]
    assert secret not in str(client.session.items()) + str(client.cookies)
    row = ApiKey.objects.get(name="beta")
    assert (row.team, row.rpm, row.scopes) == ("search", 60, ["inference"])
    assert secret not in client.get(url(ApiKey, "change", row.pk)).content.decode()
    assert AuditEvent.objects.get(verb="create_key").actor == "oscar"


def test_a_taken_key_name_is_refused(log_in, rows):
    """A second live key of a name is refused in the form."""
    form = {"name": "alpha", "scopes": ["inference"]}
    page = log_in("oscar").post(url(ApiKey, "add"), form).content.decode()
    assert "revoke it first" in page
    assert ApiKey.objects.count() == 1


def test_revoking_asks_first(log_in, rows):
    """A key ends after the question, and the event names who did it."""
    client = log_in("oscar")
    chosen = {"action": "revoke_chosen", "_selected_action": [ApiKey.objects.get().pk]}
    assert "<li>alpha</li>" in client.post(url(ApiKey), chosen).content.decode()
    assert ApiKey.objects.get().revoked_at is None
    client.post(url(ApiKey), {**chosen, "confirmed": "1"})
    assert ApiKey.objects.get().revoked_at is not None
    assert AuditEvent.objects.get(verb="revoke_key").actor == "oscar"


def test_importing_shows_its_progress(log_in):
    """The form asks for an import; the row's page polls until it ends, and shows the error as text."""
    client = log_in("oscar")
    form = {"name": "new", "source": "pypi:example==1.0", "task": "embed", "quantization": "int8"}
    answer = client.post(url(InferenceModel, "add"), form)
    row = InferenceModel.objects.get(name="new")
    assert answer["Location"] == url(InferenceModel, "change", row.pk)
    progress = url(InferenceModel, "progress", row.pk)
    assert progress in client.get(answer["Location"]).content.decode()
    InferenceModel.objects.update(stage="converting", percent=41.2)
    running = client.get(progress)
    assert running.status_code == 200
    assert "converting 41 %" in running.content.decode()
    InferenceModel.objects.update(state="failed", error="<script>no weights")
    ended = client.get(progress)
    assert ended.status_code == 286
    assert "&lt;script&gt;no weights" in ended.content.decode()
    assert "hx-get" not in ended.content.decode()
    assert AuditEvent.objects.get(verb="import_model").actor == "oscar"


def test_removing_a_model_that_is_used(log_in, deployment):
    """It stays, and the reason is told."""
    client = log_in("oscar")
    chosen = {"action": "remove_chosen", "_selected_action": [deployment.model_id], "confirmed": "1"}
    page = client.post(url(InferenceModel), chosen, follow=True).content.decode()
    assert "is used by: minilm" in page
    assert InferenceModel.objects.exists()


def test_people_are_audited(log_in):
    """Adding a user leaves an event."""
    form = {"username": "dora", "password1": "long-enough-words", "password2": "long-enough-words",
            "usable_password": "true"}  # fmt: skip
    assert log_in("alice").post("/admin/auth/user/add/", form).status_code == 302
    event = AuditEvent.objects.get(verb="add_user")
    assert (event.actor, event.target) == ("alice", "dora")


def test_an_administrator_cannot_make_or_touch_superusers(log_in, people):
    """The role administers people, but does not reach above itself."""
    people["vera"].groups.set([Group.objects.get(name="admin")])
    client = log_in("vera")
    alice, oscar = people["alice"].pk, people["oscar"].pk
    assert client.get(f"/admin/auth/user/{alice}/change/").status_code == 302
    assert client.post(f"/admin/auth/user/{alice}/password/", {}).status_code in {302, 403, 404}
    form = {"username": "oscar", "is_active": "on", "is_staff": "on", "is_superuser": "on",
            "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}  # fmt: skip
    assert client.post(f"/admin/auth/user/{oscar}/change/", form).status_code == 302
    assert not User.objects.get(pk=oscar).is_superuser
    assert User.objects.get(pk=alice).check_password("a-long-password")


def test_a_deployments_problem_is_shown(viewer, deployment):
    """List and page say what keeps it from being as wanted, as text; else the list says why it is so."""
    Deployment.objects.update(reason="no request for 60 s")
    assert "no request for 60 s" in viewer.get(url(Deployment)).content.decode()
    Deployment.objects.update(problem="agent <b>x</b> failed")
    for address in (url(Deployment), url(Deployment, "change", deployment.pk)):
        page = viewer.get(address).content.decode()
        assert 'class="mw-problem">agent &lt;b&gt;x&lt;/b&gt; failed<' in page
        assert 'data-state="ready"' in page


def test_times_are_of_24_hours_with_their_zone(viewer, deployment):
    """Nobody has to guess which nine o'clock is meant."""
    AuditEvent.objects.create(actor="alice", verb="deploy", target="minilm")
    page = viewer.get(url(AuditEvent)).content.decode()
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", page)

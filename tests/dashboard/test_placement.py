"""Where a deployment runs, on its page and in the form that changes it."""

import pytest

from appliance.models import AuditEvent, Deployment, Node
from dashboard.views import deployments as views
from dashboard.views.placement import shown as shown_values

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])

PAGE, FORM = "/deployments/minilm/", "/deployments/minilm/placement/"


@pytest.fixture(autouse=True)
def reports(monkeypatch):
    """No gateway says anything."""
    monkeypatch.setattr(views, "read_reports", lambda *_, **__: [])


def sent(row, **typed):
    """What a browser sends of a form in which this was typed."""
    values = shown_values(row)
    return {f"initial-{key}": value for key, value in values.items()} | values | typed


def test_an_operator_changes_and_a_viewer_does_not(client, log_in, deployment):
    """Strangers log in first; the way to the form is an operator's alone."""
    assert client.get(FORM)["Location"] == f"/?next={FORM}"
    viewer = log_in("vera")
    assert FORM not in viewer.get(PAGE).content.decode()
    assert viewer.post(FORM, sent(deployment, prefer="cost")).status_code == 403
    assert FORM in log_in("oscar").get(PAGE).content.decode()
    assert log_in("oscar").get("/deployments/nothing/placement/").status_code == 404


def test_what_is_typed_is_set(log_in, deployment):
    """Only that; the page tells it, with the nodes it forbids, and the audit log who did it."""
    Node.objects.create(name="box-9", address="192.0.2.9", labels={"disk": "<hdd>"})
    Deployment.objects.update(placement={"regions": ["berlin"]})
    row = Deployment.objects.get()
    answer = log_in("oscar").post(FORM, sent(row, require="disk=ssd", prefer="cost", regions=""), follow=True)
    assert answer.redirect_chain == [(PAGE, 302)]
    page = answer.content.decode()
    assert "changed: require, regions, prefer" in page
    assert "box-9 lacks the label disk=ssd" in page
    assert Deployment.objects.get().placement == {"require": [["disk", "ssd"]], "prefer": "cost"}
    assert AuditEvent.objects.get(verb="set_placement").actor == "oscar"


def test_a_mistake_is_told_on_the_form(log_in, deployment):
    """What was typed stays in the form, and nothing is changed."""
    answer = log_in("oscar").post(FORM, sent(deployment, require="<b>disk</b>"))
    page = answer.content.decode()
    assert "is not accepted: at most 16 labels NAME=VALUE" in page
    assert "<b>disk" not in page
    assert Deployment.objects.get().placement == {}

"""How a deployment scales, on its page and in the form that changes it."""

import pytest
from django.utils import timezone

from appliance.models import AuditEvent, Decision, Deployment
from appliance.policies.scaling_keys import KEYS
from appliance.scaling_settings import show_scaling
from dashboard.forms.scaling import ScalingForm
from dashboard.scaling_presenters import decision_facts, scaling_facts, scaling_label
from dashboard.views import deployments as views
from dashboard.views.scaling import _shown

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])

PAGE, FORM = "/deployments/minilm/", "/deployments/minilm/scaling/"
ALWAYS = "daily 00:00-24:00 UTC min=1 max=3"


@pytest.fixture(autouse=True)
def reports(monkeypatch):
    """No gateway says anything."""
    monkeypatch.setattr(views, "read_reports", lambda *_, **__: [])


def shown(client, path=PAGE):
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.content.decode()


def sent(row, **typed):
    """What a browser sends of a form in which this was typed."""
    values = {key: "" if value is None else value for key, value in _shown(row).items()}
    hidden = {f"initial-{key}": value for key, value in values.items()}
    return hidden | {key: value for key, value in (values | typed).items() if value is not False}


def test_an_operator_changes_and_a_viewer_does_not(client, log_in, deployment):
    """Strangers log in first; the way to the form is an operator's alone."""
    assert client.get(FORM)["Location"] == f"/?next={FORM}"
    viewer = log_in("vera")
    assert FORM not in shown(viewer)
    assert viewer.post(FORM, sent(deployment, min="0")).status_code == 403
    assert FORM in shown(log_in("oscar"))
    assert log_in("oscar").get("/deployments/nothing/scaling/").status_code == 404


def test_what_is_typed_is_set(log_in, deployment):
    """What was typed is another, what was emptied is the default again, and the audit log tells it."""
    Deployment.objects.update(scaling={"idle_s": 5, "stabilization_s": 3})
    row = Deployment.objects.get()
    client = log_in("oscar")
    typed = {"min": "0", "hold": "1", "idle_s": "", "schedule": f"{ALWAYS}\r\n\r\n", "paused": "on"}
    answer = client.post(FORM, sent(row, **typed), follow=True)
    assert answer.redirect_chain == [(PAGE, 302)]
    assert "changed: min, idle_s, hold, paused, schedule" in answer.content.decode()
    row = Deployment.objects.get()
    assert row.scaling == {"hold": 1, "stabilization_s": 3, "schedule": [ALWAYS]}
    assert (row.min_agents, row.paused) == (0, True)
    event = AuditEvent.objects.get(verb="set_scaling")
    assert (event.actor, event.detail["hold"]) == ("oscar", 1)


def test_what_others_changed_meanwhile_stays(log_in, deployment):
    """Only what was typed is sent on."""
    form = sent(deployment, hold="1")
    Deployment.objects.update(scaling={"idle_s": 9}, paused=True)
    log_in("oscar").post(FORM, form)
    row = Deployment.objects.get()
    assert (row.scaling, row.paused) == ({"idle_s": 9, "hold": 1}, True)


def test_what_others_typed_in_the_same_field_is_not_lost_silently(log_in, deployment):
    """The page tells their value and keeps what was typed; saved once more, that counts."""
    form = sent(deployment, max="3", schedule=ALWAYS)
    theirs = "mon 08:00-09:00 UTC min=1"
    Deployment.objects.update(max_agents=2, scaling={"schedule": [theirs, "tue 08:00-09:00 UTC min=1"]})
    client = log_in("oscar")
    page = client.post(FORM, form).content.decode()
    assert "Somebody changed it to 2 meanwhile." in page
    assert f"Somebody changed it to {theirs}; tue 08:00-09:00 UTC min=1 meanwhile." in page
    assert f"{ALWAYS}</textarea>" in page
    assert Deployment.objects.get().max_agents == 2
    row = Deployment.objects.get()
    again = sent(row, max="3", schedule=ALWAYS)
    again["initial-schedule"] = again["initial-schedule"].replace("\n", "\r\n")  # as browsers send it
    assert all(f'name="initial-{key}" value="{_shown(row)[key]}"' in page for key in ("max", "schedule"))
    assert client.post(FORM, again).status_code == 302
    row = Deployment.objects.get()
    assert (row.max_agents, row.scaling["schedule"]) == (3, [ALWAYS])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"min": ""}, "required"),
        ({"tolerance": "2"}, "less than or equal to 0.9"),
        ({"hold": "1.5"}, "whole number"),
        ({"hold": "900"}, "hold=900 is outside min=1 and max="),
        ({"schedule": "mon"}, "is not accepted: DAYS HH:MM-HH:MM"),
        ({"schedule": "mon 08:00-09:00 Mars/Base min=1"}, "is not known: a name such as Europe/Berlin"),
    ],
)
def test_a_wrong_value_changes_nothing(log_in, deployment, typed, said):
    """What is wrong is said; what stood beside it is not done; mistakes are not hidden behind a click."""
    page = log_in("oscar").post(FORM, sent(deployment, stabilization_s="3", **typed)).content.decode()
    assert said in page.replace("&#x27;", "'")
    assert ('<details class="mw-more" open>' in page) == ("tolerance" in typed)
    assert Deployment.objects.get().scaling == {}
    assert not AuditEvent.objects.exists()


def test_the_page_says_how_and_why(log_in, deployment):
    """What is set, which schedule is under way, each rule's want, and what limited the number."""
    Deployment.objects.update(scaling={"schedule": [ALWAYS], "max_up_per_min": 3}, paused=True)
    Decision.objects.create(
        at=timezone.now(), deployment="minilm", trigger="tick", before=1, want=5, after=3,
        inputs={"ready": 1, "want_wait": 5, "want_cpu": None}, clamps=["max 3 <b>"], reason="5 asked",
    )  # fmt: skip
    page = shown(log_in("vera"))
    for text in (
        f"<dt>Schedule, under way</dt><dd>{ALWAYS}</dd>", "<dt>Max up a minute</dt><dd>3</dd>",
        "<dt>Paused</dt><dd>yes</dd>", "<dt>Target queue wait, ms</dt><dd>2000</dd>",
        "<dt>To keep waits short</dt><dd>5</dd>", "<dt>By CPU</dt><dd>cannot tell</dd>",
        "<dt>Because of</dt><dd>max 3 &lt;b&gt;</dd>",
    ):  # fmt: skip
        assert text in page, text
    assert decision_facts(None) == []


def test_every_key_is_in_the_form(log_in, deployment):
    """None is forgotten, none is there twice, and each has a label of its own."""
    page, form = shown(log_in("oscar"), FORM), ScalingForm()
    for key in show_scaling(deployment):
        assert f'name="{key}"' in page
    assert scaling_label("target_ttft_ms") == "Target time to first token, ms"
    assert scaling_label("target_tokens_per_s") == "Target tokens/s"
    labels = [scaling_label(key) for key in KEYS]
    assert len(set(labels)) == len(KEYS)
    names = [
        field.name for fields in (form.common(), *(own for *_, own in form.others())) for field in fields
    ]
    assert sorted(names) == sorted(form.fields)
    assert len(names) == len(KEYS) + 3
    assert "Empty: all cores of its box." in page
    assert "Empty: the default, 300." in page
    assert scaling_facts(deployment, 0.0) == [("Target queue wait, ms", "2000"), ("Idle, s", "75")]

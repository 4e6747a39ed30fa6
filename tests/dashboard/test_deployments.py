"""The page of a deployment, and the form that changes how it is served."""

import time

import pytest
from dashboard_builders import agent_report, deployment_report, gateway_report, times
from django.utils import timezone

from appliance.models import Agent, AuditEvent, Decision, Deployment, MetricPoint, Node
from appliance.serving_settings import SERVING
from dashboard.deployment_presenters import cache_counts, cache_facts, cached_text, label_of, serving_facts
from dashboard.views import deployments as views

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])

PAGE, FORM = "/deployments/minilm/", "/deployments/minilm/serving/"
HOSTILE = "<script>alert(1)</script>"
SHOWN = {
    "balancing": "expected_completion", "queue_limit": "1000", "queue_tokens": "4000000",
    "deadline_s": "60.0", "cache_mb": "0.0",
}  # fmt: skip


@pytest.fixture
def reports(monkeypatch):
    """What the gateways say."""
    said = []
    monkeypatch.setattr(views, "read_reports", lambda *_, **__: said)
    return said


def shown(client, path=PAGE, **headers):
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200
    return answer.content.decode()


def initials(values):
    """What the form sends beside each field: what it showed."""
    flags = dict.fromkeys(("cache_shared", "sticky", "hedging"), "False")
    return {f"initial-{key}": value for key, value in (flags | values).items()}


@pytest.mark.parametrize("path", [PAGE, FORM])
def test_outsiders_are_refused(client, log_in, deployment, path):
    """Strangers are sent to log in, also from a page left open; accounts without a role get 403."""
    assert client.get(path)["Location"] == f"/?next={path}"
    assert client.get(path, headers={"HX-Request": "true"})["HX-Redirect"].startswith("/?next=")
    assert log_in("charlie").get(path).status_code == 403


def test_a_viewer_sees_and_an_operator_changes(log_in, deployment, reports):
    """The way to the form is an operator's alone, and so is the form."""
    page = shown(log_in("vera"))
    assert FORM not in page
    client = log_in("vera")
    assert client.get(FORM).status_code == 403
    assert client.post(FORM, SHOWN | {"sticky": "on"}).status_code == 403
    assert not Deployment.objects.get().sticky
    assert FORM in shown(log_in("oscar"))
    Deployment.objects.update(removing=True)
    assert FORM not in shown(log_in("oscar"))


def test_the_page_tells_what_is_served_and_how(viewer, deployment, reports):
    """Model, revision, bounds, settings, agents with their logs, decisions; again: the live part."""
    Deployment.objects.update(cache_bytes=64_000_000, sticky=True, reason="one is enough")
    Decision.objects.create(
        at=timezone.now(), deployment="minilm", trigger="tick", before=1, want=2, after=2, reason="much to do"
    )
    Decision.objects.create(
        at=timezone.now(), deployment="other", trigger="tick", before=1, want=2, after=2, reason="not ours"
    )
    page = shown(viewer)
    for text in (
        "&quot;model&quot;: &quot;minilm&quot;", "<dd>embed</dd>", "<dd>1 / 4</dd>", "one is enough",
        "abababababab", "<dt>Cache, MB</dt><dd>64</dd>", "<dt>Queue limit</dt><dd>1,000</dd>",
        "<dt>Deadline, s</dt><dd>60</dd>", "/agents/minilm-aaaaaa/log/", "much to do",
    ):  # fmt: skip
        assert text in page, text
    assert "not ours" not in page
    part = shown(viewer, **{"HX-Request": "true"})
    assert "<html" not in part
    assert 'hx-trigger="every 2s"' in part


def test_numbers_are_its_own(viewer, deployment, reports):
    """Rates of its history, and what all gateways hold and have cached; another deployment's do not count."""
    now = time.time()
    other = Node.objects.create(name="elsewhere", address="192.0.2.9", seen_at=timezone.now())
    second = Deployment.objects.create(name="other", model=deployment.model)
    Agent.objects.create(
        id="other-bbbbbb", deployment=second, revision=deployment.revision, node=other, host="192.0.2.9",
        port=1, profile={"workers": 1, "batch_size": 8, "threads": 1}, state="ready",
    )  # fmt: skip
    MetricPoint.objects.create(
        series="deployment:minilm", resolution_s=1, at=int(now),
        values={"rps": 36.5, "p50_ms": 6, "p95_ms": 17, "tokens_per_s": 480, "failed_per_s": 0},
    )  # fmt: skip
    cached = {"cache_hits": 5, "cache_shared": 1, "cache_misses": 2, "cache_bytes": 4096}
    for number in (1, 2):
        reports.append(
            gateway_report(
                now, gateway=f"gateway-{number}", agents=[agent_report(in_flight=2, answered=7)],
                deployments=[
                    deployment_report(in_flight=2, queued=3, duration=times({0.01: 7}), **cached),
                    deployment_report("other", in_flight=50, cache_hits=50),
                ],
            )
        )  # fmt: skip
    page = shown(viewer)
    for name, text in {
        "rps": "36.5", "p50": "6.0 ms", "p95": "17.0 ms", "in_flight": "4", "queued": "6", "failed": "0.0",
        "tokens": "480", "agents": "1 / 1", "cached": "75 %",
    }.items():  # fmt: skip
        assert f'data-total="{name}" data-level="">{text}<' in page, name
    for fact in ("cache</dt><dd>10<", "under way</dt><dd>2<", "agent</dt><dd>4<", "Kept</dt><dd>8.2 kB<"):
        assert fact in page, fact
    assert "other-bbbbbb" not in page


def test_a_troubled_deployment_says_so(viewer, deployment, reports):
    """Its problem stands on top, as text; no gateway, no numbers."""
    Deployment.objects.update(problem=HOSTILE + "x" * 5000)
    Agent.objects.update(state="failed", error=HOSTILE)
    page = shown(viewer)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "x" * 400 not in page
    assert 'data-state="failed"' in page
    assert 'data-total="in_flight" data-level="">\u2013<' in page
    assert "Answered from the cache" not in page


def test_what_is_typed_is_set(log_in, deployment):
    """What was typed is another, and told; the verb writes the audit event."""
    client = log_in("oscar")
    form = shown(client, FORM)
    assert 'name="initial-cache_mb"' in form
    assert "MB of answers that each gateway keeps" in form
    sent = SHOWN | initials(SHOWN) | {"cache_mb": "1.5", "sticky": "on", "balancing": "two_choices"}
    answer = client.post(FORM, sent, follow=True)
    assert answer.redirect_chain == [(PAGE, 302)]
    assert "changed: balancing, cache_mb, sticky" in answer.content.decode()
    row = Deployment.objects.get()
    assert (row.balancing, row.cache_bytes, row.sticky, row.hedging) == (
        "two_choices",
        1_500_000,
        True,
        False,
    )
    event = AuditEvent.objects.get()
    assert (event.actor, event.verb) == ("oscar", "set_serving")
    assert event.detail == {"balancing": "two_choices", "cache_mb": 1.5, "sticky": True}


def test_what_others_changed_meanwhile_stays(log_in, deployment):
    """The page showed no hedging and still does; somebody else has turned it on, and it stays on."""
    client = log_in("oscar")
    Deployment.objects.update(hedging=True, queue_limit=7)
    client.post(FORM, SHOWN | initials(SHOWN) | {"sticky": "on"})
    row = Deployment.objects.get()
    assert (row.sticky, row.hedging, row.queue_limit) == (True, True, 7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("balancing", "fastest"), ("queue_limit", "0"), ("queue_tokens", "1.5"), ("deadline_s", "0"),
        ("deadline_s", "nan"), ("cache_mb", "5000"), ("cache_mb", "-1"), ("cache_mb", ""),
    ],
)  # fmt: skip
def test_a_wrong_value_changes_nothing(log_in, deployment, field, value):
    """The field says what is wrong with it; what stood beside it is not done."""
    answer = log_in("oscar").post(FORM, SHOWN | initials(SHOWN) | {field: value, "sticky": "on"})
    assert answer.status_code == 200
    assert 'class="mw-error"' in answer.content.decode()
    assert not Deployment.objects.get().sticky
    assert not AuditEvent.objects.exists()


def test_what_the_verb_refuses_is_told(log_in, deployment):
    """One that is being removed meanwhile is not changed."""
    client = log_in("oscar")
    Deployment.objects.update(removing=True)
    answer = client.post(FORM, SHOWN | initials(SHOWN) | {"sticky": "on"})
    assert "is being removed" in answer.content.decode()
    assert not Deployment.objects.get().sticky


def test_one_that_is_not_there_is_404(log_in, deployment):
    """Page and form."""
    client = log_in("oscar")
    assert client.get("/deployments/nothing/").status_code == 404
    assert client.get("/deployments/nothing/serving/").status_code == 404


def test_every_setting_is_on_page_and_form(log_in, deployment, reports):
    """None is forgotten, each under the same label."""
    page, form = shown(log_in("oscar")), shown(log_in("oscar"), FORM)
    for setting in SERVING:
        assert f"<dt>{label_of(setting.key)}</dt>" in page
        assert label_of(setting.key) in form
        assert f'name="{setting.key}"' in form
    assert [label for label, _ in serving_facts(deployment)] == [label_of(one.key) for one in SERVING]


def test_the_overview_leads_to_the_page(viewer, deployment):
    """By the name."""
    assert f'<a href="{PAGE}">minilm</a>' in viewer.get("/").content.decode()


def test_the_admin_leads_to_the_page(log_in, deployment):
    """From the deployment's form, for whoever may look."""
    for name in ("vera", "oscar"):
        client = log_in(name)
        form = shown(client, f"/admin/appliance/deployment/{deployment.pk}/change/")
        way = f"/admin/appliance/deployment/{deployment.pk}/show_page/"
        assert way in form
        assert client.get(way, follow=True).redirect_chain[-1] == (PAGE, 302)


def test_a_cache_that_is_off_is_not_told(deployment):
    """On, it is told with what is not known as a dash; off, what it did before still is."""
    assert cache_facts(deployment, None) == []
    assert cached_text(None) == "\u2013"
    none = {"hits": 0, "shared": 0, "misses": 0, "bytes": 0}
    assert cache_facts(deployment, none) == []
    assert dict(cache_facts(deployment, none | {"misses": 3}))["Limit"] == "off"
    deployment.cache_bytes = 500_000
    assert dict(cache_facts(deployment, None)) == {
        "Answered from the cache": "\u2013", "Answered with one under way": "\u2013",
        "Sent to an agent": "\u2013", "Kept": "\u2013", "Limit": "0.5 MB in each gateway",
    }  # fmt: skip
    assert dict(cache_facts(deployment, none))["Kept"] == "0 B"


def test_old_reports_do_not_count():
    """Nor those of gateways that do not know the deployment."""
    entry = deployment_report(cache_hits=3)
    assert cache_counts("minilm", [gateway_report(0.0, deployments=[entry])], 60.0) is None
    assert cache_counts("other", [gateway_report(60.0, deployments=[entry])], 60.0) is None

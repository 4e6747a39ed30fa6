"""The list of nodes, the page of each, and what is ordered from it."""

import time
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from appliance.models import Agent, AuditEvent, Enrolment, Node, RemoteStep, Transfer
from appliance.policies.profiles import Profile
from appliance.profiles import key_for, store_profile
from dashboard.node_actions import ACTIONS

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])
HOSTILE = "<script>alert(1)</script>"
ORDERS = ("cordon", "uncordon", "drain", "reboot", "upgrade", "retire")


@pytest.fixture
def node(deployment):
    """A remote node with an agent, and a history."""
    row = Node.objects.create(
        name="box-1", address="192.0.2.7", account="millwright", host_key="SHA256:" + "k" * 43,
        host_key_kind="ssh-ed25519", enrolled_at=timezone.now(), seen_at=timezone.now(), boot_id="boot-1",
        labels={"zone": "a"}, region="eu", release_sha256="cd" * 32,
        hardware={
            "cores_physical": 8, "cores_logical": 16, "ram_bytes": 64_000_000_000, "cpu_model": "Example CPU",
            "flags": ["avx2", "sse"], "arch": "x86_64", "os": "Debian 12", "python": "3.11.2",
            "disk_bytes": 500_000_000_000, "disk_free_bytes": 90_000_000_000,
        },
    )  # fmt: skip
    Agent.objects.create(
        id="minilm-bbbbbb", deployment=deployment, revision=deployment.revision, node=row, host="192.0.2.7",
        port=9200, profile={"workers": 1, "batch_size": 8, "threads": 1}, state="ready",
    )  # fmt: skip
    return row


def shown(client, path, **headers):
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200
    return answer.content.decode()


PAGES = ("/nodes/", "/nodes/box-1/", "/nodes/box-1/edit/", "/nodes/box-1/order/drain/")


@pytest.mark.parametrize("path", PAGES)
def test_outsiders_are_refused(client, log_in, node, path):
    """Strangers are sent to log in, also from a page left open; accounts without a role get 403."""
    assert client.get(path)["Location"] == f"/?next={path}"
    assert client.get(path, headers={"HX-Request": "true"})["HX-Redirect"].startswith("/?next=")
    assert log_in("charlie").get(path).status_code == 403


def test_the_list_tells_each_node_and_enrolment(viewer, node):
    """Each node with its state and each enrolment with its own outcome; a viewer finds no way to enroll."""
    for name, state, error in (
        ("one", "running", ""),
        ("two", "failed", "sudo is missing"),
        ("three", "done", ""),
    ):
        Enrolment.objects.create(
            name=name, address="192.0.2.9", way="password", host_key="SHA256:x", state=state, error=error,
            percent=40,
        )  # fmt: skip
    page = shown(viewer, "/nodes/")
    assert 'href="/nodes/box-1/"' in page
    assert "Debian 12" in page
    assert 'data-state="running"' in page
    assert "sudo is missing" in page
    assert ">40 %<" in page
    assert "/enroll/" not in page
    part = shown(viewer, "/nodes/", **{"HX-Request": "true"})
    assert "<html" not in part
    assert 'hx-trigger="every 2s"' in part


def test_a_node_shows_how_fast_it_is(viewer, node):
    """What its agents run with, and once it is known how much they do."""
    assert "1 x 1 threads" not in shown(viewer, "/nodes/box-1/")
    assert "8 x 1 threads, batch 8 (not measured yet)" in shown(viewer, "/nodes/box-1/")
    revision = Agent.objects.get(id="minilm-bbbbbb").revision
    profile = Profile(4, 2, 16, 812.3, 26_000.0, 0.001, 0.0001, "measured", time.time())
    store_profile(key_for(node, revision), profile)
    page = shown(viewer, "/nodes/box-1/")
    assert "812 requests/s, 26000 tokens/s with 4 x 2 threads, batch 16 (measured)" in page


def test_a_node_shows_what_becomes_of_a_measurement(viewer, node):
    """That one is ordered, and what came in between, which a box may have worded."""
    assert "Measurement" not in shown(viewer, "/nodes/box-1/")
    Node.objects.filter(name="box-1").update(
        calibration_at=timezone.now(), calibration_error="<b>" + "x" * 400
    )
    page = shown(viewer, "/nodes/box-1/")
    assert "Measurement" in page
    assert "&lt;b&gt;xxx" in page
    assert "x" * 400 not in page


def test_a_node_shows_what_is_known(viewer, node):
    """Address, pin, hardware, release, agents with the way to their logs, transfers and steps."""
    Transfer.objects.create(
        node=node,
        kind="model",
        name="minilm",
        digest="ab" * 32,
        have_bytes=41_000_000,
        total_bytes=100_000_000,
    )
    RemoteStep.objects.create(node=node, step="install release", outcome="done", seconds=2.25)
    page = shown(viewer, "/nodes/box-1/")
    for text in (
        "192.0.2.7", "SHA256:" + "k" * 43, "zone=a", "8 physical, 16 logical", "avx2", "64 GB",
        "90 GB free of 500 GB", "Debian 12", "3.11.2", "cdcdcdcdcdcd", "/agents/minilm-bbbbbb/log/",
        'href="/deployments/minilm/"',
        'value="41.0"', "41 MB of 100 MB", "install release", "2.2 s", "Last steps on the box",
    ):  # fmt: skip
        assert text in page, text
    assert 'data-state="ready"' in page
    assert "<html" not in shown(viewer, "/nodes/box-1/", **{"HX-Request": "true"})


def test_old_steps_tell_their_day(viewer, node):
    """A step of today has its time, an older one its day."""
    step = RemoteStep.objects.create(node=node, step="reboot", outcome="done")
    RemoteStep.objects.filter(pk=step.pk).update(at=timezone.now() - timedelta(days=3))
    day = f"{timezone.now() - timedelta(days=3):%Y-%m-%d}"
    assert f">{day}</time>" in shown(viewer, "/nodes/box-1/")


def test_problems_are_shown_with_their_remedy(viewer, node):
    """What is wrong, what to do, and for how long."""
    problem = {
        "code": "clock_off",
        "message": "the clock is 61 s off",
        "remedy": "set it",
        "since": time.time() - 130,
    }
    Node.objects.filter(pk=node.pk).update(problems=[problem])
    page = shown(viewer, "/nodes/box-1/")
    assert "the clock is 61 s off" in page
    assert "set it" in page
    assert "for 2 min" in page
    assert "the clock is 61 s off" in shown(viewer, "/nodes/")


def test_what_a_node_says_is_escaped(viewer, node):
    """Markup in hardware, labels, problems, steps, transfers and agents' errors is text, and bounded."""
    Node.objects.filter(pk=node.pk).update(
        hardware={
            "os": HOSTILE,
            "cpu_model": HOSTILE,
            "flags": [HOSTILE],
            "python": "x" * 5000,
            "cores_physical": "8",
        },
        labels={"a": HOSTILE},
        problems=[{"code": "x", "message": HOSTILE, "remedy": HOSTILE, "since": "never"}],
    )
    RemoteStep.objects.create(node=node, step=HOSTILE, outcome="failed", detail=HOSTILE)
    Transfer.objects.create(node=node, kind="model", name=HOSTILE, digest="ab" * 32, error=HOSTILE)
    Agent.objects.update(error=HOSTILE)
    Enrolment.objects.create(
        name="box-1",
        address="192.0.2.7",
        way="key",
        host_key="SHA256:x",
        node=node,
        error=HOSTILE,
        stage=HOSTILE,
    )
    for path in ("/nodes/", "/nodes/box-1/", "/"):
        page = shown(viewer, path)
        assert HOSTILE not in page
        assert "&lt;script&gt;alert(1)" in page
        assert "x" * 400 not in page


@pytest.mark.parametrize("key", ORDERS)
def test_a_viewer_orders_nothing(viewer, node, key):
    """Neither the question nor the order is open, and no button leads there."""
    assert viewer.get(f"/nodes/box-1/order/{key}/").status_code == 403
    assert viewer.post(f"/nodes/box-1/order/{key}/", {"typed": "box-1"}).status_code == 403
    assert "/order/" not in shown(viewer, "/nodes/box-1/")
    assert Node.objects.get(name="box-1").wanted == "ready"


def test_a_viewer_edits_nothing(viewer, node):
    """The form is closed, and saves nothing."""
    assert viewer.get("/nodes/box-1/edit/").status_code == 403
    assert viewer.post("/nodes/box-1/edit/", {"region": "us"}).status_code == 403
    assert "/edit/" not in shown(viewer, "/nodes/box-1/")
    assert Node.objects.get(name="box-1").region == "eu"


@pytest.mark.parametrize(
    ("key", "field", "expected"),
    [
        ("cordon", "wanted", "cordoned"),
        ("drain", "wanted", "drained"),
        ("reboot", "operation", "reboot"),
        ("upgrade", "operation", "upgrade"),
    ],
)
def test_orders_are_confirmed_first(log_in, node, key, field, expected):
    """The question changes nothing; the answer calls the verb, audited, and comes back to the page."""
    client = log_in("oscar")
    path = f"/nodes/box-1/order/{key}/"
    assert path in shown(client, "/nodes/box-1/")
    assert "box-1" in shown(client, path)
    assert getattr(Node.objects.get(name="box-1"), field) != expected
    answer = client.post(path)
    assert answer["Location"] == "/nodes/box-1/"
    assert getattr(Node.objects.get(name="box-1"), field) == expected
    event = AuditEvent.objects.get(target="box-1")
    assert (event.actor, event.verb) == ("oscar", f"{key}_node")


def test_uncordoning(log_in, node):
    """A cordoned node is offered uncordon in the place of cordon."""
    client = log_in("oscar")
    Node.objects.filter(pk=node.pk).update(wanted="cordoned")
    page = shown(client, "/nodes/box-1/")
    assert "/order/uncordon/" in page
    assert "/order/cordon/" not in page
    client.post("/nodes/box-1/order/uncordon/")
    assert Node.objects.get(name="box-1").wanted == "ready"


@pytest.mark.parametrize("typed", ["", "box", "BOX-1"])
def test_retiring_asks_for_the_name(log_in, node, typed):
    """Without the exact name nothing is done, and the page says so."""
    page = log_in("oscar").post("/nodes/box-1/order/retire/", {"typed": typed}).content.decode()
    assert "That is not its name" in page
    assert Node.objects.get(name="box-1").wanted == "ready"


@pytest.mark.parametrize("force", [False, True])
def test_retiring(log_in, node, force):
    """With the name it is retired; a lost box at once, with its agents' rows."""
    client = log_in("oscar")
    client.post("/nodes/box-1/order/retire/", {"typed": "box-1"} | ({"force": "1"} if force else {}))
    row = Node.objects.get(name="box-1")
    assert row.wanted == "retired"
    assert (row.retired_at is not None) == force
    assert Agent.objects.filter(node=row).exists() != force
    assert AuditEvent.objects.get(verb="retire_node").detail["force"] == force


def test_a_refusal_is_told(log_in, node):
    """What the verb refuses stands on the node's page."""
    client = log_in("oscar")
    Node.objects.filter(pk=node.pk).update(operation="upgrade")
    page = client.post("/nodes/box-1/order/reboot/", follow=True).content.decode()
    assert "not done with its upgrade" in page
    assert "cannot be ordered of it as it is now" in shown(client, "/nodes/box-1/order/reboot/")


def test_the_own_machine_is_not_worked_on(log_in, deployment):
    """`local` can be cordoned, drained and measured, and neither rebooted, upgraded nor retired from here."""
    client = log_in("oscar")
    page = shown(client, "/nodes/local/")
    offered = {action.key for action in ACTIONS if f"/order/{action.key}/" in page}
    assert offered == {"cordon", "drain", "calibrate"}
    told = client.post("/nodes/local/order/retire/", {"typed": "local"}, follow=True).content.decode()
    assert "is not retired from here" in told
    assert Node.objects.get(name="local").wanted == "ready"


def test_editing(log_in, node):
    """The form begins with what is there, calls the verb, and an emptied field is cleared."""
    client = log_in("oscar")
    assert 'value="zone=a"' in shown(client, "/nodes/box-1/edit/")
    form = {
        "labels": "zone=b, disk=ssd",
        "region": "",
        "cost_per_hour": "0.25",
        "power": "",
        "preemptible": "on",
    }
    assert client.post("/nodes/box-1/edit/", form)["Location"] == "/nodes/box-1/"
    row = Node.objects.get(name="box-1")
    assert (row.labels, row.region, row.preemptible) == ({"zone": "b", "disk": "ssd"}, "", True)
    assert str(row.cost_per_hour) == "0.2500"
    assert AuditEvent.objects.get(verb="set_node").actor == "oscar"
    client.post("/nodes/box-1/edit/", form | {"cost_per_hour": ""})
    assert Node.objects.get(name="box-1").cost_per_hour is None


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        pytest.param("labels", "zone", "KEY=VALUE is", id="label"),
        pytest.param("power", "ipmi:1", "wol:MAC is", id="power"),
        pytest.param("cost_per_hour", "-1", "greater than or equal to 0", id="cost"),
    ],
)
def test_bad_attributes_in_words(log_in, node, field, value, words):
    """What is not accepted is said at its field, and nothing is changed."""
    page = log_in("oscar").post("/nodes/box-1/edit/", {field: value}).content.decode()
    assert words in page
    assert Node.objects.get(name="box-1").labels == {"zone": "a"}


def test_forged_orders_are_refused(people, node):
    """A POST without the page's token does nothing."""
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(people["oscar"])
    assert careful.post("/nodes/box-1/order/drain/").status_code == 403
    assert Node.objects.get(name="box-1").wanted == "ready"


def test_unknown_ones_are_not_found(log_in, node):
    """Neither a node nor an order that there is not."""
    client = log_in("oscar")
    for path in ("/nodes/other/", "/nodes/other/order/drain/", "/nodes/box-1/order/explode/"):
        assert client.get(path).status_code == 404


def test_an_agent_that_has_grown_says_so(viewer, node):
    """On the node's page, on that of its log, and in the admin's list: what it is, and what it was."""
    grown = {"workers": 4, "threads": 1, "batch_size": 8, "limit": 2, "stretched": True}
    Node.objects.update(hardware={"cores_physical": 4, "ram_bytes": 8 * 2**30})
    Agent.objects.update(profile=grown)
    agent = Agent.objects.filter(node=node).first()
    for path in (f"/nodes/{node.name}/", f"/agents/{agent.pk}/log/", "/admin/appliance/agent/"):
        assert "4 x 1, batch 8 (grown from 2 x 1)" in viewer.get(path).content.decode(), path


def test_query_count_does_not_grow(viewer, node, django_assert_max_num_queries):
    """The list and the page are read in a fixed number of queries."""
    for number in range(10):
        Node.objects.create(name=f"more-{number}", address="192.0.2.8", seen_at=timezone.now())
        Agent.objects.create(
            id=f"minilm-{number}", deployment_id=Agent.objects.first().deployment_id, node=node, port=1,
            revision_id=Agent.objects.first().revision_id, host="x",
            profile={"workers": 1, "batch_size": 1},
        )  # fmt: skip
    for path in ("/nodes/", "/nodes/box-1/"):
        with django_assert_max_num_queries(12):
            viewer.get(path, headers={"HX-Request": "true"})


def test_the_overview_leads_to_nodes_and_logs(viewer, node):
    """Names are links; problems come before transfers; who is retired is not there."""
    Transfer.objects.create(
        node=node, kind="model", name="minilm", digest="ab" * 32, have_bytes=41, total_bytes=100
    )
    Node.objects.create(
        name="gone", address="192.0.2.9", wanted="retired", enrolled_at=timezone.now(),
        retired_at=timezone.now() - timedelta(hours=1),
    )  # fmt: skip
    page = shown(viewer, "/")
    assert 'href="/nodes/box-1/"' in page
    assert 'href="/agents/minilm-bbbbbb/log/"' in page
    assert "model minilm: 41 %" in page
    assert 'data-key="gone"' not in page
    Node.objects.filter(pk=node.pk).update(problems=[{"message": "disk nearly full"}])
    page = shown(viewer, "/")
    assert "disk nearly full" in page
    assert "model minilm: 41 %" not in page


def test_who_is_gone_is_on_record_alone(viewer, node):
    """A retired node is not in the list, which counts it; its page stays, and offers nothing."""
    Node.objects.filter(pk=node.pk).update(wanted="retired", retired_at=timezone.now())
    page = shown(viewer, "/nodes/")
    assert 'href="/nodes/box-1/"' not in page
    assert "1 on record" in page
    assert viewer.get("/admin/appliance/node/?retired_at__isempty=0").status_code == 200
    page = shown(viewer, "/nodes/box-1/")
    assert 'data-state="retired"' in page
    assert "/order/" not in page


def test_an_operation_tells_how_far_it_is(viewer, node):
    """What was ordered once stands beside what is ordered for good."""
    Node.objects.filter(pk=node.pk).update(operation="upgrade")
    assert "ready, upgrade (waits for its turn)" in shown(viewer, "/nodes/box-1/")

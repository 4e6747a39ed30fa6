"""Enrolling a box, nodes and logs in a real browser; the box is a real sshd, the rest is staged."""

import sqlite3
from contextlib import closing

import pytest
from playwright.sync_api import expect
from ssh_builders import SSHD, Sshd
from stage import PASSWORD, stage

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SECRET = "correct-horse-battery"
MORE = """
flags = ["fpu", "sse", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni", "amx_int8"]
hardware = {
    "cores_physical": 16, "cores_logical": 32, "ram_bytes": 134_000_000_000, "flags": flags,
    "arch": "x86_64",
    "cpu_model": "Example 9124 16-Core Processor", "os": "Debian GNU/Linux 12 (bookworm)",
    "python": "3.11.2",
    "disk_bytes": 960_000_000_000, "disk_free_bytes": 610_000_000_000,
}
soon = now + timedelta(hours=1)
common = dict(
    account="millwright", host_key="SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDZzgwGTLjIv1xBSvY",
    host_key_kind="ssh-ed25519", enrolled_at=now - timedelta(days=40), release_sha256="3f" * 32,
)
well = Node.objects.create(
    name="rack-1", address="192.0.2.11", seen_at=soon, hardware=hardware, region="eu-central",
    cost_per_hour="0.42", labels={"rack": "a1", "disk": "ssd"}, **common,
)
ill = Node.objects.create(
    name="rack-2", address="192.0.2.12", seen_at=soon, wanted="cordoned", preemptible=True,
    hardware=hardware | {"os": "<img src=x onerror=alert(1)> GNU/Linux"},
    problems=[
        {"code": "clock_off", "message": "the box's clock is 61 s ahead of the appliance's",
         "remedy": "set the box's clock: timedatectl set-ntp true", "since": now.timestamp() - 800},
        {"code": "disk_full", "message": "1.2 GB are left of 960 GB under /var/lib",
         "remedy": "make room under /var/lib on the box", "since": now.timestamp() - 5000},
    ], **common,
)
new = Node.objects.create(name="rack-3", address="192.0.2.13", seen_at=soon, hardware=hardware, **common)
Node.objects.create(
    name="rack-4", address="192.0.2.14", seen_at=now - timedelta(hours=3), hardware=hardware, **common
)
for name, stage in (("rack-5", "asleep"), ("rack-6", "waking")):
    Node.objects.create(
        name=name, address="192.0.2.15", seen_at=now - timedelta(hours=3), hardware=hardware,
        power="wol:52:54:00:12:34:56", power_stage=stage, power_tries=1,
        power_wanted="asleep" if stage == "asleep" else "", **common,
    )
for row in (well, ill):
    Agent.objects.create(
        id=f"minilm-{row.name}", deployment=deployment, revision=revision, node=row, host=row.address,
        port=9200, profile=profile, state="ready" if row == well else "starting", release_sha256="3f" * 32,
        error="" if row == well else "exit code 3: <img src=x onerror=alert(1)>",
    )
Transfer.objects.create(
    node=new, kind="model", name="minilm", digest="ab" * 32, have_bytes=41_000_000, total_bytes=91_000_000
)
Transfer.objects.create(
    node=new, kind="release", name="3f3f3f3f3f3f", digest="3f" * 32, have_bytes=182_000_000,
    total_bytes=182_000_000, state="done", finished_at=now + timedelta(seconds=31),
)
steps = ("log in", "become root", "read facts", "check", "create account millwright", "install the steward",
         "allow the steward", "install the key", "greet the steward")
for row, at in ((well, "done"), (new, "running")):
    made = Enrolment.objects.create(
        name=row.name, address=row.address, way="password", host_key="SHA256:x", state=at, node=row,
        stage="sending model minilm", percent=62, actor="admin",
    )
    for index, step in enumerate(steps):
        RemoteStep.objects.create(
            enrolment=made, node=row, step=step, outcome="done", seconds=0.2 + index / 7
        )
broken = Enrolment.objects.create(
    name="rack-9", address="192.0.2.19", way="password", host_key="SHA256:x", state="failed", percent=20,
    error="'deploy' at 192.0.2.19 port 22: sudo asks for a password that was not given",
    hint="log in with that account's password, or allow sudo without password", code="sudo_needs_password",
)
RemoteStep.objects.create(enrolment=broken, step="log in", outcome="done", seconds=0.4)
RemoteStep.objects.create(
    enrolment=broken, step="become root", outcome="failed", seconds=1.1,
    detail="sudo: <b>a password</b> is required"
)
"""
LOG = "".join(
    f"2026-11-21 09:{number // 60:02}:{number % 60:02} INFO agents.worker: batch of {number % 8 + 1} in "
    f"{5 + number % 9}.{number % 10} ms\n"
    for number in range(240)
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with stage(tmp_path_factory.mktemp("home"), more=MORE) as scene:
        (scene.home / "logs" / "agents").mkdir()
        (scene.home / "logs" / "agents" / "minilm-aaaaaa.log").write_text(
            LOG + "<img src=x onerror=alert(1)>\n"
        )
        yield scene


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A real sshd; nobody can log in there with a password, but its key is shown to all."""
    if SSHD is None:
        pytest.skip("sshd is missing: apt-get install openssh-server")
    sshd = Sshd(tmp_path_factory.mktemp("sshd"))
    yield sshd
    sshd.stop()


@pytest.fixture
def page_at(scene, open_page):
    """Opens pages that an administrator is logged in on."""

    def open_at(path, *size, **options):
        watched = open_page(*size, **options)
        watched.page.goto(f"{scene.url}/?next={path}")
        watched.page.fill("input[name=username]", "admin")
        watched.page.fill("input[name=password]", PASSWORD)
        watched.page.click("button[type=submit]")
        watched.page.wait_for_url(f"{scene.url}{path}")
        return watched

    return open_at


def change(scene, statement, *values):
    """What the worker would write."""
    with closing(sqlite3.connect(scene.home / "db.sqlite3", timeout=10)) as database, database:
        database.execute(statement, values)


def fill_box(page, box, name):
    page.fill("[name=address]", "127.0.0.1")
    page.fill("[name=port]", str(box.port))
    page.fill("[name=name]", name)
    page.fill("[name=user]", "root")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_enrolling_a_box(scene, box, page_at, script):
    """From the list through three pages; with script the last one follows what the worker writes."""
    page = page_at("/nodes/", java_script_enabled=script).page
    page.click("text=Enroll a node")
    fill_box(page, box, f"new-{script}".lower())
    page.click("button:has-text('Look at the box')")
    assert page.locator("#mw-fingerprint").inner_text().startswith("SHA256:")
    page.fill("[name=password]", SECRET)
    page.check("[name=compared]")
    page.click("button:has-text('Enroll')")
    state = page.locator(".mw-now .mw-state")
    expect(state).to_have_text("waiting")
    assert SECRET not in page.content()
    row = page.url.rstrip("/").rsplit("/", 1)[1]
    change(
        scene,
        "update appliance_enrolment set state='running', stage='reading facts', percent=30 where id=?",
        row,
    )
    if not script:
        page.reload()
    expect(page.locator("#mw-live")).to_contain_text("reading facts")
    change(
        scene, "update appliance_enrolment set state='failed', error=?, sealed=null where id=?",
        "<b>no</b> sudo", row,
    )  # fmt: skip
    if not script:
        page.reload()
    expect(state).to_have_text("failed")
    expect(page.locator(".mw-cause")).to_have_text("<b>no</b> sudo")
    page.click("text=Try again")
    page.fill("[name=password]", SECRET)
    page.click("button:has-text('Try again')")
    expect(state).to_have_text("waiting")
    assert SECRET not in scene.log()


def test_a_box_that_is_not_there(page_at):
    """The error stands on the first page, with what was said still in it."""
    page = page_at("/enroll/").page
    page.fill("[name=address]", "127.0.0.1")
    page.fill("[name=port]", "1")
    page.click("button:has-text('Look at the box')")
    expect(page.locator(".mw-banner")).to_contain_text("no sshd listens there")
    expect(page.locator("[name=port]")).to_have_value("1")


def test_a_node_is_ordered_and_followed(scene, page_at):
    """A drain is confirmed; a transfer's bar and the state move without a page load."""
    page = page_at("/nodes/rack-3/").page
    expect(page.locator(".mw-bar").first).to_have_attribute("value", "45.1")
    change(scene, "update appliance_transfer set have_bytes=80000000 where kind='model'")
    expect(page.locator(".mw-bar").first).to_have_attribute("value", "87.9")
    page.click("#mw-drain")
    page.click("button:has-text('Drain')")
    expect(page.locator(".mw-now .mw-state")).to_have_text("draining")
    page.click("#mw-uncordon")
    page.click("button:has-text('Uncordon')")
    expect(page.locator(".mw-now .mw-state")).to_have_text("ready")
    page.click("#mw-retire")
    page.fill("[name=typed]", "rack-3000")
    page.click("button:has-text('Retire')")
    expect(page.locator("#mw-mistyped")).to_be_visible()


def test_what_a_box_says_is_text(page_at):
    """Markup in hardware, in errors and in a log makes no element."""
    for path in ("/nodes/rack-2/", "/agents/minilm-aaaaaa/log/", "/nodes/"):
        page = page_at(path).page
        assert page.locator("#mw-live img").count() == 0
        expect(page.locator("#mw-live")).to_contain_text("<img src=x" if path != "/nodes/" else "rack-1")


def test_a_log_is_refreshed(scene, page_at):
    """The button reads again, as many lines as were chosen."""
    page = page_at("/agents/minilm-aaaaaa/log/").page
    expect(page.locator(".mw-log")).to_contain_text("09:03:59")
    expect(page.locator(".mw-log")).not_to_contain_text("09:00:01")
    page.select_option("[name=lines]", "300")
    page.click("button:has-text('Refresh')")
    expect(page.locator(".mw-log")).to_contain_text("09:00:01")


PATHS = {
    "nodes": "/nodes/",
    "node-well": "/nodes/rack-1/",
    "node-ill": "/nodes/rack-2/",
    "node-transfer": "/nodes/rack-3/",
    "node-unreachable": "/nodes/rack-4/",
    "node-local": "/nodes/local/",
    "node-asleep": "/nodes/rack-5/",
    "node-wake": "/nodes/rack-5/order/wake/",
    "power": "/power/",
    "node-edit": "/nodes/rack-1/edit/",
    "node-drain": "/nodes/rack-1/order/drain/",
    "node-retire": "/nodes/rack-1/order/retire/",
    "log-1000": "/agents/minilm-aaaaaa/log/?lines=1000&auto=1",
    "enrolment-done": "/enrolments/1/",
    "enrolment-running": "/enrolments/2/",
    "enrolment-failed": "/enrolments/3/",
    "enrolment-again": "/enrolments/3/again/",
    "log": "/agents/minilm-aaaaaa/log/",
    "overview": "/",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=["wide", "narrow"])
def test_looks(scene, box, page_at, screenshots, size, scheme):  # noqa: PLR0917 - fixtures
    """No page scrolls sideways or has an error, wide and narrow, light and dark."""
    watched = page_at("/enroll/", *size, scheme)
    page = watched.page

    def look(key):
        watched.check_width()
        page.screenshot(path=screenshots / f"{key}-{size[0]}-{scheme}.png", full_page=True)

    look("enroll-box")
    fill_box(page, box, "look")
    page.click("summary")
    look("enroll-more")
    page.click("button:has-text('Look at the box')")
    page.wait_for_selector("#mw-fingerprint")
    look("enroll-key")
    for key, path in PATHS.items():
        page.goto(f"{scene.url}{path}")
        if key == "overview":
            expect(page.locator("#mw-link")).to_have_text("live")
        look(key)

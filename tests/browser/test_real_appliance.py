"""The dashboard of a real appliance under real load, in a real browser."""

import os
import signal

import pytest
from playwright.sync_api import expect
from traffic import Traffic

from dashboard.formats import UNKNOWN

pytestmark = [pytest.mark.browser, pytest.mark.slow]

VIEWER = ("vera", "a-long-password")
TOTAL_ABOVE = (
    "([name, least]) => parseFloat(document.querySelector(`[data-total=${name}]`).textContent) > least"
)
POINTS_SINCE = """([chart, line, since]) => {
    const drawn = Chart.getChart(document.querySelector(`canvas[data-chart=${chart}]`));
    const points = drawn.data.datasets.find((one) => one.name === line).data;
    return points.filter((point) => point.x > since).length;
}"""


@pytest.fixture(scope="module")
def admin(appliance):
    """The account that the first start made."""
    return "admin", (appliance.home / "admin-password").read_text().strip()


@pytest.fixture(scope="module")
def viewer(appliance):
    """An account with the role `viewer`."""
    name, password = VIEWER
    program = (
        "from django.contrib.auth.models import Group, User; "
        f"user = User.objects.create_user('{name}', password='{password}', is_staff=True); "
        "user.groups.add(Group.objects.get(name='viewer'))"
    )
    appliance.run("shell", "-v", "0", "-c", program)
    return VIEWER


def log_in(page, appliance, account):
    page.goto(f"{appliance.dashboard}/")
    expect(page.locator("input[name=username]")).to_be_focused()
    page.keyboard.type(account[0])
    page.fill("input[name=password]", account[1])
    page.press("input[name=password]", "Enter")
    page.wait_for_selector("#overview")
    expect(page.locator("#mw-link")).to_have_text("live")


def wait_for_points(page, chart, line, since, count):
    """Wait until a chart's line has so many points that are younger than `since`."""
    page.wait_for_function(f"(given) => ({POINTS_SINCE})(given) >= {count}", arg=[chart, line, since])


def agent_row(page):
    row = page.locator("table[data-table=agents] tbody tr")
    expect(row).to_have_count(1)
    return row


def test_numbers_move_under_load(appliance, key, admin, open_page):
    """Rates, counts, latency and load change by themselves, and each chart gets points."""
    page = open_page().page
    log_in(page, appliance, admin)
    row = agent_row(page)
    expect(row.locator("[data-cell=state]")).to_have_text("ready")
    before = row.locator("[data-cell=answered]").inner_text()
    since = page.evaluate("Date.now() / 1000")
    with Traffic(appliance, key, rps=40, seconds=10) as traffic:
        page.wait_for_function(TOTAL_ABOVE, arg=["rps", 20])
        expect(row.locator("[data-cell=answered]")).not_to_have_text(before)
        for total in ("p50", "p95", "cpu", "memory", "queued", "in_flight"):
            expect(page.locator(f"[data-total={total}]")).not_to_have_text(UNKNOWN)
        expect(row.locator("[data-cell=cpu]")).not_to_have_text("0 %")
        for chart, line in (
            ("rps", "rps"), ("latency", "p50_ms"), ("latency", "p95_ms"), ("work", "in_flight"),
            ("work", "queued"), ("load", "cpu_percent"), ("load", "memory_percent"),
        ):  # fmt: skip
            wait_for_points(page, chart, line, since, 3)
    assert traffic.summary.failed == 0
    page.wait_for_function("document.querySelector('[data-total=rps]').textContent === '0.0'")


def test_agent_restart_is_seen(appliance, key, admin, open_page):
    """A killed agent leaves `ready` before the viewer's eyes, what waits is counted, and it comes back."""
    page = open_page().page
    log_in(page, appliance, admin)
    state = agent_row(page).locator("[data-cell=state]")
    expect(state).to_have_text("ready")
    worker, agent = appliance.pid_of("worker"), appliance.pid_of("agents")
    with Traffic(appliance, key, rps=20, seconds=8) as traffic:
        page.wait_for_function(TOTAL_ABOVE, arg=["rps", 5])
        os.kill(worker, signal.SIGSTOP)  # else the agent is back sooner than a page is due
        try:
            os.kill(agent, signal.SIGKILL)
            expect(state).not_to_have_text("ready")
            expect(page.locator("[data-total=agents]")).to_have_text("0 / 1")
            page.wait_for_function(TOTAL_ABOVE, arg=["queued", 0])
        finally:
            os.kill(worker, signal.SIGCONT)
        expect(state).to_have_text("ready", timeout=30_000)
        expect(page.locator("[data-total=agents]")).to_have_text("1 / 1")
        expect(page.locator("[data-total=queued]")).to_have_text("0")
    assert appliance.pid_of("agents") != agent
    assert traffic.summary.failed == 0


def compare(page, first, second):
    """The similarity that the playground shows for two texts."""
    page.fill("[name=first]", first)
    page.fill("[name=second]", second)
    with page.expect_response(lambda answer: answer.url.endswith("/playground/")):
        page.click("button:has-text('Compare')")
    page.wait_for_selector("#mw-answer:not(.htmx-swapping):not(.htmx-settling) #mw-similarity")
    return float(page.locator("#mw-similarity").inner_text())


def test_playground_knows_what_is_alike(appliance, admin, open_page):
    """Two sentences of one meaning score higher than two of none in common."""
    page = open_page().page
    log_in(page, appliance, admin)
    page.click("nav >> text=Playground")
    alike = compare(page, "The cat sleeps on the sofa.", "A kitten is napping on the couch.")
    unlike = compare(page, "The cat sleeps on the sofa.", "Interest rates rose by half a point.")
    assert alike > unlike + 0.3
    expect(page.locator("#mw-answer")).to_contain_text("384")
    expect(page.locator("#mw-answer")).to_contain_text("local/minilm-")


def test_log_out(appliance, admin, open_page):
    """After logging out the log-in page is all there is."""
    page = open_page().page
    log_in(page, appliance, admin)
    page.evaluate("document.querySelector('form#logout-form, form[action*=logout]').requestSubmit()")
    page.wait_for_selector("input[name=password]")
    page.goto(f"{appliance.dashboard}/admin/appliance/deployment/")
    expect(page.locator("input[name=password]")).to_be_visible()


PAGES = {
    "admin": "/admin/",
    "deployments": "/admin/appliance/deployment/",
    "deployment": "/admin/appliance/deployment/1/change/",
    "deployment-add": "/admin/appliance/deployment/add/",
    "models": "/admin/appliance/inferencemodel/",
    "model": "/admin/appliance/inferencemodel/1/change/",
    "model-add": "/admin/appliance/inferencemodel/add/",
    "agents": "/admin/appliance/agent/",
    "nodes": "/admin/appliance/node/",
    "decisions": "/admin/appliance/decision/",
    "keys": "/admin/appliance/apikey/",
    "key-add": "/admin/appliance/apikey/add/",
    "audit": "/admin/appliance/auditevent/",
    "users": "/admin/auth/user/",
}
ACTIONS = "a[href*='/add/'], select[name=action], [name=_save], a:has-text('Undeploy'), .mw-button-danger"


def pages_with_actions(page, appliance):
    """The names of the admin's pages that hold something to press."""
    found = set()
    for name in ("deployments", "deployment", "models", "model", "agents", "nodes", "keys", "audit"):
        page.goto(f"{appliance.dashboard}{PAGES[name]}")
        expect(page.locator("#content")).to_be_visible()
        if page.locator(ACTIONS).count():
            found.add(name)
    return found


def test_viewer_sees_no_action(appliance, viewer, admin, open_page):
    """Where an administrator finds what to press, a viewer finds the rows alone."""
    found = []
    for account in (viewer, admin):
        page = open_page().page
        log_in(page, appliance, account)
        found.append(pages_with_actions(page, appliance))
        page.goto(f"{appliance.dashboard}{PAGES['deployment']}")
        expect(page.locator("#content")).to_contain_text("minilm")
    assert found == [set(), {"deployments", "deployment", "models", "model", "keys"}]


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [(1440, 900, "light"), (1440, 900, "dark"), (390, 844, "light"), (390, 844, "dark")],
)
def test_every_page_fits(appliance, key, admin, open_page, screenshots, width, height, scheme):  # noqa: PLR0917 - fixtures
    """Under load no page scrolls sideways or has an error, wide and narrow, light and dark."""
    watched = open_page(width, height, scheme)
    page = watched.page

    def keep(name, *, full=False):
        watched.check_width()
        page.screenshot(path=screenshots / f"real-{name}-{width}-{scheme}.png", full_page=full)

    page.goto(f"{appliance.dashboard}/")
    keep("login")
    with Traffic(appliance, key, rps=40, seconds=6):
        log_in(page, appliance, admin)
        page.wait_for_function(TOTAL_ABOVE, arg=["rps", 10])
        keep("overview")
        keep("overview-full", full=True)
        page.goto(f"{appliance.dashboard}/playground/")
        page.click("button:has-text('Same meaning')")
        expect(page.locator("#mw-similarity")).to_be_visible()
        keep("playground")
    for name, path in PAGES.items():
        page.goto(f"{appliance.dashboard}{path}")
        keep(name)

"""The page of a deployment and its form in a real browser, before a scripted gateway."""

import sqlite3
from contextlib import closing

import pytest
from playwright.sync_api import expect
from stage import PASSWORD, stage

pytestmark = [pytest.mark.browser, pytest.mark.slow]
MORE = """
Deployment.objects.update(
    cache_bytes=64_000_000, sticky=True,
    reason="mean concurrency 14.2 over 60 s asks for 2 agents of 11.2 each",
    problem="no node has room for one more agent: <img src=x onerror=alert(1)>",
)
MetricPoint.objects.create(
    series="deployment:minilm", resolution_s=1, at=t + 3600,
    values={"rps": 38.4, "p50_ms": 6.2, "p95_ms": 17.9, "tokens_per_s": 480, "failed_per_s": 0},
)
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with stage(tmp_path_factory.mktemp("home"), more=MORE) as scene:
        yield scene


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


def test_the_overview_leads_to_a_page_that_moves(scene, page_at):
    """By the deployment's name, there from the start and after each snapshot; its numbers follow."""
    page = page_at("/").page
    expect(page.locator("#mw-link")).to_have_text("live")
    page.click("table[data-table=deployments] a:has-text('minilm')")
    page.wait_for_url(f"{scene.url}/deployments/minilm/")
    answered = page.locator("tr[data-key=minilm-aaaaaa] [data-cell=answered]")
    first = answered.inner_text()
    expect(answered).not_to_have_text(first)
    expect(page.locator(".mw-cause")).to_contain_text("<img src=x")
    assert page.locator(".mw-page img").count() == 0
    with closing(sqlite3.connect(scene.home / "db.sqlite3", timeout=10)) as database, database:
        database.execute("update appliance_deployment set queue_limit=77")
    expect(page.locator("#mw-live")).to_contain_text("77")


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_settings_are_changed(page_at, script):
    """What is typed is set and told; what is wrong is named at its field, and nothing is changed."""
    page = page_at("/deployments/minilm/", java_script_enabled=script).page
    page.click("#mw-serving")
    hedging, cache = page.locator("[name=hedging]"), page.locator("[name=cache_mb]")
    wanted = not hedging.is_checked()
    hedging.set_checked(wanted)
    cache.fill("9999")
    page.click("button:has-text('Save')")
    if script:  # the browser itself knows the bounds
        assert not cache.evaluate("field => field.validity.valid")
        page.locator("form.mw-form").evaluate("form => { form.noValidate = true; }")
        page.click("button:has-text('Save')")
        expect(page.locator(".mw-error")).to_contain_text("4096")
        expect(hedging).to_be_checked(checked=wanted)
    cache.fill("128" if wanted else "96")
    page.click("button:has-text('Save')")
    page.wait_for_url("**/deployments/minilm/")
    expect(page.locator("body")).to_contain_text("changed: cache_mb, hedging")
    expect(page.locator("#mw-live")).to_contain_text("128 MB in each" if wanted else "96 MB in each")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_pages_fit(page_at, screenshots, width, scheme):
    """No page scrolls sideways, at a desk or on a phone."""
    watched = page_at("/deployments/minilm/", width, 900, scheme)
    page = watched.page

    def look(name):
        watched.check_width()
        page.screenshot(path=screenshots / f"{name}-{width}-{scheme}.png", full_page=True)

    look("deployment")
    page.click("#mw-serving")
    page.wait_for_selector("[name=cache_mb]")
    look("deployment-serving")
    page.click("text=Cancel")
    page.click("#mw-placement")
    page.wait_for_selector("[name=require]")
    look("deployment-placement")
    page.click("text=Cancel")
    page.click("#mw-bounds")
    page.wait_for_selector("[name=max_agents]")
    look("deployment-bounds")


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=["wide", "narrow"])
def test_scaling_is_changed(page_at, size):
    """What is set shows on the page, a schedule of the whole day is under way; a contradiction is said."""
    page = page_at("/deployments/minilm/", *size).page
    page.click("#mw-scaling")
    page.locator("[name=schedule]").fill("daily 00:00-24:00 UTC min=1")
    page.locator("[name=hold]").fill("900")
    page.click("button:has-text('Save')")
    expect(page.locator("[role=alert]")).to_contain_text("hold=900 is outside min=")
    page.locator("[name=hold]").fill("")
    page.click("summary:has-text('More settings')")
    page.locator("[name=stabilization_s]").fill(str(size[0] / 100))
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.click("button:has-text('Save')")
    page.wait_for_url("**/deployments/minilm/")
    expect(page.locator("#mw-live")).to_contain_text("Schedule, under way")
    expect(page.locator("#mw-live")).to_contain_text(str(size[0] / 100))
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]

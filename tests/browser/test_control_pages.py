"""The pages of the control process in a real browser, before a scripted gateway."""

import pytest
from playwright.sync_api import expect
from stage import PASSWORD, stage

from dashboard.formats import UNKNOWN

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with stage(tmp_path_factory.mktemp("home")) as scene:
        yield scene


def log_in(page, url):
    page.goto(f"{url}/")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_selector("#overview")


def test_numbers_move(scene, open_page):
    """After log-in the overview goes live, its cells change, and its lines grow."""
    page = open_page().page
    log_in(page, scene.url)
    expect(page.locator("#mw-link")).to_have_text("live")
    answered = page.locator("tr[data-key=minilm-aaaaaa] [data-cell=answered]")
    first = answered.inner_text()
    expect(answered).not_to_have_text(first)
    points = "Chart.getChart(document.querySelector('canvas[data-chart=rps]')).data.datasets[0].data"
    newest = page.evaluate(f"{points}.at(-1).x")
    assert page.evaluate(f"{points}.length") > 50, "the history is drawn from the start"
    page.wait_for_function(f"{points}.filter((point) => point.x > {newest}).length > 1")
    page.wait_for_function("parseFloat(document.querySelector('[data-total=rps]').textContent) > 20")


def test_what_a_node_says_is_text(scene, open_page):
    """Markup in an agent's error is shown as it is written, before and after the first snapshot."""
    page = open_page().page
    log_in(page, scene.url)
    note = page.locator("tr[data-key=minilm-bbbbbb] [data-cell=note]")
    expect(note).to_contain_text("<img src=x")
    expect(page.locator("#mw-link")).to_have_text("live")
    expect(note).to_contain_text("<img src=x")
    assert page.locator("#overview img").count() == 0


def test_silence_is_shown(scene, open_page):
    """When the control process ends the page says so, and goes on when it is back."""
    watched = open_page()
    page = watched.page
    log_in(page, scene.url)
    expect(page.locator("#mw-link")).to_have_text("live")
    assert scene.stop() == 0
    expect(page.locator("#mw-stale")).to_contain_text("what you see is old")
    scene.start()
    expect(page.locator("#mw-link")).to_have_text("live", timeout=30_000)
    expect(page.locator("#mw-stale")).to_be_hidden()
    assert "Traceback" not in scene.log(), scene.log()
    watched.errors.clear()  # of the time when nobody listened


def test_playground(scene, open_page):
    """Two texts are compared without a page load, and an example takes one click."""
    page = open_page().page
    log_in(page, scene.url)
    page.goto(f"{scene.url}/playground/")
    page.fill("[name=first]", "abc")
    page.fill("[name=second]", "cab")
    page.click("button:has-text('Compare')")
    expect(page.locator("#mw-similarity")).to_have_text("1.000")
    expect(page.locator("#mw-answer")).to_contain_text("local/minilm-aaaaaa")
    page.click("button:has-text('Nothing in common')")
    expect(page.locator("[name=first]")).to_have_value("The mill stands by the river.")
    expect(page.locator("#mw-similarity")).not_to_have_text("1.000")


def test_page_without_script(scene, open_page):
    """Log-in, overview and playground are complete without script."""
    page = open_page(java_script_enabled=False).page
    log_in(page, scene.url)
    expect(page.locator("[data-total=in_flight]")).not_to_have_text(UNKNOWN)
    expect(page.locator("tr[data-key=minilm-aaaaaa] [data-cell=answered]")).not_to_have_text(UNKNOWN)
    expect(page.locator("tr[data-key=minilm-aaaaaa] [data-cell=state]")).to_have_text("ready")
    page.goto(f"{scene.url}/playground/")
    page.fill("[name=first]", "abc")
    page.fill("[name=second]", "cab")
    page.click("button:has-text('Compare')")
    expect(page.locator("#mw-similarity")).to_have_text("1.000")


PATHS = {
    "playground": "/playground/",
    "deployments": "/admin/appliance/deployment/",
    "deployment": "/admin/appliance/deployment/1/change/",
    "model-add": "/admin/appliance/inferencemodel/add/",
    "model": "/admin/appliance/inferencemodel/1/change/",
    "key-add": "/admin/appliance/apikey/add/",
    "decisions": "/decisions/",
    "users": "/admin/auth/user/",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=["wide", "narrow"])
def test_looks(scene, open_page, screenshots, size, scheme):
    """No page scrolls sideways or has an error, wide and narrow, light and dark."""
    watched = open_page(*size, scheme)
    page = watched.page
    name = f"{size[0]}-{scheme}"
    page.goto(f"{scene.url}/")
    watched.check_width()
    page.screenshot(path=screenshots / f"login-{name}.png")
    log_in(page, scene.url)
    expect(page.locator("#mw-link")).to_have_text("live")
    page.wait_for_function("parseFloat(document.querySelector('[data-total=rps]').textContent) > 20")
    watched.check_width()
    page.screenshot(path=screenshots / f"overview-{name}.png")
    page.screenshot(path=screenshots / f"overview-full-{name}.png", full_page=True)
    for key, path in PATHS.items():
        page.goto(f"{scene.url}{path}")
        if key == "playground":
            page.click("button:has-text('Same meaning')")
            expect(page.locator("#mw-similarity")).to_be_visible()
        watched.check_width()
        page.screenshot(path=screenshots / f"{key}-{name}.png")
    ended = page.goto(f"{scene.url}/nowhere")
    assert ended.status == 404
    watched.check_width()
    page.screenshot(path=screenshots / f"missing-{name}.png")
    watched.errors = [error for error in watched.errors if "404" not in error]

"""A box is enrolled, watched and read in a real browser."""

import pytest
from fleet_appliance import MODEL
from hosts import PASSWORD
from pages import browser, open_page, screenshots
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]
__all__ = ["browser", "open_page", "screenshots"]


def log_in(page, site):
    page.goto(f"{site.dashboard}/")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", (site.home / "admin-password").read_text().strip())
    page.press("input[name=password]", "Enter")
    page.wait_for_selector("#overview")


def test_a_box_is_enrolled_in_the_browser(boot, site, key, open_page, screenshots):
    """The wizard shows the box's key, follows each step to the end, and the node's agent tells its log."""
    host = boot("wizard")
    page = open_page().page
    log_in(page, site)
    page.goto(f"{site.dashboard}/enroll/")
    page.fill("[name=address]", host.address)
    page.fill("[name=name]", host.name)
    page.click("button:has-text('Look at the box')")
    expect(page.locator("#mw-fingerprint")).to_contain_text(host.fingerprints()["ssh-ed25519"])
    page.fill("[name=password]", PASSWORD)
    page.check("[name=compared]")
    page.click("button:has-text('Enroll')")
    expect(page.locator("#mw-live")).to_contain_text("greet the steward", timeout=60_000)
    expect(page.locator(".mw-state").first).to_have_text("done", timeout=60_000)
    page.screenshot(path=screenshots / "real-enrolment.png", full_page=True)
    assert PASSWORD not in page.content()
    site.deploy(1, host)
    assert len(site.ask(key)) == 384
    page.goto(f"{site.dashboard}/nodes/{host.name}/")
    expect(page.locator(".mw-now .mw-state")).to_have_text("ready")
    expect(page.locator("#mw-live")).to_contain_text(f"model {MODEL}")
    page.screenshot(path=screenshots / "real-node.png", full_page=True)
    page.click("#mw-live a:text-is('Log')")
    expect(page.locator(".mw-log")).to_contain_text("listens on", timeout=20_000)
    expect(page.locator("#mw-live")).to_contain_text("active (running)")
    page.screenshot(path=screenshots / "real-log.png", full_page=True)

"""A browser, and the pages it opens watched for errors."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


CHROMIUM = Path("/usr/bin/chromium")
#: Left behind by going to another page; broken off because this machine gained or lost a network interface.
NO_PAGES_FAULT = ("ERR_ABORTED", "ERR_NETWORK_CHANGED")


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory):
    """Where screenshots go."""
    given = os.environ.get("SCREENSHOT_DIR")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Watched:
    """A page and what went wrong on it."""

    def __init__(self, page):
        self.page = page
        self.errors = []
        self.network_changed = False
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def _said(self, message):
        if message.type == "error" and not any(code in message.text for code in NO_PAGES_FAULT):
            self.errors.append(message.text)

    def _failed(self, request):
        # A script that was broken off is missed by every other one: nothing can be said of such a page.
        self.network_changed |= "ERR_NETWORK_CHANGED" in (request.failure or "")
        if not any(code in (request.failure or "") for code in NO_PAGES_FAULT):
            self.errors.append(f"{request.url}: {request.failure}")

    def _answered(self, response):
        if response.status >= 400:
            self.errors.append(f"{response.url}: {response.status}")

    def check_width(self):
        """Nothing reaches beyond the right edge of the window."""
        wide = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{self.page.url} scrolls sideways by {wide} px"


@pytest.fixture
def open_page(browser):
    """Opens pages in contexts of their own; none of them may have had an error in the end."""
    opened = []

    def open_one(width=1440, height=900, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **options
        )
        context.set_default_timeout(10_000)
        watched = Watched(context.new_page())
        opened.append((context, watched))
        return watched

    yield open_one
    for context, _ in opened:
        context.close()
    assert [error for _, watched in opened if not watched.network_changed for error in watched.errors] == []

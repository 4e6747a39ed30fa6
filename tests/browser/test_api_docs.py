"""The API's documentation in a real browser, before a scripted gateway."""

import pytest
from playwright.sync_api import expect
from stage import PASSWORD, stage

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with stage(tmp_path_factory.mktemp("home")) as scene:
        yield scene


def test_the_documentation_works_by_itself(scene, open_page, screenshots):
    """All operations are shown, nothing is asked of another site, and a person may try one."""
    page = open_page().page
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{scene.url}/")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_selector("#overview")
    page.goto(f"{scene.url}/api/docs")
    described = page.request.get(f"{scene.url}/api/openapi.json").json()["paths"].values()
    expect(page.locator(".opblock")).to_have_count(sum(len(methods) for methods in described))
    operation = page.locator("#operations-nodes-list_nodes")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
    page.screenshot(path=screenshots / "api-docs.png")
    elsewhere = [url for url in asked if not url.startswith((scene.url, "data:", "blob:"))]
    assert not elsewhere

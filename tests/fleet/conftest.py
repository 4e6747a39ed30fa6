"""A fleet for the whole session, and hosts for one test each."""

import pytest
from fleet_appliance import FleetAppliance, copy_bare_home, make_bare_home
from fleet_trees import make_trees
from hosts import Fleet, why_not


@pytest.fixture(scope="session")
def fleet():
    """The session's fleet; at its end nothing of it may be left on this machine."""
    if reason := why_not():
        pytest.skip(reason)
    make_trees(["bookworm", "trixie"])
    with Fleet() as opened:
        yield opened
    assert opened.network.leftovers() == []


@pytest.fixture
def boot(fleet):
    """`boot("alpha", "trixie")`: a new host, as `Fleet.start` gives it; it ends with the test."""
    started = []

    def boot_one(name, release="bookworm", **options):
        assert name not in fleet.hosts, f"{name} belongs to another test"
        started.append(name)
        return fleet.start(name, release, **options)

    boot_one.names = started
    yield boot_one
    fleet.remove(*(name for name in started if name in fleet.hosts))


@pytest.fixture(scope="session")
def bare_home(fleet, template_home, tmp_path_factory):
    """A state directory with the model, for appliances whose agents run on hosts alone."""
    return make_bare_home(template_home, tmp_path_factory.mktemp("bare") / "home")


@pytest.fixture(scope="session")
def shared_site(bare_home, tmp_path_factory):
    """An appliance for many tests; see `site`."""
    with FleetAppliance(copy_bare_home(bare_home, tmp_path_factory.mktemp("site") / "home")) as running:
        yield running.start()


@pytest.fixture(scope="session")
def key(shared_site):
    """A key of the shared appliance."""
    return shared_site.create_key("fleet")


@pytest.fixture
def site(boot, shared_site):
    """The shared appliance; nodes and deployments of a test end with it, before its hosts do."""
    yield shared_site
    shared_site.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Beside a failure: what the test's hosts said last."""
    report = yield
    if call.when == "call" and report.failed and "boot" in getattr(item, "funcargs", {}):
        fleet = item.funcargs["fleet"]
        for name in item.funcargs["boot"].names:
            if name in fleet.hosts:
                report.sections.append((f"host {name}", _last_words(fleet.hosts[name])))
    return report


def _last_words(host):
    try:
        said = host.journal(lines=60) if host.is_on else "(off)"
    except Exception as problem:  # noqa: BLE001 - the test's own failure is what matters
        said = f"(no journal: {problem})"
    return f"{host.console}\n{said}"

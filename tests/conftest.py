"""What all tests share: nothing is left out unsaid."""

import os


def pytest_terminal_summary(terminalreporter):
    """Name in one line what was left out, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        reasons = sorted({f"{report.nodeid} ({report.longrepr[2]})" for report in skipped})
        terminalreporter.write_line(f"left out: {'; '.join(reasons)}")


def pytest_sessionfinish(session, exitstatus):
    """On the build machine nothing may be left out."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = 1

"""What a real worker records of its ticks, killed under load again and again: it follows from itself."""

import json
import signal
import sqlite3
import threading
import time
from contextlib import closing

import pytest
from test_worker_process import Home, ready_agent, wait_for

pytestmark = pytest.mark.slow

KILLS = 3
SCALES = """
import django; django.setup()
from appliance.models import Deployment, Revision
Deployment.objects.update(min_agents=1, max_agents=3, target_in_flight=1.0)
Revision.objects.update(settings={"fake_service_ms": 60})
"""
VERIFY = """
import django; django.setup()
import json
from appliance.control.inputs import read_ticks
from appliance.management.commands.decisions import verdict_document
from appliance.decision_log import check_record
numbers = {tick.given.answer.replicas for tick in read_ticks("mini")}
print(json.dumps({**verdict_document("mini", check_record("mini")), "numbers": len(numbers)}))
"""


@pytest.fixture
def home(tmp_path):
    """A gateway and a deployment that scales from one to three agents."""
    home = Home(tmp_path / "home")
    try:
        home.run(SCALES)
        home.start("-m", "appliance.gateway", "--name", "gateway-1")
        wait_for((home.path / "run" / "gateway-1.sock").exists)
        yield home
    finally:
        home.close()


class Askers:
    """Threads that ask one request after the other until they are told to stop."""

    def __init__(self, home, count):
        self.stopped, self.failed, self.answered = threading.Event(), [], 0
        self.threads = [threading.Thread(target=self._ask, args=(home,)) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _ask(self, home):
        while not self.stopped.is_set():
            try:
                status, _ = home.ask()
            except OSError as error:
                self.failed.append(repr(error))
                return
            self.answered += status == 200

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(80)


def ticks(home):
    """How many were recorded."""
    with closing(sqlite3.connect(home.path / "db.sqlite3", timeout=10)) as database:
        [(count,)] = database.execute("select count(*) from appliance_recordedtick")
    return int(count)


def test_a_worker_that_is_killed_under_load_leaves_a_sound_record(home):
    """SIGKILL while agents come and go: every tick that was recorded is decided again as it was."""
    worker = home.worker()
    ready_agent(home)
    known, askers = ticks(home), Askers(home, 6)
    try:
        for _ in range(KILLS):
            wait_for(lambda known=known: ticks(home) >= known + 4, 60.0)
            worker.send_signal(signal.SIGKILL)
            worker.wait(10)
            known, worker = ticks(home), home.worker()
        wait_for(lambda: ticks(home) >= known + 4, 60.0)
    finally:
        askers.stop()
    assert not askers.failed
    assert askers.answered > 20
    assert home.start("manage.py", "decisions", "mini", "--verify").wait(60) == 0
    begun = time.time()
    found = json.loads(home.run(VERIFY))
    assert found["equal"], found
    assert found["ticks"] >= 4 * (KILLS + 1)
    assert found["last"] > begun - 60
    assert found["numbers"] >= 2

"""Played boxes with a played steward, and a crew that enrolls them."""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field

from django.conf import settings
from provisioning_builders import wait_until

from appliance.control.enrolments import Crew
from appliance.enrolling import EnrolmentRequest, request_enrolment
from provisioning.bundle import Release
from provisioning.commands import places
from provisioning.login import Password
from provisioning.testing import SECTION_TEXTS, ScriptedBox, play
from provisioning.transport import Result, Secret

PASSWORD = "hunter2-never-to-be-seen"
HOST_KEY = "SHA256:" + "A" * 43
OTHER_KEY = "SHA256:" + "B" * 43
BOOT = "11111111-2222-3333-4444-555555555555"


def box_texts(**said):
    return {**SECTION_TEXTS, "clock": f"{time.time()}\n", **said}


@dataclass
class StewardBox(ScriptedBox):
    """A box whose steward takes releases. `refuses` maps a verb to the error that ends it, once.

    Where `gate` is given, the first `receive` waits for it, and sets `receiving` before.
    """

    texts: dict = field(default_factory=box_texts)
    blobs: dict = field(default_factory=dict)
    releases: set = field(default_factory=set)
    asked: list = field(default_factory=list)
    refuses: dict = field(default_factory=dict)
    gate: threading.Event | None = None
    receiving: threading.Event = field(default_factory=threading.Event)

    def answer_steward(self, request):
        head, _, body = request.partition(b"\n")
        asked = json.loads(head)
        verb = asked["verb"]
        self.asked.append(verb)
        if verb in self.refuses:
            raise self.refuses.pop(verb)
        if places.STEWARD not in self.files:
            return Result(1, b"", b"no steward")
        lines = getattr(self, f"_{verb}")(asked, body)
        return Result(0, b"".join(json.dumps(line).encode() + b"\n" for line in lines), b"")

    def _hello(self, asked, body):
        steward = hashlib.sha256(self.files[places.STEWARD][0]).hexdigest()
        return [{"ok": True, "protocol": 1, "steward": steward, "boot_id": BOOT, "time": time.time()}]

    def _facts(self, asked, body):
        texts = {name: self.texts[name] for name in ("cpuinfo", "meminfo", "os_release")}
        return [
            {
                "ok": True, **texts, "arch": "x86_64", "python": "3.11.2",
                "disk_bytes": 10**11, "disk_free_bytes": 9 * 10**10,
            }
        ]  # fmt: skip

    def _missing(self, asked, body):
        releases = [one for one in asked["releases"] if one not in self.releases]
        blobs = {one: 0 for one in asked["blobs"] if one not in self.blobs}
        return [{"ok": True, "releases": releases, "models": [], "blobs": blobs}]

    def _receive(self, asked, body):
        gate, self.gate = self.gate, None
        if gate is not None:
            self.receiving.set()
            gate.wait(20)
        self.blobs[asked["sha256"]] = body
        return [{"progress": {"have": len(body) // 2}}, {"ok": True, "have": len(body), "complete": True}]

    def _install_release(self, asked, body):
        assert hashlib.sha256(self.blobs.pop(asked["sha256"])).hexdigest() == asked["sha256"]
        self.releases.add(asked["sha256"])
        return [{"ok": True, "installed": True}]


class Builder:
    """Makes a release of a few bytes; `made` says for what."""

    def __init__(self):
        self.made = []

    def __call__(self, folder, python, arch):
        self.made.append((python, arch))
        folder.mkdir(exist_ok=True)
        content = b"release " * 100
        sha256 = hashlib.sha256(content).hexdigest()
        path = folder / f"{sha256}.tar.gz"
        if not path.exists():
            path.write_bytes(content)
        return Release(sha256, path, len(content))


class Boxes:
    """Boxes by address, the connections to them, and a crew. `end` wakes all that hang."""

    def __init__(self, **given):
        self.boxes: dict[str, StewardBox] = {}
        self.carriers = []
        self.builder = Builder()
        self.crews = []
        self.crew = self.new_crew(**given)

    def new_crew(self, **given):
        crew = Crew(settings.ENVIRONMENT, connect=self.connect, build=self.builder, **given)
        self.crews.append(crew)
        return crew

    def add(self, address="10.0.0.2", **given):
        box = self.boxes[address] = StewardBox(**given)
        return box

    def connect(self, address, host_key, way):
        carrier = play(self.boxes)(address, host_key, way)
        self.carriers.append(carrier)
        return carrier

    def ask(self, address="10.0.0.2", way=None, **given):
        request = EnrolmentRequest(address=address, host_key=HOST_KEY, **given)
        return request_enrolment(request, way or Password(Secret(PASSWORD)), actor="test")

    def end(self):
        for box in self.boxes.values():
            if box.gate is not None:
                box.gate.set()
        for carrier in self.carriers:
            carrier.close()
        deadline = time.monotonic() + 10
        while any(crew.at_work() for crew in self.crews) and time.monotonic() < deadline:
            time.sleep(0.01)


def settle(boxes, row, *states):
    """Look until the row has one of the states, and nobody works on it."""

    def over():
        boxes.crew.look()
        row.refresh_from_db()
        return row.state in states and not boxes.crew.at_work()

    wait_until(over)
    return row

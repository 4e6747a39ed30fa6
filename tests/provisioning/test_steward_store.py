"""What the steward receives, unpacks, puts together and throws away."""

import datetime as dt
import fcntl
import hashlib
import io
import json
import os
import threading
import time

import pytest
from steward_builders import AGENT, CERTIFICATE, KEY, RecordedSystem, ask, make_steward

from provisioning.bundle import write_archive
from provisioning.certificates import create_authority
from provisioning.steward import store as store_module
from provisioning.steward.answers import Answers
from provisioning.steward.places import Places
from provisioning.steward.units import Unit, build_unit

SHA = "a" * 64
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def steward(tmp_path):
    """A steward whose directories are the test's."""
    return make_steward(tmp_path, RecordedSystem())


def put(steward, verb, body=b"", **arguments):
    return ask(steward, json.dumps({"verb": verb, **arguments}).encode() + b"\n" + body)


def sha_of(content):
    return hashlib.sha256(content).hexdigest()


def receive(steward, content, offset=0, body=None):
    return put(
        steward, "receive", content[offset:] if body is None else body,
        sha256=sha_of(content), total=len(content), offset=offset,
    )  # fmt: skip


def partial_bytes(steward, content):
    return put(steward, "missing", blobs=[sha_of(content)])[1]["blobs"].get(sha_of(content))


def test_a_cut_transfer_goes_on_where_it_stopped(steward):
    """What came before the cut is kept, told, and only the rest is sent."""
    content = os.urandom(700_000)
    code, answer = receive(steward, content, body=content[:300_000])
    assert (code, answer["error"]["code"]) == (1, "cut_short")
    assert partial_bytes(steward, content) == 300_000
    assert receive(steward, content, offset=299_999)[1]["error"]["code"] == "wrong_offset"
    assert receive(steward, content, offset=300_000)[1] == {"ok": True, "have": 700_000, "complete": True}
    assert partial_bytes(steward, content) is None
    assert receive(steward, content, body=b"")[0] == 0  # it is there: nothing has to be sent


def test_other_bytes_than_promised_are_thrown_away(steward, tmp_path):
    """A file whose digest is another is neither kept nor used."""
    content = b"promised"
    code, answer = receive(steward, content, body=b"something")
    assert (code, answer["error"]["code"]) == (1, "wrong_digest")
    assert partial_bytes(steward, content) == 0
    assert not list((tmp_path / "home" / "blobs").iterdir())


def test_a_full_disk_is_said_before_anything_is_written(steward, monkeypatch):
    """What does not fit is refused at once, with what is needed."""
    usage = type("Usage", (), {"free": 70 * 1024 * 1024, "total": 1})
    monkeypatch.setattr("provisioning.steward.files.shutil.disk_usage", lambda _path: usage)
    total = 10 * 1024 * 1024
    code, answer = put(steward, "receive", sha256=SHA, total=total, offset=0)
    assert (code, answer["error"]["code"]) == (1, "disk_full")


def make_release(tmp_path, **files):
    tree = tmp_path / "tree"
    for name, content in files.items():
        path = tree / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_archive(tree, tmp_path / "release.tar.gz")
    return (tmp_path / "release.tar.gz").read_bytes()


@pytest.fixture
def release(steward, tmp_path):
    """The digest of an installed release."""
    content = make_release(tmp_path, agents__main=b"pass\n")
    assert receive(steward, content)[0] == 0
    assert put(steward, "install_release", sha256=sha_of(content))[1] == {"ok": True, "installed": True}
    return sha_of(content)


def test_a_release_is_unpacked_once(steward, release, tmp_path):
    """It is there whole, its archive is gone, and asking again changes nothing."""
    assert (tmp_path / "home" / "releases" / release / "agents" / "main").read_bytes() == b"pass\n"
    assert not list((tmp_path / "home" / "blobs").iterdir())
    assert put(steward, "install_release", sha256=release)[1] == {"ok": True, "installed": False}
    assert put(steward, "install_release", sha256=SHA)[1]["error"]["code"] == "not_received"


def test_who_asks_again_during_an_install_waits_for_it(steward, tmp_path, monkeypatch):
    """A caller was cut off, and the install goes on: the next finds it done, however long that takes."""
    monkeypatch.setattr(store_module, "_BUSY_S", 0.0)
    content = make_release(tmp_path, agents__main=b"pass\n")
    sha, home = sha_of(content), tmp_path / "home"
    receive(steward, content)
    answers, waits = [], threading.Event()

    class Told(io.BytesIO):
        def write(self, line):
            answers.append(json.loads(line))
            waits.set()
            return len(line)

    line = json.dumps({"verb": "install_release", "sha256": sha}).encode() + b"\n"
    with (home / "partial" / f"{sha}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        again = threading.Thread(target=steward.serve, args=(io.BytesIO(line), Answers(Told())))
        again.start()
        assert waits.wait(10)
        (home / "releases" / sha).mkdir()
        (home / "blobs" / sha).unlink()
    again.join(10)
    assert answers == [{"progress": {"waiting": True}}, {"ok": True, "installed": False}]
    assert list((home / "partial").iterdir()) == []


def test_a_release_that_breaks_off_leaves_nothing(steward, tmp_path):
    """An archive that is cut or no archive is refused, and nothing half unpacked stays."""
    for content in (make_release(tmp_path, big=os.urandom(200_000))[:-5000], b"no archive"):
        assert receive(steward, content)[0] == 0
        assert put(steward, "install_release", sha256=sha_of(content))[1]["error"]["code"] == "bad_release"
    assert not list((tmp_path / "home" / "releases").iterdir())


def make_manifest(files):
    entries = [{"path": name, "bytes": len(text), "sha256": sha_of(text)} for name, text in files.items()]
    manifest = {"format": 1, "files": entries}
    digest = sha_of(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode())
    return {**manifest, "digest": digest, "source": "test", "size_bytes": 1}


@pytest.fixture
def model(steward):
    """The digest of an installed model, two of whose files are alike."""
    files = {"model.bin": b"weights", "sub/a.json": b"{}", "sub/b.json": b"{}"}
    manifest = make_manifest(files)
    assert put(steward, "install_model", manifest=manifest)[1]["error"]["code"] == "not_received"
    for content in set(files.values()):
        assert receive(steward, content)[0] == 0
    assert put(steward, "install_model", manifest=manifest)[1] == {"ok": True, "installed": True}
    return manifest["digest"]


def test_a_model_is_put_together_of_what_was_received(steward, model, tmp_path):
    """Its files lie where the manifest says, the blobs are gone, and a second time does nothing."""
    folder = tmp_path / "home" / "models" / model
    assert (folder / "sub" / "b.json").read_bytes() == b"{}"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["digest"] == model
    assert not list((tmp_path / "home" / "blobs").iterdir())
    assert put(steward, "install_model", manifest=manifest)[1] == {"ok": True, "installed": False}


def test_a_manifest_with_another_digest_is_refused(steward):
    """What a manifest calls itself must be what it says."""
    manifest = {**make_manifest({"a": b"x"}), "digest": SHA}
    assert put(steward, "install_model", manifest=manifest)[1]["error"]["code"] == "wrong_digest"


def write_agent(steward, release, model=None, **changes):
    asked = {
        "agent": AGENT, "release": release, "model": model, "config": {"port": 9000},
        "certificate": CERTIFICATE, "key": KEY, "ca": CERTIFICATE, **changes,
    }  # fmt: skip
    return put(steward, "write_agent", **asked)


def test_writing_an_agent_again_changes_only_what_differs(steward, release, model, tmp_path):
    """The answer names what changed: nothing, the configuration, or the unit."""
    first = ["ca.pem", "key.pem", "cert.pem", "config.json", "unit"]
    assert write_agent(steward, release, model)[1]["changed"] == first
    assert write_agent(steward, release, model)[1]["changed"] == []
    assert write_agent(steward, release, model, config={"port": 9001})[1]["changed"] == ["config.json"]
    assert write_agent(steward, release, model, config={"port": 9001}, cpus=[0])[1]["changed"] == ["unit"]
    key = tmp_path / "home" / "agents" / AGENT / "key.pem"
    assert key.stat().st_mode & 0o777 == 0o640
    assert write_agent(steward, SHA)[1]["error"]["code"] == "not_installed"
    assert write_agent(steward, release, SHA)[1]["error"]["code"] == "not_installed"


def test_agents_are_brought_together(steward, release):
    """All are written, and start at once and at boot; one that cannot be is told of, and keeps no other."""
    written = {
        "release": release, "model": None, "config": {"port": 9000}, "certificate": CERTIFICATE, "key": KEY,
        "ca": CERTIFICATE,
    }  # fmt: skip
    agents = [
        {"agent": "a-1", **written},
        {"agent": "a-2", **written, "release": SHA},
        {"agent": "a-3", **written},
    ]
    told = put(steward, "bring", agents=agents)[1]["agents"]
    assert "unit" in told["a-1"]["changed"]
    assert told["a-2"]["error"]["code"] == "not_installed"
    units = ("millwright-agent-a-1.service", "millwright-agent-a-3.service")
    system = steward._agents._system
    assert [call[1] for call in system.calls] == ["reset-failed", "enable", "start"]
    assert all(call[-2:] == units for call in system.calls)
    system.calls.clear()
    assert put(steward, "bring", agents=agents[1:2])[1]["agents"]["a-2"]["error"]["code"] == "not_installed"
    assert system.calls == []


def test_status_tells_which_certificates_an_agent_has(steward, release, tmp_path):
    """The first certificate by its DER, as the appliance names it; the files by what they hold."""
    authority = create_authority(NOW)
    issued = authority.issue_server(AGENT, ["10.0.0.1"], NOW)
    ca = authority.certificate_pem.decode()
    chain = issued.certificate_pem.decode() + ca
    write_agent(steward, release, certificate=chain, key=issued.key_pem.decode(), ca=ca)
    told = put(steward, "status")[1]["agents"][AGENT]
    assert told["certificate_sha256"] == issued.sha256
    assert told["sha256"]["ca.pem"] == sha_of(ca.encode())
    assert told["sha256"]["cert.pem"] == sha_of(chain.encode())
    shown = tmp_path / "home" / "agents" / AGENT / "cert.pem"
    for nonsense in ("", "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----", "\0\xff"):
        shown.write_text(nonsense)
        assert put(steward, "status")[1]["agents"][AGENT]["certificate_sha256"] == ""


def test_limits_bind_an_agent_that_runs(steward, release):
    """The unit says them for the next start, and the process has them now; one at rest is left alone."""
    write_agent(steward, release)
    system = steward._agents._system
    limits = {"agent": AGENT, "memory_max_bytes": 2**30, "cpus": [0, 2]}
    system.answers["show"] = b"ActiveState=inactive\nMainPID=0\n"
    assert put(steward, "set_limits", **limits)[1] == {"ok": True}
    assert not [call for call in system.calls if call[0] == "bind"]
    system.answers["show"] = b"ActiveState=active\nMainPID=77\n"
    assert put(steward, "set_limits", **limits)[1] == {"ok": True}
    assert system.calls[-1] == ("bind", "77", "(0, 2)")


def test_prune_keeps_what_agents_run(steward, release, model, tmp_path):
    """What an agent was written for stays, whatever is asked; the rest goes, old pieces too."""
    write_agent(steward, release, model)
    other = make_manifest({"x": b"other"})
    receive(steward, b"other")
    put(steward, "install_model", manifest=other)
    receive(steward, b"half a file", body=b"half")
    old = time.time() - store_module.PARTIAL_KEPT_S - 10
    (path,) = (tmp_path / "home" / "partial").iterdir()
    os.utime(path, (old, old))
    told = put(steward, "prune", keep_releases=[], keep_models=[])[1]
    assert told == {"ok": True, "releases": [], "models": [other["digest"]]}
    assert not path.exists()
    assert put(steward, "missing", models=[model], releases=[release])[1]["models"] == []


def test_logs_and_status_are_bounded_and_printable(tmp_path):
    """What the journal holds is text of strangers: cut, counted, without control characters."""
    noise = b"\x1b[31mred\n" + b"x" * 5000 + b"\n" + b"line\n" * 50
    steward = make_steward(tmp_path, RecordedSystem(**{f"--unit=millwright-agent-{AGENT}.service": noise}))
    lines = put(steward, "logs", agent=AGENT, lines=52)[1]["lines"]
    assert len(lines) == 52
    assert lines[0] == " [31mred"
    assert max(map(len, lines)) == 1000
    assert put(steward, "status")[1] == {"ok": True, "agents": {}}


def test_a_unit_says_what_it_must():
    """Own account, own files, restart, limits: letter by letter where it matters."""
    home = "/var/lib/millwright"
    text = build_unit(Unit("a-1", "r" * 64, "m" * 64, 2**30, (0, 3)), Places())
    for line in (
        "User=millwright-agent", "Restart=on-failure", "RestartSec=100ms", f"MemoryMax={2**30}",
        "CPUAffinity=0 3", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict",
        "TemporaryFileSystem=/var/lib/millwright:ro",
        "ExecStart=/usr/bin/python3 -s -m agents --config /var/lib/millwright/agents/a-1/config.json",
        f"BindReadOnlyPaths={home}/releases/{'r' * 64} {home}/agents/a-1 {home}/models/{'m' * 64}",
    ):  # fmt: skip
        assert line in text.splitlines()


def test_retire_removes_all_of_ours_and_the_way_in_last(steward, release, tmp_path):
    """Units, files, accounts, rule and the steward itself go; what lets us in is the last."""
    write_agent(steward, release)
    (tmp_path / "sudoers" / "millwright").write_text("rule")
    (tmp_path / "units" / "other.service").write_text("not ours")
    assert put(steward, "retire")[0] == 0
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert [one for one in left if "tree" not in one and "release" not in one] == [
        "sudoers", "units", "units/other.service",
    ]  # fmt: skip
    calls = steward._agents._system.calls
    accounts = [call[-1] for call in calls if call[0] == "userdel"]
    assert accounts == ["millwright-agent", "millwright"]


def test_progress_is_told_while_bytes_come(steward, monkeypatch):
    """A long transfer shows that it lives."""
    monkeypatch.setattr("provisioning.steward.answers._EVERY_S", 0.0)
    content, told = os.urandom(1 << 20), io.BytesIO()
    line = json.dumps({"verb": "receive", "sha256": sha_of(content), "total": len(content), "offset": 0})
    assert steward.serve(io.BytesIO(line.encode() + b"\n" + content), Answers(told)) == 0
    steps = [json.loads(line) for line in told.getvalue().splitlines()]
    assert [one["progress"]["have"] for one in steps[:-1]] == [262_144, 524_288, 786_432, 1_048_576]

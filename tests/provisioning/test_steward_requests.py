"""The steward's checks: what is hostile is refused whole, and nothing outside its directory is touched."""

import gzip
import hashlib
import io
import json
import tarfile
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steward_builders import AGENT, CERTIFICATE, KEY, RecordedSystem, ask, make_steward, snapshot

from provisioning.steward.errors import Refusal
from provisioning.steward.requests import MAX_LINE_BYTES, VERBS, parse_request

SHA = "a" * 64
EVIL_TEXTS = (
    "..", "../..", "/etc/passwd", "a/../../b", "a\nExecStart=/bin/sh", "a\x00b", "%n", "$(id)", "`id`", "-h",
    "", "a" * 5000, "A" * 64, "é" * 64, ".", "a b", "a;b", "a@b", "a\\x2e", "\uff41" * 64,
    SHA + "\n", "\n" + SHA, "../" + SHA,
)  # fmt: skip
EVIL = st.one_of(
    st.sampled_from(EVIL_TEXTS), st.text(max_size=80), st.none(), st.booleans(), st.floats(), st.integers(),
    st.sampled_from([2**63, -1, 10**400, 1e308]),
    st.recursive(
        st.sampled_from([*EVIL_TEXTS, 1]),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner), max_leaves=8,
    ),
)  # fmt: skip
GOOD = {
    "agent": AGENT, "release": SHA, "model": SHA, "sha256": SHA, "total": 3, "offset": 0, "lines": 5,
    "kill": False,
    "keep_releases": [SHA], "keep_models": [], "releases": [SHA], "models": [SHA], "blobs": [SHA],
    "config": {"host": "10.0.0.1", "port": 9000}, "certificate": CERTIFICATE, "key": KEY, "ca": CERTIFICATE,
    "memory_max_bytes": 2**30, "cpus": [0, 1],
    "manifest": {"digest": SHA, "files": [{"path": "model.bin", "bytes": 3, "sha256": SHA}]},
}  # fmt: skip
GOOD["agents"] = [
    {name: GOOD[name] for name in ("agent", "release", "model", "config", "certificate", "key", "ca")}
]


def keys_of(verb):
    """The keys a verb takes, learned from its own refusals."""
    known, request = [], {"verb": verb}
    while True:
        try:
            parse_request(json.dumps(request).encode())
        except Refusal as refusal:
            name = refusal.message.split("key ")[1].split("'")[1]
            request[name] = GOOD[name]
            known.append(name)
        else:
            return known


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_its_good_request_and_no_unknown_key(verb):
    """A request with exactly the verb's keys passes; one key more and it is refused by name."""
    request = {"verb": verb, **{name: GOOD[name] for name in keys_of(verb)}}
    assert parse_request(json.dumps(request).encode()).verb == verb
    with pytest.raises(Refusal, match="unknown key 'unit_text'"):
        parse_request(json.dumps({**request, "unit_text": "[Service]"}).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"null", b"[]", b"7", b'"hello"', b"{", b"\xff\xfe", b'{"verb":"shell"}',
        b'{"verb":["hello"]}', b'{"verb":null}', b'{"verb":"__class__"}',
        b'{"verb":"receive","sha256":"' + b"a" * 64 + b'","total":NaN,"offset":0}',
        b'{"a":' * 100_000, b"[" * 100_000, b"a" * (MAX_LINE_BYTES + 1),
    ],
    ids=range(16),
)  # fmt: skip
def test_what_is_no_request_is_refused(line):
    """Anything but one JSON object with a known verb is a bad request, never a fault."""
    with pytest.raises(Refusal) as caught:
        parse_request(line)
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize(
    "path", ["../x", "/x", "a/../x", "a//b", "", ".", "..", "a/.", ".hidden", "a\nb", "a/b/c/d/e/f", 7]
)
def test_model_files_stay_inside_their_model(path):
    """A manifest cannot name a file that lies elsewhere."""
    manifest = {"digest": SHA, "files": [{"path": path, "bytes": 3, "sha256": SHA}]}
    with pytest.raises(Refusal):
        parse_request(json.dumps({"verb": "install_model", "manifest": manifest}).encode())


@contextmanager
def watched(tmp_path_factory):
    """A steward in a directory of its own, and the assertion that all around it stays as it was."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious").write_text("untouched")
    steward = make_steward(outside / "node", RecordedSystem())
    before = snapshot(outside, leave_out=outside / "node")
    yield steward
    assert snapshot(outside, leave_out=outside / "node") == before
    assert {path.name for path in (outside / "node").iterdir()} <= {"home", "units", "programs", "sudoers"}
    assert all(path.name.startswith("millwright-agent-") for path in (outside / "node" / "units").iterdir())


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_hostile_values_touch_nothing_outside(data, tmp_path_factory):
    """Whatever stands in a key of a request, nothing outside the steward's own directory changes."""
    verb = data.draw(st.sampled_from([verb for verb in VERBS if verb != "retire"]))
    names = keys_of(verb)
    hostile = data.draw(st.sets(st.sampled_from(names), min_size=1)) if names else set()
    request = {name: data.draw(EVIL) if name in hostile else GOOD[name] for name in names}
    line = json.dumps({"verb": verb, **request}).encode() + b"\nxyz"
    with watched(tmp_path_factory) as steward:
        code, answer = ask(steward, line)
        assert (code == 0) == (answer.get("ok") is True)
        if code:
            assert answer["error"]["code"] != "fault", answer


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=EVIL, value=EVIL)
def test_hostile_configurations_stay_data(name, value, tmp_path_factory):
    """An agent's configuration never becomes a path of the node or a line of the unit."""
    config = {str(name): value}
    with watched(tmp_path_factory) as steward:
        (steward._store._places.release(SHA)).mkdir()
        request = {
            "agent": AGENT,
            "release": SHA,
            "config": config,
            "certificate": CERTIFICATE,
            "key": KEY,
            "ca": CERTIFICATE,
        }
        code, _ = ask(steward, json.dumps({"verb": "write_agent", **request}).encode() + b"\n")
        unit = steward._store._places.unit(AGENT)
        if code == 0:
            written = json.loads((steward._store._places.agent(AGENT) / "config.json").read_text())
            assert written["agent"] == AGENT
            assert written["model_dir"] is None
            assert set(written["tls"].values()) <= {
                str(steward._store._places.agent(AGENT) / one) for one in ("ca.pem", "cert.pem", "key.pem")
            }
            assert unit.read_text().count("ExecStart=") == 1
        else:
            assert not unit.exists()


def test_a_hostile_archive_writes_nothing(tmp_path):
    """A release with links, devices or paths that lead out is refused, and leaves nothing."""
    members = {
        "../evil": tarfile.REGTYPE, "/evil": tarfile.REGTYPE, "link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "fifo": tarfile.FIFOTYPE, "device": tarfile.CHRTYPE, "a/../../evil": tarfile.REGTYPE,
    }  # fmt: skip
    for name, kind in members.items():
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        packed = gzip.compress(raw.getvalue())
        sha = hashlib.sha256(packed).hexdigest()
        steward = make_steward(tmp_path / "node", RecordedSystem())
        line = json.dumps({"verb": "receive", "sha256": sha, "total": len(packed), "offset": 0}).encode()
        assert ask(steward, line + b"\n" + packed)[0] == 0
        code, answer = ask(steward, json.dumps({"verb": "install_release", "sha256": sha}).encode() + b"\n")
        assert (code, answer["error"]["code"]) == (1, "bad_release"), name
        assert not list((tmp_path / "node" / "home" / "releases").iterdir())
        assert [path.name for path in tmp_path.iterdir()] == ["node"]

"""The configuration file: complete or refused, with a line that says why."""

import json
from pathlib import Path

import pytest
from agent_builders import config_json

from agents.config import parse_config, read_config
from agents.errors import BadConfig

TLS = {"ca": "/p/ca.pem", "certificate": "/p/cert.pem", "key": "/p/key.pem"}


def parse(**changes):
    return parse_config(json.dumps(config_json({"tls": TLS} | changes)).encode())


def test_fake_needs_no_model():
    """The fake engine's configuration is complete without a model directory."""
    config = parse(fake_service_ms=50)
    assert (config.model_dir, config.fake_service_ms, config.fake_service_per) == (None, 50.0, "batch")
    assert config.tls.key == Path("/p/key.pem")


def test_ctranslate2():
    """A real engine's configuration names its model directory."""
    assert parse(engine="ctranslate2", model_dir="/m/1").model_dir == Path("/m/1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"agent": None}, ["'agent'", "missing"], id="missing"),
        pytest.param({"agent": ""}, ["'agent'", "''", "characters"], id="empty"),
        pytest.param({"agent": "a\nb"}, ["'agent'", "line"], id="two lines"),
        pytest.param({"speed": 1}, ["'speed'", "unknown", "workers"], id="unknown"),
        pytest.param({"task": "chat"}, ["'task'", "'chat'", "embed"], id="task"),
        pytest.param({"engine": "torch"}, ["'engine'", "'torch'", "ctranslate2, fake"], id="engine"),
        pytest.param({"engine": ["fake"]}, ["'engine'", "ctranslate2, fake"], id="engine's type"),
        pytest.param({"engine": "ctranslate2"}, ["'model_dir'", "missing"], id="no model"),
        pytest.param({"engine": "ctranslate2", "model_dir": "m"}, ["'model_dir'", "absolute"], id="relative"),
        pytest.param(
            {"engine": "ctranslate2", "model_dir": "/m", "fake_service_ms": 1},
            ["'fake_service_ms'", "unknown"],
            id="fake's key elsewhere",
        ),
        pytest.param({"port": 70000}, ["'port'", "70000", "65535"], id="port"),
        pytest.param({"port": "80"}, ["'port'", "'80'", "whole number"], id="port's type"),
        pytest.param({"workers": 0}, ["'workers'", "0", "1 to 256"], id="workers"),
        pytest.param({"workers": True}, ["'workers'", "True"], id="a truth is no number"),
        pytest.param({"batch_size": 1.5}, ["'batch_size'", "1.5"], id="batch size"),
        pytest.param({"admits": -1}, ["'admits'", "-1"], id="admits"),
        pytest.param({"tls": 3}, ["'tls'", "3", "certificate"], id="tls"),
        pytest.param({"tls": TLS | {"ca": "ca.pem"}}, ["'tls.ca'", "absolute"], id="tls path"),
        pytest.param({"tls": {"ca": "/ca"}}, ["'tls.certificate'", "missing"], id="tls half"),
        pytest.param({"tls": TLS | {"crl": "/x"}}, ["'tls.crl'", "unknown"], id="tls unknown"),
        pytest.param({"fake_service_ms": -1}, ["'fake_service_ms'", "-1"], id="service time"),
        pytest.param({"fake_service_per": "token"}, ["'fake_service_per'", "sequence"], id="service per"),
    ],
)
def test_bad_values(changes, words):
    """Key, value and what is accepted stand in one line."""
    with pytest.raises(BadConfig) as caught:
        parse(**changes)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"3"])
def test_no_json_object(raw):
    """Whatever is no JSON object is refused as that."""
    with pytest.raises(BadConfig, match="JSON"):
        parse_config(raw)


def test_no_file(tmp_path):
    """A path without a file is named."""
    with pytest.raises(BadConfig, match=r"none\.json"):
        read_config(tmp_path / "none.json")

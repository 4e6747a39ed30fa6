"""Certificates and a tiny model, made once; agent processes that end with their test."""

import os

import pytest
from agent_builders import AgentProcess, Pki, build_model, config_json

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """An authority with an agent's and a gateway's certificate."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """A tiny random encoder; not to be changed."""
    return build_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def start_agent(tmp_path, pki):
    """Starts agent processes: `start_agent(key=value)` changes the configuration."""
    running: list[AgentProcess] = []

    def start(*, sigint_ignored=False, **changes):
        folder = tmp_path / f"agent-{len(running)}"
        folder.mkdir()
        agent = AgentProcess(folder, config_json({"tls": pki.tls} | changes), sigint_ignored=sigint_ignored)
        running.append(agent)
        return agent

    yield start
    for agent in running:
        agent.close()

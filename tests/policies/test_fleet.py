"""The frozen view of the fleet: what is looked up in it by name."""

from dataclasses import replace

from fleet_builders import NOW, agent, agent_report, deployment_report, gateway_report, snapshot

from appliance.policies.fleet import Link


def test_gateways_are_joined():
    """The best state counts, what is in flight adds up, and only what was said since the start."""
    old = gateway_report(agent_report(state="ready", in_flight=1), at=NOW - 200)
    one = gateway_report(agent_report(state="connecting"))
    two = gateway_report(agent_report(state="ready", in_flight=2, busy=3), gateway="gateway-2")
    fleet = snapshot(agents=[agent()], reports=[old, one, two])
    link = fleet.link(agent())
    assert link is not None
    assert (link.state, link.in_flight, link.busy) == ("ready", 2, 3)
    assert fleet.link(agent("mini-2")) is None


def test_a_later_start_forgets_what_was_seen():
    """The same agent started again is not what reports of before say."""
    fleet = snapshot(agents=[agent()], reports=[gateway_report(agent_report(), at=NOW)])
    assert isinstance(fleet.link(agent()), Link)
    assert fleet.link(replace(agent(), started_at=NOW + 1)) is None


def test_the_newest_word_of_a_node():
    """Of all agents on it and all gateways the youngest; what said nothing of its CPU is no word."""
    reports = [
        gateway_report(agent_report(load_age_s=2.0, node_cpu_percent=10.0), agent_report("mini-2")),
        gateway_report(agent_report("mini-3", load_age_s=1.0, node_cpu_percent=20.0), gateway="gateway-2"),
    ]
    word = snapshot(reports=reports).newest_word("local")
    assert word is not None
    assert (word.id, word.node_cpu_percent) == ("mini-3", 20.0)
    assert snapshot(reports=reports).newest_word("elsewhere") is None


def test_counters_of_a_deployment():
    """What each gateway counted of it, and nothing of others."""
    told = [deployment_report("mini", accepted=1), deployment_report("other", accepted=2)]
    fleet = snapshot(reports=[gateway_report(deployments=told)])
    assert [seen.accepted for _, seen in fleet.deployment_reports("mini")] == [1]
    assert fleet.deployment_reports("none") == []

"""`manage.py simulate`: no appliance is needed, errors are one line."""

import json

import pytest
from django.core.management import CommandError, call_command


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("t_s,service_s\n" + "".join(f"{number / 2},0.4\n" for number in range(120)))
    return path


def test_json(trace, capsys):
    """One document on stdout, progress on stderr."""
    call_command("simulate", "--trace", str(trace), "--compare", "--json")
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["requests"] == 120
    assert len(document["policies"]) == 5
    assert "replaying knative" in told.err


def test_table_policy_and_chart(trace, tmp_path, capsys):
    """A policy file counts, a table is printed, a picture written."""
    policy, chart = tmp_path / "policy", tmp_path / "chart.svg"
    policy.write_text("min=5  # never fewer\nmax=5\n")
    call_command("simulate", "--trace", str(trace), "--policy", str(policy), "--chart", str(chart))
    out = capsys.readouterr().out
    assert "120 requests" in out
    assert "millwright" in out
    assert chart.read_text().startswith("<svg")
    call_command("simulate", "--trace", str(trace), "--policy", str(policy), "--json")
    (ours,) = json.loads(capsys.readouterr().out)["policies"]
    assert ours["changes"] == 1  # from the one it begins with to five
    assert ours["agent_seconds"] == pytest.approx(5 * 60, abs=6)


def test_the_settings_of_a_deployment_are_a_policy(trace, tmp_path, capsys):
    """As `set_scaling --json` prints them: what is not replayed is left out where it is not set."""
    settings = {"max": 5, "min": 5, "target_p95_ms": None, "threads": None, "schedule": [], "paused": False}
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"name": "minilm", "changes": {}, "settings": settings, "reason": ""}))
    call_command("simulate", "--trace", str(trace), "--policy", str(path), "--json")
    (ours,) = json.loads(capsys.readouterr().out)["policies"]
    assert ours["agent_seconds"] == pytest.approx(5 * 60, abs=6)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ('{"max": 0}', "max=0: a whole number from 1 to 1,000 is accepted"),
        ('{"max": 1, "min": 3}', "max=1 is below min=3"),
        ('{"mx": 1}', "'mx' is not a key"),
        ("{", "not JSON"),
        ("max 3", "line 1: 'max 3': key=value is accepted"),
        ("target_p95_ms=100", "target_p95_ms cannot be replayed"),
        ("max_threads=2", "max_threads cannot be replayed"),
        ("dry_run=yes", "dry_run cannot be replayed"),
        ("target_ttft_ms=100", "target_ttft_ms cannot be replayed"),
        ("target_tokens_per_s=100", "target_tokens_per_s cannot be replayed"),
    ],
)
def test_bad_policies(trace, tmp_path, policy, said):
    """The file, the key, the value and what is accepted."""
    path = tmp_path / "policy"
    path.write_text(policy)
    with pytest.raises(CommandError, match=said) as caught:
        call_command("simulate", "--trace", str(trace), "--policy", str(path))
    assert caught.value.returncode == 2
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trace", "/nowhere.csv"], "/nowhere.csv: No such file"),
        (["--trace", "synthetic:x"], "synthetic:diurnal"),
        (["--trace", "synthetic:burst", "--min", "9", "--max", "3"], "--min 9 is above --max 3"),
        (["--trace", "synthetic:burst", "--slots", "0"], "'0' is not accepted"),
        (["--trace", "synthetic:burst", "--service", "1,2"], "'1,2' is not accepted"),
        (["--trace", "synthetic:burst", "--slo-wait-s", "-1"], "'-1' is not accepted"),
    ],
)
def test_bad_arguments(arguments, said):
    """Each is refused with its value."""
    with pytest.raises(CommandError, match=said):
        call_command("simulate", *arguments)

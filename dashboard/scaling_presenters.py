"""What a deployment's page shows of how it scales, as plain texts. Pure."""

from appliance.decision_log import RULES, wants_of
from appliance.models import Decision, Deployment
from appliance.policies.scaling_keys import KEYS, SCHEDULES
from appliance.policies.schedules import is_within, parse_schedule
from appliance.scaling_settings import DRY_RUN, PAUSED, say, show_scaling
from dashboard.deployment_presenters import label_of
from dashboard.formats import UNKNOWN
from dashboard.node_presenters import Fact, bounded, instant_text

_ALWAYS = ("target_queue_wait_ms", "idle_s")
_UNITS = (
    ("_ms", ", ms"),
    ("_percent", ", %"),
    ("_per_s", "/s"),
    ("_s", ", s"),
    ("_rps", ", requests/s"),
    ("_per_min", " a minute"),
)
#: Keys whose own words say too little.
_LABELS = {
    "threads": "Threads at start", "max_threads": "Threads, grown", "max_batch": "Batch, grown",
}  # fmt: skip


def scaling_label(key: str) -> str:
    """A key as a label: `idle_s` is `Idle, s`."""
    if key in _LABELS:
        return _LABELS[key]
    for end, unit in _UNITS:
        if key.endswith(end):
            words = key.removesuffix(end).replace("_", " ")
            words = words.replace("cpu", "CPU").replace("ttft", "time to first token")
            return words[:1].upper() + words[1:] + unit
    return label_of(key)


def scaling_facts(row: Deployment, now: float) -> list[Fact]:
    """What people set, what matters anyway, and the schedules with whether each is under way."""
    values = show_scaling(row)
    is_set = {*row.scaling, *_ALWAYS} | ({"target_in_flight"} if row.target_in_flight else set())
    facts = [(scaling_label(key), say(values[key])) for key in KEYS if key in is_set]
    facts += [(scaling_label(one.key), "yes") for one in (PAUSED, DRY_RUN) if values[one.key]]
    schedules = values[SCHEDULES]
    for text in schedules if isinstance(schedules, list) else ():
        under_way = is_within(parse_schedule(text), now)
        facts.append(("Schedule, under way" if under_way else "Schedule", text))
    return [(label, bounded(text)) for label, text in facts]


def rule_label(rule: str) -> str:
    """What a rule asks agents for, as a label; its own name where it has no words."""
    words = RULES.get(rule, rule)
    return words if rule not in RULES else words[:1].upper() + words[1:]


def change_text(decision: Decision) -> str:
    """From how many agents to how many; one number where it stays."""
    if decision.before == decision.after:
        return str(decision.after)
    return f"{decision.before} \u2192 {decision.after}"


def decision_facts(decision: Decision | None) -> list[Fact]:
    """The newest decision that is kept: what each rule asked, and what limited or raised the number."""
    if decision is None:
        return []
    facts = [
        ("Decided", instant_text(decision.at)),
        ("Load asked", UNKNOWN if decision.want is None else str(decision.want)),
    ]
    facts += [
        (rule_label(rule), "cannot tell" if want is None else str(want))
        for rule, want in wants_of(decision).items()
    ]
    facts.append(("Agents", change_text(decision)))
    facts += [("Because of", str(clamp)) for clamp in decision.clamps]
    facts += [("Done", str(done)) for done in decision.actions]
    return [(label, bounded(text)) for label, text in facts]

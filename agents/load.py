"""Counters of an agent, and what it tells the world of them. Pure."""

from dataclasses import dataclass, fields
from typing import Final

from agents.config import AgentConfig
from agents.protocol import PROTOCOL_VERSION, AgentState, LoadReport, Refusal
from agents.service_line import Line, capacity_of


@dataclass(slots=True)
class Counters:
    """Totals since the start.

    `body_bytes` belongs to the same requests as `tokens`: a gateway estimates work by their ratio;
    `batch_tokens`, with padding, to the same batches as `sequences`.
    """

    answered: int = 0
    cancelled: int = 0
    failed: int = 0
    batches: int = 0
    sequences: int = 0
    batch_tokens: int = 0
    tokens: int = 0
    body_bytes: int = 0
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Sensed:
    """What was measured of process and machine; percentages of all cores together, 0 to 100."""

    cpu_percent: float = 0.0
    node_cpu_percent: float = 0.0
    rss_bytes: int = 0
    node_available_bytes: int = 0


def build_report(
    config: AgentConfig,
    state: AgentState,
    counters: Counters,
    sensed: Sensed,
    *,
    executing: int,
    in_hand: int,
    accepted_total: int,
    refused_total: int,
    uptime_s: float,
    engine_version: str = "",
    line: Line | None = None,
    free_tokens: int = 0,
) -> LoadReport:
    """The report of one instant; `executing` and `in_hand` are in requests, `line` is of batches so far.

    `config` is with the present shape; batches of `free_tokens` may take longer than its latency budget.
    """
    return LoadReport(
        protocol=PROTOCOL_VERSION,
        agent=config.agent,
        deployment=config.deployment,
        revision=config.revision,
        state=state,
        workers=config.workers,
        batch_size=config.batch_size,
        admits=config.admits,
        executing=executing,
        waiting=max(in_hand - executing, 0),
        accepted_total=accepted_total,
        answered_total=counters.answered,
        refused_total=refused_total,
        sequences_total=counters.sequences,
        tokens_total=counters.tokens,
        body_bytes_total=counters.body_bytes,
        busy_s_total=round(counters.busy_s, 6),
        cpu_percent=sensed.cpu_percent,
        node_cpu_percent=sensed.node_cpu_percent,
        rss_bytes=sensed.rss_bytes,
        node_available_bytes=sensed.node_available_bytes,
        uptime_s=round(uptime_s, 3),
        beats=True,
        threads=config.threads,
        engine=config.engine,
        engine_version=engine_version,
        batches_total=counters.batches,
        **_speed(config, counters, line, free_tokens),
    )


def _speed(config: AgentConfig, counters: Counters, line: Line | None, free_tokens: int) -> dict[str, float]:
    """What was learned of batches, nothing where there is no line yet."""
    if line is None or not counters.sequences:
        return {}
    rps, tokens_per_s = capacity_of(
        line,
        workers=config.workers,
        batch_size=config.batch_size,
        sequence_tokens=max(1.0, counters.batch_tokens / counters.sequences),
        budget_s=config.batch_budget_ms / 1000,
        free_tokens=free_tokens,
    )
    return {
        "fixed_s": round(line.fixed_s, 9),
        "per_token_s": round(line.per_token_s, 12),
        "capacity_rps": round(rps, 3),
        "tokens_per_s": round(tokens_per_s, 1),
    }


#: Metrics that are fields of the report: name, help. Those that end in `_total` are counters.
_FIELD_METRICS: Final = {
    "workers": ("workers", "Batches computed at the same time."),
    "threads": ("threads", "Engine threads of each batch."),
    "batch_size": ("batch_size", "Sequences in a batch at most."),
    "admits": ("admits", "Requests held at most, executing and waiting."),
    "executing": ("executing", "Requests with a sequence in an engine."),
    "waiting": ("waiting", "Requests admitted and not in an engine."),
    "accepted_total": ("accepted_total", "Requests admitted."),
    "answered_total": ("answered_total", "Requests answered, with whatever status."),
    "sequences_total": ("sequences_total", "Sequences computed."),
    "tokens_total": ("tokens_total", "Tokens of computed requests, special tokens included."),
    "body_bytes_total": ("body_bytes_total", "Body bytes of the requests that tokens_total counts."),
    "busy_s_total": ("busy_seconds_total", "Seconds of engines computing, over all workers."),
    "cpu_percent": ("cpu_percent", "Processor use of this process, percent of the whole machine."),
    "node_cpu_percent": ("node_cpu_percent", "Processor use of the machine, percent."),
    "rss_bytes": ("rss_bytes", "Resident memory of this process."),
    "node_available_bytes": ("node_available_bytes", "Memory available on the machine."),
    "capacity_rps": ("capacity_requests_per_second", "Sequences per second at most, as learned."),
    "tokens_per_s": ("capacity_tokens_per_second", "Tokens per second at most, as learned."),
    "fixed_s": ("batch_fixed_seconds", "Of each batch, as learned; its tokens come on top."),
    "per_token_s": ("batch_token_seconds", "Of each token of a batch, as learned."),
    "uptime_s": ("uptime_seconds", "Seconds since the process started."),
}


def render_metrics(report: LoadReport, refused: dict[Refusal, int], counters: Counters) -> str:
    """The report in Prometheus' text format."""
    label = f'{{agent="{_escaped(report.agent)}",deployment="{_escaped(report.deployment)}"}}'
    lines: list[str] = []
    for field in fields(report):
        if field.name in _FIELD_METRICS:
            name, text = _FIELD_METRICS[field.name]
            lines += _metric(name, text, [(label, getattr(report, field.name))])
    more = {
        "cancelled_total": ("Requests whose client left or cancelled.", counters.cancelled),
        "failed_total": ("Requests answered with a fault of the agent's own.", counters.failed),
        "batches_total": ("Batches computed.", counters.batches),
    }
    for name, (text, value) in more.items():
        lines += _metric(name, text, [(label, value)])
    causes: list[tuple[str, float]] = [
        (f'{label[:-1]},reason="{reason.name.lower()}"}}', count) for reason, count in refused.items()
    ]
    lines += _metric("refused_total", "Requests not admitted.", causes)
    states: list[tuple[str, float]] = [
        (f'{label[:-1]},state="{state.value}"}}', int(state is report.state)) for state in AgentState
    ]
    lines += _metric("state", "1 for the state the agent is in.", states)
    return "\n".join(lines) + "\n"


def _metric(name: str, text: str, samples: list[tuple[str, float]]) -> list[str]:
    full = f"millwright_agent_{name}"
    kind = "counter" if name.endswith("_total") else "gauge"
    return [
        f"# HELP {full} {text}",
        f"# TYPE {full} {kind}",
        *(f"{full}{label} {value}" for label, value in samples),
    ]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

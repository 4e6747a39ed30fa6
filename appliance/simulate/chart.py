"""A replay as a picture: agents wanted by each policy over time, and requests there, as SVG."""

from collections.abc import Sequence
from html import escape

from appliance.simulate.plant import Outcome

WIDTH, HEIGHT, LEFT, BOTTOM = 960, 180, 50, 24
#: More points than this are drawn as the most of each span, so that no peak is lost.
POINTS = 480


def render_svg(title: str, outcomes: Sequence[Outcome]) -> str:
    """One panel for each policy: wanted agents as a line over the requests there."""
    panels = [_panel(one, number * (HEIGHT + 30) + 40) for number, one in enumerate(outcomes)]
    height = len(outcomes) * (HEIGHT + 30) + 50
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEFT + 20}" height="{height}" '
        'font-family="sans-serif" font-size="12">'
        '<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}: '
        "agents wanted (line), requests there (area)</text>" + "".join(panels) + "</svg>\n"
    )


def _panel(outcome: Outcome, top: int) -> str:
    agents = _thin([(at, wanted) for at, wanted, _, _ in outcome.series])
    load = _thin([(at, there) for at, _, _, there in outcome.series])
    end = max(outcome.series[-1][0], 1.0) if outcome.series else 1.0
    most = max([1, *(value for _, value in agents)])
    floor = top + HEIGHT - BOTTOM

    def place(at: float, value: float) -> str:
        return f"{LEFT + at / end * WIDTH:.1f},{floor - min(value / most, 1.0) * (HEIGHT - BOTTOM):.1f}"

    area = " ".join([place(0, 0), *(place(at, value) for at, value in load), place(end, 0)])
    steps = []
    for (at, value), (after, _) in zip(agents, [*agents[1:], (end, 0)], strict=True):
        steps += [place(at, value), place(after, value)]
    words = (
        f"{outcome.name}: {outcome.slo_misses_percent:.2f} % misses, "
        f"{outcome.agent_seconds:.0f} agent-seconds, {outcome.changes} changes"
    )
    return (
        f'<text x="{LEFT}" y="{top - 4}">{escape(words)}</text>'
        f'<text x="4" y="{top + 10}">{most}</text><text x="4" y="{floor}">0</text>'
        f'<polygon points="{area}" fill="#c8d8ea"/>'
        f'<polyline points="{" ".join(steps)}" fill="none" stroke="#b3421b" stroke-width="1.3"/>'
        f'<text x="{LEFT}" y="{floor + 15}">0 s</text><text x="{WIDTH}" y="{floor + 15}">{end:.0f} s</text>'
    )


def _thin(points: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    size = max(1, -(-len(points) // POINTS))
    spans = [points[start : start + size] for start in range(0, len(points), size)]
    return [(span[0][0], max(value for _, value in span)) for span in spans]

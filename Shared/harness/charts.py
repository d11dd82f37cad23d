"""The charts of the report as SVG: readable in light and dark, and without colour."""

from collections.abc import Sequence
from html import escape

from appointments.cases import Result
from Shared.harness.judging import early
from Shared.harness.metrics import told
from Shared.harness.models import Latency, LegacyResult

WIDTH = 820
ROW = 26
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .faint { fill: #59636e } .head { font-weight: 600 }
.line { stroke: #d1d9e0 } .right { fill: #1a7f37 } .wrong { fill: #c21d2b } .a { fill: #b35900 } .b { fill: #0969da }
.tick-a { stroke: #b35900; stroke-width: 2 } .tick-b { stroke: #0969da; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .faint { fill: #9198a1 } .line { stroke: #3d444d }
.right { fill: #3fb950 } .wrong { fill: #ff7b72 } .a { fill: #e3953c } .b { fill: #58a6ff }
.tick-a { stroke: #e3953c } .tick-b { stroke: #58a6ff } }"""


def correctness(legacy: Sequence[LegacyResult], ours: Sequence[Result]) -> str:
    """Case by case: what was told, what is live, right or not."""
    parts = [
        _text(8, 22, "case", "head"),
        _text(170, 22, "A, legacy", "head"),
        _text(480, 22, "B, this system", "head"),
    ]
    for row, (a, b) in enumerate(zip(legacy, ours, strict=True), 1):
        y = 22 + row * ROW
        parts.append(f'<line class="line" x1="8" x2="{WIDTH - 8}" y1="{y - 18}" y2="{y - 18}"/>')
        parts.append(_text(8, y, f"{a.id} {a.title}"))
        for x, result in ((170, a), (480, b)):
            right = result.verdict == "passed"
            parts.append(_text(x, y, "✓" if right else "✗", "right" if right else "wrong"))
            parts.append(_text(x + 20, y, f"{_short(result)}; {result.live_bookings} live"))
    return _svg("Correctness, case by case", 22 + (len(legacy) + 1) * ROW, parts)


def latency(a: Latency, b: Latency) -> str:
    """For each repeated case a bar to the median, ticks at the 95th and 99th percentile."""
    left, right = 60, WIDTH - 210
    scale = (right - left) / max(1, *(one.p99 for side in (a, b) for one in side.cases.values()))
    parts = [_text(8, 22, "Milliseconds. Bar: median; ticks: 95th and 99th percentile. Orange: A; blue: B.", "faint")]
    y = 48
    for id, of_a in a.cases.items():
        parts.append(_text(8, y + 12, id, "head"))
        for name, one in (("a", of_a), ("b", b.cases[id])):
            parts.append(
                f'<rect class="{name}" x="{left}" y="{y - 8}" width="{max(1.0, one.p50 * scale):.1f}" height="14"/>'
            )
            for tick in (one.p95, one.p99):
                x = left + tick * scale
                parts.append(f'<line class="tick-{name}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 10}" y2="{y + 8}"/>')
            parts.append(_text(right + 12, y + 4, f"{name.upper()}: {one.p50} / {one.p95} / {one.p99} ms"))
            y += 22
        y += 12
    return _svg("Latency of the fast cases", y, parts)


def _short(result: LegacyResult | Result) -> str:
    if isinstance(result, LegacyResult):
        return ", ".join("booked too early" if early(call) else call.told for call in result.calls)
    return result.state if result.state != "init" else told(result)[0]


def _text(x: int, y: int, text: str, style: str = "") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text{named} x="{x}" y="{y}">{escape(text)}</text>'


def _svg(title: str, height: int, parts: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">'
    )
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"

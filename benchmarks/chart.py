"""The picture in docs/performance.md, drawn from the last line of the history of ``benchmarks.accept``.

``python -m benchmarks.chart`` writes docs/images/accept.svg: a bar for each service, and on it the
spread of its rounds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.accept import HISTORY

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "accept.svg"
SERVICES = {
    "product": "FKS: every alert stored",
    "naive django": "plain Django, the same row",
    "fastapi": "FastAPI, stores nothing",
    "statement alone": "the statement alone (pgbench)",
}
LEFT, WIDTH, BAR, GAP = 230, 720, 22, 14
STYLE = """text{font:13px sans-serif;fill:#444}.b{fill:#9aa5b1}.b.product{fill:#2f6feb}.s{stroke:#444}
@media(prefers-color-scheme:dark){text{fill:#ccc}.s{stroke:#ccc}}"""


def main() -> int:
    lines = HISTORY.read_text().splitlines() if HISTORY.exists() else []
    if not lines:
        sys.exit(f"{HISTORY} has no run yet: python -m benchmarks.accept")
    PICTURE.write_text(drawn(json.loads(lines[-1])))
    return 0


def drawn(figures: dict[str, Any]) -> str:
    """The figures of one run as SVG."""
    rates, spread = figures["req_per_s"], figures["spread"]
    most = max(high for _, high in spread.values()) * 1.15
    parts = [
        part
        for row, (name, label) in enumerate(SERVICES.items())
        for part in _bar(row, name, label, rates[name], spread[name], most)
    ]
    height = len(SERVICES) * (BAR + GAP) + GAP + 20
    told = f"requests a second; commit {figures['commit']}, {figures['at'][:10]}"
    parts.append(f'<text x="{LEFT}" y="{height - 8}">{escape(told)}</text>')
    title = "Alerts accepted a second, beside services that do less"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{title}"><title>{title}</title><style>{STYLE}</style>{"".join(parts)}</svg>\n'
    )


def _bar(
    row: int, name: str, label: str, rate: float, spread: list[float], most: float
) -> list[str]:
    top = GAP + row * (BAR + GAP)
    middle, (low, high) = top + BAR / 2, (_along(value, most) for value in spread)
    end = _along(rate, most)
    return [
        f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>',
        f'<path class="b {name.split()[0]}" d="M{LEFT},{top}H{end:.0f}v{BAR}H{LEFT}z"/>',
        f'<path class="s" d="M{low:.0f},{middle}H{high:.0f}"/>',
        f'<text x="{max(end, high) + 8:.0f}" y="{middle + 4}">{rate:,.0f}</text>',
    ]


def _along(rate: float, most: float) -> float:
    return LEFT + (WIDTH - LEFT) * rate / most


if __name__ == "__main__":
    sys.exit(main())

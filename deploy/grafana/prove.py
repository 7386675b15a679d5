"""Ask a Prometheus for every panel of every dashboard; exit status 1 when one has no data.

``python deploy/grafana/prove.py http://127.0.0.1:9090``
"""

from __future__ import annotations

import json
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "dashboards"
RATE_INTERVAL = "1m"
"""What Grafana would put for ``$__rate_interval``: at least four scrapes."""


def queries() -> Iterator[tuple[str, str, str]]:
    """Dashboard, panel and PromQL of everything that is drawn."""
    for path in sorted(FOLDER.glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
                yield path.stem, panel["title"], expr


def values(prometheus: str, expr: str) -> list[str]:
    """The numbers the query has now, as text; NaN (nothing was counted lately) is none."""
    query = urllib.parse.urlencode({"query": expr})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{query}", timeout=10) as answer:  # noqa: S310
        result = json.load(answer)["data"]["result"]
    return [row["value"][1] for row in result if row["value"][1] != "NaN"]


def main() -> int:
    empty = 0
    for dashboard, panel, expr in queries():
        found = values(sys.argv[1], expr)
        empty += not found
        shown = ", ".join(found[:4]) or "NO DATA"
        sys.stdout.write(f"{dashboard:<10} {panel:<30} {len(found):>3}  {shown}\n")
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main())

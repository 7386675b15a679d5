"""Write the Grafana dashboards of this folder: ``python deploy/grafana/make_dashboards.py``.

A panel is a title, a unit and its queries; everything else about it is the same everywhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
WIDTH, HEIGHT, COLUMNS = 8, 8, 3
_SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """``queries`` maps a legend to PromQL; ``steps`` are the values from which it is amber and red."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"
    steps: tuple[str, ...] = ()


def _quantiles(name: str) -> dict[str, str]:
    rate = f"sum by (le) (rate({name}_bucket[$__rate_interval]))"
    return {f"p{q}": f"histogram_quantile(0.{q}, {rate})" for q in ("50", "95", "99")}


DASHBOARDS: dict[str, tuple[str, list[Panel]]] = {
    "pipeline": (
        "FKS execution pipeline",
        [
            Panel(
                "Deliveries",
                {"{{status}}": "sum by (status) (rate(webhook_requests_total[$__rate_interval]))"},
                "reqps",
            ),
            Panel(
                "Placements",
                {
                    "{{exchange}} {{status}}": "sum by (exchange, status) "
                    "(rate(order_executions_total[$__rate_interval]))"
                },
                "ops",
            ),
            Panel("Orders by state", {"{{state}}": "max by (state) (fks_orders)"}),
            Panel("Answer to a delivery", _quantiles("fks_accept_seconds"), "s"),
            Panel("Arrival to decision", _quantiles("processing_duration_seconds"), "s"),
            Panel("Wait for a worker", _quantiles("fks_queue_seconds"), "s"),
            Panel("Decision", _quantiles("fks_decide_seconds"), "s"),
            Panel("Decision to first byte", _quantiles("fks_submit_seconds"), "s"),
            Panel("Venue's answer", _quantiles("fks_ack_seconds"), "s"),
            Panel(
                "Oldest undecided alert",
                {"age": "max(fks_oldest_unprocessed_signal_seconds)"},
                "s",
                "stat",
                ("10", "30"),
            ),
            Panel(
                "Oldest unsent order",
                {"age": "max(fks_oldest_waiting_order_seconds)"},
                "s",
                "stat",
                ("30", "60"),
            ),
            Panel(
                "Oldest unknown order",
                {"age": "max(fks_unknown_order_age_seconds)"},
                "s",
                "stat",
                ("30", "60"),
            ),
        ],
    ),
    "venues": (
        "FKS venues",
        [
            Panel("Venues in use", {"venues": "max(active_exchanges)"}, kind="stat"),
            Panel(
                "Breakers of accounts",
                {"{{account}}": "max by (account) (fks_breaker_state)"},
                kind="stat",
                steps=("1", "2"),
            ),
            Panel(
                "Breakers of venues",
                {"{{venue}}": "max by (venue) (fks_venue_breaker_state)"},
                kind="stat",
                steps=("1", "2"),
            ),
            Panel(
                "Placements that failed",
                {
                    "{{exchange}}": "sum by (exchange) (rate(order_executions_total"
                    '{status=~"unknown|not_sent|rejected"}[$__rate_interval])) '
                    "or sum by (exchange) (rate(order_executions_total[$__rate_interval])) * 0"
                },
                "ops",
            ),
            Panel("Venue's answer", _quantiles("fks_ack_seconds"), "s"),
            Panel("Acknowledgement to last fill", _quantiles("fks_fill_seconds"), "s"),
            Panel("Slippage to the alert's price", _quantiles("fks_slippage"), "percentunit"),
            Panel(
                "Reconciled",
                {"{{account}}": "min by (account) (fks_account_reconciled)"},
                kind="stat",
            ),
            Panel(
                "Since reconciliation",
                {"{{account}}": "max by (account) (fks_reconciliation_age_seconds)"},
                "s",
            ),
            Panel(
                "Open differences",
                {"{{account}}": "max by (account) (fks_differences)"},
                kind="stat",
                steps=("1", "3"),
            ),
        ],
    ),
    "risk": (
        "FKS risk",
        [
            Panel(
                "Daily loss used",
                {"{{account}}": "max by (account) (fks_daily_loss_share)"},
                "percentunit",
                "gauge",
                ("0.5", "0.8"),
            ),
            Panel(
                "Kill switches",
                {"{{scope}} {{key}}": "max by (scope, key) (fks_trading_state)"},
                kind="stat",
                steps=("1", "2"),
            ),
            Panel("Alarms", {"{{kind}}": "max by (kind) (fks_alarms)"}, steps=("1", "1")),
            Panel("Open positions", {"{{account}}": "max by (account) (fks_positions)"}),
            Panel(
                "Unguarded positions",
                {"{{account}}": "max by (account) (fks_unguarded_positions)"},
                kind="stat",
                steps=("1", "1"),
            ),
            Panel(
                "Longest unguarded",
                {"{{account}}": "max by (account) (fks_unguarded_position_age_seconds)"},
                "s",
            ),
            Panel("Realised today", {"{{account}}": "max by (account) (fks_realised_pnl_today)"}),
            Panel("Realised in all", {"{{account}}": "max by (account) (fks_realised_pnl)"}),
            Panel(
                "Audit events unsealed", {"events": "max(fks_audit_unsealed_events)"}, kind="stat"
            ),
        ],
    ),
    "workers": (
        "FKS workers and stores",
        [
            Panel(
                "Signs of life",
                {"{{part}}": "max by (part) (fks_heartbeat_age_seconds)"},
                "s",
                steps=("10", "30"),
            ),
            Panel("Messages waiting", {"{{queue}}": "max by (queue) (fks_queue_messages)"}),
            Panel(
                "Decisions", {"decisions": "sum(rate(fks_decide_seconds_count[$__rate_interval]))"}
            ),
            Panel("Targets up", {"{{job}}": 'sum by (job) (up{job=~"fks-.*"})'}, kind="stat"),
            Panel("Database up", {"database": "max(fks_database_up)"}, kind="stat"),
            Panel("Valkey up", {"valkey": "max(fks_valkey_up)"}, kind="stat"),
            Panel("Database size", {"bytes": "max(fks_database_bytes)"}, "bytes"),
            Panel(
                "Disk free",
                {"{{instance}}": "fks_disk_free_bytes / fks_disk_bytes"},
                "percentunit",
            ),
            Panel(
                "Oldest unsealed audit event", {"age": "max(fks_audit_unsealed_age_seconds)"}, "s"
            ),
        ],
    ),
}


def dashboard(name: str) -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"fks-{name}",
        "title": title,
        "tags": ["fks"],
        "timezone": "utc",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source"}
            ]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS)
    colors = zip(("orange", "red"), panel.steps, strict=False)
    steps = [{"color": "green", "value": None}]
    steps += [{"color": color, "value": json.loads(value)} for color, value in colors]
    return {
        "id": number + 1,
        "title": panel.title,
        "type": panel.kind,
        "datasource": _SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "targets": [
            {"refId": chr(65 + index), "expr": expr, "legendFormat": legend, "datasource": _SOURCE}
            for index, (legend, expr) in enumerate(panel.queries.items())
        ],
    }


def text_of(name: str) -> str:
    return json.dumps(dashboard(name), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text_of(name), encoding="utf-8")


if __name__ == "__main__":
    main()

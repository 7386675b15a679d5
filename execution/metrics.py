"""Counters of the path from alert to order. Labels are bounded: states, venues, stages."""

from __future__ import annotations

from decimal import Decimal

from prometheus_client import Counter, Histogram

from brokers.types import Side

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

webhook_requests = Counter(
    "webhook_requests_total", "Webhook deliveries by what became of them.", ["status"]
)
order_executions = Counter(
    "order_executions_total",
    "Orders by venue and how their placement ended.",
    ["exchange", "status"],
)
processing_duration = Histogram(
    "processing_duration_seconds", "From an alert's arrival to its decision.", buckets=BUCKETS
)
stage_seconds = {
    stage: Histogram(f"fks_{stage}_seconds", text, buckets=BUCKETS)
    for stage, text in {
        "accept": "From the first byte of a delivery to its answer.",
        "queue": "From the commit of a signal to the start of its decision.",
        "decide": "Facts, sizing and risk for one signal.",
        "submit": "From the decision to the first byte sent to the venue.",
        "ack": "From sending an order to the venue's answer.",
        "fill": "From the acknowledgement to the last fill.",
    }.items()
}
_slippage = Histogram(
    "fks_slippage",
    "How much worse than its alert's price an order was filled, as a fraction; below 0: better.",
    buckets=(
        *(-0.01, -0.005, -0.002, -0.001, -0.0005, -0.0001, 0),
        *(0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02),
    ),
)
stream_connections = Counter(
    "fks_stream_connections_total", "Times an order stream was connected, by venue.", ["exchange"]
)
stream_events = Counter(
    "fks_stream_events_total",
    "Events of order streams by what became of them: booked, asked (about), foreign, failed, not yet.",
    ["exchange", "result"],
)
stream_lag = Histogram(
    "fks_stream_lag_seconds", "From a venue's event to its booking.", buckets=BUCKETS
)


def note_slippage(side: Side, stated: Decimal, average: Decimal) -> None:
    """Count an order filled at ``average`` whose alert stated a price above zero."""
    _slippage.observe(float((average - stated) * side.sign / stated))

"""One trace through the whole product: web, a Celery message, the worker, the venue."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.collector import Collector
from tests.e2e.product import eventually, running_product

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
STEPS = {"accept", "decide", "place", "venue.execute_order"}


def test_an_alert_is_one_trace_from_web_through_the_worker_to_the_venue(tmp_path: Path) -> None:
    with (
        closing(Collector()) as collector,
        running_product(tmp_path / "var", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as product,
    ):
        body = {"symbol": "BTCUSDT", "action": "buy", "price": "60000", "id": "traced"}
        status, answer = product.post(product.demo_path(), body, {"Prefer": "wait=10"})
        assert (status, answer["status"]) == (200, "executed")
        eventually(
            lambda: {span.name for span in collector.spans} >= STEPS, seconds=30, what="its spans"
        )
        spans = {span.name: span for span in collector.spans if span.name in STEPS}

    signal = bytes.fromhex(answer["signal_id"].replace("-", ""))
    assert {span.trace_id for span in spans.values()} == {signal}
    accept, decide, place, venue = (
        spans[name] for name in ("accept", "decide", "place", "venue.execute_order")
    )
    assert accept.parent_span_id == b""
    assert {decide.parent_span_id, place.parent_span_id} == {accept.span_id}
    assert venue.parent_span_id == place.span_id
    web, worker = (collector.processes[span.span_id] for span in (accept, venue))
    assert web != worker
    assert collector.processes[decide.span_id] != web

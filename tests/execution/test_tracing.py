"""One trace per signal, as a collector receives it; and nothing at all without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from brokers.models import Account
from execution import tracing
from execution.models import Order, Signal
from execution.strategies import create_strategy
from risk import correlation
from tests.brokers.scripted import script_of
from tests.collector import Collector
from tests.e2e.product import ROOT
from tests.execution.posting import body_of, post
from tests.factories import SignalFactory, allow_trading

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("new_process")]


@pytest.fixture
def collector(settings: Any) -> Iterator[Collector]:
    found = Collector()
    settings.TRACES_ENDPOINT = found.url
    tracing._provider.cache_clear()
    yield found
    tracing._provider().shutdown()
    tracing._provider.cache_clear()
    found.close()


def alert(account: Account) -> tuple[str, str]:
    """Post one; the signal's id and the secret it was sent with."""
    allow_trading()
    made = create_strategy("desk", accounts=[account.name], options={"allowlist": "none"})
    answer = post(f"desk/{made.secret}", body_of(id="one", comment="canary-in-the-body"))
    return json.loads(answer.content)["signal_id"], made.secret


@pytest.mark.usefixtures("worked_off", "eager")
def test_one_trace_from_the_webhook_to_the_venue(
    scripted: Callable[..., Account], collector: Collector
) -> None:
    signal_id, secret = alert(scripted())

    spans = collector.wait_for(4)

    assert set(spans) >= {"accept", "decide", "place", "venue.execute_order"}
    assert {span.trace_id.hex() for span in collector.spans} == {tracing.trace_id(signal_id)}
    first = spans["accept"]
    assert first.parent_span_id == b""
    assert spans["decide"].parent_span_id == first.span_id
    assert spans["place"].parent_span_id == first.span_id
    assert spans["venue.execute_order"].parent_span_id == spans["place"].span_id
    told = {pair.key: pair.value.string_value for pair in spans["place"].attributes}
    assert told == {"order": str(Order.objects.get().pk), "symbol": "BTC/USDT"}
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in collector.spans)
    for canary in (secret, "canary-in-the-body"):
        assert canary not in str(collector.spans)


@pytest.mark.usefixtures("worked_off", "eager")
def test_a_failure_is_marked_without_its_text(
    scripted: Callable[..., Account], collector: Collector
) -> None:
    account = scripted()

    def breaks(*_: object) -> None:
        raise RuntimeError("secret-canary")

    script_of(account).outcomes.append(breaks)
    alert(account)

    span = collector.wait_for(4)["venue.execute_order"]
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "RuntimeError")
    assert "secret-canary" not in str(collector.spans)


def test_what_another_process_does_joins_the_trace(collector: Collector) -> None:
    """A message carries an id and nothing else; that is enough."""
    signal = SignalFactory.create()
    with tracing.step("decide", signal.pk), tracing.step("ask", signal.pk):
        pass

    spans = collector.wait_for(2)
    assert spans["decide"].trace_id == signal.pk.bytes
    assert spans["decide"].parent_span_id.hex() == f"{tracing._root_span(signal.pk):016x}"
    assert spans["ask"].parent_span_id == spans["decide"].span_id


def test_signals_do_not_get_into_each_others_traces(collector: Collector) -> None:
    one, other = SignalFactory.create(), SignalFactory.create()
    with tracing.step("one", one.pk), tracing.step("other", other.pk):
        assert correlation.current() == str(other.pk)
    with tracing.step("nobody's", None):
        pass

    spans = collector.wait_for(2)
    assert set(spans) == {"one", "other"}
    assert spans["other"].trace_id == other.pk.bytes
    assert spans["other"].parent_span_id != spans["one"].span_id


def test_without_an_endpoint_nothing_is_even_loaded() -> None:
    script = (
        "import sys, django; django.setup();"
        "from execution import tracing; from uuid import uuid4\n"
        "with tracing.step('decide', uuid4()): pass\n"
        "tracing.note_arrival(uuid4(), 1)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "fks_site.settings"},
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.alone
def test_a_collector_that_is_gone_stops_nothing(settings: Any) -> None:
    settings.TRACES_ENDPOINT = "http://127.0.0.1:9"
    tracing._provider.cache_clear()
    began = time.monotonic()
    with tracing.step("decide", SignalFactory.create().pk):
        pass
    assert time.monotonic() - began < 1
    tracing._provider().shutdown()
    tracing._provider.cache_clear()


def test_the_story_links_its_trace(admin_client: Any, settings: Any) -> None:
    signal = SignalFactory.create()
    page = f"/admin/execution/signal/{signal.pk}/change/"
    assert "Trace" not in admin_client.get(page).content.decode()

    settings.TRACE_URL = "https://tempo.example/trace/{trace_id}"

    assert f"https://tempo.example/trace/{Signal.objects.get().pk.hex}" in (
        admin_client.get(page).content.decode()
    )

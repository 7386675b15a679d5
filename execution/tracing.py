"""One OpenTelemetry trace per signal, when OTEL_EXPORTER_OTLP_ENDPOINT names a collector.

A trace's id is its signal's id. So every process that works for a signal, whatever woke it, adds to the
same trace, and no context has to travel with a message that may be lost. Spans carry names and ids,
never bodies, prices or the text of an error.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING
from uuid import UUID

from django.conf import settings

from risk import correlation

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

_arriving: ContextVar[bool] = ContextVar("arriving", default=False)


@contextmanager
def step(name: str, signal_id: object, **attributes: str) -> Iterator[None]:
    """Everything inside belongs to the signal, in the logs, the audit trail, and as a span of its
    trace. Without a signal, or without a collector, there is no span.
    """
    with correlation.concerning(signal_id):
        tracer = _tracer() if settings.TRACES_ENDPOINT and signal_id else None
        if tracer is None:
            yield
            return
        with tracer.start_as_current_span(
            name,
            context=_parent(UUID(str(signal_id))),
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            done = False
            try:
                yield
                done = True
            finally:
                if not done:
                    _mark_failed(span, sys.exception())


def note_arrival(signal_id: object, began: int, **attributes: str) -> None:
    """The first span: from ``began`` (nanoseconds of Unix time) until now, the signal stored."""
    tracer = _tracer() if settings.TRACES_ENDPOINT else None
    if tracer is not None:
        from opentelemetry.context import Context

        token = _arriving.set(True)
        try:
            with correlation.concerning(signal_id):
                span = tracer.start_span(
                    "accept", context=Context(), start_time=began, attributes=attributes
                )
        finally:
            _arriving.reset(token)
        span.end()


def trace_id(signal_id: object) -> str:
    """The trace's id as collectors show it: 32 hexadecimal digits."""
    return UUID(str(signal_id)).hex


def trace_url(signal_id: object) -> str:
    """Where the operator's own viewer shows the trace; empty without one."""
    template: str = settings.TRACE_URL
    return template.replace("{trace_id}", trace_id(signal_id)) if template else ""


def _root_span(signal: UUID) -> int:
    """The id of a trace's first span, known to every process."""
    return int.from_bytes(hashlib.sha256(signal.bytes).digest()[:8]) or 1


def _parent(signal: UUID) -> Context | None:
    """The span we are in, if it is the signal's; else the trace's first one, wherever it was made."""
    from opentelemetry import trace

    if trace.get_current_span().get_span_context().trace_id == signal.int:
        return None
    first = trace.SpanContext(
        signal.int,
        _root_span(signal),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(first))


def _mark_failed(span: Span, error: BaseException | None) -> None:
    from opentelemetry.trace import Status, StatusCode

    # Not its text: what a venue or a sender wrote may be in it.
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))


def _tracer() -> Tracer:
    return _provider().get_tracer("fks")


@cache
def _provider() -> TracerProvider:
    """Made at the first span of a process: the exporter's thread does not survive a fork."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Asked for a trace's id only where a trace begins: at an alert's arrival."""

        def generate_trace_id(self) -> int:
            return UUID(correlation.current()).int

        def generate_span_id(self) -> int:
            if _arriving.get():
                return _root_span(UUID(correlation.current()))
            return super().generate_span_id()

    endpoint = settings.TRACES_ENDPOINT.rstrip("/") + "/v1/traces"
    here: dict[str, str | int] = {
        "service.name": "fks",
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
    provider = TracerProvider(resource=Resource.create(here), id_generator=Ids())
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    return provider

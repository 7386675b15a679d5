"""A receiver of OpenTelemetry's traces, for tests of what is sent to one."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.product import eventually


class Collector:
    """A receiver of OTLP over HTTP, as small as the protocol allows."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.processes: dict[bytes, str] = {}
        """Which process each span is from, by the span's id."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                request = ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    told = {pair.key: pair.value for pair in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            collector.processes[span.span_id] = str(told["process.pid"].int_value)
                        collector.spans += scope.spans
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def wait_for(self, count: int) -> dict[str, Span]:
        """The spans by name, once there are ``count`` of them."""
        eventually(lambda: len(self.spans) >= count, seconds=15, what=f"{count} spans")
        return {span.name: span for span in self.spans}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

"""A small WSGI application behind the gate, for a server process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from fks_site.gate import BodyLimit, Gate

SLOW_SECONDS = 1.0


def tell(environ: dict[str, Any], start_response: Callable[..., None]) -> Iterable[bytes]:
    """Answers with the environment it was given; ``/slow`` takes a second, ``/broken`` fails."""
    if environ["PATH_INFO"] == "/broken":
        raise ZeroDivisionError
    if environ["PATH_INFO"] == "/slow":
        time.sleep(SLOW_SECONDS)
    seen = {name: value for name, value in environ.items() if not name.startswith("wsgi.")}
    seen["body"] = environ["wsgi.input"].read().decode("latin-1")
    start_response("200 OK", [("Content-Type", "application/json"), ("X-Seen", "é")])
    return [json.dumps(seen).encode(), b"\n"]


application = Gate(
    tell,
    (BodyLimit("/small", 10), BodyLimit("", 200_000)),
    threads=2,
    body_seconds=1.0,
    max_waiting=2,
)

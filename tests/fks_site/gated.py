"""A small WSGI application behind the gate, for a server process of its own.

``FKS_TEST_GATE`` names a file; while it is not there, ``/slow`` is under way.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fks_site.gate import BodyLimit, Gate

BODY_SECONDS = 2.0


def tell(environ: dict[str, Any], start_response: Callable[..., None]) -> Iterable[bytes]:
    """Answers with the environment it was given; ``/slow`` waits for the file, ``/broken`` fails."""
    if environ["PATH_INFO"] == "/broken":
        raise ZeroDivisionError
    while environ["PATH_INFO"] == "/slow" and not Path(os.environ["FKS_TEST_GATE"]).exists():
        time.sleep(0.02)
    seen = {name: value for name, value in environ.items() if not name.startswith("wsgi.")}
    seen["body"] = environ["wsgi.input"].read().decode("latin-1")
    start_response("200 OK", [("Content-Type", "application/json"), ("X-Seen", "é")])
    return [json.dumps(seen).encode(), b"\n"]


application = Gate(
    tell,
    (BodyLimit("/small", 10), BodyLimit("", 200_000)),
    threads=2,
    body_seconds=BODY_SECONDS,
    max_waiting=2,
)

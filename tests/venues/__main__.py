"""`python -m tests.venues`: serve both venues on loopback until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading

from tests.venues.control import Control
from tests.venues.exchange import Exchange
from tests.venues.house import IdRule
from tests.venues.server import VenueServer


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.venues", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--seed", type=int, default=1, help="of the fault rates")
    parser.add_argument("--id-rule", type=IdRule, choices=list(IdRule), default=IdRule.OPEN)
    parser.add_argument("--journal", type=int, default=100_000, help="requests kept")
    parser.add_argument("--with-stdin", action="store_true", help="stop when stdin is closed")
    return parser.parse_args()


def main() -> None:
    """Print one JSON line with the port once connections are accepted, then serve."""
    options = arguments()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    exchange = Exchange(options.seed, options.id_rule, options.journal)
    server = VenueServer(options.port, Control(exchange).answer)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    if options.with_stdin:
        threading.Thread(target=wait_for_end_of_input, args=(stopping,), daemon=True).start()
    sys.stdout.write(json.dumps({"port": server.port, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    stopping.wait()
    server.server_close()


def wait_for_end_of_input(stopping: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    stopping.set()


if __name__ == "__main__":
    main()

"""The loopback venues, with the fault of each order announced beforehand by its client id."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.chaos.points import fault_for
from tests.venues.__main__ import wait_for_end_of_input
from tests.venues.client import ROOT, STOP_TIMEOUT_S, RunningVenue, VenueControl
from tests.venues.control import Control
from tests.venues.exchange import Exchange
from tests.venues.faults import Endpoint, Fault, FaultScript
from tests.venues.house import IdRule
from tests.venues.server import VenueServer
from tests.venues.venue import Answer, Request, reply

ANNOUNCE = "/_chaos/fault"
JOURNAL = 200_000
DOORS = 7
"""Ports of the venues. What is asked too often at one is left alone there, as if it were a venue of its
own: else one answer 429 would hold all accounts."""


@dataclass(frozen=True, slots=True)
class ChaosVenue(RunningVenue):
    """The venues, and every address they are reached at."""

    doors: tuple[str, ...]


class AnnouncedFaults(FaultScript):
    """An announced fault strikes the first placement with its client id; rates strike the rest."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.serving = threading.local()
        self._announced: dict[str, str] = {}

    def announce(self, client_id: str, name: str) -> None:
        self._announced.setdefault(client_id, name)

    def clear(self) -> None:
        super().clear()
        self._announced.clear()

    def draw(self, venue: str, endpoint: Endpoint) -> Fault | None:
        if endpoint is not Endpoint.ORDER:
            return super().draw(venue, endpoint)
        params = self.serving.request.params
        name = self._announced.get(params.get("newClientOrderId") or params.get("cl_ord_id"), "")
        if not name:
            return None
        self._announced[params.get("newClientOrderId") or params["cl_ord_id"]] = ""
        return fault_for(name, venue)


class ChaosExchange(Exchange):
    """The venues under announced faults."""

    def __init__(self, seed: int, id_rule: IdRule) -> None:
        super().__init__(seed, id_rule, JOURNAL)
        self.announced = AnnouncedFaults(seed)
        self.faults = self.announced

    def answer(self, request: Request) -> Answer:
        if request.path == ANNOUNCE:
            payload = json.loads(request.body)
            self.announced.announce(payload["client_id"], payload["fault"])
            return reply({})
        self.announced.serving.request = request
        return super().answer(request)


def main() -> None:
    """Print one JSON line with the ports, then serve until standard input is closed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--id-rule", type=IdRule, required=True)
    parser.add_argument("--address", default="127.0.0.1")
    options = parser.parse_args()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    answer = Control(ChaosExchange(options.seed, options.id_rule)).answer
    servers = [VenueServer(0, answer, options.address) for _ in range(DOORS)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    threading.Thread(target=wait_for_end_of_input, args=(stopping,), daemon=True).start()
    sys.stdout.write(json.dumps([server.port for server in servers]) + "\n")
    sys.stdout.flush()
    stopping.wait()
    for server in servers:
        server.server_close()


@contextmanager
def running_venue(seed: int, id_rule: str, address: str = "127.0.0.1") -> Iterator[ChaosVenue]:
    """Both venues in a process of their own, listening at ``address``; it ends when this one dies."""
    command = [sys.executable, "-m", "tests.chaos.venue", "--seed", str(seed), "--id-rule", id_rule]
    command += ["--address", address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        try:
            ports = json.loads(process.stdout.readline())
            doors = tuple(f"http://127.0.0.1:{port}" for port in ports)
            yield ChaosVenue(doors[0], process.pid, VenueControl(doors[0]), doors)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    main()

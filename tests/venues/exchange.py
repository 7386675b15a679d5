"""All venues as one served thing: routes a request, misbehaves as scripted, keeps the journal."""

from __future__ import annotations

import time
from dataclasses import replace

from tests.venues.alpaca.venue import Alpaca
from tests.venues.binance.venue import Binance
from tests.venues.bybit.venue import Bybit
from tests.venues.clock import Clock
from tests.venues.faults import Action, Fault, FaultScript, When
from tests.venues.house import IdRule
from tests.venues.journal import Journal
from tests.venues.kraken.venue import Kraken
from tests.venues.oanda.venue import Oanda
from tests.venues.okx.venue import Okx
from tests.venues.projectx.venue import ProjectX
from tests.venues.schwab.venue import Schwab
from tests.venues.venue import HTML, Answer, Request, Venue, page

DROPPED = Answer(0, b"", dropped=True, error="dropped")
TITLES = {
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Time-out",
}


class Exchange:
    """The venues, the fault script and the journal. Safe to call from many threads."""

    def __init__(self, seed: int, id_rule: IdRule, journal_limit: int) -> None:
        self.seed = seed
        self.id_rule = id_rule
        self.journal = Journal(journal_limit)
        self.faults = FaultScript(seed)
        self.clock = Clock()
        self.latency_s = 0.0
        self.venues = self._open()

    def _open(self) -> dict[str, Venue]:
        found: list[Venue] = [
            Alpaca(self.clock),
            Binance(self.clock, self.id_rule),
            Oanda(self.clock),
            Kraken(self.clock, self.id_rule),
            Bybit(self.clock, "linear"),
            Bybit(self.clock, "spot"),
            Okx(self.clock, self.id_rule, "SWAP"),
            Okx(self.clock, self.id_rule, "SPOT"),
            Schwab(self.clock),
            ProjectX(self.clock),
        ]
        return {venue.name: venue for venue in found}

    def reset(self) -> None:
        """Back to the state of a fresh start; the id rule stays."""
        self.clock.offset_ms = 0
        self.latency_s = 0.0
        self.faults = FaultScript(self.seed)
        self.journal.clear()
        self.venues = self._open()

    def answer(self, request: Request) -> Answer:
        """Serve one exchange request, journalled before its answer leaves."""
        venue = next((v for v in self.venues.values() if v.claims(request)), None)
        if venue is None:
            return Answer(404, b"")
        arrived = self.clock.now_ms()
        acted, sent = self._serve(venue, request)
        endpoint = venue.endpoint(request).value
        self.journal.record(venue.name, arrived, endpoint, request, acted, sent)
        return sent

    def _serve(self, venue: Venue, request: Request) -> tuple[Answer, Answer]:
        self._travel()
        with venue.ledger.lock:
            refused = venue.admit(request)
        if refused is not None:
            return refused, refused
        fault = request.fault = self.faults.draw(venue.name, venue.endpoint(request))
        if fault is not None and fault.when is When.BEFORE:
            sent = spoil(fault, venue, DROPPED)
            return sent, sent
        if fault is not None and fault.action is Action.LATE:
            time.sleep(fault.seconds)
        with venue.ledger.lock:
            if fault is not None and fault.action is Action.FILL_FIRST:
                venue.ledger.fill_resting()
            acted = venue.handle(request)
        self._travel()
        return acted, acted if fault is None else spoil(fault, venue, acted)

    def _travel(self) -> None:
        if self.latency_s:
            time.sleep(self.latency_s / 2)


def spoil(fault: Fault, venue: Venue, acted: Answer) -> Answer:
    """What the client gets to see of the venue's answer."""
    match fault.action:
        case Action.DROP:
            return DROPPED
        case Action.STATUS if fault.status in (418, 429):
            return venue.throttle(fault.status)
        case Action.STATUS:
            return page(fault.status, TITLES.get(fault.status, "Error"))
        case Action.CODE:
            return venue.refuse(fault.code)
        case Action.HANG:
            time.sleep(fault.seconds)
            return acted
        case Action.TRUNCATE:
            return replace(acted, sent=len(acted.body) // 2)
        case Action.CUT_JSON:
            return replace(acted, body=acted.body[: len(acted.body) // 2])
        case Action.EMPTY:
            return replace(acted, body=b"")
        case Action.HTML:
            return replace(page(200, "Just a moment..."), content_type=HTML)
    return acted

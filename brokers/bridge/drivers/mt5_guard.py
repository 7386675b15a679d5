"""Hedging accounts: every position is a ticket of its own, and an opposite order only opens another.

So FKS keeps at most one ticket per symbol there. An exit names the ticket; a stop or target that only
reduces is attached to the ticket (its SL and TP), where the server drops it together with the position.
An attached level has no order of its own at the terminal: the journal remembers which it is. A stop may
take the place of one of ours at once, so that the ticket is never without one while a stop is moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from brokers.bridge.driver import Memory
from brokers.bridge.drivers import mt5_reports as reports
from brokers.bridge.drivers import mt5_terms as terms
from brokers.bridge.drivers.mt5_terminal import Terminal
from brokers.bridge.drivers.mt5_terms import decimal
from brokers.bridge.journal import Entry
from brokers.client_ids import letters_and_digits
from brokers.errors import NotShownError, NotSupportedError
from brokers.types import (
    CancelResult,
    ExecutionResult,
    OrderReport,
    OrderRequest,
    OrderType,
    Outcome,
    Side,
    VenueStatus,
)

LEVELS = {OrderType.STOP: "sl", OrderType.LIMIT: "tp"}
REASONS = {"sl": 4, "tp": 5}
"""ENUM_DEAL_REASON: why a deal closed a position."""
OPENS, CLOSES = 0, (1, 3)
"""ENUM_DEAL_ENTRY: what a deal did to its position."""
NEVER_SET = (Outcome.REJECTED, Outcome.NOT_SENT)
AGO = timedelta(days=1)


class Guard:
    """Tickets and what is attached to them."""

    def __init__(self, terminal: Terminal, memory: Memory) -> None:
        self._terminal = terminal
        self._memory = memory

    def ticket_for(self, request: OrderRequest, name: str, lots: Decimal) -> dict[str, Any]:
        """The fields that tie ``request`` to a ticket; none for an entry.

        Raises NotSupportedError for a second ticket in the symbol, and for an exit no ticket covers.
        """
        tickets = self._terminal.rows("positions_get", symbol=name)
        if not request.reduce_only:
            if tickets or self._terminal.rows("orders_get", symbol=name):
                raise NotSupportedError(
                    "a hedging account gets one ticket per symbol: close what is there first, or "
                    "use a netting account"
                )
            return {}
        wanted = 0 if request.side is Side.SELL else 1
        covering = [t for t in tickets if t.type == wanted and decimal(t.volume) >= lots]
        if len(covering) != 1:
            raise NotSupportedError(
                f"no single ticket of {name} covers {lots:f} lots: {len(covering)} would"
            )
        if request.type is OrderType.MARKET:
            return {"position": covering[0].ticket}
        return self._attached(request, covering[0], name, lots)

    def _attached(
        self, request: OrderRequest, ticket: Any, name: str, lots: Decimal
    ) -> dict[str, Any]:
        level = LEVELS.get(request.type)
        price = request.price if level == "tp" else request.stop_price
        if level is None or price is None:
            raise NotSupportedError("only a stop or a limit price can be attached to a position")
        if decimal(ticket.volume) != lots:
            raise NotSupportedError(
                f"an attached {level} guards the whole ticket of {ticket.volume} lots"
            )
        if getattr(ticket, level) and (level != "sl" or self._set_by(ticket, level) is None):
            raise NotSupportedError(f"the ticket has its {level} already: cancel that first")
        levels = {**_levels(ticket), level: terms.number(price)}
        return {"action": terms.SLTP, "symbol": name, "position": ticket.ticket, **levels}

    def remember(self, request: OrderRequest, fields: Mapping[str, Any]) -> None:
        """Before a level is attached: which one it is, and to what."""
        level = LEVELS[request.type]
        note = {"ticket": fields["position"], "level": level, "price": str(fields[level])}
        self._memory.note(request.identity, {**note, "at": datetime.now(UTC).isoformat()})

    def placed(
        self,
        request: OrderRequest,
        fields: Mapping[str, Any],
        answer: Any,
        outcome: Outcome,
        said: str,
        evidence: Mapping[str, Any],
    ) -> ExecutionResult:
        """The end of attaching a level; it is proven by reading the ticket back."""
        took = answer is not None and answer.retcode in terms.ACCEPTED
        if took or outcome is Outcome.UNKNOWN:
            if (shown := self.shown(request, evidence)) is not None:
                return shown
            outcome = Outcome.UNKNOWN
        code = "VENUE_REJECTED" if outcome is Outcome.REJECTED else "VENUE_UNREACHABLE"
        return ExecutionResult(outcome, code=code, detail=said, evidence=evidence)

    def shown(self, request: OrderRequest, evidence: Mapping[str, Any]) -> ExecutionResult | None:
        """That a remembered level is attached, where its ticket shows it: also one that was there for
        the order before it, which guards whatever the ticket has become.
        """
        entry = self._memory.find(request.identity)
        if entry is None or not self._is_set(entry):
            return None
        said = "the ticket shows it"
        return ExecutionResult(Outcome.ACCEPTED, _id(entry), detail=said, evidence=evidence)

    def cancel(self, entry: Entry) -> CancelResult:
        # the request names both levels: nobody may change the other one meanwhile
        with self._terminal.package():
            ticket = self._ticket(entry)
            if ticket is None or not self._shows(ticket, entry):
                return CancelResult(Outcome.REJECTED, "NOTHING_TO_CANCEL", "nothing is attached")
            levels = {**_levels(ticket), entry.notes["level"]: terms.number(Decimal(0))}
            fields = {
                "action": terms.SLTP,
                "symbol": ticket.symbol,
                "position": ticket.ticket,
                **levels,
            }
            answer, error = self._terminal.request("order_send", fields)
        outcome, said = terms.judge(answer, error)
        if answer is not None and answer.retcode in terms.ACCEPTED:
            outcome = Outcome.ACCEPTED
        return CancelResult(outcome, "", said, terms.evidence(fields, answer, error))

    def report(self, entry: Entry, units: Decimal, currency: str) -> OrderReport | None:
        """Working while the ticket shows it; filled by the deal that names its level as the reason.

        Raises NotShownError while a ticket is gone and the deals do not tell how.
        """
        ticket = self._ticket(entry)
        if ticket is not None and self._shows(ticket, entry):
            if not _was_set(entry):
                self._memory.note(entry.request.identity, {"was_set": True})
            return self._as(entry, VenueStatus.OPEN)
        told = self._terminal.rows("history_deals_get", position=entry.notes["ticket"])
        deals = [deal for deal in told if deal.type in reports.TRADES]
        if ticket is None:
            _refuse_unexplained(deals)
        own = [deal for deal in deals if deal.reason == REASONS[entry.notes["level"]]]
        if not own or not self._is_last(entry, deals):
            return self._as(entry, VenueStatus.CANCELED) if _was_set(entry) else None
        fills = tuple(reports.fill(d, units, currency, self._terminal.clock) for d in own)
        filled = sum((one.quantity for one in fills), Decimal(0))
        if filled >= entry.request.quantity:
            return self._as(entry, VenueStatus.FILLED, fills)
        # a ticket that was smaller than its level leaves nothing to trade
        ended = VenueStatus.CANCELED if ticket is None else VenueStatus.PARTIALLY_FILLED
        return self._as(entry, ended, fills)

    def working(self, symbol: str | None) -> Sequence[OrderReport]:
        """Attached levels the tickets still show."""
        found: list[OrderReport] = []
        for ticket in self._terminal.rows("positions_get"):
            for level in REASONS:
                entry = self._set_by(ticket, level)
                if entry is not None and symbol in (None, entry.request.symbol):
                    found.append(self._as(entry, VenueStatus.OPEN))
        return found

    def _as(self, entry: Entry, status: VenueStatus, fills: tuple[Any, ...] = ()) -> OrderReport:
        request = entry.request
        return OrderReport(
            broker_order_id=_id(entry),
            client_order_id=letters_and_digits(request.identity),
            symbol=request.symbol,
            side=request.side,
            status=status,
            quantity=request.quantity,
            filled_quantity=sum((one.quantity for one in fills), Decimal(0)),
            average_price=reports.average(fills),
            fills=fills,
        )

    def _ticket(self, entry: Entry) -> Any:
        rows = self._terminal.rows("positions_get", ticket=entry.notes["ticket"])
        return rows[0] if rows else None

    def _is_set(self, entry: Entry) -> bool:
        ticket = self._ticket(entry)
        return ticket is not None and self._shows(ticket, entry)

    def _shows(self, ticket: Any, entry: Entry) -> bool:
        holder = self._set_by(ticket, entry.notes["level"])
        return holder is not None and holder.request.identity == entry.request.identity

    def _set_by(self, ticket: Any, level: str) -> Entry | None:
        """The order of ours whose level the ticket shows: the newest one with that price."""
        shown = decimal(getattr(ticket, level))
        if not shown:
            return None
        tried = self._tried(ticket.ticket, level, ticket.time_msc)
        return next((one for one in reversed(tried) if Decimal(one.notes["price"]) == shown), None)

    def _is_last(self, entry: Entry, deals: Sequence[Any]) -> bool:
        """Whether ``entry`` was the last one set on its ticket: that is the one a deal filled."""
        opened = min(deal.time_msc for deal in deals)
        tried = self._tried(entry.notes["ticket"], entry.notes["level"], opened)
        last = ([one for one in tried if _was_set(one)] or tried)[-1:]
        return [one.request.identity for one in last] == [entry.request.identity]

    def _tried(self, ticket: int, level: str, opened: int) -> list[Entry]:
        """Orders of ours for that level of the ticket that may have been set, oldest first."""
        found = [
            entry
            for entry in self._memory.since(self._terminal.clock.utc(opened) - AGO)
            if (entry.notes.get("ticket"), entry.notes.get("level")) == (ticket, level)
            and (entry.result is None or entry.result.outcome not in NEVER_SET)
        ]
        return sorted(found, key=lambda entry: str(entry.notes.get("at", "")))


def _was_set(entry: Entry) -> bool:
    known = entry.result is not None and entry.result.outcome is Outcome.ACCEPTED
    return known or bool(entry.notes.get("was_set"))


def _refuse_unexplained(deals: Sequence[Any]) -> None:
    """Raise NotShownError unless the deals of a ticket that is gone closed all of it."""
    opened = sum((decimal(one.volume) for one in deals if one.entry == OPENS), Decimal(0))
    closed = sum((decimal(one.volume) for one in deals if one.entry in CLOSES), Decimal(0))
    if not opened or closed < opened:
        raise NotShownError("the ticket is gone and the deal that closed it is not shown yet")


def _id(entry: Entry) -> str:
    """A ticket has many stops, one after the other: each is an order of its own."""
    ours = letters_and_digits(entry.request.identity)
    return f"{entry.notes['ticket']}-{entry.notes['level']}-{ours}"


def _levels(ticket: Any) -> dict[str, Any]:
    return {name: terms.number(decimal(getattr(ticket, name))) for name in REASONS}

"""What Schwab is asked about orders; the answers stay as they came.

Orders there carry no id of ours. One that was acknowledged is asked for by its id; another is looked
for by what it asked for, among those entered while it was being placed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote as escaped

from brokers import schwab_answers as answers
from brokers.dialects.answers import Row, row, rows, text
from brokers.errors import AmbiguousOrderError, NotShownError, QueryFailedError
from brokers.types import OrderRef, OrderRequest
from brokers.venue_http import RefusedError, VenueHttp

EARLIER = timedelta(seconds=10)
"""How far the clocks may differ."""
LONGEST = timedelta(days=59)
"""Orders are listed of the last 60 days only (Trader API, GET orders)."""
LONG_RESTING = timedelta(seconds=30)
LISTED_FOR = 3.0
"""Seconds for which a list of orders answers for those that have rested so long."""
REACHES_FOR = 60.0
"""Seconds without a question after which a list need not reach back as far as before."""
MOST_ORDERS = 3000
SHORTEST = timedelta(seconds=2)
"""A window of time that is not halved: orders are entered by the second."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """Orders entered since ``start``, as they were at ``asked``."""

    asked: float
    start: datetime
    orders: list[Row]


class SchwabLists:
    """The orders of one account. Raises QueryFailedError throughout."""

    def __init__(self, http: VenueHttp, account: Callable[[], str], patience: timedelta) -> None:
        """``account`` gives the account's address; ``patience`` is how long after its submission an
        order may still be entered."""
        self._http, self._account, self._patience = http, account, patience
        self._lock = threading.Lock()
        self._known: _Listed | None = None

    def forget(self) -> None:
        """An order is about to change: orders are listed anew."""
        known = self._known
        if known is not None:
            self._known = replace(known, asked=known.asked - LISTED_FOR)

    def since(self, start: datetime, end: datetime | None = None) -> list[Row]:
        """Orders of shares entered in that time, of whatever state."""
        now = datetime.now(UTC)
        found = self._window(max(start, now - LONGEST), end or now + timedelta(minutes=1))
        shares = (one for one in found if answers.is_of_shares(one))
        # an order entered in the second in which a window ends may be in the next one as well
        return list({text(one, "orderId"): one for one in shares}.values())

    def _window(self, start: datetime, end: datetime) -> Iterator[Row]:
        """Orders of every kind, some twice: a window that comes back full is halved."""
        asked = {
            "fromEnteredTime": _stamp(start),
            "toEnteredTime": _stamp(end),
            "maxResults": str(MOST_ORDERS),
        }
        found = rows(self._http.ask(f"{self._account()}/orders", asked))
        if len(found) < MOST_ORDERS:
            yield from found
            return
        if end - start < SHORTEST:
            raise NotShownError(f"Schwab lists no more than {MOST_ORDERS} orders at once")
        middle = start + (end - start) / 2
        yield from self._window(start, middle)
        yield from self._window(middle, end)

    def all(self) -> list[Row]:
        """Every order as far back as Schwab lists them."""
        return self.since(datetime.now(UTC) - LONGEST)

    def _lately(self, start: datetime) -> list[Row]:
        """Orders entered since ``start``, some seconds old at most. As long as questions go on, the
        list reaches as far back as the oldest of them: one list answers all."""
        with self._lock:
            now, known = time.monotonic(), self._known
            if known is not None and now - known.asked <= REACHES_FOR:
                start = min(start, known.start)
            if known is None or now - known.asked >= LISTED_FOR or known.start > start:
                known = self._known = _Listed(now, start, self.since(start))
            return known.orders

    def find(self, ref: OrderRef, venue_symbol: str) -> Row | None:
        """The order; ``None`` where Schwab shows none. Raises AmbiguousOrderError where what it shows
        may be another."""
        if not ref.broker_order_id:
            return self._by_what_it_asked_for(ref, venue_symbol)
        found = self._resting(ref) or self._by_id(ref.broker_order_id)
        if found is None or ref.request is None:
            return found
        if not answers.fits(found, ref.request, venue_symbol):
            raise AmbiguousOrderError(
                f"Schwab's order {ref.broker_order_id} asks for something else than ours"
            )
        return found

    def _resting(self, ref: OrderRef) -> Row | None:
        """An order that has rested for a while, from a list all such questions share: asked one by
        one, ten of them would use up the minute's requests."""
        if ref.submitted_at is None or datetime.now(UTC) - ref.submitted_at < LONG_RESTING:
            return None
        try:
            listed = self._lately(ref.submitted_at - EARLIER)
        except NotShownError:
            return None
        return next((one for one in listed if str(one.get("orderId")) == ref.broker_order_id), None)

    def _by_id(self, order_id: str) -> Row | None:
        try:
            return row(self._http.ask(f"{self._account()}/orders/{escaped(order_id, safe='')}"))
        except RefusedError as refused:
            if refused.reply.status == 404 and answers.refusal(refused.reply):
                return None
            raise

    def _by_what_it_asked_for(self, ref: OrderRef, venue_symbol: str) -> Row | None:
        if ref.request is None:
            raise QueryFailedError(
                "Schwab keeps no id of ours; what the order asked for is not known"
            )
        fitting = self._candidates(ref, ref.request, venue_symbol)
        if len(fitting) > 1:
            ids = ", ".join(text(one, "orderId") for one in fitting[:5])
            raise AmbiguousOrderError(f"{len(fitting)} orders at Schwab may be this one: {ids}")
        return fitting[0] if fitting else None

    def _candidates(self, ref: OrderRef, request: OrderRequest, venue_symbol: str) -> list[Row]:
        start, end = datetime.now(UTC) - timedelta(days=1), None
        if ref.submitted_at is not None:
            start, end = ref.submitted_at - EARLIER, ref.submitted_at + self._patience + EARLIER
        return [
            one
            for one in self.since(start, end)
            if text(one, "orderId") not in ref.taken
            and answers.fits(one, request, venue_symbol)
            and start <= answers.entered(one) + timedelta(seconds=1)
            and (end is None or answers.entered(one) <= end)
        ]


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"

"""What Alpaca is asked about orders, trades and holdings; the answers stay as they came."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote as escaped

from brokers.client_ids import hex_digits
from brokers.dialects.answers import row, rows, text
from brokers.errors import NotShownError, QueryFailedError
from brokers.types import OrderRef
from brokers.venue_http import RefusedError, VenueHttp

LONG_RESTING = timedelta(seconds=30)
OPEN_AGE = 3.0
"""Seconds for which a list of open orders answers for those that have rested so long."""
PAGE = 100
MOST_PAGES = 50
MOST_ORDERS = 500
NO_ORDER = "40410000"


class AlpacaLists:
    """Orders, trades and holdings of one account. Raises QueryFailedError throughout."""

    def __init__(self, http: VenueHttp, trading: str) -> None:
        self._http, self._trading = http, trading
        self._open_lock = threading.Lock()
        self._open: tuple[float, list[Mapping[str, Any]]] | None = None

    def forget(self) -> None:
        """An order is about to change: the list of open ones is asked for anew."""
        self._open = None

    def resting(self, ref: OrderRef) -> Mapping[str, Any] | None:
        """An order that has rested for a while, from a list all such questions share: asked one by
        one, ten of them would use up the minute's requests. What is not on it is asked for itself.
        """
        if not ref.broker_order_id or ref.submitted_at is None:
            return None
        if datetime.now(UTC) - ref.submitted_at < LONG_RESTING:
            return None
        with self._open_lock:
            if self._open is None or time.monotonic() - self._open[0] > OPEN_AGE:
                asked = time.monotonic()
                self._open = (asked, self.open_orders({}))
            listed = self._open[1]
        return next((one for one in listed if _is(one, ref)), None)

    def find(self, ref: OrderRef) -> Mapping[str, Any] | None:
        """The order by its id there, else by ours; ``None`` only on Alpaca's own word."""
        if ref.broker_order_id:
            url = f"{self._trading}/v2/orders/{escaped(ref.broker_order_id, safe='')}"
            params = {}
        else:
            url = f"{self._trading}/v2/orders:by_client_order_id"
            params = {"client_order_id": hex_digits(ref.identity)}
        try:
            found = row(self._http.ask(url, params))
        except RefusedError as refused:
            if refused.reply.status == 404 and refused.reply.member("code") == NO_ORDER:
                return None
            raise
        if not _is(found, ref):
            raise QueryFailedError("Alpaca answered with another order")
        return found

    def open_orders(self, params: Mapping[str, str]) -> list[Mapping[str, Any]]:
        asked = {"status": "open", "limit": str(MOST_ORDERS), "nested": "false", **params}
        found = rows(self._http.ask(f"{self._trading}/v2/orders", asked))
        if len(found) >= MOST_ORDERS:
            raise QueryFailedError(f"Alpaca lists no more than {MOST_ORDERS} open orders at once")
        return found

    def activities(self, params: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """Every fill that fits, page by page. Raises QueryFailedError when there is no end to it."""
        url, found = f"{self._trading}/v2/account/activities/FILL", []
        asked = {**params, "page_size": str(PAGE)}
        for _ in range(MOST_PAGES):
            page = rows(self._http.ask(url, asked))
            found += page
            if len(page) < PAGE:
                return found
            asked["page_token"] = text(page[-1], "id")
        raise NotShownError(f"Alpaca lists more than {MOST_PAGES * PAGE} trades")

    def holdings(self) -> list[Mapping[str, Any]]:
        return rows(self._http.ask(f"{self._trading}/v2/positions"))


def _is(order: Mapping[str, Any], ref: OrderRef) -> bool:
    """By our id, or by Alpaca's for one that carries none of ours."""
    if ref.identity:
        return order.get("client_order_id") == hex_digits(ref.identity)
    return order.get("id") == ref.broker_order_id

"""What a trade cost, which a venue may leave out: the trade counts all the same."""

from __future__ import annotations

import logging
from decimal import Decimal

from brokers.decimals import plain
from brokers.dialects.answers import number
from brokers.venue_client import Market

logger = logging.getLogger(__name__)


class Fees:
    """The fees of one account's trades; that they are left out is said once."""

    def __init__(self, label: str) -> None:
        self._label, self._is_said = label, False

    def paid(self, cost: object, coin: object, market: Market) -> tuple[Decimal, str]:
        """How much, and in which coin: nothing, in the quote asset, where the venue does not tell.

        Raises QueryFailedError for an amount that is no number.
        """
        if cost is None or not coin:
            self._say()
            return Decimal(0), str(market["quote"])
        # where there was none, some leave the amount empty
        return (plain(number({"fee": cost}, "fee")) if cost != "" else Decimal(0)), str(coin)

    def _say(self) -> None:
        if not self._is_said:
            logger.warning("%s leaves out the fees of trades: they count as 0", self._label)
        self._is_said = True

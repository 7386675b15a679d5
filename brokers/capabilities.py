"""What a plugin declares it can do. What is not declared is refused before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from brokers.errors import NotSupportedError
from brokers.types import OrderRequest, OrderType, TimeInForce


class IdRule(StrEnum):
    """For how long a venue refuses a second order with the same client id."""

    FOREVER = "forever"
    OPEN = "open"
    NONE = "none"


class BookDepth(StrEnum):
    """How much of its order book a venue shows: nothing, the best prices with their sizes, levels."""

    NONE = "none"
    BEST = "best"
    LEVELS = "levels"


class Balances(StrEnum):
    """What the totals of an account's balances are.

    ``MONEY``: what is owned and owed, as trades left it; what open positions have gained since is not
    among it. ``WORTH``: money and what open positions have gained, in one figure. ``STATED``: the
    venue tells none, an operator wrote them down once.
    """

    MONEY = "money"
    WORTH = "worth"
    STATED = "stated"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Declared abilities of a plugin or of one exchange behind it.

    ``submit_timeout``: seconds after which a placement is given up and called UNKNOWN.
    ``settle_window``: seconds after the submission within which the order may still turn up; before
    that, and before a second look a window later, "not found" proves nothing. ``locks_balance``: a
    resting stop holds the coins it would sell, so that an exit must cancel it first. ``keeps_our_id``:
    orders there carry our id. Where they do not, an account's placements leave one at a time, an order
    of unknown fate is recognised by what it asked for, and not finding it proves nothing.
    ``attached_stop``: an entry can carry its stop loss, which rests there as an order of its own, with
    an id of ours, and does not outlive an entry that ends without a trade. ``watched_stop``: where
    the venue takes no stop-market orders, the account's operator lets FKS watch the price instead.
    ``whole_stop``: a stop guards the whole position, whatever size it was placed with, and takes the
    place of the one before it.
    Nothing here is said of changing a working order: FKS never does
    (docs/adr/0039-no-order-is-changed-in-place.md).
    """

    order_types: frozenset[OrderType]
    time_in_force: frozenset[TimeInForce]
    id_rule: IdRule
    submit_timeout: int
    settle_window: int
    post_only: bool = False
    reduce_only: bool = False
    short_selling: bool = False
    locks_balance: bool = True
    needs_internet: bool = True
    order_book: BookDepth = BookDepth.NONE
    keeps_our_id: bool = True
    attached_stop: bool = False
    watched_stop: bool = False
    whole_stop: bool = False
    balances: Balances = Balances.MONEY

    @property
    def holds_stops(self) -> bool:
        """Whether a stop loss can rest at the venue."""
        return OrderType.STOP in self.order_types

    @property
    def stops_stay(self) -> bool:
        """Whether a stop may rest beside any exit: it keeps nothing the exit needs, and both together
        cannot turn the position over."""
        return self.reduce_only and not self.locks_balance

    def stops_go_first(self, *, is_immediate: bool) -> bool:
        """Whether stops are taken off before an exit leaves: it needs what they hold, or it is one
        that fills at once (``is_immediate``), and the stop could fill as well."""
        return self.locks_balance or (is_immediate and not self.stops_stay)

    def refuse_unsupported(self, request: OrderRequest, venue: str) -> None:
        """Raise NotSupportedError naming what ``venue`` lacks for ``request``."""
        if request.type not in self.order_types:
            raise NotSupportedError(f"{venue} has no {request.type.value} orders here")
        if request.time_in_force not in self.time_in_force:
            raise NotSupportedError(f"{venue} has no time in force {request.time_in_force.value}")
        if request.post_only and not self.post_only:
            raise NotSupportedError(f"{venue} has no post-only orders here")
        if request.reduce_only and not self.reduce_only:
            raise NotSupportedError(f"{venue} has no reduce-only orders here")
        if request.attached_stop is not None and not self.attached_stop:
            raise NotSupportedError(f"{venue} takes no stop loss with an entry")


@dataclass(frozen=True, slots=True)
class VenueCard:
    """What a plugin can do at one kind of venue, told without an account.

    ``our_id``: the field that carries our id there. ``lookup``: how an order is found again.
    ``to_prove``: what only its user can show, on a demo account where the venue has one.
    """

    venue: str
    capabilities: Capabilities
    our_id: str
    lookup: str
    to_prove: str

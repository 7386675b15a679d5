"""What our own rows say for the rules that ask: exposures, resting and recent orders, streaks.

Call inside the transaction that holds the account's lock. Only what a rule in force needs is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, DecimalException
from enum import Enum
from typing import Any
from uuid import UUID

from django.db.models import Case as SqlCase
from django.db.models import Count, Exists, F, Max, OuterRef, Q, QuerySet, Subquery, Sum, When
from django.db.models.functions import Coalesce

from brokers.models import Account
from brokers.prepared import Prepared, given
from brokers.types import OrderType, Side
from execution import days, marks
from execution.models import COUNTED, SIGNED, Fill, Order, Position, Strategy
from execution.models.strategies import MANUAL
from execution.states import UNSENT, WORKING, OrderState
from risk.book import LOOKED_BACK, Book, Exposure, Recent, Resting, Seen, Streak
from risk.models import TradingState
from risk.rules import RULES
from risk.types import Limit, LimitMode

DOLLARS = frozenset({"USD", "USDT", "USDC", "FDUSD", "TUSD", "DAI", "PYUSD"})
"""Currencies counted as equal when limits are compared (see docs/limits.md)."""

_NEVER_THERE = (OrderState.DENIED, OrderState.REJECTED, OrderState.NOT_PLACED)
_NOT_YET_THERE = UNSENT | {OrderState.SUBMITTING, OrderState.UNKNOWN}
"""States in which a venue that tells its balance may not have had the order yet."""

_REACHED_THE_VENUE = (
    OrderState.OPEN, OrderState.PARTIALLY_FILLED, OrderState.CANCELING, OrderState.FILLED,
    OrderState.CANCELED, OrderState.REJECTED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """Whose book is read, for which symbol, under which limits; ``but`` is what does not count."""

    account: Account
    strategy: Strategy
    symbol: str
    limits: Sequence[Limit]
    now: datetime
    but: frozenset[UUID] = frozenset()

    def orders(self) -> QuerySet[Order]:
        """Every order that may count against the one being judged."""
        return Order.objects.exclude(pk__in=self.but) if self.but else Order.objects.all()


def gather(case: Case, previous: Seen | None = None) -> Book:
    """The fields the limits in force need; the others stay ``None``."""
    in_force = [one for one in case.limits if one.mode is not LimitMode.OFF and one.rule in RULES]
    needs = {need for one in in_force for need in RULES[one.rule].needs}
    gathered = {name: read(case) for name, read in _READERS.items() if name in needs}
    leverage = _leverage(case.account)
    return Book(case.account.pk, previous=previous, leverage=leverage, **gathered)


def same_money(one: str, other: str) -> bool:
    return one == other or {one, other} <= DOLLARS


def totals(account: Account) -> dict[str, Decimal]:
    """The account's balances by currency, as they were last read."""
    return {currency: Decimal(one["total"]) for currency, one in account.balances.items()}


def cash(account: Account, totals: Mapping[str, Decimal]) -> Decimal:
    """What is held in the currency limits are counted in, dollars of any kind being one."""
    own = account.quote_currency
    amounts = (amount for currency, amount in totals.items() if same_money(currency, own))
    return sum(amounts, Decimal(0))


def _exposures(case: Case) -> tuple[Exposure, ...]:
    """Of every account: orders first, so that a fill in between counts twice rather than not."""
    entries = case.orders().filter(COUNTED, role=Order.Role.ENTRY, state__in=WORKING)
    working = _working(entries)
    held = Position.objects.exclude(quantity=0).values_list("account_id", "symbol", "quantity")
    return _valued(case, working, {(account, symbol): size for account, symbol, size in held})


def _strategy_exposures(case: Case) -> tuple[Exposure, ...]:
    """What the strategy's own fills add up to since the position was flat, where one of that side is
    still open.
    """
    mine = case.orders().filter(strategy=case.strategy, role=Order.Role.ENTRY)
    working = _working(mine.filter(COUNTED, state__in=WORKING))
    open_now = {
        (account, symbol): quantity
        for account, symbol, quantity in Position.objects.exclude(quantity=0).values_list(
            "account_id", "symbol", "quantity"
        )
    }
    fills = Fill.objects.filter(since_flat(), order__strategy=case.strategy).order_by()
    traded: dict[tuple[int, str], Decimal] = {}
    for account, symbol, side, quantity in fills.values_list(
        "account_id", "symbol", "side"
    ).annotate(Sum("quantity")):
        place = (account, symbol)
        traded[place] = traded.get(place, Decimal(0)) + quantity * Side(side).sign
    own = {place: _within(traded.get(place, Decimal(0)), size) for place, size in open_now.items()}
    return _valued(case, working, own)


def since_flat() -> Exists:
    """Of a fill: whether a position is open here and was not flat since."""
    begun = Q(first_fill_id=None) | Q(first_fill_id__lte=OuterRef("pk"))
    here = Position.objects.filter(account=OuterRef("account"), symbol=OuterRef("symbol"))
    return Exists(here.filter(begun).exclude(quantity=0))


class Owner(Enum):
    """Whose a position is."""

    OWN = "own"
    NOBODY = "nobody"
    OTHERS = "others"


def owner_of(held: Decimal, account: Account, symbol: str, strategy: Strategy) -> Owner:
    """Whether ``strategy`` traded some of what is ``held``, or other strategies all of it; else it is
    an operator's, or nobody's. Where some was sold by hand, nobody can say whose, each still owns what
    it bought. To an operator everything is its own.
    """
    fills = Fill.objects.filter(since_flat(), account=account, symbol=symbol).order_by()
    sums = fills.values_list("order__strategy").annotate(traded=Sum(SIGNED))
    owned = {owner: _within(traded, held) for owner, traded in sums}
    if strategy.is_manual or owned.get(strategy.pk):
        return Owner.OWN
    by_hand = counts_as(strategy)
    others = sum((owned[owner] for owner in owned if owner not in by_hand), Decimal(0))
    is_theirs = not any(owned.get(owner) for owner in by_hand) and abs(others) >= abs(held)
    return Owner.OTHERS if is_theirs else Owner.NOBODY


def counts_as(strategy: Strategy) -> set[int | None]:
    """The strategies, or none, whose orders may be its own: what a person amends or enters anew is an
    order by hand.
    """
    by_hand = Strategy.objects.filter(slug=MANUAL).values_list("pk", flat=True)
    return {strategy.pk, None, *by_hand}


def _within(own: Decimal, position: Decimal) -> Decimal:
    """The strategy's part of a position: of its side, and no more than all of it."""
    if own * position <= 0:
        return Decimal(0)
    return min(own, position, key=abs)


def _working(entries: QuerySet[Order]) -> dict[tuple[int, str], list[Decimal]]:
    """What is left of working entries by place: [buying, selling] in each account's currency."""
    sums: dict[tuple[int, str], list[Decimal]] = {}
    for account, symbol, side, value, quantity, filled in entries.values_list(
        "account_id", "symbol", "side", "reserved_value", "quantity", "filled_quantity"
    ):
        both = sums.setdefault((account, symbol), [Decimal(0), Decimal(0)])
        both[0 if side == Side.BUY else 1] += value * (quantity - filled) / quantity
    return sums


def _valued(
    case: Case,
    working: dict[tuple[int, str], list[Decimal]],
    held: dict[tuple[int, str], Decimal],
) -> tuple[Exposure, ...]:
    places = {*working, *held}
    known = marks.marks_of(held, case.now)
    currencies = dict(Account.objects.values_list("pk", "quote_currency"))
    rows = []
    for place in sorted(places):
        buying, selling = working.get(place, (Decimal(0), Decimal(0)))
        quantity, mark = held.get(place, Decimal(0)), known.get(place)
        value = quantity * mark.value if mark else None if quantity else Decimal(0)
        if not same_money(currencies[place[0]], case.account.quote_currency):
            value = None
        rows.append(Exposure(*place, value, buying, selling))
    return tuple(rows)


def _symbol_orders(case: Case) -> int:
    lane = case.orders().filter(account=case.account, symbol=case.symbol)
    return lane.filter(state__in=WORKING).count()


def _resting(case: Case) -> tuple[Resting, ...]:
    """Limit orders that may rest at the same venue, in any account there."""
    here = case.account
    rows = _resting_orders(
        broker=here.broker, environment=here.environment, symbol=case.symbol, but=list(case.but)
    )
    return tuple(
        Resting(Side(row.side), row.price)
        for row in rows
        if row.price is not None and row.account.venue == here.venue
    )


@Prepared
def _resting_orders() -> QuerySet[Order]:
    there = Order.objects.filter(
        account__broker=given("broker"), account__environment=given("environment")
    )
    resting = there.filter(
        symbol=given("symbol"),
        state__in=WORKING,
        type=OrderType.LIMIT.value,
        time_in_force__in=("gtc", "day"),
        price__isnull=False,
    )
    found = resting.exclude(pk__any=given("but")).select_related("account")
    return found.only("side", "price", "account").order_by("id")


def _recent(case: Case) -> tuple[Recent, ...]:
    """Entries of the lane as they were asked for: what was sent may be a collar's limit instead."""
    window = max(int(one.value) for one in case.limits if one.rule == "duplicate_order")
    rows = _recent_entries(
        account=case.account.pk,
        symbol=case.symbol,
        since=case.now - timedelta(seconds=window),
        but=list(case.but),
    )
    return tuple(Recent(Side(side), size, _asked(alert), at) for side, size, at, alert in rows)


@Prepared
def _recent_entries() -> QuerySet[Order, tuple[str, Decimal, datetime, Any]]:
    lane = Order.objects.filter(account=given("account"), symbol=given("symbol"))
    recent = lane.filter(
        role=Order.Role.ENTRY, parent__isnull=True, created_at__gte=given("since")
    ).exclude(pk__any=given("but"))
    columns = ("side", "quantity", "created_at", "signal__alert")
    return recent.exclude(state=OrderState.DENIED).values_list(*columns)


def _asked(alert: Any) -> Decimal | None:
    kind = (alert or {}).get("order_type", OrderType.MARKET.value)
    name = {"limit": "price", "stop_limit": "price", "stop": "stop_price"}.get(kind, "")
    try:
        return Decimal(alert[name]) if name and alert.get(name) else None
    except DecimalException:
        return None


def _entries_within(case: Case) -> dict[int, int]:
    released = _released(case.strategy)
    found = {}
    for limit in case.limits:
        if limit.rule == "repeated_execution":
            window = RULES[limit.rule].settings(limit.parameters)["window"]
            span = timedelta(seconds=window)
            (found[window],) = _entries_within_span(
                strategy=case.strategy.pk,
                since=max(case.now - span, released),
                until=case.now + span,
                but=list(case.but),
            )
    return found


@Prepared
def _entries_within_span() -> QuerySet[Strategy, int]:
    """What is further ahead of the clock was decided before it was set back."""
    whole = _entries().filter(parent__isnull=True, created_at__lte=given("until"))
    whole = whole.exclude(state=OrderState.DENIED)
    counted = whole.order_by().values("strategy").annotate(count=Count("pk")).values("count")
    mine = Strategy.objects.filter(pk=given("strategy")).order_by()
    return mine.values_list(Coalesce(Subquery(counted), 0), flat=True)


def _rejects(case: Case) -> Streak:
    since = _released(case.strategy)
    rows = _reached(strategy=case.strategy.pk, since=since, but=list(case.but))
    return _streak((state == OrderState.REJECTED, at) for state, at in rows)


@Prepared
def _reached() -> QuerySet[Order, tuple[str, datetime]]:
    rows = _entries().filter(plan__isnull=True, state__in=_REACHED_THE_VENUE)
    return rows.order_by("-id").values_list("state", "updated_at")[:LOOKED_BACK]


def _losses(case: Case) -> Streak:
    """Of whole exits: slices count as the order they are of, the stops of one alert as one."""
    left = Order.objects.filter(
        strategy=case.strategy, account=case.account, filled_quantity__gt=Decimal(0)
    ).exclude(role=Order.Role.ENTRY)
    stop_of = When(role=Order.Role.STOP_LOSS, then=F("signal_id"))
    rows = (
        left.annotate(whole=Coalesce(SqlCase(stop_of), F("parent_id"), F("pk")))
        .values("whole")
        .annotate(result=Sum("fills__realised_pnl"), traded_at=Max("fills__recorded_at"))
        .filter(traded_at__isnull=False)
        .order_by("-traded_at")
    )
    return _streak(
        (result < 0, at) for result, at in rows.values_list("result", "traded_at")[:LOOKED_BACK]
    )


def _streak(newest_first: Iterable[tuple[bool, datetime]]) -> Streak:
    count, last = 0, None
    for is_bad, at in newest_first:
        if not is_bad:
            break
        count, last = count + 1, last or at
    return Streak(count, last)


def _entries() -> QuerySet[Order]:
    entries = Order.objects.filter(strategy=given("strategy"), role=Order.Role.ENTRY)
    return entries.filter(created_at__gte=given("since")).exclude(pk__any=given("but"))


def _released(strategy: Strategy) -> datetime:
    """When an operator last let the strategy trade again; what was before does not count."""
    return _let_go.first(strategy=strategy.slug) or strategy.created_at


@Prepared
def _let_go() -> QuerySet[TradingState, datetime]:
    rows = TradingState.objects.filter(
        scope=TradingState.Scope.STRATEGY, key=given("strategy"), state=TradingState.State.ACTIVE
    )
    return rows.order_by().values_list("changed_at", flat=True)


def _free_funds(case: Case) -> Decimal | None:
    """Free cash as the venue said, less the entries it could not know of when it said so."""
    account = case.account
    at = account.balances_at
    if at is None or abs(case.now - at) > timedelta(seconds=90):
        return None
    free = sum(
        (
            Decimal(one["free"])
            for currency, one in account.balances.items()
            if same_money(currency, account.quote_currency)
        ),
        Decimal(0),
    )
    entries = case.orders().filter(account=account, role=Order.Role.ENTRY)
    entries = entries.exclude(state__in=_NEVER_THERE)
    later = Q(created_at__gte=at) | Q(acknowledged_at__gte=at) | Q(state__in=_NOT_YET_THERE)
    whole = entries.filter(COUNTED, later, plan__isnull=True)
    reserved = whole.aggregate(total=Sum("reserved_value"))["total"] or Decimal(0)
    return free - (reserved + _in_slices(entries, later)) / _leverage(account)


def _in_slices(entries: QuerySet[Order], later: Q) -> Decimal:
    """What orders in slices have yet to fill: the venue knows of no more than their latest slices; and
    what those have filled since.
    """
    total = Decimal(0)
    rows = entries.filter(Q(state=OrderState.SLICING) | later & Q(parent__state=OrderState.SLICING))
    for state, value, quantity, filled in rows.values_list(
        "state", "reserved_value", "quantity", "filled_quantity"
    ):
        counted = quantity - filled if state == OrderState.SLICING else filled
        total += value * counted / quantity
    return total


def _leverage(account: Account) -> Decimal:
    """What the account's options say; without a word, none."""
    try:
        leverage = Decimal(str(account.options.get("leverage", 1)))
    except DecimalException:
        return Decimal(1)
    return leverage if leverage.is_finite() and leverage >= 1 else Decimal(1)


_READERS: dict[str, Callable[[Case], Any]] = {
    "exposures": _exposures,
    "strategy_exposures": _strategy_exposures,
    "symbol_orders": _symbol_orders,
    "resting": _resting,
    "recent": _recent,
    "entries_within": _entries_within,
    "rejects": _rejects,
    "losses": _losses,
    "day": lambda case: days.today(case.account, case.now),
    "free_funds": _free_funds,
}

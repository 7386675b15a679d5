"""Which alert is decided next: the queues of strategies and symbols, and who may overtake in them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import (
    BooleanField,
    Exists,
    ExpressionWrapper,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    TextField,
    Value,
)
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Coalesce
from django.utils import timezone

from brokers.aliases import aliases_of, in_force, known_shares, of_earlier_days
from brokers.errors import UnknownSymbolError
from brokers.models import Account, SymbolAlias
from brokers.prepared import Prepared, given
from brokers.symbols import Shares, resolve
from execution.aims import is_plain, is_sized
from execution.alerts import Action, Alert, MarketPosition
from execution.legs import accounts_settled, lane_legs, orders_from
from execution.models import Position, Signal
from execution.states import SignalState
from execution.under_way import alive_in, is_covered, reduces

Queue = tuple[int, str, str]
"""Strategy, symbol, and the account an alert by hand names: decided one after the other."""
LOOKED_AT = 500
"""Alerts at either end of all that wait, when a lane becomes free; and before one that may overtake."""
_OF_QUEUE = ("strategy", "symbol", "account")
ACCOUNT = Coalesce(KeyTextTransform("account", "alert"), Value(""), output_field=TextField())
"""The account an alert by hand names, else nothing."""
CLOSES_EVERYTHING = Q(action=Action.CLOSE.value, alert__quantity__isnull=True) | Q(
    alert__market_position=MarketPosition.FLAT.value
)


ENDING = Q(action__in=[Action.CANCEL.value, Action.CLOSE.value]) | Q(
    alert__market_position=MarketPosition.FLAT.value
)
"""As the index says it: what may end an alert that came before."""
CARRIED_OUT = (SignalState.WORKING, SignalState.EXECUTED, SignalState.IGNORED)


class Place(NamedTuple):
    """Where an undecided signal stands.

    ``may_overtake``: it may be an exit from what is held, and of the ``LOOKED_AT`` that wait right
    before it something asks for another action. Whoever is told no keeps his turn, which is never
    wrong. ``is_behind``: something is known to wait before it.
    """

    signal_id: UUID
    strategy_id: int
    symbol: str
    account: str
    may_overtake: bool = False
    is_behind: bool = False

    @property
    def queue(self) -> Queue:
        return self.strategy_id, self.symbol, self.account


def key_of(signal: Signal) -> Queue:
    return signal.strategy_id, signal.symbol, signal.alert.get("account", "")


def places(signal_ids: Sequence[str]) -> list[Place]:
    """Of those that are undecided, in order of arrival.

    In a flood of one kind a single look along the queue is enough: what the last of a kind may not
    overtake, those before it may not either.
    """
    ids = [UUID(one) for one in signal_ids]
    waiting = _waiting(signals=ids) if len(ids) > 1 else []
    last = {tuple(kind): signal_id for signal_id, *kind in waiting}
    if len(last) < len(waiting) and not any(one.may_overtake for one in _look(last.values())):
        return [Place(*row[:-1]) for row in waiting]
    return _look(ids)


def _look(signal_ids: Iterable[UUID]) -> list[Place]:
    rows = _places(signals=list(signal_ids))
    return [
        Place(
            pk,
            strategy,
            symbol,
            named,
            bool(leaves) and any(map(action.__ne__, ahead)),
            bool(ahead),
        )
        for pk, strategy, symbol, named, action, leaves, ahead in rows
    ]


@Prepared
def _waiting() -> QuerySet[Signal, tuple[UUID, int, str, str, str]]:
    waiting = Signal.objects.filter(pk__any=given("signals"), state=SignalState.RECEIVED)
    columns = ("pk", "strategy_id", "symbol", "named", "action")
    return waiting.annotate(named=ACCOUNT).order_by("id").values_list(*columns)


@Prepared
def _places() -> QuerySet[Signal, tuple[UUID, int, str, str, str, bool | None, list[str]]]:
    waiting = Signal.objects.filter(state=SignalState.RECEIVED).annotate(named=ACCOUNT)
    ahead = waiting.filter(
        strategy_id=OuterRef("strategy_id"),
        symbol=OuterRef("symbol"),
        named=OuterRef("named"),
        pk__lt=OuterRef("pk"),
    ).order_by("-id")
    rows = waiting.filter(pk__any=given("signals")).order_by("id")
    held = Position.objects.filter(account__routes__strategy=OuterRef("strategy_id"))
    leaves = _trades_against(held) | CLOSES_EVERYTHING | Q(named__gt="")
    found = rows.annotate(
        leaves=ExpressionWrapper(leaves, BooleanField()),
        ahead=ArraySubquery(ahead.values("action")[:LOOKED_AT]),
    )
    return found.values_list("pk", "strategy_id", "symbol", "named", "action", "leaves", "ahead")


def _trades_against(held: QuerySet[Position]) -> Q:
    """Signals whose action makes one of the positions ``held`` smaller, in whatever symbol."""
    sells = Q(Exists(held.filter(quantity__gt=0)), action=Action.SELL.value)
    buys = Q(Exists(held.filter(quantity__lt=0)), action=Action.BUY.value)
    return sells | buys


def may_overtake(signal_id: UUID) -> bool:
    """Whether the signal is undecided, and something else waits before it."""
    return any(place.may_overtake for place in _look([signal_id]))


def to_wake(signal_ids: Sequence[str], blocked: Container[Queue]) -> tuple[list[UUID], list[Queue]]:
    """What wants a thread because of ``signal_ids``: those that may overtake, and the queues. What is
    behind another in one of the ``blocked`` queues wakes none.
    """
    found = places(signal_ids)
    overtaking = [place.signal_id for place in found if place.may_overtake]
    woken = (one.queue for one in found if not (one.is_behind and one.queue in blocked))
    return overtaking, list(dict.fromkeys(woken))


class Next(NamedTuple):
    """The signal to decide next, and whether another waits behind it."""

    signal: Signal
    has_more: bool


def next_undecided(queue: Queue) -> Next | None:
    """The signal of a queue to decide next: in order of arrival, but one that closes the position
    overtakes what it makes void.
    """
    place = dict(zip(_OF_QUEUE, queue, strict=True))
    first = _first_two(**place)
    if len(first) > 1:
        return Next(_last_closing.first(**place) or first[0], has_more=True)
    return Next(first[0], has_more=False) if first else None


@Prepared
def _first_two() -> QuerySet[Signal]:
    waiting = undecided(*map(given, _OF_QUEUE)).select_related("strategy")
    return waiting.order_by("id")[:2]


@Prepared
def _last_closing() -> QuerySet[Signal]:
    waiting = undecided(*map(given, _OF_QUEUE)).select_related("strategy")
    return waiting.filter(CLOSES_EVERYTHING).order_by("-id")[:1]


def exits_behind(signal: Signal) -> list[UUID]:
    """The first exits behind a signal that waits, one of each action: what they may not overtake, those
    behind them may not either.
    """
    if not is_plain(Alert.from_json(signal.alert)):
        return []
    place = dict(zip(_OF_QUEUE, key_of(signal), strict=True))
    return _first_exits(**place, signal=signal.pk)


@Prepared
def _first_exits() -> QuerySet[Signal, UUID]:
    routed = Q(account__routes__strategy=given("strategy"))
    held = Position.objects.filter(routed | Q(account__name=given("account")))
    behind = undecided(*map(given, _OF_QUEUE)).filter(_trades_against(held), pk__gt=given("signal"))
    return behind.order_by("action", "id").distinct("action").values_list("pk", flat=True)


def overtaking(signal_id: UUID) -> Signal | None:
    """The signal, if it is undecided and an exit that need not wait for what came before it: it closes
    everything, or the position covers it in every account, and it comes to the same in either order.
    """
    signal = _undecided_one.first(signal=signal_id)
    if signal is None:
        return None
    alert = Alert.from_json(signal.alert)
    if closes_everything(alert):
        return signal
    return signal if is_plain(alert) and is_sized(alert) and _is_covered(signal, alert) else None


@Prepared
def _undecided_one() -> QuerySet[Signal]:
    waiting = Signal.objects.filter(pk=given("signal"), state=SignalState.RECEIVED)
    return waiting.select_related("strategy")


def _is_covered(signal: Signal, alert: Alert) -> bool:
    """Whether every account where it is to be decided holds what the alert and the exits before it
    take, and nothing before it asks for a position of a certain size.
    """
    done = accounts_settled(orders_from(signal.pk))
    legs = [leg for leg in lane_legs(signal, alert) if leg.account.pk not in done]
    if not legs or not all(reduces(leg, alert) for leg in legs):
        return False
    ahead = _alerts_before(**dict(zip(_OF_QUEUE, key_of(signal), strict=True)), signal=signal.pk)
    others = [Alert.from_json(stored) for stored in ahead]
    exits = [other for other in others if other.action is alert.action]
    if not all(map(is_plain, others)) or not all(map(is_sized, exits)):
        return False
    leaving = sum((other.quantity or Decimal(0) for other in exits), alert.quantity or Decimal(0))
    return all(is_covered(leg, alert.action, leaving, alive_in(leg)) for leg in legs)


@Prepared
def _alerts_before() -> QuerySet[Signal, dict[str, Any]]:
    before = undecided(*map(given, _OF_QUEUE)).filter(pk__lt=given("signal"))
    return before.order_by("id").values_list("alert", flat=True)


def undecided(
    strategy_id: int | Value, symbol: str | Value, account: str | Value
) -> QuerySet[Signal]:
    waiting = Signal.objects.filter(strategy_id=strategy_id, symbol=symbol)
    return waiting.annotate(named=ACCOUNT).filter(named=account, state=SignalState.RECEIVED)


def ended_by(kind: Q) -> Subquery:
    """Of a signal: one of ``kind`` that came later to its queue and has been carried out before it. Two
    processes store what they accept, and the one that came first may be seen last: its process waited
    for the database. What is ahead of this clock is no later one, but from before it was set back.
    """
    later = Signal.objects.filter(ENDING, kind, state__in=CARRIED_OUT).annotate(named=ACCOUNT)
    mine = later.filter(
        strategy_id=OuterRef("strategy_id"),
        symbol=OuterRef("symbol"),
        named=Coalesce(
            KeyTextTransform("account", OuterRef("alert")), Value(""), output_field=TextField()
        ),
        pk__gt=OuterRef("pk"),
        received_at__lte=given("now"),
    )
    return Subquery(mine.order_by("id").values("pk")[:1])


def closes_everything(alert: Alert) -> bool:
    is_close = alert.action is Action.CLOSE and alert.quantity is None
    return is_close or alert.market_position is MarketPosition.FLAT


class Last(NamedTuple):
    """The signal that came last to a queue; ``closes`` when it wants no position at all."""

    signal_id: UUID
    queue: Queue
    action: str
    closes: bool


def waiting_for(account: Account, symbol: str) -> list[Last]:
    """The latest undecided signal of each strategy and name for ``symbol`` that may wait for this lane.

    Of a flood the first and the last are looked at; the sweep sees the others.
    """
    found = _newest(account=account.pk, name=account.name)
    if not found:
        return []
    rows = aliases_of(account.pk)
    shares = known_shares(account)
    return [
        Last(pk, (strategy, named, of_account), action, bool(closes))
        for pk, strategy, named, of_account, action, closes in found
        if _means(named, rows, symbol, shares=shares)
    ]


@Prepared
def _newest() -> QuerySet[Signal, tuple[UUID, int, str, str, str, bool | None]]:
    routed = Q(strategy__routes__account=given("account"))
    by_hand = Q(named=given("name"))
    waiting = Signal.objects.filter(state=SignalState.RECEIVED)
    first, last = (waiting.order_by(way).values("pk")[:LOOKED_AT] for way in ("id", "-id"))
    return (
        waiting.filter(pk__in=first.union(last))
        .annotate(named=ACCOUNT, closes=ExpressionWrapper(CLOSES_EVERYTHING, BooleanField()))
        .filter(routed | by_hand)
        .order_by("strategy_id", "symbol", "alert__account", "-id")
        .distinct("strategy_id", "symbol", "alert__account")
        .values_list("pk", "strategy_id", "symbol", "named", "action", "closes")
    )


def _means(named: str, rows: Sequence[SymbolAlias], symbol: str, *, shares: Shares) -> bool:
    today = timezone.now().date()
    if symbol in of_earlier_days(named, rows, today):
        return True
    try:
        return resolve(named, in_force(rows, today), allows_delayed=True, shares=shares) == symbol
    except UnknownSymbolError:
        return named == symbol

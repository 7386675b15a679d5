"""The kill switch: ACTIVE, REDUCING or HALTED for everything, or for a venue, account,
strategy or symbol.

A change takes an exclusive advisory lock, every claim of an order for sending takes the shared one
in its own transaction (``fence``). So once ``change`` has committed, no claim that read the older
state can still commit: nothing that increases risk is claimed for sending afterwards.
"""

from __future__ import annotations

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from brokers.prepared import Prepared, given
from risk import audit, notices
from risk.channels import Event
from risk.models import TradingState
from risk.types import ReasonCode, Refusal

HALT, CHANGE = "risk.halt_tradingstate", "risk.change_tradingstate"
FENCE_LOCK = 0x464B5301
_STRICTNESS = {
    TradingState.State.ACTIVE: 0,
    TradingState.State.REDUCING: 1,
    TradingState.State.HALTED: 2,
}


def loosens(
    state: TradingState.State,
    *,
    scope: TradingState.Scope = TradingState.Scope.GLOBAL,
    key: str = "",
) -> bool:
    """Whether ``state`` would let through what the scope forbids now."""
    row = TradingState.objects.filter(scope=scope, key=key).first()
    now = TradingState.State(row.state) if row else TradingState.State.ACTIVE
    return _STRICTNESS[state] < _STRICTNESS[now]


def change(
    state: TradingState.State,
    *,
    scope: TradingState.Scope = TradingState.Scope.GLOBAL,
    key: str = "",
    flatten: bool | None = None,
    reason: str,
) -> TradingState:
    """Set the state of a scope; in force everywhere when this has committed. Needs PostgreSQL only.

    ``flatten`` is an order to close what the scope holds. Unless it is named, one that stands goes on
    while the scope stays halted: nobody halts to take it back.
    """
    with transaction.atomic():
        hold()
        row, _ = TradingState.objects.get_or_create(
            scope=scope, key=key, defaults={"changed_at": timezone.now()}
        )
        before = _told(row)
        flatten = row.flatten and state == TradingState.State.HALTED if flatten is None else flatten
        TradingState.objects.filter(pk=row.pk).update(
            state=state,
            flatten=flatten,
            generation=F("generation") + 1,
            reason=reason,
            changed_by=audit.current_actor().name,
            changed_at=timezone.now(),
        )
        row.refresh_from_db()
        audit.record(
            "trading_state.changed",
            f"{scope} {key}".strip(),
            before=before,
            after=_told(row) | {"generation": row.generation},
            reason=reason,
        )
        resumes = state == TradingState.State.ACTIVE
        event = Event.TRADING_RESUMED if resumes else Event.TRADING_SWITCHED
        notices.tell(event, lambda: _news(row))
    return row


def _told(row: TradingState) -> dict[str, str | bool]:
    return {"state": row.state} | ({"flatten": True} if row.flatten else {})


def hold() -> None:
    """Keep changes and claims of others waiting until the caller's transaction ends; for whoever
    looks at a state before changing it.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [FENCE_LOCK])


def _news(row: TradingState) -> notices.News:
    flat = ", close what is open" if row.flatten else ""
    return notices.News(
        f"Trading is {row.get_state_display()} for {row.where}{flat}",
        f"{row.changed_by}: {row.reason}",
        account=row.key if row.scope == TradingState.Scope.ACCOUNT else "",
        strategy=row.key if row.scope == TradingState.Scope.STRATEGY else "",
        symbol=row.key if row.scope == TradingState.Scope.SYMBOL else "",
    )


def fence() -> None:
    """Hold off changes until the caller's transaction ends; call before ``standing`` when claiming."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [FENCE_LOCK])


def standing(*, account: str, venue: str, symbol: str, strategy: str = "") -> TradingState | None:
    """The strictest row that touches an order of these, ``None`` when all is active."""
    rows = _not_active(account=account, venue=venue, symbol=symbol, strategy=strategy)
    return max(rows, key=lambda row: _STRICTNESS[TradingState.State(row.state)], default=None)


def not_active() -> QuerySet[TradingState]:
    """Every scope in which something is forbidden."""
    return TradingState.objects.exclude(state=TradingState.State.ACTIVE)


@Prepared
def _not_active() -> QuerySet[TradingState]:
    return not_active().filter(
        Q(scope=TradingState.Scope.GLOBAL)
        | Q(scope=TradingState.Scope.ACCOUNT, key=given("account"))
        | Q(scope=TradingState.Scope.STRATEGY, key=given("strategy"))
        | Q(scope=TradingState.Scope.VENUE, key=given("venue"))
        | Q(scope=TradingState.Scope.SYMBOL, key=given("symbol"))
    )


def refuse_if_switched_off(
    *, account: str, venue: str, symbol: str, strategy: str, is_exit: bool
) -> None:
    """Raise Refusal when the switch forbids an order: HALTED all, REDUCING all but exits."""
    row = standing(account=account, venue=venue, symbol=symbol, strategy=strategy)
    if row is None:
        return
    numbers = {"scope": str(row.scope), "generation": str(row.generation)}
    if row.state == TradingState.State.HALTED:
        raise Refusal(
            ReasonCode.TRADING_HALTED, f"trading is halted for {row.where}: {row.reason}", numbers
        )
    if not is_exit:
        raise Refusal(
            ReasonCode.REDUCE_ONLY,
            f"only orders that reduce a position pass for {row.where}: {row.reason}",
            numbers,
        )

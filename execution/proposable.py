"""The changes of this floor that the two-person rule knows."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from django.db import transaction

from execution.certificates import pinned
from execution.halting import Mode, press
from execution.models import Strategy
from risk import audit, proposals, switch
from risk.arithmetic import text
from risk.models import IPAllowlist, Proposal, TradingState
from risk.proposals import Kind, Payload, Secrets, Shown, register


def release_payload(mode: Mode, scope: TradingState.Scope, key: str) -> Payload:
    """A press of the kill switch, as a proposal has it."""
    return {"mode": mode.value, "scope": scope.value, "key": key}


def _trading(payload: Payload) -> str:
    row = TradingState(scope=payload["scope"], key=payload["key"])
    return f"trading for {row.where}"


def _before(payload: Payload) -> Shown:
    """With the generation: whoever halted again meanwhile has not been asked."""
    switch.hold()
    row = TradingState.objects.filter(scope=payload["scope"], key=payload["key"]).first()
    return {"state": row.state, "generation": row.generation, "why": row.reason} if row else {}


def _loosens(payload: Payload, _secrets: Secrets) -> bool:
    scope = TradingState.Scope(payload["scope"])
    return switch.loosens(Mode(payload["mode"]).state, scope=scope, key=payload["key"])


def _press(payload: Payload, _secrets: Secrets, reason: str) -> None:
    scope = TradingState.Scope(payload["scope"])
    press(Mode(payload["mode"]), scope=scope, key=payload["key"], reason=reason)


RELEASE = register(
    Kind(
        name="release",
        label="Release the kill switch",
        right=switch.CHANGE,
        subject=_trading,
        before=_before,
        after=lambda payload: {"state": Mode(payload["mode"]).state.value},
        loosens=_loosens,
        apply=_press,
    )
)


def press_or_propose(
    mode: Mode,
    scope: TradingState.Scope,
    key: str,
    *,
    reason: str,
    may: Callable[[], None] = lambda: None,
) -> Proposal | None:
    """Press the kill switch, or propose to release it; ``None`` when it is pressed.

    ``may`` raises where it must not be pressed; nobody else presses between its look and the press.
    """
    payload = release_payload(mode, scope, key)
    with transaction.atomic():
        switch.hold()
        may()
        if not proposals.must_wait(RELEASE.name, payload):
            press(mode, scope=scope, key=key, reason=reason)
            return None
    # Whoever approves holds the older proposal first, then the switch: so not in the same transaction.
    return proposals.propose(RELEASE.name, payload, reason=reason)


# --- who may post to a strategy -------------------------------------------------------------------


CERTIFICATE_COLUMNS = ("client_fingerprints", "client_issuer")
SENDERS_COLUMNS = ("allowlist", *CERTIFICATE_COLUMNS)


def senders_payload(strategy: Strategy) -> Payload:
    """The addresses and certificates ``strategy`` is to let in, as a proposal has them."""
    allowlist = strategy.allowlist.name if strategy.allowlist else ""
    return {"strategy": strategy.slug, "allowlist": allowlist} | _certificate(strategy)


def _certificate(strategy: Strategy) -> Shown:
    return {name: getattr(strategy, name) for name in CERTIFICATE_COLUMNS}


def _strategy(payload: Payload) -> Strategy:
    row = Strategy.objects.filter(slug=payload["strategy"]).select_related("allowlist").first()
    if row is None:
        raise ValueError(f"there is no strategy {payload['strategy']!r}")
    return row


def _senders(payload: Payload) -> Shown:
    """As people compare them."""
    certificate = {name: payload[name] or "none" for name in CERTIFICATE_COLUMNS}
    return {"allowlist": payload["allowlist"] or "none: any address"} | certificate


def _senders_now(payload: Payload) -> Shown:
    return _senders(senders_payload(_strategy(payload)))


def _opens(payload: Payload, _secrets: Secrets) -> bool:
    """Another allowlist or certificate, or none any more; the first one only keeps others out, and so
    does one fingerprint less.
    """
    row = _strategy(payload)
    if row.allowlist is not None and row.allowlist.name != payload["allowlist"]:
        return True
    now = pinned(row.client_fingerprints, row.client_issuer)
    then = pinned(payload["client_fingerprints"], payload["client_issuer"])
    return now is not None and (then is None or not then.is_within(now))


def _set_senders(payload: Payload, _secrets: Secrets, reason: str) -> None:
    row, before = _strategy(payload), _senders_now(payload)
    row.allowlist = None
    if payload["allowlist"]:
        row.allowlist = IPAllowlist.objects.filter(name=payload["allowlist"]).first()
        if row.allowlist is None:
            raise ValueError(f"there is no allowlist {payload['allowlist']!r}")
    for name in CERTIFICATE_COLUMNS:
        setattr(row, name, payload[name])
    row.save(update_fields=SENDERS_COLUMNS)
    after = _senders(payload)
    audit.record("strategy.changed", f"strategy {row}", before=before, after=after, reason=reason)


SENDERS = register(
    Kind(
        name="senders",
        label="Let others post to a strategy",
        right="risk.change_ipallowlist",
        subject=lambda payload: f"senders of strategy {payload['strategy']}",
        before=_senders_now,
        after=_senders,
        loosens=_opens,
        apply=_set_senders,
    )
)


# --- whether a strategy's orders wait for a person ------------------------------------------------

APPROVAL_COLUMNS = ("needs_approval", "exits_need_approval", "approval_seconds")


def approval_payload(strategy: Strategy) -> Payload:
    """The approval mode ``strategy`` is to have, as a proposal has it."""
    return {"strategy": strategy.slug, "mode": _approval_mode(strategy)}


def _approval_mode(strategy: Strategy) -> Shown:
    return {name: getattr(strategy, name) for name in APPROVAL_COLUMNS}


def _frees(payload: Payload, _secrets: Secrets) -> bool:
    """Orders that had to wait would not have to any more, or could be approved later than now."""
    before, after = _approval_mode(_strategy(payload)), payload["mode"]
    if not before["needs_approval"]:
        return False
    given_up = any(before[name] and not after[name] for name in APPROVAL_COLUMNS[:2])
    return given_up or bool(after["approval_seconds"] > before["approval_seconds"])


def _set_approval(payload: Payload, _secrets: Secrets, reason: str) -> None:
    row = _strategy(payload)
    before = _approval_mode(row)
    for name in APPROVAL_COLUMNS:
        setattr(row, name, payload["mode"][name])
    row.save(update_fields=APPROVAL_COLUMNS)
    after = _approval_mode(row)
    audit.record("strategy.changed", f"strategy {row}", before=before, after=after, reason=reason)


APPROVAL = register(
    Kind(
        name="approval",
        label="Let a strategy trade with less approval",
        right="execution.change_strategy",
        subject=lambda payload: f"approval mode of strategy {payload['strategy']}",
        before=lambda payload: _approval_mode(_strategy(payload)),
        after=lambda payload: dict(payload["mode"]),
        loosens=_frees,
        apply=_set_approval,
    )
)


# --- what a strategy asks of its alerts -----------------------------------------------------------

LEAST_COLUMNS, FLAG_COLUMNS = (
    ("min_confidence", "min_reward_risk"),
    ("requires_confidence", "requires_reward_risk"),
)
DEMAND_COLUMNS = (*LEAST_COLUMNS, *FLAG_COLUMNS, "max_drift")


def demands_payload(strategy: Strategy) -> Payload:
    """What ``strategy`` is to ask of an entry, as a proposal has it."""
    return {"strategy": strategy.slug, "demands": _demands(strategy)}


def _demands(strategy: Strategy) -> Shown:
    values = {name: getattr(strategy, name) for name in DEMAND_COLUMNS}
    return {
        name: text(value) if isinstance(value, Decimal) else value for name, value in values.items()
    }


def _asks_less(payload: Payload, _secrets: Secrets) -> bool:
    before, after = _demands(_strategy(payload)), payload["demands"]
    if any(before[name] and not after[name] for name in FLAG_COLUMNS):
        return True
    if any(_is_less(after[name], before[name]) for name in LEAST_COLUMNS):
        return True
    drift, wanted = before["max_drift"], after["max_drift"]
    return drift is not None and (wanted is None or Decimal(wanted) > Decimal(drift))


def _is_less(after: str | None, before: str | None) -> bool:
    return before is not None and (after is None or Decimal(after) < Decimal(before))


def _set_demands(payload: Payload, _secrets: Secrets, reason: str) -> None:
    row = _strategy(payload)
    before = _demands(row)
    for name in DEMAND_COLUMNS:
        value = payload["demands"][name]
        setattr(row, name, Decimal(value) if isinstance(value, str) else value)
    row.save(update_fields=DEMAND_COLUMNS)
    after = _demands(row)
    audit.record("strategy.changed", f"strategy {row}", before=before, after=after, reason=reason)


DEMANDS = register(
    Kind(
        name="demands",
        label="Let a strategy ask less of its alerts",
        right="execution.change_strategy",
        subject=lambda payload: f"demands of strategy {payload['strategy']}",
        before=lambda payload: _demands(_strategy(payload)),
        after=lambda payload: dict(payload["demands"]),
        loosens=_asks_less,
        apply=_set_demands,
    )
)

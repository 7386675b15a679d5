"""The changes the two-person rule knows: what each shows, when it loosens, and how it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from django.db import models
from django.db.models import Q

from brokers import keys
from brokers.accounts import forget_comparison, refuse_other_environment, set_credentials
from brokers.decimals import decimal_text
from brokers.errors import ConfigurationError
from brokers.models import Account, ExchangeCredential
from risk import audit, limits, scopes
from risk.check import REQUIRED
from risk.models import AllowedNetwork, IPAllowlist, RiskLimit, Safeguards
from risk.proposals import Kind, Payload, Secrets, Shown, register
from risk.rules import RULES
from risk.types import LimitMode

_STRICTNESS = {LimitMode.OFF: 0, LimitMode.OBSERVE: 1, LimitMode.ENFORCE: 2}


# --- a limit --------------------------------------------------------------------------------------


def limit_payload(
    rule: str,
    value: Decimal,
    *,
    account: str = "",
    strategy: str = "",
    symbol: str = "",
    mode: LimitMode = LimitMode.ENFORCE,
    parameters: Mapping[str, str] | None = None,
) -> Payload:
    """A limit to be set, as ``limits.set_limit`` takes it. Raises ValueError for what cannot be one."""
    limits.refuse_invalid(rule, value, parameters or {})
    row = _account_named(account) if account else None
    return {
        "rule": rule,
        "value": decimal_text(value),
        "mode": mode.value,
        "account": account,
        "strategy": strategy,
        "symbol": limits.symbol_in_scope(row, strategy, symbol, mode),
        "parameters": None if parameters is None else scopes.group_of(rule, parameters),
    }


def _limit(payload: Payload) -> RiskLimit | None:
    rows = RiskLimit.objects.filter(
        rule=payload["rule"],
        policy__strategy=payload["strategy"],
        policy__symbol=payload["symbol"],
    )
    if not payload["account"]:
        return rows.filter(policy__account=None).first()
    return rows.filter(policy__account__name=payload["account"]).first()


def limit_of(payload: Payload) -> RiskLimit:
    """The limit a payload sets. Raises ValueError while it is not set."""
    row = _limit(payload)
    if row is None:
        raise ValueError(f"the {_limit_subject(payload)} is not set")
    return row


def _limit_subject(payload: Payload) -> str:
    scope = [
        f"{name} {payload[name]}" for name in ("account", "strategy", "symbol") if payload[name]
    ]
    return f"limit {payload['rule']} ({', '.join(scope) or 'everything'})"


def _limit_before(payload: Payload) -> Shown:
    row = _limit(payload)
    return {} if row is None else dict(limits.state_of(row))


def _limit_after(payload: Payload) -> Shown:
    row = _limit(payload)
    kept = row.parameters if row else {}
    parameters = kept if payload["parameters"] is None else payload["parameters"]
    return {"value": payload["value"], "mode": payload["mode"]} | dict(parameters)


def _limit_loosens(payload: Payload, _secrets: Secrets) -> bool:
    row = _limit(payload)
    if row is None:
        return payload["rule"] in REQUIRED and not _is_enforced_around(payload)
    if _STRICTNESS[LimitMode(payload["mode"])] < _STRICTNESS[LimitMode(row.mode)]:
        return True
    if payload["parameters"] is not None and payload["parameters"] != row.parameters:
        return True
    value, known = Decimal(payload["value"]), RULES.get(row.rule)
    if known is not None and known.more_is_stricter:
        return value < row.value
    return value > row.value


def _is_enforced_around(payload: Payload) -> bool:
    """Whether trading in this scope has such a limit already: then one more can only be stricter."""
    return RiskLimit.objects.filter(
        Q(policy__account=None) | Q(policy__account__name=payload["account"]),
        rule=payload["rule"],
        mode=RiskLimit.Mode.ENFORCE,
        policy__strategy__in=("", payload["strategy"]),
        policy__symbol__in=("", payload["symbol"]),
    ).exists()


def _account_named(name: str) -> Account:
    row = Account.objects.filter(name=name).first()
    if row is None:
        raise ValueError(f"there is no account {name!r}")
    return row


def _set_limit(payload: Payload, _secrets: Secrets, reason: str) -> None:
    name = payload["account"]
    limits.set_limit(
        payload["rule"],
        Decimal(payload["value"]),
        account=_account_named(name) if name else None,
        strategy=payload["strategy"],
        symbol=payload["symbol"],
        mode=LimitMode(payload["mode"]),
        parameters=payload["parameters"],
        reason=reason,
    )


LIMIT = register(
    Kind(
        name="limit",
        label="Loosen a limit",
        right="risk.change_risklimit",
        subject=_limit_subject,
        before=_limit_before,
        after=_limit_after,
        loosens=_limit_loosens,
        apply=_set_limit,
    )
)


# --- an account -----------------------------------------------------------------------------------


def account_values(account: Account, names: Iterable[str]) -> Shown:
    """Columns of an account as a proposal holds them: what JSON does not know becomes text."""
    values = {name: getattr(account, name) for name in names}
    plain = (str, bool, int, dict, list, type(None))
    return {name: one if isinstance(one, plain) else str(one) for name, one in values.items()}


def _columns() -> dict[str, models.Field[Any, Any]]:
    return {field.name: field for field in Account._meta.concrete_fields}


def _account_before(payload: Payload) -> Shown:
    return account_values(_account_named(payload["account"]), payload["values"])


def _account_loosens(payload: Payload, secrets: Secrets) -> bool:
    """Credentials always; of a live account, or one that goes live, all but switching it off."""
    values = payload["values"]
    if secrets:
        return True
    live = Account.Environment.LIVE
    if live not in (_account_named(payload["account"]).environment, values.get("environment")):
        return False
    return bool(values) and values != {"is_active": False}


def _change_account(payload: Payload, secrets: Secrets, reason: str) -> None:
    row = _account_named(payload["account"])
    before = audit.snapshot(row)
    for name, value in payload["values"].items():
        setattr(row, name, _columns()[name].to_python(value))
    if payload["values"]:
        _refuse_going_live(row, before, secrets)
        _refuse_leaving(row, before)
        row.version += 1
        forgotten = forget_comparison(row, payload["values"])
        row.save(update_fields=[*payload["values"], *forgotten, "version"])
        audit.record(
            "account.changed",
            f"account {row}",
            before=before,
            after=audit.snapshot(Account.objects.get(pk=row.pk)),
            reason=reason,
        )
    if secrets:
        set_credentials(row, secrets)
        hint = ExchangeCredential.objects.get(account=row).hint
        subject = f"credential of account {row}"
        audit.record("credential.changed", subject, after={"hint": hint}, reason=reason)


def _refuse_going_live(row: Account, before: Mapping[str, Any], secrets: Secrets) -> None:
    """Raise ValueError where the change makes an account trade real money with a refused key."""
    live = Account.Environment.LIVE
    was_live = before["environment"] == live and before["is_active"]
    if not row.is_active or row.environment != live or was_live or secrets:
        return
    try:
        keys.refuse_going_live(row)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


def _refuse_leaving(row: Account, before: Mapping[str, Any]) -> None:
    """Raise ValueError where orders would be left behind in the environment that was."""
    if row.environment == before["environment"]:
        return
    try:
        refuse_other_environment(row)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error


ACCOUNT = register(
    Kind(
        name="account",
        label="Change an account that trades live, or its credentials",
        right="brokers.change_account",
        subject=lambda payload: f"account {payload['account']}",
        before=_account_before,
        after=lambda payload: dict(payload["values"]),
        loosens=_account_loosens,
        apply=_change_account,
    )
)


# --- an allowlist ---------------------------------------------------------------------------------


def _networks(payload: Payload) -> list[str]:
    rows = AllowedNetwork.objects.filter(allowlist__name=payload["allowlist"])
    return sorted(rows.values_list("cidr", flat=True))


def _allowlist_loosens(payload: Payload, _secrets: Secrets) -> bool:
    return bool(set(payload["networks"]) - set(_networks(payload)))


def _change_allowlist(payload: Payload, _secrets: Secrets, reason: str) -> None:
    allowlist = IPAllowlist.objects.filter(name=payload["allowlist"]).first()
    if allowlist is None:
        raise ValueError(f"there is no allowlist {payload['allowlist']!r}")
    wanted: dict[str, str] = payload["networks"]
    before = _networks(payload)
    allowlist.networks.exclude(cidr__in=wanted).delete()
    for cidr, note in wanted.items():
        allowlist.networks.update_or_create(cidr=cidr, defaults={"note": note})
    audit.record(
        "allowlist.changed",
        f"allowlist {allowlist}",
        before={"networks": before},
        after={"networks": sorted(wanted)},
        reason=reason,
    )


ALLOWLIST = register(
    Kind(
        name="allowlist",
        label="Let more addresses in",
        right="risk.change_ipallowlist",
        subject=lambda payload: f"allowlist {payload['allowlist']}",
        before=lambda payload: {"networks": _networks(payload)},
        after=lambda payload: {"networks": sorted(payload["networks"])},
        loosens=_allowlist_loosens,
        apply=_change_allowlist,
    )
)


# --- the safeguards themselves --------------------------------------------------------------------

_SAFEGUARDS = ("two_person", "proposal_hours", "second_factor")


def _safeguards_before(_payload: Payload) -> Shown:
    row = Safeguards.current()
    return {name: getattr(row, name) for name in _SAFEGUARDS}


def _safeguards_loosens(payload: Payload, _secrets: Secrets) -> bool:
    before = _safeguards_before(payload)
    given_up = any(before[name] and not payload[name] for name in ("two_person", "second_factor"))
    return given_up or payload["proposal_hours"] > before["proposal_hours"]


def _change_safeguards(payload: Payload, _secrets: Secrets, reason: str) -> None:
    before = _safeguards_before(payload)
    after: dict[str, Any] = {name: payload[name] for name in _SAFEGUARDS}
    if before == after:
        return
    Safeguards.objects.update_or_create(pk=1, defaults=after)
    audit.record("safeguards.changed", "safeguards", before=before, after=after, reason=reason)


SAFEGUARDS = register(
    Kind(
        name="safeguards",
        label="Give up a safeguard",
        right="risk.change_safeguards",
        subject=lambda _payload: "safeguards",
        before=_safeguards_before,
        after=lambda payload: {name: payload[name] for name in _SAFEGUARDS},
        loosens=_safeguards_loosens,
        apply=_change_safeguards,
    )
)

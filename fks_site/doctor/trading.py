"""What trades: credentials, accounts, strategies, limits, alarms and orders."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import QuerySet
from django.utils import timezone

from brokers import crypto
from brokers.aliases import aliases_of
from brokers.management.commands.check_account import MAX_SKEW_MS
from brokers.models import Account, ExchangeCredential
from brokers.registry import registry
from execution import halting, readiness
from execution.models import Alarm, Order, Position, Signal, Strategy
from execution.states import TERMINAL, UNRESOLVED, SignalState
from fks_site.doctor.findings import Finding, Findings, ago
from risk import scopes, switch
from risk.models import RiskLimit
from risk.rules import RULES, Start

SHOWN = 20
"""Rows of one kind that are named; of the others the number."""
WAITED = timedelta(seconds=30)

RUNBOOK = {
    Alarm.Kind.NEEDS_OPERATOR: "an-order-needs-an-operator",
    Alarm.Kind.UNANSWERED: "the-venue-does-not-say-how-orders-stand",
    Alarm.Kind.NAKED_POSITION: "a-position-is-unguarded",
    Alarm.Kind.NOT_FLAT: "the-kill-switch-has-something-left",
    Alarm.Kind.SILENT: "an-expected-alert-is-missing",
    Alarm.Kind.GAP: "an-expected-alert-is-missing",
    Alarm.Kind.UNREAD: "an-alert-could-not-be-read",
    Alarm.Kind.NOT_RECONCILED: "reconciliation-fails",
    Alarm.Kind.AUDIT_BROKEN: "the-audit-chain-is-broken",
    Alarm.Kind.LOGIN_NEEDED: "somebody-must-log-in-at-a-venue",
    Alarm.Kind.LOGIN_ENDS: "somebody-must-log-in-at-a-venue",
    Alarm.Kind.KEY_REFUSED: "a-key-may-withdraw-or-its-rights-were-changed",
    Alarm.Kind.KEY_CHANGED: "a-key-may-withdraw-or-its-rights-were-changed",
    Alarm.Kind.CHANNEL_DOWN: "notifications-do-not-arrive",
}
"""The section of docs/runbook.md on each kind of alarm."""


def credentials() -> Findings:
    for credential in ExchangeCredential.objects.select_related("account"):
        unreadable = f"the credential of {credential.account.name} cannot be read"
        again = "give CREDENTIAL_KEYS the key it was sealed with, or enter it anew on its page"
        try:
            credential.reveal()
        except crypto.DecryptionError as error:
            yield Finding(f"{unreadable}: {error}", again)
        except ValueError:
            yield Finding(f"{unreadable}: see CREDENTIAL_KEYS", again)


def accounts() -> Findings:
    for name, health in registry().health_check_all().items():
        if not health.ok:
            yield Finding(
                f"account {name}: {health.detail}",
                f"`manage.py check_account {name}` says more; until it answers nothing trades",
            )
        elif abs(health.clock_skew_ms or 0) > MAX_SKEW_MS:
            yield Finding(
                f"account {name}: its venue's clock and ours differ by {health.clock_skew_ms} ms, so "
                "orders may be refused",
                "keep this machine's clock by NTP (`timedatectl set-ntp true`)",
            )


def strategies() -> Findings:
    for strategy in Strategy.objects.filter(is_enabled=True):
        if strategy.is_manual:
            continue
        on_its_page = f"on the page of {strategy.slug}, or disable it"
        if strategy.needs_secret and not strategy.live_secrets.exists():
            what = f"strategy {strategy.slug} has no live secret: nobody can post to it"
            yield Finding(what, f"make one {on_its_page}")
        if ending := readiness.ending(strategy, f"strategy {strategy.slug}: its"):
            yield Finding(ending, f"make a new one {on_its_page}", is_warning=True)
        if not strategy.routes.filter(is_enabled=True).exists():
            what = f"strategy {strategy.slug} has no enabled route: its alerts trade nowhere"
            yield Finding(what, f"add an account {on_its_page}")
        if strategy.allowlist and not strategy.allowlist.networks.exists():
            what = f"strategy {strategy.slug} uses the empty allowlist {strategy.allowlist}"
            yield Finding(what, f"add the sender's networks, or choose another {on_its_page}")


def aliases() -> Findings:
    """What is held, or works, in a symbol that the rows of its alias no longer name."""
    lane = ("account__name", "symbol", "account")
    held = Position.objects.exclude(quantity=0).values_list(*lane)
    working = Order.objects.exclude(state__in=TERMINAL).values_list(*lane)
    today = timezone.now().date()
    for name, symbol, account_id in sorted({*held, *working}):
        rows = [row for row in aliases_of(account_id) if row.symbol == symbol]
        if rows and all(row.valid_until and row.valid_until < today for row in rows):
            yield Finding(
                f"account {name} still has {symbol}, and its alias has ended: {rows[0]}",
                f"an alert by {rows[0].alias} that closes or cancels still reaches it; "
                "what opens does not",
                is_warning=True,
            )


def limits() -> Findings:
    """Rules an installation starts with that nobody enforces for all strategies and symbols."""
    enforced = RiskLimit.objects.filter(mode=RiskLimit.Mode.ENFORCE)
    if not enforced.exists():
        yield Finding("no limit is enforced, so nothing trades", "see `manage.py set_limit --help`")
        return
    rows = enforced.filter(policy__strategy="", policy__symbol="")
    have = set(rows.values_list("rule", "policy__account_id"))
    usual = [rule.name for rule in RULES.values() if rule.start is Start.ENFORCE]
    missing: dict[tuple[str, ...], list[str]] = {}
    for account in Account.objects.filter(is_active=True):
        lacks = [name for name in usual if not {(name, None), (name, account.pk)} & have]
        if lacks:
            missing.setdefault(tuple(lacks), []).append(account.name)
    for rules, names in missing.items():
        yield Finding(
            f"not enforced on {', '.join(names)}: {', '.join(rules)}",
            f"`manage.py set_limit {rules[0]} VALUE --reason …`, or be sure that you mean it",
            is_warning=True,
        )


def limited() -> Findings:
    """Limits that no order meets."""
    used = RiskLimit.objects.exclude(mode=RiskLimit.Mode.OFF).order_by("policy", "rule")
    for limit in used.select_related("policy__account"):
        if why := scopes.why_void(limit.policy, limit):
            yield Finding(
                f"limit {limit.rule} ({limit.policy}) does not apply: {why}",
                "set it for what there is, and switch this one off on the page of its limits",
                is_warning=True,
            )


def switches() -> Findings:
    for row in switch.not_active():
        yield Finding(f"{row}: {row.reason}", f"release it with `{halting.release_command(row)}`")


def alarms() -> Findings:
    """What was noticed and is not over; the newest first."""
    raised = Alarm.objects.filter(cleared_at=None).select_related("account")
    for alarm in raised[:SHOWN]:
        since = ago(timezone.now() - alarm.raised_at)
        section = RUNBOOK[Alarm.Kind(alarm.kind)]
        what = f"alarm for {since}: {alarm}: {alarm.detail}"
        yield Finding(what, f"docs/runbook.md#{section}")
    yield from _more(raised, "alarms")


def orders() -> Findings:
    unresolved = Order.objects.filter(state__in=UNRESOLVED)
    for order in unresolved.select_related("account")[:SHOWN]:
        yield Finding(
            f"order {order.pk} ({order}) is {order.get_state_display()}",
            "docs/runbook.md#an-order-is-unknown",
        )
    yield from _more(unresolved, "orders of unknown outcome")
    waiting = Signal.objects.filter(
        state=SignalState.RECEIVED, received_at__lt=timezone.now() - WAITED
    ).count()
    if waiting:
        yield Finding(
            f"{waiting} alerts have waited more than 30 s for a decision",
            "docs/runbook.md#alerts-arrive-and-nothing-happens",
        )


def _more(rows: QuerySet[Alarm] | QuerySet[Order], what: str) -> Findings:
    left = rows.count() - SHOWN
    if left > 0:
        yield Finding(f"and {left} more {what}", "they are in the admin")

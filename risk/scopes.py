"""What limits are set for: a strategy there is, and symbols as orders carry them. Elsewhere a limit
would be accepted and never apply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from django.db.models import Q

from brokers.aliases import symbol_for
from brokers.errors import BrokerError, UnknownSymbolError
from brokers.models import Account, Instrument, SymbolAlias
from brokers.symbols import resolve
from risk.models import RiskLimit, RiskPolicy
from risk.rules import RULES
from risk.rules.parameters import names

has_strategy: list[Callable[[str], bool]] = []
"""Whether there is a strategy of a slug: the floor that keeps them adds its answer."""


def strategy_of(slug: str) -> str:
    """``slug`` if a strategy has it. Raises ValueError, in a sentence for the operator."""
    if slug and not any(knows(slug) for knows in has_strategy):
        raise ValueError(f"there is no strategy {slug!r}")
    return slug


def symbol_of(text: str, account: Account | None = None) -> str:
    """``text`` as orders of ``account`` carry it, or of every account. Raises ValueError."""
    if not text or _is_known(text, account):
        return text
    if "!" in text:
        raise ValueError(f"{text!r} changes its contract: name the contract")
    meant = _meant(text, [account] if account else list(Account.objects.all()))
    if len(set(meant.values())) > 1:
        listed = ", ".join(f"{symbol} on {name}" for name, symbol in meant.items())
        raise ValueError(f"{text!r} is {listed}: write which one, or name the account")
    return next(iter(meant.values()))


def group_of(rule: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """``parameters`` of ``rule`` with the symbols they name as orders carry them. Raises ValueError.

    A word without a sign stays: it is a base asset, or a pair written as one.
    """
    found = dict(parameters)
    for name, words in _named(rule, parameters).items():
        try:
            found[name] = " ".join(_as_carried(word) for word in words)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return found


def why_void(policy: RiskPolicy, limit: RiskLimit | None = None) -> str:
    """Why no order is in the scope of ``policy``, or which symbol of ``limit`` none carries; nothing
    where all is well.
    """
    named = {} if limit is None else _named(limit.rule, limit.parameters)
    try:
        strategy_of(policy.strategy)
        carried = {policy.symbol: symbol_of(policy.symbol, policy.account)}
        carried |= {word: _as_carried(word) for words in named.values() for word in words}
    except ValueError as error:
        return str(error)
    wrong = [
        f"orders carry {found}, not {text}" for text, found in carried.items() if found != text
    ]
    return "; ".join(wrong)


def _named(rule: str, parameters: Mapping[str, str]) -> dict[str, list[str]]:
    """The words of every parameter that names symbols."""
    known = RULES[rule].parameters if rule in RULES else ()
    told = {one.name: parameters.get(one.name, "") for one in known if one.read is names}
    return {name: sorted(names(text)) for name, text in told.items() if text}


def _as_carried(word: str) -> str:
    return word if word.isascii() and word.isalnum() else symbol_of(word)


def _is_known(symbol: str, account: Account | None) -> bool:
    """Whether it was traded or asked about by this name, or an alias leads to it."""
    instruments, aliases = Instrument.objects.all(), SymbolAlias.objects.all()
    if account is not None:
        instruments = instruments.filter(account=account)
        aliases = aliases.filter(Q(account=account) | Q(account=None))
    return any(rows.filter(symbol=symbol).exists() for rows in (instruments, aliases))


def _meant(text: str, accounts: list[Account]) -> dict[str, str]:
    """The symbol by account, of those that know one. Raises ValueError where none does."""
    today, meant, refused = datetime.now(UTC).date(), {}, ""
    for account in accounts:
        try:
            meant[account.name] = symbol_for(account, text, today, allows_delayed=True)
        except BrokerError as error:
            refused = str(error)
    if meant:
        return meant
    try:
        return {"": resolve(text, allows_delayed=True)}
    except UnknownSymbolError as error:
        raise ValueError(refused or str(error)) from error

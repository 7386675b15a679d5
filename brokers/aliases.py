"""An account's own names for symbols: the aliases operators keep, and suggestions for a near miss."""

from __future__ import annotations

from datetime import date
from difflib import get_close_matches

from django.db.models import F, Q, QuerySet

from brokers.errors import UnknownSymbolError
from brokers.models import Account, Instrument, SymbolAlias
from brokers.prepared import Prepared, given
from brokers.registry import registry
from brokers.symbols import resolve, squashed

MOST_SUGGESTIONS = 3
LIKENESS = 0.75


def aliases_on(today: date, account_id: int) -> list[tuple[str, str]]:
    """(alias, symbol) in force today: the account's own before those of all accounts."""
    return [(row.alias, row.symbol) for row in _rows(account_id) if row.is_valid_on(today)]


def symbol_for(account: Account, text: str, today: date, *, allows_delayed: bool = False) -> str:
    """The unified symbol ``text`` means on ``account`` today. Raises UnknownSymbolError.

    What only an alias led to (``ES 12-26``, ``BRK.B/USD``) is known by its own name from then on: a
    position in it is closed by that name.
    """
    try:
        return resolve(
            text,
            aliases_on(today, account.pk),
            allows_delayed=allows_delayed,
            shares=trades_shares(account),
        )
    except UnknownSymbolError as error:
        if Instrument.objects.filter(account=account, symbol=text).exists():
            return text
        same = [row for row in _rows(account.pk) if row.alias.upper() == text.strip().upper()]
        if same:
            raise UnknownSymbolError(f"{error}: {same[0]} is not valid on {today}") from error
        raise


def trades_shares(account: Account) -> bool:
    """Whether a lone ticker is a share on ``account``."""
    return registry().get(account.broker).trades_shares(account.options)


def _rows(account_id: int) -> list[SymbolAlias]:
    return _aliases(account=account_id)


@Prepared
def _aliases() -> QuerySet[SymbolAlias]:
    mine = SymbolAlias.objects.filter(Q(account=given("account")) | Q(account=None))
    newest_first = F("valid_from").desc(nulls_last=True)
    return mine.order_by(F("account").asc(nulls_last=True), newest_first)


def suggestions(account: Account, text: str) -> list[str]:
    """Symbols the account knows that look like ``text``, the likest first."""
    aliases = SymbolAlias.objects.filter(Q(account=account) | Q(account=None))
    known = {
        squashed(name): symbol
        for name, symbol in [
            *(
                (symbol, symbol)
                for symbol in Instrument.objects.filter(account=account).values_list(
                    "symbol", flat=True
                )
            ),
            *aliases.values_list("alias", "symbol"),
        ]
    }
    alike = get_close_matches(squashed(text), list(known), MOST_SUGGESTIONS, LIKENESS)
    return list(dict.fromkeys(known[name] for name in alike))

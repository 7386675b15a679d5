"""An account's own names for symbols: the aliases operators keep, and suggestions for a near miss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from difflib import get_close_matches

from django.db.models import F, Q, QuerySet

from brokers.errors import ConfigurationError, UnknownSymbolError
from brokers.models import Account, Instrument, SymbolAlias
from brokers.prepared import Prepared, given
from brokers.registry import registry
from brokers.symbols import Shares, is_named, resolve, squashed

MOST_SUGGESTIONS = 3
LIKENESS = 0.75


def aliases_of(account_id: int) -> list[SymbolAlias]:
    """Every row that counts for the account, whatever its days: its own before those of all, the
    newest first.
    """
    return _aliases(account=account_id)


def in_force(rows: Iterable[SymbolAlias], today: date) -> list[tuple[str, str]]:
    """(alias, symbol) of the rows that hold today."""
    return [(row.alias, row.symbol) for row in rows if row.is_valid_on(today)]


def of_earlier_days(text: str, rows: Iterable[SymbolAlias], today: date) -> list[str]:
    """What ``text`` has been an alias of, the latest first: a position stays under the symbol it was
    opened in, however its alias moves on.
    """
    named = (row for row in rows if is_named(text, row.alias))
    return [row.symbol for row in named if row.valid_until and row.valid_until < today]


def symbol_for(
    account: Account,
    text: str,
    today: date,
    *,
    allows_delayed: bool = False,
    rows: Sequence[SymbolAlias] | None = None,
    shares: Shares | None = None,
) -> str:
    """The unified symbol ``text`` means on ``account`` today. Raises UnknownSymbolError, and
    ConfigurationError where the account's plugin cannot say what a lone ticker is.

    What only an alias led to (``ES 12-26``, ``BRK.B/USD``) is known by its own name from then on: a
    position in it is closed by that name. ``rows`` are those of ``aliases_of``, where they are known,
    and ``shares`` is what a lone ticker is there.
    """
    rows = aliases_of(account.pk) if rows is None else rows
    try:
        return resolve(
            text,
            in_force(rows, today),
            allows_delayed=allows_delayed,
            shares=trades_shares(account) if shares is None else shares,
        )
    except UnknownSymbolError as error:
        if Instrument.objects.filter(account=account, symbol=text).exists():
            return text
        same = [row for row in rows if row.alias.upper() == text.strip().upper()]
        if same:
            raise UnknownSymbolError(f"{error}: {same[0]} is not valid on {today}") from error
        raise


def trades_shares(account: Account) -> Shares:
    """What a lone ticker is on ``account``. Raises ConfigurationError."""
    return registry().trades_shares(account.broker, account.options)


def known_shares(account: Account) -> Shares:
    """As ``trades_shares``. Where the plugin cannot say, a lone ticker is a share beside other things:
    that finds what our own tables have of the account, and nothing is sent there.
    """
    try:
        return trades_shares(account)
    except ConfigurationError:
        return Shares.ALSO


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

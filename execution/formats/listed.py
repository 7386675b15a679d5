"""A symbol and the exchange it is listed at, which some senders write into two fields."""

from __future__ import annotations

from execution.schema import Fields

LONGEST = 60


def listed_symbol(fields: Fields, exchange: str, symbol: str) -> str:
    """``BINANCE:BTCUSDT`` of the fields named ``exchange`` and ``symbol``."""
    where = fields.text(exchange, most=25)
    ticker = fields.text(symbol, most=34, required=True)
    joined = f"{where.upper()}:{ticker}" if where and ":" not in ticker else ticker
    if len(joined) > LONGEST:  # capitals may take more characters: those of "ß" are two
        fields.complain(exchange, f"longer than {LONGEST} characters in capitals, with its symbol")
    return joined

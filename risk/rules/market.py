"""Whether the market data can be trusted: while it is in doubt, nothing is opened."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from risk.arithmetic import is_positive
from risk.rules.parameters import Parameter, seconds
from risk.rules.registry import Start, Unit, compared, failed, passed, rule
from risk.types import Facts, Intent, Limit, ReasonCode, Size, Verdict


@rule(
    "max_quote_age",
    label="oldest quote",
    unit=Unit.SECONDS,
    default="5",
    help="Age of the quote an entry is judged by, or how far it is ahead of our clock.",
    start=Start.ENFORCE,
)
def max_quote_age(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    age = Decimal(str(abs((facts.at - facts.quote.at).total_seconds())))
    return compared(limit, "age of the quote in seconds", age, limit.value)


@rule(
    "max_spread",
    label="widest spread",
    unit=Unit.PRICE_FRACTION,
    default="0.02",
    help="(ask − bid) ÷ their mean. A crossed quote, or one without a price, never passes.",
    start=Start.ENFORCE,
)
def max_spread(
    limit: Limit, intent: Intent, size: Size, facts: Facts, _: Mapping[str, Any]
) -> Verdict:
    quote = facts.quote
    if not (is_positive(quote.bid) and is_positive(quote.ask)):
        return failed(limit, ReasonCode.MAX_SPREAD, "the quote has no usable price on one side")
    spread = quote.ask - quote.bid
    if spread < 0:
        return failed(
            limit, ReasonCode.MAX_SPREAD, "the quote is crossed: its bid is above its ask",
            bid=quote.bid, ask=quote.ask,
        )  # fmt: skip
    return compared(limit, "spread", spread, limit.value * quote.mid, bid=quote.bid, ask=quote.ask)


@rule(
    "max_price_jump",
    label="largest jump of the price",
    unit=Unit.PRICE_FRACTION,
    default="0.1",
    help="Change against the price FKS last saw, if that was within the window. The next look "
    "confirms a real jump: then entries pass again.",
    parameters=[Parameter("window", seconds, "60", "seconds an earlier price is compared with")],
    needs=["previous"],
    start=Start.OBSERVE,
)
def max_price_jump(
    limit: Limit, intent: Intent, size: Size, facts: Facts, settings: Mapping[str, Any]
) -> Verdict:
    previous = facts.book.previous
    if previous is None or (facts.at - previous.at).total_seconds() > settings["window"]:
        return passed(limit, "no price was seen shortly before")
    return compared(
        limit, "change of the price", abs(facts.quote.mid - previous.price),
        limit.value * previous.price, before=previous.price, now=facts.quote.mid,
    )  # fmt: skip

"""What an operator can do about each reason code: one sentence, shown beside it and in
``docs/reasons.md``.
"""

from __future__ import annotations

from risk.types import ReasonCode as R

ADVICE: dict[R, str] = {
    R.STALE: "The alert came too late: look at the sender's delays, or raise the strategy's max age.",
    R.FROM_THE_FUTURE: "The sender's clock is ahead of ours: set both by NTP.",
    R.LOW_CONFIDENCE: "Nothing, if the strategy is meant to skip weak alerts; else lower its minimum.",
    R.CONFIDENCE_MISSING: "Send a confidence with each entry, or no longer require one.",
    R.POOR_REWARD_RISK: "Nothing, if the target is too near; else lower the strategy's minimum.",
    R.REWARD_RISK_MISSING: "Send a stop loss and a take profit, or no longer require them.",
    R.THROTTLED: "The sender sends more than its strategy's limit; find out why, or raise the limit.",
    R.STRATEGY_DISABLED: "Enable the strategy on its page when it shall trade again.",
    R.NO_ROUTE: "Give the strategy an enabled route to an account.",
    R.NO_VENUE_FITS: "No account of the group could take it: the comparison says why, one by one.",
    R.NOTHING_TO_CLOSE: "Nothing: no position was held. If the venue holds one, look at Differences.",
    R.NOTHING_TO_CANCEL: "Nothing: no order was working.",
    R.ALREADY_AT_TARGET: "Nothing: the position is what the alert asks for.",
    R.NOT_FLAT: "The reversal closed less than the whole position: look at its exit order.",
    R.ACCOUNT_INACTIVE: "Switch the account on when it shall trade again.",
    R.LIVE_TRADING_OFF: "Set FKS_LIVE_TRADING and confirm the account, if real money is meant.",
    R.DRIFT: "Resolve the difference on its page: adopt, ignore or flatten. Entries wait for it.",
    R.ACCOUNT_MISCONFIGURED: "Correct the account's options, then run check_account.",
    R.CREDENTIALS_REFUSED: "The venue refuses the key: replace it on the account's page.",
    R.LOGIN_NEEDED: "Log in at the venue: the account's page leads there. It takes a minute.",
    R.VENUE_UNREACHABLE: "Wait, or look at the venue's status page; the breaker tries again by itself.",
    R.RATE_LIMITED: "Fewer requests: spread alerts or accounts. The order's fate is being looked up.",
    R.UNKNOWN_SYMBOL: "Send a symbol the venue lists, or make an alias for this one.",
    R.DELAYED_DATA: "The chart shows delayed prices: use the exchange's real-time feed.",
    R.NOT_SUPPORTED: "The venue cannot do this: change the order's kind, or use another account.",
    R.REFERENCE_UNAVAILABLE: "No trustworthy price: wait for the venue's quotes, or send a price.",
    R.EQUITY_UNKNOWN: "Run check_account: until the balance is known nothing can be sized by it.",
    R.CURRENCY_MISMATCH: "Trade symbols quoted in the account's currency, or use another account.",
    R.SIZE_MISSING: "Send a quantity, or give the route a size of its own.",
    R.SIZE_TOO_SMALL: "Below the venue's smallest order: a larger size, or a wider limit.",
    R.SIZE_TOO_LARGE: "Above what the venue takes in one order: a smaller size.",
    R.STOP_LOSS_MISSING: "Sizing by risk needs a stop loss in the alert.",
    R.STOP_LOSS_INVALID: "The stop loss lies on the wrong side of the price: correct the alert.",
    R.PRICE_MISSING: "Limit and stop orders need their price in the alert.",
    R.PRICE_DRIFT: "The market ran away before the order: nothing, or allow more drift.",
    R.NO_LIMIT_SET: "Set the limit: without one nothing trades.",
    R.MAX_ORDER_VALUE: "A smaller order, or a higher limit if this size is meant.",
    R.MAX_POSITION_VALUE: "The position is as large as it may be: close some, or raise the limit.",
    R.MAX_OPEN_ORDERS: "Cancel orders that are no longer wanted, or raise the limit.",
    R.MAX_CAPITAL_SHARE: "A smaller order, or a larger share if that is meant.",
    R.RISK_PER_TRADE: "A smaller order or a nearer stop.",
    R.DAILY_LOSS: "Nothing opens until the account's next day. See what lost before you raise it.",
    R.MAX_DRAWDOWN: "Nothing opens until the account's next day. See what lost before you raise it.",
    R.LOSS_STREAK: "Entries go on after the cool-down: look at why the strategy loses meanwhile.",
    R.MAX_ORDER_QUANTITY: "A smaller order, or a higher limit if this size is meant.",
    R.PRICE_COLLAR: "The price is far from the market: correct it, or widen the collar.",
    R.DUPLICATE_ORDER: "Nothing, if two alerts meant one trade; else shorten the window.",
    R.SELF_MATCH: "Cancel the resting order on the other side first.",
    R.MAX_QUOTE_AGE: "The venue's quotes stand still: wait, or look at its status page.",
    R.MAX_SPREAD: "The market is thin or the quote is wrong: wait, or use a limit order.",
    R.MAX_PRICE_JUMP: "Nothing: the next quote confirms a real jump, then entries pass again.",
    R.TRADING_HOURS: "Outside the hours set for it: nothing, or change the hours.",
    R.MAX_SYMBOL_ORDERS: "Cancel orders of this symbol that are no longer wanted, or raise the limit.",
    R.MAX_ACCOUNT_EXPOSURE: "Close some of the account's positions, or raise the limit.",
    R.MAX_STRATEGY_EXPOSURE: "Close some of the strategy's positions, or raise the limit.",
    R.MAX_GROSS_EXPOSURE: "Close positions on any account, or raise the limit.",
    R.MAX_NET_EXPOSURE: "Close positions of the heavier side, or raise the limit.",
    R.MAX_GROUP_EXPOSURE: "Close positions of the group, or raise the limit.",
    R.MAX_LEVERAGE: "Close some positions or add funds: exposure is too large for the equity.",
    R.MAX_MARGIN_SHARE: "Close some positions or add funds: too much margin is in use.",
    R.REPEATED_EXECUTION: "The strategy is halted: see why it fires so often, then resume it.",
    R.REJECT_STREAK: "The strategy is halted: read the venue's words, mend it, then resume it.",
    R.MESSAGE_RATE: "Too many orders at once for this venue: spread them, or raise the rate.",
    R.TRADING_HALTED: "Somebody halted trading: read the reason on the home page, then resume there.",
    R.REDUCE_ONLY: "Only exits pass: read the reason on the home page, then resume there.",
    R.BREAKER_OPEN: "The venue failed too often: it is probed by itself; reset the breaker when sure.",
    R.APPROVAL_REJECTED: "Nothing: a person said no; the order's journal has who, and why.",
    R.APPROVAL_EXPIRED: "Nobody decided in time: look who is told of approvals, or give them longer.",
    R.APPROVAL_OUTDATED: "The position changed while a person decided: send the alert again if wanted.",
    R.EXPIRED_BEFORE_SENDING: "It waited too long for its turn: look at what held the lane up.",
    R.VENUE_REJECTED: "Read the venue's words in the journal; most often balance or precision.",
    R.NOT_PLACED: "The venue proved that it has no such order. Enter by hand if it is still wanted.",
    R.CANCELED_BY_OPERATOR: "Nothing: somebody cancelled it; the audit says who.",
    R.CANCELED_BY_SIGNAL: "Nothing: an alert cancelled it.",
    R.REPLACED: "Nothing: another order took its place.",
    R.INTERNAL_ERROR: "A fault of FKS: keep the log and report it; nothing was sent.",
}


def advice(reason: str) -> str:
    """What to do about ``reason``; nothing for a word that is no code of ours."""
    try:
        return ADVICE[R(reason)]
    except ValueError:
        return ""

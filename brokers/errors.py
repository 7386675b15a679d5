"""Errors a plugin raises, named by what the caller should do about them.

Placing an order never raises: ``execute_order`` answers with an ``Outcome``. These errors are for
everything else a plugin does.
"""

from __future__ import annotations


class BrokerError(Exception):
    """Base of all plugin errors; ``code`` is a reason code, the message a sentence for operators."""

    code = "BROKER_ERROR"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ConfigurationError(BrokerError):
    """The account cannot work as configured: stop, an operator must change something."""

    code = "ACCOUNT_MISCONFIGURED"


class NotSupportedError(BrokerError):
    """The venue lacks what was asked for: refuse, with the sentence that says what is lacking."""

    code = "NOT_SUPPORTED"


class UnknownSymbolError(BrokerError):
    """The venue does not list the symbol: refuse the order, never guess another one."""

    code = "UNKNOWN_SYMBOL"


class DelayedDataError(UnknownSymbolError):
    """The signal was made from data that come late: refuse, unless the strategy allows it."""

    code = "DELAYED_DATA"


class QuoteUnavailableError(BrokerError):
    """No usable price: no quote, no order."""

    code = "REFERENCE_UNAVAILABLE"


class QueryFailedError(BrokerError):
    """A question got no trustworthy answer: the truth is *not known*, never "flat" or "absent"."""

    code = "VENUE_UNREACHABLE"
    is_answer = False
    """Whether the venue works: it answered this one question, by refusing it or without telling."""


class NotShownError(QueryFailedError):
    """The venue answered, and what was asked about is not shown, or not told: no word about it."""

    is_answer = True


class HeldBackError(QueryFailedError):
    """A question that never left, because our own limiter said to wait: nothing about the venue."""

    code = "RATE_LIMITED"


class AmbiguousOrderError(BrokerError):
    """What the venue shows may be this order or another: only an operator can say."""


class CredentialError(BrokerError):
    """The venue refused the key, or the stored secret cannot be decrypted."""

    code = "CREDENTIALS_REFUSED"


class LoginNeededError(CredentialError):
    """A person must log the account in at its venue before anything can be asked there."""

    code = "LOGIN_NEEDED"

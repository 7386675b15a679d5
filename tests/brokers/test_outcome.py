"""The verdicts, one row per kind of evidence, with the real exception classes."""

from __future__ import annotations

import ccxt
import pytest
import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from brokers.exchanges import BINANCE_SPOT, KRAKEN_SPOT, PROFILES, ExchangeProfile
from brokers.outcome import Seen, VenueError, judge, never_connected
from brokers.types import Outcome

REJECTED, NOT_SENT, UNKNOWN = Outcome.REJECTED, Outcome.NOT_SENT, Outcome.UNKNOWN
SILENT = "VENUE_UNREACHABLE"
INSUFFICIENT = "Account has insufficient balance for requested action."


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def connection_error(reason: Exception) -> Exception:
    wrapped = requests.ConnectionError(MaxRetryError(None, "/", reason))  # type: ignore[arg-type]
    return caused_by(ccxt.NetworkError("binance POST"), wrapped)


BINANCE = [
    # status, code, message, raised, outcome, reason code, retry_after
    (400, "-2010", INSUFFICIENT, ccxt.InsufficientFunds, REJECTED, "VENUE_REJECTED", None),
    (400, "-2010", "Duplicate order sent.", ccxt.InvalidOrder, UNKNOWN, "VENUE_UNREACHABLE", None),
    (400, "-1013", "Filter failure: LOT_SIZE", ccxt.InvalidOrder, REJECTED, "VENUE_REJECTED", None),
    (400, "-1121", "Invalid symbol.", ccxt.BadSymbol, REJECTED, "VENUE_REJECTED", None),
    (400, "-1104", "Not all sent parameters", ccxt.BadRequest, REJECTED, "VENUE_REJECTED", None),
    (
        401,
        "-2015",
        "Invalid API-key",
        ccxt.AuthenticationError,
        REJECTED,
        "CREDENTIALS_REFUSED",
        None,
    ),
    (401, "-2015", "Invalid API-key", ccxt.DDoSProtection, REJECTED, "CREDENTIALS_REFUSED", None),
    (400, "-1022", "Signature", ccxt.AuthenticationError, REJECTED, "CREDENTIALS_REFUSED", None),
    # a gateway that counts requests answers for an engine that may have the order
    (400, "-1015", "Too many new orders", ccxt.ExchangeError, UNKNOWN, "RATE_LIMITED", None),
    (400, "-1021", "Timestamp", ccxt.InvalidNonce, NOT_SENT, "VENUE_UNREACHABLE", 1),
    (429, "-1003", "Too many", ccxt.DDoSProtection, UNKNOWN, "RATE_LIMITED", None),
    (429, "-1015", "Too many new orders", ccxt.DDoSProtection, UNKNOWN, "RATE_LIMITED", None),
    (418, "-1003", "banned", ccxt.DDoSProtection, UNKNOWN, "RATE_LIMITED", None),
    (400, "-1000", "unknown error", ccxt.OperationFailed, UNKNOWN, "VENUE_UNREACHABLE", None),
    (500, "-1001", "Internal", ccxt.OperationFailed, UNKNOWN, "VENUE_UNREACHABLE", None),
    (400, "-1006", "bus", ccxt.OperationFailed, UNKNOWN, "VENUE_UNREACHABLE", None),
    (408, "-1007", "Timeout", ccxt.RequestTimeout, UNKNOWN, "VENUE_UNREACHABLE", None),
    # the class says rejected, the code says nobody knows: the code wins
    (400, "-1007", "Timeout", ccxt.InvalidOrder, UNKNOWN, "VENUE_UNREACHABLE", None),
    (503, "-1008", "overloaded", ccxt.ExchangeError, UNKNOWN, "VENUE_UNREACHABLE", None),
    (400, "-9999", "new words", ccxt.ExchangeError, UNKNOWN, "VENUE_UNREACHABLE", None),
    (500, "-2010", INSUFFICIENT, ccxt.InsufficientFunds, UNKNOWN, "VENUE_UNREACHABLE", None),
    (400, "-2010", INSUFFICIENT, KeyError, UNKNOWN, "VENUE_UNREACHABLE", None),
]
KRAKEN = [
    ("EOrder:Insufficient funds", ccxt.InsufficientFunds, REJECTED, "VENUE_REJECTED", None),
    ("EOrder:Order minimum not met", ccxt.InvalidOrder, REJECTED, "VENUE_REJECTED", None),
    ("EOrder:Cost minimum not met", ccxt.ExchangeError, REJECTED, "VENUE_REJECTED", None),
    ("EOrder:Post only order", ccxt.ExchangeError, REJECTED, "VENUE_REJECTED", None),
    ("EOrder:Duplicate order", ccxt.ExchangeError, UNKNOWN, "VENUE_UNREACHABLE", None),
    ("EOrder:cl_ord_id in use", ccxt.InvalidOrder, UNKNOWN, "VENUE_UNREACHABLE", None),
    ("EAPI:Invalid key", ccxt.AuthenticationError, REJECTED, "CREDENTIALS_REFUSED", None),
    ("EGeneral:Permission denied", ccxt.PermissionDenied, REJECTED, "CREDENTIALS_REFUSED", None),
    ("EAPI:Invalid nonce", ccxt.InvalidNonce, NOT_SENT, "VENUE_UNREACHABLE", 1),
    ("EAPI:Rate limit exceeded", ccxt.DDoSProtection, UNKNOWN, "RATE_LIMITED", None),
    ("EOrder:Rate limit exceeded", ccxt.DDoSProtection, UNKNOWN, "RATE_LIMITED", None),
    ("EGeneral:Too many requests", ccxt.DDoSProtection, UNKNOWN, "RATE_LIMITED", None),
    ("EService:Unavailable", ccxt.ExchangeNotAvailable, UNKNOWN, "VENUE_UNREACHABLE", None),
    ("EService:Deadline elapsed", ccxt.ExchangeError, UNKNOWN, "VENUE_UNREACHABLE", None),
    ("EGeneral:Internal error", ccxt.ExchangeNotAvailable, UNKNOWN, "VENUE_UNREACHABLE", None),
    ("EGeneral:Internal error[7]", ccxt.InvalidOrder, UNKNOWN, "VENUE_UNREACHABLE", None),
    ("EOrder:Something new", ccxt.ExchangeError, UNKNOWN, "VENUE_UNREACHABLE", None),
]


@pytest.mark.parametrize(
    ("status", "code", "message", "raised", "outcome", "reason", "wait"), BINANCE
)
def test_binance_words(
    status: int,
    code: str,
    message: str,
    raised: type[Exception],
    outcome: Outcome,
    reason: str,
    wait: int | None,
) -> None:
    verdict = judge(
        Seen(True, status, VenueError((code,), message)), raised("binance"), BINANCE_SPOT
    )
    assert (verdict.outcome, verdict.code, verdict.retry_after) == (outcome, reason, wait)


@pytest.mark.parametrize(("code", "raised", "outcome", "reason", "wait"), KRAKEN)
def test_kraken_words(
    code: str, raised: type[Exception], outcome: Outcome, reason: str, wait: int | None
) -> None:
    verdict = judge(Seen(True, 200, VenueError((code,))), raised("kraken"), KRAKEN_SPOT)
    assert (verdict.outcome, verdict.code, verdict.retry_after) == (outcome, reason, wait)


@pytest.mark.parametrize(
    ("exchange", "code", "message", "raised", "reason"),
    [
        ("bybit", "170035", "Submitted to the system for processing!", ccxt.BadRequest, SILENT),
        ("kucoin", "408000", "Network timeout, please try again later", ccxt.BadRequest, SILENT),
        ("kucoin", "5", "Exceeded the access frequency", ccxt.RateLimitExceeded, "RATE_LIMITED"),
        ("htx", "rate-too-many-requests", "", ccxt.RateLimitExceeded, "RATE_LIMITED"),
        ("bitget", "1001", "the request is too frequent", ccxt.DDoSProtection, "RATE_LIMITED"),
    ],
)
def test_words_the_library_takes_for_a_refusal_leave_the_order_open(
    exchange: str, code: str, message: str, raised: type[Exception], reason: str
) -> None:
    seen = Seen(True, 200, VenueError((code,), message))
    verdict = judge(seen, raised(exchange), PROFILES[exchange, "spot"])
    assert (verdict.outcome, verdict.code) == (UNKNOWN, reason)


@pytest.mark.parametrize("profile", [BINANCE_SPOT, KRAKEN_SPOT], ids=lambda p: p.id)
@pytest.mark.parametrize(
    "raised",
    [
        ccxt.RequestTimeout,
        ccxt.NetworkError,
        ccxt.ExchangeNotAvailable,
        ccxt.ExchangeError,
        ccxt.InvalidOrder,
        ccxt.InsufficientFunds,
        ccxt.AuthenticationError,
        ccxt.DDoSProtection,
        TypeError,
    ],
)
@pytest.mark.parametrize("status", [None, 200, 302, 400, 403, 404, 500, 502, 503, 504])
def test_without_the_venues_words_nothing_is_proven(
    profile: ExchangeProfile, raised: type[Exception], status: int | None
) -> None:
    assert judge(Seen(True, status), raised("x"), profile).outcome is UNKNOWN


@pytest.mark.parametrize("status", [418, 429])
@pytest.mark.parametrize("profile", [BINANCE_SPOT, KRAKEN_SPOT], ids=lambda p: p.id)
def test_a_rate_limit_without_the_venues_words_proves_nothing_either(
    profile: ExchangeProfile, status: int
) -> None:
    verdict = judge(Seen(True, status, retry_after=7), ccxt.DDoSProtection("x"), profile)
    assert (verdict.outcome, verdict.code) == (UNKNOWN, "RATE_LIMITED")
    assert (verdict.retry_after, verdict.held_back) == (7, False)
    assert verdict.detail.endswith("asked to wait 7 s")


@pytest.mark.parametrize(("retry_after", "wait"), [(None, 5), (0, 1), (7, 7)])
def test_a_venue_that_asks_for_patience_in_new_words_gets_it(
    retry_after: int | None, wait: int
) -> None:
    seen = Seen(True, 400, VenueError(("-9998",), "later"), retry_after)
    verdict = judge(seen, ccxt.InvalidNonce("x"), BINANCE_SPOT)
    assert (verdict.outcome, verdict.retry_after) == (NOT_SENT, wait)


def test_what_never_left_was_not_sent() -> None:
    refused = judge(Seen(False), ccxt.InvalidOrder("amount"), BINANCE_SPOT)
    unreachable = judge(Seen(False), ccxt.NetworkError("x"), BINANCE_SPOT)
    broken = judge(Seen(False), KeyError("x"), BINANCE_SPOT)
    assert (refused.outcome, refused.code) == (NOT_SENT, "NOT_SUPPORTED")
    assert (unreachable.outcome, unreachable.code) == (NOT_SENT, "VENUE_UNREACHABLE")
    # who was not reached may be in a moment: an exit is tried again
    assert [one.retry_after for one in (refused, unreachable, broken)] == [None, 1, None]


@pytest.mark.parametrize(
    ("error", "code", "again"),
    [
        (KeyError("data"), "VENUE_UNREACHABLE", 1),
        (ccxt.ExchangeError("odd"), "VENUE_UNREACHABLE", 1),
        (ccxt.BadResponse("cut off"), "VENUE_UNREACHABLE", 1),
        (ccxt.AuthenticationError("key"), "NOT_SUPPORTED", None),
        (ccxt.PermissionDenied("right"), "NOT_SUPPORTED", None),
        (ccxt.BadSymbol("symbol"), "NOT_SUPPORTED", None),
        (ccxt.ArgumentsRequired("price"), "NOT_SUPPORTED", None),
    ],
)
def test_an_odd_answer_to_what_the_library_asks_first_ends_no_order(
    error: Exception, code: str, again: int | None
) -> None:
    verdict = judge(Seen(False, asked=True), error, BINANCE_SPOT)
    assert (verdict.outcome, verdict.code, verdict.retry_after) == (NOT_SENT, code, again)


@pytest.mark.parametrize(
    ("error", "never"),
    [
        (connection_error(NewConnectionError(None, "refused")), True),  # type: ignore[arg-type]
        (connection_error(NameResolutionError("h", None, OSError())), True),  # type: ignore[arg-type]
        (connection_error(ConnectTimeoutError("slow")), True),
        (caused_by(ccxt.RequestTimeout("x"), requests.ConnectTimeout("slow")), True),
        (caused_by(ccxt.RequestTimeout("x"), requests.ReadTimeout("slow")), False),
        (connection_error(ReadTimeoutError(None, "/", "slow")), False),  # type: ignore[arg-type]
        (
            caused_by(
                ccxt.NetworkError("x"),
                requests.ConnectionError(ProtocolError("aborted", ConnectionResetError())),
            ),
            False,
        ),
        (caused_by(ccxt.ExchangeError("x"), requests.exceptions.SSLError("bad record")), False),
        (ccxt.NetworkError("x"), False),
    ],
)
def test_only_a_connection_never_made_proves_that_nothing_left(
    error: Exception, never: bool
) -> None:
    assert never_connected(error) is never
    verdict = judge(Seen(True), error, BINANCE_SPOT)
    assert verdict.outcome is (NOT_SENT if never else UNKNOWN)
    assert verdict.retry_after == (1 if never else None)


def test_the_context_of_somebody_elses_trouble_proves_nothing() -> None:
    late = ccxt.NetworkError("dropped")
    late.__context__ = connection_error(NewConnectionError(None, "refused"))  # type: ignore[arg-type]
    assert judge(Seen(True), late, BINANCE_SPOT).outcome is UNKNOWN

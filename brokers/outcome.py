"""How a placement that did not simply succeed ended, judged by evidence alone.

Pure: what was seen goes in, a verdict comes out. UNKNOWN is the default; every other verdict needs
proof: that the request never left, or that the venue itself said in its own words that it did not
place the order. Exception classes are known by name, so that no SDK is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from brokers.exchanges import ExchangeProfile
from brokers.types import Outcome

NEVER_CONNECTED = frozenset(
    {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ConnectTimeout"}
)
REFUSALS = frozenset(
    {
        "AccountSuspended",
        "ArgumentsRequired",
        "AuthenticationError",
        "BadRequest",
        "BadSymbol",
        "ContractUnavailable",
        "InsufficientFunds",
        "InvalidOrder",
        "MarketClosed",
        "NotSupported",
        "OperationRejected",
        "OrderImmediatelyFillable",
        "OrderNotFillable",
        "PermissionDenied",
    }
)
"""Classes that are a rejection; a bare ExchangeError, or anything not listed, is not."""
THROTTLED = frozenset({"DDoSProtection", "RateLimitExceeded"})
OUT_OF_TIME = "InvalidNonce"
"""The venue looks at time and nonce before it looks at an order."""
THROTTLE_STATUSES = frozenset({418, 429})
DUPLICATE = re.compile(r"duplicat|already|in use|cl_?ord_?id|client.?order.?id", re.IGNORECASE)
UNREACHED = "OperationFailed"
"""The class of all trouble on the way to a venue, and of a venue that could not answer."""
SOON = 1
"""Seconds until a venue nobody reached is tried again: nothing was said against the order."""
DEFAULT_PATIENCE = 5
"""Seconds to wait when the venue asked for patience without a number."""


@dataclass(frozen=True, slots=True)
class VenueError:
    """An error in the venue's own words, read from its answer."""

    codes: tuple[str, ...]
    message: str = ""

    def has(self, codes: Iterable[str]) -> bool:
        return any(_matches(said, code) for said in self.codes for code in codes)

    def __str__(self) -> str:
        return " ".join((*self.codes, self.message)).strip()


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed of one order request.

    `sent` is true from the moment the request was handed to the network; `status`, `error` and
    `retry_after` (seconds) come from the answer, if one arrived. `asked`: a question that the library
    put before it was answered.
    """

    sent: bool
    status: int | None = None
    error: VenueError | None = None
    retry_after: int | None = None
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    code: str
    detail: str
    retry_after: int | None = None
    held_back: bool = False


def judge(seen: Seen, raised: BaseException, profile: ExchangeProfile) -> Verdict:
    """The end of an attempt that raised; `detail` carries no text of the exception itself."""
    name = type(raised).__name__
    if not seen.sent:
        names = _class_names(raised)
        refused = bool(REFUSALS & names)
        code = "NOT_SUPPORTED" if refused else "VENUE_UNREACHABLE"
        # an answer that could not be read now may be whole the next time
        again = SOON if UNREACHED in names or (seen.asked and not refused) else None
        return Verdict(Outcome.NOT_SENT, code, f"stopped before sending: {name}", again)
    if never_connected(raised):
        return Verdict(Outcome.NOT_SENT, "VENUE_UNREACHABLE", f"no connection: {name}", SOON)
    if seen.status in THROTTLE_STATUSES:
        return throttled(f"HTTP {seen.status}", seen.retry_after)
    if seen.error is not None and seen.status is not None and 200 <= seen.status < 500:
        return _by_the_venues_words(seen, seen.error, raised, profile)
    return unknown(f"HTTP {seen.status}" if seen.status else "no answer", name)


def unknown(what: str, name: str = "") -> Verdict:
    """The default: the order may exist."""
    detail = f"the order may exist: {what}"
    return Verdict(Outcome.UNKNOWN, "VENUE_UNREACHABLE", f"{detail} ({name})" if name else detail)


def never_connected(raised: BaseException) -> bool:
    """Whether the direct cause proves that no connection was ever made.

    Only explicit causes count: an exception's context may belong to something else entirely.
    """
    cause = raised.__cause__
    inner = cause.args[0] if cause is not None and cause.args else None
    links = (cause, getattr(inner, "reason", None))
    return any(NEVER_CONNECTED & _class_names(link) for link in links if link is not None)


def _by_the_venues_words(
    seen: Seen, error: VenueError, raised: BaseException, profile: ExchangeProfile
) -> Verdict:
    said, names = str(error), _class_names(raised)
    if _ambiguous(error, profile):
        return unknown(said)
    if error.has(profile.clock):
        return _wait(replace(seen, retry_after=1), said)
    if error.has(profile.throttled):
        return throttled(said, seen.retry_after)
    if error.has(profile.credentials):
        return Verdict(Outcome.REJECTED, "CREDENTIALS_REFUSED", said)
    if error.has(profile.refused) or REFUSALS & names:
        return Verdict(Outcome.REJECTED, "VENUE_REJECTED", said)
    if THROTTLED & names:
        return throttled(said, seen.retry_after)
    if OUT_OF_TIME in names:
        return _wait(seen, said)
    return unknown(said)


def _ambiguous(error: VenueError | None, profile: ExchangeProfile) -> bool:
    if error is None:
        return False
    # an id the venue already knows means that an earlier attempt may have arrived
    return error.has(profile.ambiguous) or DUPLICATE.search(str(error)) is not None


def throttled(said: str, seconds: int | None) -> Verdict:
    """A gateway that counts requests may answer for an engine that has the order already; it is
    looked for once the ``seconds`` the venue named are over.
    """
    detail = f"the order may exist: rate limit, {said}"
    if seconds:
        detail += f"; asked to wait {seconds} s"
    return Verdict(Outcome.UNKNOWN, "RATE_LIMITED", detail, seconds)


def _wait(seen: Seen, said: str) -> Verdict:
    seconds = DEFAULT_PATIENCE if seen.retry_after is None else max(1, seen.retry_after)
    return Verdict(
        Outcome.NOT_SENT, "VENUE_UNREACHABLE", f"the venue asks for patience: {said}", seconds
    )


def _class_names(thing: object) -> set[str]:
    return {cls.__name__ for cls in type(thing).__mro__}


def _matches(said: str, code: str) -> bool:
    rest = said.removeprefix(code)
    return said.startswith(code) and not rest[:1].isalnum()

"""Binance's error codes, their messages and HTTP statuses (binance-spot-api-docs, errors.md)."""

from __future__ import annotations

from dataclasses import replace

from tests.venues.orders import Reason
from tests.venues.venue import Answer, reply

MESSAGES = {
    -1000: "An unknown error occurred while processing the request.",
    -1001: "Internal error; unable to process your request. Please try again.",
    -1003: "Too much request weight used; current limit is 6000 request weight per 1 MINUTE. "
    "Please use WebSocket Streams for live updates to avoid polling the API.",
    -1006: "An unexpected response was received from the message bus. Execution status unknown.",
    -1007: "Timeout waiting for response from backend server. Send status unknown; "
    "execution status unknown.",
    -1008: "Server is currently overloaded with other requests. Please try again in a few minutes.",
    -1013: "Filter failure: LOT_SIZE",
    -1015: "Too many new orders; current limit is 100 orders per 10 SECOND.",
    -1016: "This service is no longer available.",
    -1021: "Timestamp for this request is outside of the recvWindow.",
    -1022: "Signature for this request is not valid.",
    -1115: "Invalid timeInForce.",
    -1116: "Invalid orderType.",
    -1117: "Invalid side.",
    -1120: "Invalid interval.",
    -1121: "Invalid symbol.",
    -1131: "recvWindow must be less than 60000",
    -2010: "Account has insufficient balance for requested action.",
    -2011: "Unknown order sent.",
    -2013: "Order does not exist.",
    -2014: "API-key format invalid.",
    -2015: "Invalid API-key, IP, or permissions for action.",
}

STATUSES = {-1000: 500, -1001: 500, -1003: 429, -1006: 500, -1007: 408, -1008: 503, -1015: 429}
STATUSES |= {-1016: 503, -2014: 401, -2015: 401}

RETRY_AFTER_SECONDS = "1"

REFUSALS = {
    Reason.INSUFFICIENT_FUNDS: (-2010, MESSAGES[-2010]),
    Reason.DUPLICATE_CLIENT_ID: (-2010, "Duplicate order sent."),
    Reason.WOULD_TAKE: (-2010, "Order would immediately match and take."),
    Reason.WOULD_TRIGGER: (-2010, "Order would trigger immediately."),
    Reason.UNKNOWN_ORDER: (-2011, MESSAGES[-2011]),
}


class BinanceError(Exception):
    """A refusal in Binance's words."""

    def __init__(self, code: int, message: str = "") -> None:
        self.code = code
        self.message = message or MESSAGES.get(code, "Unknown error.")
        super().__init__(f"{code} {self.message}")

    @classmethod
    def refused(cls, reason: Reason) -> BinanceError:
        return cls(*REFUSALS[reason])

    def answer(self, status: int | None = None) -> Answer:
        status = status or STATUSES.get(self.code, 400)
        body = {"code": self.code, "msg": self.message}
        answer = reply(body, status=status, error=str(self))
        if self.code == -1003:
            answer = replace(answer, headers=(("Retry-After", RETRY_AFTER_SECONDS),))
        return answer


def missing(name: str) -> BinanceError:
    return BinanceError(
        -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed."
    )


def unneeded(name: str) -> BinanceError:
    return BinanceError(-1106, f"Parameter '{name}' sent when not required.")


def filter_failure(name: str) -> BinanceError:
    return BinanceError(-1013, f"Filter failure: {name}")

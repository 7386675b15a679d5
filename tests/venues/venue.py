"""What the server needs of a venue: requests in, answers out, and its own words for refusals."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from tests.venues.clock import Clock
from tests.venues.credentials import Credential
from tests.venues.faults import Action, Endpoint, Fault
from tests.venues.ledger import Ledger

JSON = "application/json;charset=UTF-8"
HTML = "text/html; charset=utf-8"
BODY_LIMIT = 1 << 20


@dataclass(slots=True)
class Request:
    """One HTTP request. `params` is filled by the venue; `fault` by the server."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: str
    params: dict[str, str] = field(default_factory=dict)
    credential: Credential | None = None
    fault: Fault | None = None

    @property
    def key(self) -> Credential:
        """The API key of a signed request; only an admitted one has it."""
        if self.credential is None:
            raise LookupError("the request is not signed")
        return self.credential

    @property
    def fill_delay_ms(self) -> int:
        delayed = self.fault is not None and self.fault.action is Action.DELAY_FILLS
        return round(self.fault.seconds * 1000) if self.fault and delayed else 0

    @property
    def doubles_fills(self) -> bool:
        return self.fault is not None and self.fault.action is Action.DOUBLE_FILLS


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. `order_id` names an order this request got accepted, `error` a refusal.

    `sent` limits how many bytes of the body go out before the connection is closed; 0 with
    `dropped` means nothing is sent at all.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    order_id: str = ""
    error: str = ""
    dropped: bool = False
    sent: int | None = None


def reply(data: object, *, status: int = 200, order_id: str = "", error: str = "") -> Answer:
    body = json.dumps(data, separators=(",", ":")).encode()
    return Answer(status, body, order_id=order_id, error=error)


def page(status: int, title: str) -> Answer:
    """A gateway's HTML error page."""
    body = f"<html><head><title>{status} {title}</title></head><body>{title}</body></html>"
    return Answer(status, body.encode(), HTML, error=f"HTTP {status}")


def pairs(*texts: str) -> list[tuple[str, str]]:
    """The parameters of query strings and form bodies, in order, blanks kept."""
    return [pair for text in texts for pair in parse_qsl(text, keep_blank_values=True)]


class Venue(ABC):
    """One imitated exchange. The server holds `ledger.lock` around `admit` and `handle`."""

    name: str
    ledger: Ledger
    clock: Clock
    credentials: dict[str, Credential]

    @abstractmethod
    def owns(self, path: str) -> bool: ...

    def claims(self, request: Request) -> bool:
        """Whether the request is for this venue; several may share paths."""
        return self.owns(request.path)

    @abstractmethod
    def endpoint(self, request: Request) -> Endpoint: ...

    @abstractmethod
    def admit(self, request: Request) -> Answer | None:
        """Read the parameters and check key, signature and clock; None lets the request in."""

    @abstractmethod
    def handle(self, request: Request) -> Answer:
        """Act on an admitted request."""

    @abstractmethod
    def refuse(self, code: str) -> Answer:
        """The venue's own error answer for one of its codes."""

    @abstractmethod
    def throttle(self, status: int) -> Answer:
        """The venue's answer with HTTP 429 or 418."""

    @abstractmethod
    def default_permissions(self) -> dict[str, bool]: ...

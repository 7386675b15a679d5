"""One ccxt client behind the gate, and the only place that knows how ccxt is configured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from brokers.errors import (
    ConfigurationError,
    HeldBackError,
    NotShownError,
    QueryFailedError,
    UnknownSymbolError,
)
from brokers.exchanges import ExchangeProfile, Sandbox
from brokers.guarded_client import guarded_class
from brokers.limiter import Limiter
from brokers.outcome import THROTTLE_STATUSES, Seen, VenueError
from brokers.timing import LOOPBACK, parts_of, timed
from brokers.transport import (
    Attempt,
    ErrorReader,
    Gate,
    RequestRefusedError,
    ThrottledError,
    origin,
)
from brokers.types import AccountConfig, Environment

OK = 200
TIMEOUT_MS = 10_000
"""For connecting, and for each wait on the socket; less if the account gives up sooner."""

SANDBOX_HEADER = "x-simulated-trading"
"""What marks a request as a rehearsal where the live host also serves the sandbox."""

Market = Mapping[str, Any]


class VenueRefusedError(QueryFailedError):
    """The venue answered a question with an error in its own words."""

    def __init__(
        self,
        error: VenueError,
        asked: str = "",
        *,
        code: str | None = None,
        is_answer: bool = False,
    ) -> None:
        super().__init__(f"the venue answered {asked and f'{asked} with '}{error}", code=code)
        self.error, self.is_answer = error, is_answer


class VenueClient:
    """Typed access to one ccxt client; not to be used by two threads at once."""

    def __init__(
        self, profile: ExchangeProfile, ccxt_client: Any, gate: Gate, read_error: ErrorReader
    ) -> None:
        self.profile = profile
        self.ccxt = ccxt_client
        self.gate = gate
        self._read_error = read_error
        self.on_unknown: Callable[[], None] = lambda: None

    def call(self, method: str, **params: object) -> Any:
        """The parsed answer of a raw endpoint by ccxt's name for it.

        Raises VenueRefusedError when the venue said no, QueryFailedError when nobody knows.
        """
        return self.post(method, params)

    def post(self, method: str, payload: object) -> Any:
        """As ``call``, for an endpoint that takes a list."""
        self.gate.forget()
        try:
            return getattr(self.ccxt, method)(payload)
        except QueryFailedError:
            raise
        except Exception as error:
            # the exception text holds signed URLs, so neither it nor its chain goes any further
            raise self._failure(error) from None

    def ask(self, method: str, *args: object) -> Any:
        """What ccxt reads from an answer, by its own name of the question, numbers as text.

        Raises as ``call`` does.
        """
        self.gate.forget()
        self.ccxt.number = str
        try:
            found = getattr(self.ccxt, method)(*args)
        except QueryFailedError:
            raise
        except Exception as error:
            raise self._failure(error) from None
        finally:
            self.ccxt.number = float
        # ccxt makes an empty list of an answer it could not read, and of some errors
        if self.gate.unreadable or self._read_error(self.gate.body) is not None:
            raise self._failure(QueryFailedError("unreadable"))
        return found

    def market(self, symbol: str) -> Market:
        """ccxt's market of our symbol. Raises UnknownSymbolError, and says so to ``on_unknown``."""
        market = (self.ccxt.markets or {}).get(symbol)
        if market is None:
            self.on_unknown()
        if market is None or market["type"] != self.profile.market_type:
            raise UnknownSymbolError(f"{self.profile.label} does not list {symbol}")
        if market.get("contract") and not market.get("linear"):
            raise UnknownSymbolError(f"{symbol} is an inverse contract; FKS trades linear ones")
        return dict(market) | {"precisionMode": self.ccxt.precisionMode}

    def market_of_row(self, symbol: str) -> Market:
        """As ``market`` for a row the venue shows; of one FKS does not trade, as a dated or an inverse
        contract, no more than the venue's own name: its numbers are counted in the venue's units.
        """
        listed = (self.ccxt.markets or {}).get(symbol)
        if listed is not None:
            try:
                return self.market(symbol)
            except UnknownSymbolError:
                symbol = str(listed["id"])
        return {"id": symbol, "symbol": symbol}

    def fetch_markets(self) -> None:
        """Load the symbol list anew. Raises QueryFailedError, also when it comes empty."""
        self.gate.forget()
        try:
            self.ccxt.load_markets(True)
        except Exception as error:
            raise self._failure(error) from None
        if not self.ccxt.markets:
            raise QueryFailedError(f"{self.profile.label} sent an empty symbol list")

    def symbol_of(self, venue_symbol: str) -> str:
        """Our symbol of the venue's own; the venue's where it is none of this market type."""
        known = (self.ccxt.markets_by_id or {}).get(venue_symbol, [])
        alternative = self.ccxt.options.get("marketsByAltname", {}).get(venue_symbol)
        known = known or ([alternative] if alternative else [])
        ours = [market["symbol"] for market in known if market["type"] == self.profile.market_type]
        return str(ours[0]) if ours else venue_symbol

    def currency_of(self, asset: str) -> str:
        """The common code of the venue's own asset name."""
        return str(self.ccxt.safe_currency_code(asset))

    def serves(self, section: str) -> bool:
        """Whether there is an address for this part of the exchange's interface."""
        return section in self.ccxt.urls["api"]

    def seen(self, attempt: Attempt) -> Seen:
        """What was observed of ``attempt``, the venue's error read from its own words."""
        error = None if attempt.status is None else self._read_error(attempt.body)
        asked = self.gate.status is not None
        return Seen(attempt.sent, attempt.status, error, attempt.retry_after, asked)

    def close(self) -> None:
        self.ccxt.session.close()

    def _failure(self, error: Exception) -> QueryFailedError:
        if isinstance(error, ThrottledError):
            return HeldBackError(str(error))
        if isinstance(error, RequestRefusedError):
            why = f"FKS refused its own question to {self.profile.label}: {error}"
            return QueryFailedError(self.gate.scrub(why), code=error.code)
        said = None if self.gate.status is None else self._read_error(self.gate.body)
        asked = self.gate.scrub(self.gate.asked)
        if said is None:
            where = f"HTTP {self.gate.status}" if self.gate.status else "no answer"
            where, name = f"{where} to {asked}" if asked else where, type(error).__name__
            is_whole = self.gate.status == OK and not self.gate.unreadable
            kind = NotShownError if is_whole and name == "OrderNotFound" else QueryFailedError
            return kind(f"{self.profile.label}: {where} ({name})")
        refused, works = said.has(self.profile.credentials), self._works(said)
        codes = tuple(self.gate.scrub(code) for code in said.codes)
        said = VenueError(codes, self.gate.scrub(said.message))
        code = "CREDENTIALS_REFUSED" if refused else None
        return VenueRefusedError(said, asked, code=code, is_answer=works)

    def _works(self, said: VenueError) -> bool:
        """Whether what the venue said is about the question, and not about the venue, our key, our
        clock or how often we ask."""
        status, profile = self.gate.status or 0, self.profile
        other = profile.credentials | profile.throttled | profile.clock | profile.ambiguous
        return status < 500 and status not in THROTTLE_STATUSES and not said.has(other)


def connect(
    profile: ExchangeProfile, config: AccountConfig, read_error: ErrorReader, *, private: bool
) -> VenueClient:
    """A client for ``config``; without its credentials unless ``private``.

    Raises ConfigurationError when the account must not reach the exchange's real host but would.
    """
    credentials = config.credentials if private else {}
    for name in ("ccxt.base.exchange", "urllib3.connectionpool"):
        # at DEBUG these print keys, signatures and signed URLs
        logger = logging.getLogger(name)
        if logger.level < logging.INFO:
            logger.setLevel(logging.INFO)
    client = guarded_class(profile.id, increasing=profile.rising_nonce)(
        settings_of(profile, config, credentials)
    )
    client.session.max_redirects = 0
    origins = aim(client, profile, config)
    key, base_url = credentials.get("api_key", ""), str(config.options.get("base_url", ""))
    sandbox = config.environment is Environment.SANDBOX
    limiter = Limiter.of(profile.id, profile.limits, key, base_url, sandbox=sandbox)
    client.gate = Gate(profile, origins, tuple(credentials.values()), limiter, read_error)
    for question, instead in profile.dispensable.items():
        setattr(client, question, client.gate.or_else(getattr(client, question), instead))
    return VenueClient(profile, client, client.gate, read_error)


def checked_base_url(value: str) -> str:
    """The origin a ``base_url`` option names. Raises ConfigurationError."""
    parts = parts_of("base_url", value)
    if not parts.hostname or parts.scheme not in {"http", "https"}:
        raise ConfigurationError("base_url must begin with https:// or http:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment or parts.path.strip("/"):
        raise ConfigurationError("base_url is a scheme, a host and a port, nothing more")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ConfigurationError("base_url may use http only to this machine (127.0.0.1, ::1)")
    return origin(value)


def check_place(profile: ExchangeProfile, config: AccountConfig) -> None:
    """Raise ConfigurationError where the account's options name no place it could talk to."""
    base_url = config.options.get("base_url")
    if base_url:
        checked_base_url(str(base_url))
    elif config.environment is Environment.SANDBOX and profile.sandbox is Sandbox.NONE:
        raise ConfigurationError(
            f"{profile.label} has no sandbox: use environment dry_run, or a base_url"
        )


def settings_of(
    profile: ExchangeProfile, config: AccountConfig, credentials: Mapping[str, str]
) -> dict[str, Any]:
    """How a client of the library is made."""
    patience = timed(profile.capabilities, config.options).submit_timeout
    options = {
        "adjustForTimeDifference": False,
        "defaultType": profile.market_type,
        "fetchCurrencies": False,
        "maxRetriesOnFailure": 0,
    }
    keys = {theirs: credentials.get(ours, "") for ours, theirs in profile.keys.items()}
    return keys | {
        "enableRateLimit": False,
        "timeout": min(TIMEOUT_MS, patience * 1000),
        "verbose": False,
        "has": {"fetchCurrencies": False},
        "options": options | dict(profile.ccxt_options),
    }


def aim(client: Any, profile: ExchangeProfile, config: AccountConfig) -> frozenset[str]:
    """Point ``client`` where the account belongs; the origins it may talk to."""
    check_place(profile, config)
    live = _origins(client)
    base_url = config.options.get("base_url")
    if base_url:
        target = checked_base_url(base_url)
        client.hostname = urlsplit(target).netloc
        names = client.urls.get("hostnames")
        client.urls = {"api": _moved(client.urls["api"], target)}
        if names is not None:
            client.urls["hostnames"] = _every(names, client.hostname)
        if _origins(client) != {target}:
            raise ConfigurationError("a URL of the exchange would not follow base_url")
    elif config.environment is Environment.SANDBOX:
        _enter_sandbox(client, profile)
        by_header = profile.sandbox is Sandbox.HEADER
        if by_header and SANDBOX_HEADER not in {name.lower() for name in client.headers}:
            raise ConfigurationError(f"{profile.label} set no header in sandbox mode")
        if not by_header and live & _origins(client):
            raise ConfigurationError(f"{profile.label} stayed on its real host in sandbox mode")
    return _origins(client)


def _enter_sandbox(client: Any, profile: ExchangeProfile) -> None:
    try:
        client.set_sandbox_mode(True)
    except Exception as error:
        # a client whose switch failed half-way may still point at the real host
        raise ConfigurationError(
            f"{profile.label} refused sandbox mode ({type(error).__name__})"
        ) from None


def _moved(urls: Any, target: str) -> Any:
    if isinstance(urls, dict):
        return {name: _moved(url, target) for name, url in urls.items()}
    return target + urlsplit(urls).path


def _every(names: Any, host: str) -> Any:
    if isinstance(names, dict):
        return {name: _every(member, host) for name, member in names.items()}
    return host


def _origins(client: Any) -> frozenset[str]:
    """Where ``client`` may send to."""
    return origins_of(client, client.urls["api"])


def origins_of(client: Any, urls: Any) -> frozenset[str]:
    """Where these of ``client``'s addresses lead, whichever of its host names fills a template."""
    hosts = {client.hostname or "", *_leaves(client.urls.get("hostnames", {}))}
    known = _leaves(urls)
    return frozenset(origin(url.replace("{hostname}", host)) for url in known for host in hosts)


def _leaves(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [leaf for member in tree.values() for leaf in _leaves(member)]
    return [str(tree)]

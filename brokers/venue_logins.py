"""Log-ins at venues that want a person (OAuth 2): from the venue's page to tokens, and keeping them.

An access token lives for minutes and is renewed under the lock of its row, so that no two workers renew
it at once. The log-in itself ends after days, whatever is done; then somebody logs in again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from brokers.crypto import DecryptionError
from brokers.errors import BrokerError, ConfigurationError, LoginNeededError, QueryFailedError
from brokers.models import Account, AccountLogin, ExchangeCredential
from brokers.refused_tokens import RefusedTokens
from brokers.timing import LOOPBACK
from brokers.types import LoginTerms

SPARE = timedelta(minutes=2)
"""A token with less than this left is renewed first."""
LEAST = timedelta(seconds=15)
"""One that cannot be renewed is used until so much is left: no request may outlive it."""
REFUSED_FOR = timedelta(minutes=1)
"""A refused renewal is not tried again sooner; a venue may refuse in a bad moment. Nor is any that
failed, while the old token is good."""
PATIENCE, CONNECTING = 10, 3  # seconds
WORD = re.compile(r"[A-Za-z0-9_ .-]{1,60}")
LOG_IN = "log in again on the account's page"
ENDS_SOON = timedelta(days=2)
"""So long before its end a log-in is asked for: a weekend lies between Friday and Monday."""
NEEDED, ENDING, HOLDS = "needs_login", "ends_soon", "logged_in"
LOGIN_COLORS = {NEEDED: "danger", ENDING: "warning", HOLDS: "success"}


@dataclass(frozen=True, slots=True)
class LoginState:
    """How an account's log-in stands, as pages show it."""

    state: str
    text: str
    left: timedelta


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the venue gave: the token of requests, the token that renews it, and seconds."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    seconds: int


def state_of(account: Account) -> LoginState | None:
    """``None`` for an account that nobody has to log in."""
    if account.login_terms() is None:
        return None
    login: AccountLogin | None = getattr(account, "login", None)
    if login is None:
        return LoginState(NEEDED, f"needs log-in: nobody has; {LOG_IN}", timedelta(0))
    if not login.left:
        said = login.refusal if login.refused_at else f"it ended; {LOG_IN}"
        return LoginState(NEEDED, f"needs log-in: {said}", timedelta(0))
    days, hours = login.left.days, login.left.seconds // 3600
    lasting = f"{days} day{'' if days == 1 else 's'}" if days else f"{hours} h"
    text = f"logged in, {lasting} left, until {login.ends_at:%Y-%m-%d %H:%M} UTC"
    return LoginState(ENDING if login.left < ENDS_SOON else HOLDS, text, login.left)


def authorise_address(account: Account, state: str) -> str:
    """The venue's page on which a person allows this account; it leads back with ``state``.

    Raises ConfigurationError for an account that is not logged in that way, or has no credentials.
    """
    terms = _terms(account)
    asked = {
        "response_type": "code",
        "client_id": _credentials(account)["api_key"],
        "redirect_uri": terms.callback_url,
        "state": state,
    }
    return f"{terms.authorise_url}?{urlencode(asked)}"


def ended_by(account: Account, others: QuerySet[Account]) -> list[str]:
    """The active accounts among ``others`` with the application of ``account``: where one person logs
    both in, venues such as Schwab keep the newest log-in only.

    Raises ConfigurationError for an account without credentials.
    """
    key = _credentials(account)["api_key"]
    names = []
    for other in others.filter(broker=account.broker, is_active=True).exclude(pk=account.pk):
        with suppress(ConfigurationError):
            if _credentials(other).get("api_key") == key:
                names.append(other.name)
    return names


def answer_in(address: str) -> tuple[str, str]:
    """The code and the state in the address that the venue's page led to; empty where it has none."""
    told = parse_qs(urlsplit(address.strip()).query)
    return told.get("code", [""])[0], told.get("state", [""])[0]


def complete(account: Account, code: str) -> AccountLogin:
    """Give ``code``, which lives for seconds, for tokens and store them; the log-in begins anew, and
    so do the workers' connections.

    Raises ConfigurationError, LoginNeededError when the venue refuses the code, QueryFailedError.
    """
    terms = _terms(account)
    asked = {"grant_type": "authorization_code", "code": code, "redirect_uri": terms.callback_url}
    tokens = _request_tokens(terms, _credentials(account), asked)
    now = timezone.now()
    login = AccountLogin(account=account, ends_at=now + terms.lasts)
    login.seal(tokens.access, tokens.refresh)
    kept, _ = AccountLogin.objects.update_or_create(
        account=account,
        defaults={
            "sealed": login.sealed,
            "access_until": now + timedelta(seconds=tokens.seconds),
            "ends_at": login.ends_at,
            "refused_at": None,
            "refusal": "",
        },
    )
    Account.objects.filter(pk=account.pk).update(version=F("version") + 1)
    return kept


class StoredTokens:
    """The access token of an account, from its row; one object serves the threads of a process."""

    def __init__(self, account_id: int) -> None:
        self._account_id = account_id
        self._lock = threading.Lock()
        self._known: tuple[str, datetime] | None = None
        self._refusals = RefusedTokens()

    def token(self) -> str:
        """Renewed when little is left of it. Raises LoginNeededError while somebody must log in,
        QueryFailedError when the venue could not be asked; neither while the old one is good."""
        with self._lock:
            if self._known is None or self._known[1] <= timezone.now():
                self._refusals.rest()
                self._known = self._current()
            return self._known[0]

    def refused(self, token: str) -> None:
        """The next one is a new one, in every process that reads the row afterwards."""
        with self._lock:
            if self._known is not None and self._known[0] == token:
                self._known = None
                self._refusals.note()
        with transaction.atomic():
            row = self._row()
            with suppress(LoginNeededError):
                if row is not None and _access(row) == token:
                    row.access_until = timezone.now()
                    row.save(update_fields=["access_until"])

    def _row(self) -> AccountLogin | None:
        rows = AccountLogin.objects.select_for_update(of=("self",)).select_related("account")
        return rows.filter(account_id=self._account_id).first()

    def _current(self) -> tuple[str, datetime]:
        """A token, and when to look again: what another worker renewed meanwhile, or what the venue
        gives now, or the old one while that is good and there is no other."""
        trouble: BrokerError | None = None
        # Renewed tokens must be kept whatever becomes of the work around: never inside its transaction.
        with transaction.atomic(durable=True):
            row = self._row()
            if row is None:
                raise LoginNeededError(f"nobody has logged in at the venue: {LOG_IN}")
            if row.access_until - SPARE <= timezone.now():
                trouble = _trouble_with_renewing(row)
        if trouble is None:
            return _access(row), row.access_until - SPARE
        now, last = timezone.now(), row.access_until - LEAST
        if last <= now:
            raise trouble
        return _access(row), min(now + REFUSED_FOR, last)


def _trouble_with_renewing(row: AccountLogin) -> BrokerError | None:
    """Renew the tokens of ``row`` and save it; a refusal is kept there, for pages and alarms."""
    refusal = _refused_already(row)
    if refusal is not None:
        return refusal
    try:
        _renew(row)
    except QueryFailedError as error:
        return error
    except LoginNeededError as error:
        row.refused_at, row.refusal = timezone.now(), str(error)[:200]
        refusal = error
    row.save()
    return refusal


def _refused_already(row: AccountLogin) -> LoginNeededError | None:
    """Why the venue is not asked: the log-in is over, or was refused a moment ago."""
    now = timezone.now()
    if row.ends_at <= now:
        return LoginNeededError(f"the log-in ended at {row.ends_at:%Y-%m-%d %H:%M} UTC: {LOG_IN}")
    if row.refused_at is not None and row.refused_at + REFUSED_FOR > now:
        return LoginNeededError(row.refusal)
    return None


def _renew(row: AccountLogin) -> None:
    """New tokens into ``row``, which the caller saves. Raises LoginNeededError or QueryFailedError."""
    asked = {"grant_type": "refresh_token", "refresh_token": _reveal(row)["refresh"]}
    try:
        terms, credentials = _terms(row.account), _credentials(row.account)
    except ConfigurationError as error:
        raise LoginNeededError(str(error)) from error
    tokens = _request_tokens(terms, credentials, asked)
    row.seal(tokens.access, tokens.refresh)
    row.access_until = timezone.now() + timedelta(seconds=tokens.seconds)
    row.refused_at, row.refusal = None, ""


def _access(row: AccountLogin) -> str:
    return _reveal(row)["access"]


def _reveal(row: AccountLogin) -> dict[str, str]:
    try:
        return row.reveal()
    except DecryptionError as error:
        raise LoginNeededError(f"the stored log-in cannot be read ({error}): {LOG_IN}") from error


def _terms(account: Account) -> LoginTerms:
    terms = account.login_terms()
    if terms is None:
        raise ConfigurationError(f"{account.broker} needs no log-in at the venue")
    return terms


def _credentials(account: Account) -> dict[str, str]:
    """The application's key and secret. Raises ConfigurationError."""
    row = ExchangeCredential.objects.filter(account=account).first()
    if row is None:
        raise ConfigurationError("enter the application's key and secret first")
    try:
        return row.reveal()
    except DecryptionError as error:
        raise ConfigurationError(f"the stored credential cannot be read: {error}") from error


def _request_tokens(
    terms: LoginTerms, credentials: Mapping[str, str], asked: Mapping[str, str]
) -> Tokens:
    """One POST, never repeated. Raises LoginNeededError when the venue says no, QueryFailedError."""
    import httpx

    local = urlsplit(terms.token_url).hostname in LOOPBACK
    timeout = httpx.Timeout(PATIENCE, connect=CONNECTING)
    try:
        with httpx.Client(timeout=timeout, follow_redirects=False, trust_env=not local) as client:
            key = (credentials["api_key"], credentials["api_secret"])
            answer = client.post(terms.token_url, data=dict(asked), auth=key)
    except httpx.HTTPError as error:
        raise QueryFailedError(f"no answer about the log-in: {type(error).__name__}") from error
    try:
        told = answer.json()
    except ValueError:
        told = None
    if answer.status_code == httpx.codes.OK:
        return _tokens(told)
    said = told.get("error") if isinstance(told, dict) else None
    if answer.status_code in (400, 401) and isinstance(said, str):
        word = said if WORD.fullmatch(said) else "no word that can be shown"
        raise LoginNeededError(f"the venue refuses the log-in ({word}): {LOG_IN}")
    raise QueryFailedError(f"no readable answer about the log-in: HTTP {answer.status_code}")


def _tokens(told: object) -> Tokens:
    """Raises QueryFailedError for anything but two tokens and a number of seconds."""
    if isinstance(told, dict):
        access, refresh = told.get("access_token"), told.get("refresh_token")
        seconds = told.get("expires_in")
        texts = [one for one in (access, refresh) if isinstance(one, str) and one.isascii()]
        if len(texts) == 2 and all(texts) and type(seconds) is int and seconds > 0:
            return Tokens(texts[0], texts[1], seconds)
    raise QueryFailedError("no readable answer about the log-in: it has no tokens")

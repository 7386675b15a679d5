"""Schwab's log-in: a code from its page, tokens for the code, new access tokens for a refresh token."""

from __future__ import annotations

import base64
from urllib.parse import urlencode

from tests.venues.credentials import SCHWAB_KEY, SCHWAB_SECRET, SCHWAB_TOKEN
from tests.venues.venue import Answer, Request, pairs, reply

CODE = "C0.loopback@"
SECONDS = 1800


class Logins:
    """Who may ask; the page itself lets everybody in, as one person; the newest log-in alone holds."""

    def __init__(self) -> None:
        self.access = {SCHWAB_TOKEN}
        self.refresh: set[str] = set()
        self.given = 0
        self.seconds = SECONDS
        self._codes: set[str] = set()
        self._begun = 0

    def authorise(self, request: Request) -> Answer:
        asked = dict(pairs(request.query))
        if asked.get("client_id") != SCHWAB_KEY or asked.get("response_type") != "code":
            return refused("invalid_client")
        code = f"{CODE}{self._begun}"
        self._begun += 1
        self._codes.add(code)
        told = {"code": code, "session": "1", "state": asked.get("state", "")}
        address = f"{asked['redirect_uri']}?{urlencode(told)}"
        return Answer(302, b"", headers=(("Location", address),))

    def token(self, request: Request) -> Answer:
        key = base64.b64encode(f"{SCHWAB_KEY}:{SCHWAB_SECRET}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {key}":
            return refused("invalid_client", 401)
        asked = dict(pairs(request.body))
        if asked.get("grant_type") == "authorization_code" and asked.get("code") in self._codes:
            self._codes.remove(asked["code"])
            refresh = f"loopback-refresh-{self.given}"
            self.refresh = {refresh}
        elif asked.get("grant_type") == "refresh_token" and asked["refresh_token"] in self.refresh:
            refresh = asked["refresh_token"]
        else:
            return refused("unsupported_token_type")
        self.given += 1
        access = f"loopback-access-{self.given}"
        self.access.add(access)
        return reply(
            {
                "expires_in": self.seconds,
                "token_type": "Bearer",
                "scope": "api",
                "refresh_token": refresh,
                "access_token": access,
            }
        )


def refused(word: str, status: int = 400) -> Answer:
    return reply({"error": word, "error_description": word}, status=status, error=word)

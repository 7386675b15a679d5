"""What the webhook needs to know of a strategy, read from the database at most twice a second."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from brokers import crypto
from execution.authentication import LiveSecret, live
from execution.bearer import senders_of
from execution.certificates import PinnedCertificate, pinned
from execution.formats import Format, format_of
from execution.models import Strategy, WebhookSecret
from risk.allowlist import Network, allowed_cidrs, networks

logger = logging.getLogger(__name__)

TTL_SECONDS = 0.5
MAX_ENTRIES = 1000
_SLUG = re.compile(r"[-a-zA-Z0-9_]{1,63}")


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """A strategy as the door sees it. ``networks`` is ``None`` when any address may post;
    ``senders`` are the ids of the users who may post with a bearer token.
    """

    strategy_id: int
    slug: str
    format: Format
    dedupe_window: int
    networks: tuple[Network, ...] | None
    allowlist_id: int | None
    secrets: tuple[LiveSecret, ...]
    senders: frozenset[str]
    certificate: PinnedCertificate | None


_cache: dict[str, tuple[float, WebhookConfig]] = {}
_lock = threading.Lock()


def config_of(slug: str) -> WebhookConfig | None:
    """The strategy's configuration, at most half a second old; ``None`` if there is no such
    strategy.

    Raises DatabaseError.
    """
    found = _cache.get(slug)
    if found is not None and time.monotonic() - found[0] < TTL_SECONDS:
        return found[1]
    config = _load(slug) if _SLUG.fullmatch(slug) else None
    with _lock:
        if config is None:
            _cache.pop(slug, None)
        else:
            if len(_cache) >= MAX_ENTRIES:
                _cache.clear()
            _cache[slug] = (time.monotonic(), config)
    return config


def forget() -> None:
    """Drop everything cached in this process."""
    with _lock:
        _cache.clear()


def _load(slug: str) -> WebhookConfig | None:
    strategy = Strategy.objects.filter(slug=slug).first()
    if strategy is None:
        return None
    rows = strategy.live_secrets
    allowed = None
    if strategy.allowlist_id is not None:
        allowed = networks(allowed_cidrs(strategy.allowlist_id))
    return WebhookConfig(
        strategy_id=strategy.pk,
        slug=strategy.slug,
        format=format_of(strategy.format, strategy.format_options),
        dedupe_window=strategy.dedupe_window,
        networks=allowed,
        allowlist_id=strategy.allowlist_id,
        secrets=tuple(_opened(rows)),
        senders=_senders(strategy),
        certificate=pinned(strategy.client_fingerprints, strategy.client_issuer),
    )


def _senders(strategy: Strategy) -> frozenset[str]:
    if strategy.auth != Strategy.Auth.JWT:
        return frozenset()
    return frozenset(str(pk) for pk in senders_of(strategy).values_list("pk", flat=True))


def _opened(rows: Iterable[WebhookSecret]) -> Iterator[LiveSecret]:
    """The secrets that can be used; one whose key is gone must not shut out the others."""
    for row in rows:
        try:
            yield live(row)
        except (crypto.DecryptionError, ValueError) as error:
            logger.error("webhook secret %s cannot be opened: %s", row.pk, error)

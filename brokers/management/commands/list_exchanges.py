"""``manage.py list_exchanges``: every exchange of the pinned ccxt and what is proven about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from brokers import library
from brokers.exchanges import (
    MATRIX_VERSION,
    MEASURED_WITH,
    PROFILES,
    ExchangeProfile,
    profile_for,
)

NOT_USED = ("attached_stop", "trailing", "oco", "iceberg")
"""What some exchanges offer and FKS does its own way (docs/adr/0038)."""
TIERS = {1: "end to end", 2: "by requests", 3: "unverified"}


class Command(BaseCommand):
    help = "List the exchanges with their tier, market types and sandbox."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object, every column")
        parser.add_argument(
            "--write", action="store_true", help="measure the installed ccxt and write the list"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["write"]:
            self._write()
        profiles = _all()
        if options["json"]:
            head = {"version": MATRIX_VERSION, "ccxt": MEASURED_WITH}
            listed = [described(profile) for profile in profiles]
            self.stdout.write(json.dumps(head | {"exchanges": listed}))
            return
        self.stdout.write(f"matrix {MATRIX_VERSION}, ccxt {MEASURED_WITH}")
        self.stdout.write("exchange            market  tier  verified     stop loss  sandbox")
        for one in profiles:
            self.stdout.write(
                f"{one.id:<20}{one.market_type:<8}{one.tier:<6}{TIERS[one.tier]:<13}"
                f"{_stop_loss(one):<11}{one.sandbox.value}"
            )
        self.stdout.write("unverified: prices and dry run; orders with option unverified_venue")
        self.stdout.write("watched: refused, unless option watched_stops lets FKS watch the price")
        self.stdout.write("native attached stops, trailing, OCO and iceberg orders are not used")

    def _write(self) -> None:
        try:
            library.LIST.write_text(library.measure())
        except OSError as error:
            raise CommandError(f"the list cannot be written: {error}") from error
        library.library.cache_clear()


def _all() -> list[ExchangeProfile]:
    """Every exchange and market type, the best proven ones first."""
    pairs = {(one.id, kind) for one in library.library().values() for kind in one.market_types}
    found = {profile_for(*pair) for pair in pairs | set(PROFILES)}
    return sorted(found, key=lambda one: (one.tier, one.id, one.market_type))


def _stop_loss(profile: ExchangeProfile) -> str:
    """Where the stop loss of a position is: at the venue, or watched by FKS if that is allowed."""
    return "venue" if profile.capabilities.holds_stops else "watched"


def described(profile: ExchangeProfile) -> dict[str, Any]:
    """Every column of one exchange, ready for JSON."""
    abilities = profile.capabilities
    return {
        "exchange": profile.id,
        "market_type": profile.market_type,
        "label": profile.label,
        "tier": profile.tier,
        "sandbox": profile.sandbox.value,
        "stop_loss": _stop_loss(profile),
        "not_used": list(NOT_USED),
        "order_types": sorted(abilities.order_types),
        "time_in_force": sorted(abilities.time_in_force),
        "post_only": abilities.post_only,
        "reduce_only": abilities.reduce_only,
        "id_uniqueness": abilities.id_rule.value,
        "settle_window": abilities.settle_window,
        "client_id_field": profile.client_id_field,
        "client_id_example": profile.client_id_codec("0123456789abcdef" * 2),
        "lookup": profile.lookup.value,
        "second_stop_list": profile.stop_endpoint is not None,
        "order_book": abilities.order_book.value,
        "stream": profile.stream,
        "ambiguous_codes": sorted(profile.ambiguous),
        "credentials": sorted(profile.keys),
    } | asdict(profile.traits)

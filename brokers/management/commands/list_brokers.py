"""``manage.py list_brokers``: the plugins, what they need and can do, what is left to prove."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from brokers.base import ExecutionPlugin
from brokers.capabilities import BookDepth, Capabilities, IdRule, VenueCard
from brokers.registry import registry

AGAIN = {
    IdRule.FOREVER: "taken once for ever",
    IdRule.OPEN: "refused while an order with it works",
    IdRule.NONE: "not refused twice",
}
BOOK = {
    BookDepth.NONE: "not shown",
    BookDepth.BEST: "the best prices",
    BookDepth.LEVELS: "several levels",
}


class Command(BaseCommand):
    help = "List the broker plugins: options, credentials, abilities, and what a user must prove."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON array")

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["json"]:
            self.stdout.write(json.dumps([_described(plugin) for plugin in registry()]))
            return
        for plugin in registry():
            self.stdout.write(f"{plugin.name}: {plugin.label}")
            self.stdout.write(f"  credentials: {', '.join(plugin.credential_fields) or 'none'}")
            for name, text in plugin.option_fields.items():
                self.stdout.write(f"  {name}: {text}")
            for card in plugin.cards():
                self.stdout.write(f"  at {card.venue}")
                for line in _lines(card):
                    self.stdout.write(f"    {line}")
        for why in registry().broken().values():
            self.stderr.write(f"warning: {why}")


def _described(plugin: type[ExecutionPlugin]) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "label": plugin.label,
        "credentials": list(plugin.credential_fields),
        "options": plugin.option_fields,
        "venues": [_venue(card) for card in plugin.cards()],
    }


def _lines(card: VenueCard) -> list[str]:
    told = _venue(card)
    stop = "leaves with the entry" if told["attached_stop"] else "is placed as the entry fills"
    ours = f"{card.our_id}, {AGAIN[card.capabilities.id_rule]}" if card.our_id else "not kept there"
    return [
        f"orders: {', '.join(told['order_types'])}; {', '.join(told['time_in_force'])}",
        f"also: {', '.join(_also(card.capabilities)) or 'nothing'}",
        f"stop loss: {stop}",
        f"our id: {ours}",
        f"found again by: {card.lookup}",
        f"order book: {BOOK[card.capabilities.order_book]}",
        f"to prove: {card.to_prove}",
    ]


def _also(abilities: Capabilities) -> list[str]:
    found = {
        "post-only": abilities.post_only,
        "reduce-only": abilities.reduce_only,
        "short selling": abilities.short_selling,
    }
    return [name for name, is_there in found.items() if is_there]


def _venue(card: VenueCard) -> dict[str, Any]:
    abilities = card.capabilities
    return {
        "venue": card.venue,
        "order_types": sorted(abilities.order_types),
        "time_in_force": sorted(abilities.time_in_force),
        "post_only": abilities.post_only,
        "reduce_only": abilities.reduce_only,
        "short_selling": abilities.short_selling,
        "attached_stop": abilities.attached_stop,
        "our_id": card.our_id,
        "keeps_our_id": abilities.keeps_our_id,
        "id_uniqueness": abilities.id_rule.value,
        "lookup": card.lookup,
        "order_book": abilities.order_book.value,
        "settle_window": abilities.settle_window,
        "to_prove": card.to_prove,
    }

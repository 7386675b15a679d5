"""``manage.py list_brokers``: the plugins, what they need and what they can do."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from brokers.base import ExecutionPlugin
from brokers.registry import registry


class Command(BaseCommand):
    help = "List the broker plugins with their options and credentials."

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
        for why in registry().broken().values():
            self.stderr.write(f"warning: {why}")


def _described(plugin: type[ExecutionPlugin]) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "label": plugin.label,
        "credentials": list(plugin.credential_fields),
        "options": plugin.option_fields,
    }

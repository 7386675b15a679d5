"""A mapping an operator defines for a sender FKS has no format for: canonical field → place in the
sender's document, or a constant. The result is read by the canonical format, with all its checks.

```
{"reads": "json",
 "fields": {"symbol": {"path": "data.pair"}, "action": {"path": "side", "words": {"long": "buy"}},
            "quantity": {"constant": "0.01"}}}
```
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from execution.alerts import Alert
from execution.formats import fks
from execution.parsing import MISSING, parse_object
from execution.schema import Invalid
from execution.textual import TextDocument, read_lines, read_words, write_lines, write_words

READERS: Mapping[str, Callable[[bytes], dict[str, Any]]] = {
    "json": parse_object,
    "lines": read_lines,
    "words": read_words,
}
"""How the body is read: JSON, ``NAME=VALUE`` lines, or ``name=value`` words."""
WRITERS = {"lines": write_lines, "words": write_words}
TARGETS = (
    "symbol", "action", "order_type", "quantity", "quantity_type", "price", "stop_price",
    "stop_loss", "take_profit", "trailing_percent", "time_in_force", "post_only", "reduce_only",
    "confidence", "atr", "timestamp", "id", "market_position", "market_position_size",
    "prev_market_position", "prev_market_position_size", "execution", "comment",
)  # fmt: skip
REQUIRED = ("symbol", "action")
MOST_WORDS = 50
_PATH = re.compile(r"[^.\[\]]{1,60}(?:\.[^.\[\]]{1,60}|\[\d{1,3}\]){0,15}")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def problems(mapping: Any) -> list[str]:
    """What is wrong with a mapping, as sentences; empty when it can be used."""
    if not isinstance(mapping, Mapping):
        return ['a mapping is a JSON object: {"fields": {"symbol": {"path": "ticker"}, …}}']
    found = [f"there is no setting {name!r}" for name in sorted(set(mapping) - {"reads", "fields"})]
    if mapping.get("reads", "json") not in READERS:
        found.append(f'"reads" is one of {", ".join(READERS)}')
    fields = mapping.get("fields")
    if not isinstance(fields, Mapping) or not fields:
        return [*found, '"fields" is an object: canonical field → {"path": …} or {"constant": …}']
    found += [f"{name} must be mapped" for name in REQUIRED if name not in fields]
    for name, rule in fields.items():
        found += [f"{name}: {problem}" for problem in _rule_problems(str(name), rule)]
    return found


def _rule_problems(name: str, rule: Any) -> list[str]:
    if name not in TARGETS:
        return [f"FKS has no such field; it has {', '.join(TARGETS)}"]
    if not isinstance(rule, Mapping) or ("path" in rule) == ("constant" in rule):
        return ['give either {"path": "a.b[0]"} or {"constant": "value"}']
    found = [f"there is no {key!r}" for key in sorted(set(rule) - {"path", "constant", "words"})]
    if "path" in rule and not (isinstance(rule["path"], str) and _PATH.fullmatch(rule["path"])):
        found.append(f"{rule['path']!r} is no path such as order.side or targets[0].price")
    if "constant" in rule and not isinstance(rule["constant"], (str, bool, int)):
        found.append("a constant is a text, a whole number, true or false")
    words = rule.get("words", {})
    if not isinstance(words, Mapping) or not all(
        isinstance(word, str) for pair in words.items() for word in pair
    ):
        found.append('"words" translates texts: {"long": "buy", "short": "sell"}')
    elif len(words) > MOST_WORDS:
        found.append(f"more than {MOST_WORDS} words")
    return found


def read(body: bytes, options: Mapping[str, Any]) -> dict[str, Any]:
    """The sender's document. Raises Unreadable."""
    return READERS.get(str(options.get("reads")), parse_object)(body)


def write(fields: Mapping[str, str], options: Mapping[str, Any]) -> str:
    """A body with ``fields`` at its top level."""
    return WRITERS.get(str(options.get("reads")), json.dumps)(fields)


def sent_at(options: Mapping[str, Any]) -> str:
    """Where the sender's time stands, if the mapping reads one."""
    if problems(options):
        return "timestamp"
    return str(options["fields"].get("timestamp", {}).get("path", "timestamp"))


def parse(document: Mapping[str, Any], options: Mapping[str, Any]) -> Alert:
    """The alert in ``document``. Raises Invalid; complaints name the sender's place as well."""
    if found := problems(options):
        detail = f"the strategy's mapping cannot be used: {found[0]}"
        raise Invalid([{"field": "", "code": "MAPPING", "detail": detail}])
    rules = options["fields"]
    canonical: dict[str, Any] = {}
    for name, rule in rules.items():
        value = _value(document, rule) if "path" in rule else _constant(rule["constant"])
        if value is not None:
            canonical[name] = value
    used = {_STEP.findall(rule["path"])[0][0] for rule in rules.values() if "path" in rule}
    if isinstance(document, TextDocument):
        used = {name.lower() for name in used}
    kept = {
        name: value for name, value in document.items() if name not in used and value is not MISSING
    }
    try:
        alert = fks.parse(canonical)
    except Invalid as error:
        raise Invalid([_located(one, rules, document) for one in error.errors]) from error
    return replace(alert, extras={**alert.extras, **kept})


def _value(document: Any, rule: Mapping[str, Any]) -> Any:
    """What stands at the rule's path, translated; ``None`` when nothing does."""
    value = document
    if isinstance(document, TextDocument):
        value = document.get(rule["path"].lower())
    else:
        for name, index in _STEP.findall(rule["path"]):
            value = _step(value, name, index)
    words = {word.lower(): meaning for word, meaning in rule.get("words", {}).items()}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    return value


def _constant(value: str | bool | int) -> Any:
    return value if isinstance(value, (str, bool)) else Decimal(value)


def _step(value: Any, name: str, index: str) -> Any:
    if name:
        return value.get(name) if isinstance(value, Mapping) else None
    is_there = isinstance(value, list) and int(index) < len(value)
    return value[int(index)] if is_there else None


def _located(
    error: dict[str, str], rules: Mapping[str, Any], document: Mapping[str, Any]
) -> dict[str, str]:
    rule = rules.get(error["field"].partition("[")[0], {})
    if "path" not in rule:
        return error
    located = error | {"detail": f"{error['detail']} (from {rule['path']})"}
    if isinstance(document, TextDocument) and rule["path"].lower() in document.places:
        located["position"] = str(document.places[rule["path"].lower()][0])
    return located

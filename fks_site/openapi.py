"""What the generated OpenAPI schema cannot know by itself: errors, strictness, paths of no view."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Endpoint = tuple[str, str, str, Any]

ERRORS = {
    "400": "The request cannot be read; `errors` says what is wrong, field by field.",
    "401": "No valid token and no session.",
    "403": "The user lacks the permission.",
    "404": "There is no such row (or no such page).",
    "409": "The row's present state does not allow it.",
    "413": "The body is larger than 64 KiB.",
    "415": "The body is not `application/json`.",
    "422": "Understood and refused; `code` is the reason code.",
    "429": "Too many unauthenticated requests; see `Retry-After`.",
    "503": "It could not be stored or passed on; send it again.",
}
STRICT = ("NewOrder", "OptionalReason", "Reason", "TradingStateChange")
CREDENTIALS = ("Token", "TokenRefresh")
_ERROR = {"$ref": "#/components/schemas/Error"}
_ERROR_SCHEMA = {
    "type": "object",
    "description": "Every error: a code for programs, a sentence for people.",
    "properties": {
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "What is wrong, field by field.",
            "items": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
    "required": ["code", "detail"],
}


def without_trailing_slash(endpoints: list[Endpoint]) -> list[Endpoint]:
    """Every path works with and without its slash; the schema shows it without."""
    return [(path.rstrip("/"), *rest) for path, *rest in endpoints]


def complete(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """The schema with every operation's errors and the paths that are no API views."""
    schemas = result["components"]["schemas"]
    schemas["Error"] = _ERROR_SCHEMA
    for name in STRICT:
        schemas[name]["additionalProperties"] = False
    for name in CREDENTIALS:
        _refuse_blank(schemas[name]["properties"].values())
    for path, item in result["paths"].items():
        for method, operation in item.items():
            parameters = operation.get("parameters", ())
            _refuse_blank(one["schema"] for one in parameters if one["in"] == "query")
            for status in _errors_of(path, method):
                operation["responses"].setdefault(status, _error(status))
    result["paths"] |= _WEBHOOK | _PROBES
    return result


def _refuse_blank(schemas: Iterable[dict[str, Any]]) -> None:
    for schema in schemas:
        if schema.get("type") == "string" and not schema.keys() & {"enum", "format", "pattern"}:
            schema["pattern"] = r"\S"


def _errors_of(path: str, method: str) -> list[str]:
    if path == "/api/token":
        return ["400", "401", "415", "429"]
    if path.startswith("/api/token"):
        return ["400", "401", "415"]
    statuses = ["400", "401", "403", "404"]
    if method == "post":
        statuses += ["413", "415", "422"]
    if path.endswith("/cancel"):
        statuses += ["409", "503"]
    return statuses


def _error(status: str) -> dict[str, Any]:
    return {"description": ERRORS[status], "content": {"application/json": {"schema": _ERROR}}}


def _answer(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_ID = {"type": "string", "format": "uuid"}
_TEXT = {"type": "string"}
_NUMBER = {"anyOf": [{"type": ["number", "null"]}, {"type": "string"}]}
_FLAG = {
    "anyOf": [
        {"type": ["boolean", "null"]},
        {"type": "integer", "minimum": 0, "maximum": 1},
        {"enum": ["true", "false", "1", "0"]},
    ]
}
_WORDS = {
    "order_type": ("market", "limit", "stop", "stop_limit", "trailing_stop"),
    "quantity_type": ("base", "quote", "percent_of_equity", "risk_percent"),
    "time_in_force": ("gtc", "ioc", "fok", "day"),
    "market_position": ("long", "short", "flat"),
}
_NUMBERS = (
    "quantity", "price", "stop_price", "stop_loss", "trailing_percent", "confidence", "atr",
    "market_position_size", "prev_market_position_size",
)  # fmt: skip
_ALERT = {
    "type": "object",
    "description": "The format `fks`; other senders' formats are in docs/formats.md. Numbers may be "
    "text. Fields that are not here are kept and shown, never executed.",
    "properties": {
        "symbol": {"type": ["string", "number"], "minLength": 1, "maxLength": 60},
        "action": {"enum": ["buy", "sell", "close", "cancel"]},
        **{name: {"enum": [*words, None]} for name, words in _WORDS.items()},
        **dict.fromkeys(_NUMBERS, _NUMBER),
        "take_profit": {"description": "A price, or a list of `{price, percent}`."},
        **dict.fromkeys(("post_only", "reduce_only"), _FLAG),
        "timestamp": {"description": "Seconds, milliseconds or ISO 8601."},
        "id": {"description": "What names this alert for ever; text of at most 150 characters."},
        "prev_market_position": {"description": "What the sender held before: long, short, flat."},
        "secret": {"description": "The webhook's token, if it is not in the path."},
        "comment": {"description": "Text of at most 1,000 characters."},
    },
    "required": ["symbol", "action"],
}
_WEBHOOK_RESPONSES = {
    "200": {
        "description": "A delivery seen before (`duplicate`), or, with `Prefer: wait=N`, what became "
        "of the signal and its orders.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
    "202": _answer("Stored.", {"status": {"const": "accepted"}, "signal_id": _ID}),
    **{status: _error(status) for status in ("400", "401", "403", "413", "429", "503")},
}
_WEBHOOK_OPERATION = {
    "tags": ["webhook"],
    "summary": "Take one alert",
    "description": "Any content type; the strategy's own secret authenticates. See docs/webhook.md.",
    "security": [{}],
    "requestBody": {"required": True, "content": {"application/json": {"schema": _ALERT}}},
    "responses": _WEBHOOK_RESPONSES,
}


def _webhook_path(operation: str, *names: str) -> dict[str, Any]:
    parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
    prefer = {"name": "Prefer", "in": "header", "schema": _TEXT, "description": "`wait=N`"}
    return {
        "post": _WEBHOOK_OPERATION | {"operationId": operation, "parameters": [*parameters, prefer]}
    }


_WEBHOOK = {
    "/webhook/{strategy}": _webhook_path("webhook", "strategy"),
    "/webhook/{strategy}/{token}": _webhook_path("webhook_with_token", "strategy", "token"),
}


def _probe(operation: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {
        "get": {
            "operationId": operation,
            "tags": ["probes"],
            "summary": summary,
            "security": [{}],
            "responses": responses,
        }
    }


_READY = {"status": _TEXT, "checks": {"type": "object", "additionalProperties": {"type": "object"}}}
_METRICS = {
    "200": {"description": "Prometheus text.", "content": {"text/plain": {"schema": _TEXT}}},
    "401": _error("401"),
    "403": _error("403"),
}
_PROBES = {
    "/health": _probe(
        "health", "Whether the process lives", {"200": _answer("It does.", {"status": _TEXT})}
    ),
    "/ready": _probe(
        "ready",
        "Whether orders can flow",
        {"200": _answer("They can.", _READY), "503": _answer("They cannot; see why.", _READY)},
    ),
    "/metrics": _probe("metrics", "Metrics, for this machine and for staff", _METRICS),
}

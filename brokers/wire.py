"""The fields an order request must carry, read from the templates of an exchange's row.

A template value is a text in which ``{id}``, ``{base_id}`` and ``{base_name}`` (the venue's names),
``{settle}``, ``{margin_mode}``, ``{side}``, ``{Side}``, ``{SIDE}``, ``{client_id}``, ``{reduce_only}``,
``{quantity}``, ``{price}`` and ``{stop}`` stand for the order's own; or a table
``{buy = ..., sell = ...}``. Nested tables describe the objects of a JSON body.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from brokers.errors import NotSupportedError
from brokers.transport import Wire
from brokers.types import OrderRequest, OrderType, TimeInForce

Values = Mapping[str, str | Decimal]


def kind_of(request: OrderRequest) -> str:
    """Which template describes ``request``."""
    if request.post_only:
        return "post_only"
    if request.type is OrderType.LIMIT and request.time_in_force is not TimeInForce.GTC:
        return request.time_in_force.value
    return request.type.value


def values_of(
    request: OrderRequest, market: Mapping[str, Any], client_id: str, quantity: Decimal
) -> dict[str, str | Decimal]:
    """What the placeholders stand for; ``quantity`` in the venue's own unit."""
    side = request.side.value
    found: dict[str, str | Decimal | None] = {
        **names_of(market),
        "reduce_only": str(request.reduce_only).lower(),
        "side": side,
        "Side": side.capitalize(),
        "SIDE": side.upper(),
        "client_id": client_id,
        "quantity": quantity,
        "price": request.price,
        "stop": request.stop_price,
    }
    return {name: value for name, value in found.items() if value is not None}


def fields(templates: Mapping[str, Any], request: OrderRequest, values: Values) -> Wire:
    """The fields of ``request`` by name or path. Raises NotSupportedError without a template."""
    kind = kind_of(request)
    if kind not in templates:
        raise NotSupportedError(f"nobody has proven how {kind} orders are sent there")
    told = dict(_filled(templates.get("common", {}), values, "", request))
    told |= _filled(templates[kind], values, "", request)
    if request.reduce_only:
        told |= _filled(templates["reduce_only"], values, "", request)
    return told


def cancel_fields(
    templates: Mapping[str, Any], market: Mapping[str, Any], order_id: str, *, stop: bool
) -> Wire:
    """The fields of a request to cancel the order with that id of the venue's."""
    values = names_of(market) | {"order_id": order_id}
    return dict(_filled(templates["cancel_stop" if stop else "cancel"], values, "", None))


def question_fields(
    templates: Mapping[str, Any], market: Mapping[str, Any], more: Mapping[str, str] | None = None
) -> Wire:
    """The fields of a question about ``market``; ``more`` is what else placeholders stand for."""
    return dict(_filled(templates, {**names_of(market), **(more or {})}, "", None))


def names_of(market: Mapping[str, Any]) -> dict[str, str | Decimal]:
    """The venue's names of a market."""
    return {
        "id": str(market["id"]),
        "base_id": str(market["baseId"]),
        "base_name": str(market.get("baseName") or market["base"]),
        "settle": str(market.get("settle") or ""),
    }


def parameters(
    templates: Mapping[str, Any], request: OrderRequest, values: Values
) -> dict[str, Any]:
    """What the library must be told beside the usual parameters; ``None`` takes one away."""
    extra = templates.get("params", {})
    told: dict[str, Any] = {}
    for name, template in extra.get(kind_of(request), {}).items():
        filled = _fill(str(template), values)
        told[name] = f"{filled:f}" if isinstance(filled, Decimal) else filled or None
    return told


def _filled(
    template: Mapping[str, Any], values: Values, path: str, request: OrderRequest | None
) -> Iterator[tuple[str, str | Decimal]]:
    for name, value in template.items():
        chosen = _chosen(value, request)
        if isinstance(chosen, Mapping):
            yield from _filled(chosen, values, f"{path}{name}.", request)
        else:
            yield f"{path}{name}", _fill(str(chosen), values)


def _chosen(template: Any, request: OrderRequest | None) -> Any:
    if request is not None and isinstance(template, Mapping) and set(template) == {"buy", "sell"}:
        return template[request.side.value]
    return template


def _fill(text: str, values: Values) -> str | Decimal:
    """A lone placeholder keeps its type, so that numbers are compared as numbers."""
    lone = values.get(text[1:-1]) if text.startswith("{") else None
    if lone is not None:
        return lone
    for name, value in values.items():
        if isinstance(value, str):
            text = text.replace(f"{{{name}}}", value)
    return text

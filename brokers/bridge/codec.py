"""The frozen values of `brokers.types` as JSON and back, every number a decimal string.

Reading is strict: an unknown or missing field, a number that is not plain, a time without a zone
raise CodecError. What cannot be read exactly is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from brokers.decimals import decimal_text

PLAIN = re.compile(r"-?\d{1,38}(\.\d{1,38})?")


class CodecError(ValueError):
    """A value does not have the shape both ends agreed on."""


def dump(value: Any) -> Any:
    """`value` as JSON-ready data."""
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: dump(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): dump(member) for name, member in value.items()}
    if isinstance(value, frozenset):
        return sorted(dump(member) for member in value)
    if isinstance(value, list | tuple):
        return [dump(member) for member in value]
    return value


def load(kind: Any, data: Any) -> Any:
    """The value of type `kind` that `dump` made `data` of. Raises CodecError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (Union, UnionType):
        return _optional(arguments, data)
    if origin in (tuple, frozenset, Sequence):
        members = [load(arguments[0], member) for member in _of(list, data)]
        return frozenset(members) if origin is frozenset else tuple(members)
    if origin in (Mapping, dict):
        return {name: load(arguments[1], member) for name, member in _of(dict, data).items()}
    if is_dataclass(kind):
        return _dataclass(kind, _of(dict, data))
    return _scalar(kind, data)


def _optional(arguments: tuple[Any, ...], data: Any) -> Any:
    if data is None and NoneType in arguments:
        return None
    wanted = [one for one in arguments if one is not NoneType]
    return load(wanted[0], data)


def _scalar(kind: Any, data: Any) -> Any:
    if kind is Decimal:
        if not PLAIN.fullmatch(_of(str, data)):
            raise CodecError(f"{data!r} is not a plain decimal number")
        return Decimal(data)
    try:
        if kind is datetime:
            moment = datetime.fromisoformat(_of(str, data))
            if moment.tzinfo is None:
                raise CodecError(f"{data!r} has no time zone")
            return moment
        if isinstance(kind, type) and issubclass(kind, Enum):
            return kind(data)
    except ValueError as error:
        raise CodecError(str(error)) from error
    return _of(kind, data)


def _of(kind: Any, data: Any) -> Any:
    if type(data) is not kind:
        raise CodecError(f"{type(data).__name__} where {kind.__name__} belongs")
    return data


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _dataclass(kind: Any, data: Mapping[str, Any]) -> Any:
    known = {one.name: one for one in fields(kind)}
    foreign = sorted(set(data) - set(known))
    if foreign:
        raise CodecError(f"{kind.__name__} has no field {foreign[0]!r}")
    missing = [
        name
        for name, one in known.items()
        if name not in data and one.default is MISSING and one.default_factory is MISSING
    ]
    if missing:
        raise CodecError(f"{kind.__name__} lacks {missing[0]!r}")
    hints = _hints(kind)
    try:
        return kind(**{name: load(hints[name], member) for name, member in data.items()})
    except CodecError:
        raise
    except ValueError as error:
        raise CodecError(str(error)) from error

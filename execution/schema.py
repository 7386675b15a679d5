"""Field readers shared by all formats: a value of the document, checked, or a coded complaint."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

from execution.parsing import MISSING, Unreadable, decimal_from
from execution.textual import TextDocument, place_in

Choice = TypeVar("Choice", bound=StrEnum)
Meaning = TypeVar("Meaning")

_MOST = Decimal(10) ** 18
_DAY = Decimal(86_400)
MISSING_WORDS = frozenset({"nan", "na", "n/a", "null", "none", "undefined"})
MIN_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
MAX_MOMENT = datetime(2200, 1, 1, tzinfo=UTC)


class Invalid(Exception):
    """The document is readable but not a valid alert; ``errors`` lists every field that is wrong."""

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__("; ".join(f"{one['field']}: {one['detail']}" for one in errors))
        self.errors = errors


class Fields:
    """Reads fields of a document one by one and collects what is wrong with them.

    A missing field and ``null`` are absent; so are an empty text and TradingView's ``NaN``, except
    where a number is expected.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        errors: list[dict[str, str]] | None = None,
        prefix: str = "",
    ) -> None:
        self._document = document
        self._prefix = prefix
        self._read: set[str] = set()
        self._inner: dict[str, Fields] = {}
        self.errors: list[dict[str, str]] = [] if errors is None else errors

    def forgiving(self, is_so: bool) -> Fields:
        """These fields; where ``is_so``, what is wrong with one makes it absent and nobody complains.

        For what only an entry needs: an exit is not lost over it. Never for how much an exit closes.
        """
        if not is_so:
            return self
        unheard = copy(self)
        unheard.errors = []
        return unheard

    def complain(self, name: str, detail: str, code: str = "INVALID") -> None:
        """Note what is wrong with a field; text alerts also say where it stands."""
        error = {"field": f"{self._prefix}{name}", "code": code, "detail": detail}
        if isinstance(self._document, TextDocument) and name in self._document.places:
            start = self._document.places[name][0]
            error["detail"] = f"{detail} ({place_in(self._document.text, start)})"
            error["position"] = str(start)
        self.errors.append(error)

    def raw(self, name: str) -> Any:
        """The value as parsed, ``None`` when absent."""
        self._read.add(name)
        value = self._document.get(name)
        if value is None or value is MISSING or (isinstance(value, str) and not value.strip()):
            return None
        return value

    def text(self, name: str, *, most: int, required: bool = False) -> str:
        value = self.raw(name)
        if value is None:
            if required:
                self.complain(name, "this field is required", "REQUIRED")
            return ""
        if isinstance(value, Decimal):
            value = format(value, "f")
        if not isinstance(value, str):
            self.complain(name, "must be text")
            return ""
        if len(value) > most:
            self.complain(name, f"longer than {most} characters")
            return ""
        if required and "{{" in value:
            self.complain(name, "is a placeholder nobody filled in", "REQUIRED")
            return ""
        return value.strip()

    def key(self, name: str) -> str:
        """An idempotency key; one whose ``{{placeholder}}`` was never filled in is no key: it would
        make every alert the same.
        """
        text = self.text(name, most=150)
        return "" if is_missing(text) else text

    def choice(self, name: str, choices: type[Choice], default: Choice | None) -> Choice | None:
        """One of ``choices``, any case; ``default`` when absent (``None`` makes it required)."""
        value = self.raw(name)
        if value is None:
            if default is None:
                self.complain(name, "this field is required", "REQUIRED")
            return default
        try:
            return choices(str(value).strip().lower())
        except ValueError:
            known = ", ".join(one.value for one in choices)
            self.complain(name, f"must be one of {known}")
            return default

    def optional_choice(self, name: str, choices: type[Choice]) -> Choice | None:
        return None if self.raw(name) is None else self.choice(name, choices, None)

    def known_choice(self, name: str, choices: type[Choice]) -> Choice | None:
        """One of ``choices`` that is absent also where TradingView had no value: for what is compared
        and never traded on.
        """
        value = self.raw(name)
        is_absent = isinstance(value, str) and is_missing(value)
        return None if is_absent else self.optional_choice(name, choices)

    def number(
        self, name: str, *, least: Decimal | None = None, most: Decimal | None = None
    ) -> Decimal | None:
        """A positive number (or within ``least`` and ``most``), exact; ``None`` when absent.

        ``NaN`` and an empty text are not absent: a size or a price that failed to render upstream
        must not silently become a default.
        """
        value = self.raw(name)
        if value is not None:
            return self.number_of(name, value, least=least, most=most)
        if self.is_given(name):
            self.complain(name, "is present but holds no number")
        return None

    def optional_number(
        self, name: str, *, least: Decimal | None = None, most: Decimal | None = None
    ) -> Decimal | None:
        """A number that is absent also when it is ``NaN``, ``null`` or an unfilled placeholder."""
        value = self.raw(name)
        if value is None or (isinstance(value, str) and is_missing(value)):
            return None
        return self.number_of(name, value, least=least, most=most)

    def size(self, name: str) -> Decimal | None:
        """A number that may be zero."""
        return self.number(name, least=Decimal(0), most=_MOST)

    def seconds(self, name: str) -> int | None:
        """A whole number of seconds, at least one."""
        number = self.number(name, least=Decimal(1), most=_DAY)
        return None if number is None else int(number)

    def is_given(self, name: str) -> bool:
        """Whether the sender wrote the field at all, be it empty or ``NaN``."""
        return self._document.get(name) is not None

    def number_of(
        self, name: str, value: Any, *, least: Decimal | None = None, most: Decimal | None = None
    ) -> Decimal | None:
        if value is None or value is MISSING:
            return None
        if isinstance(value, str):
            try:
                value = decimal_from(value.strip())
            except Unreadable as error:
                self.complain(name, error.detail, error.code)
                return None
        if not isinstance(value, Decimal):
            self.complain(name, "must be a number")
            return None
        if least is None and value <= 0:
            self.complain(name, "must be greater than zero", "NOT_POSITIVE")
            return None
        if (least is not None and value < least) or (most is not None and value > most):
            self.complain(name, f"must be from {least} to {most}", "OUT_OF_RANGE")
            return None
        return value

    def flag(self, name: str) -> bool:
        value = self.raw(name)
        if value is None:
            return False
        if isinstance(value, int | Decimal) and value in (0, 1):
            return bool(value)
        word = str(value).strip().lower()
        if word in ("true", "false", "1", "0"):
            return word in ("true", "1")
        self.complain(name, "must be true or false, or 1 or 0")
        return False

    def translated(
        self, name: str, table: Mapping[str, Meaning], *, required: bool = False
    ) -> Meaning | None:
        """What ``table`` says a sender's word means, any case; ``None`` when absent."""
        value = self.raw(name)
        if value is None:
            if required:
                self.complain(name, "this field is required", "REQUIRED")
            return None
        word = str(value).strip().lower()
        if word not in table:
            self.complain(name, f"must be one of {', '.join(table)}")
            return None
        return table[word]

    def inner(self, name: str) -> Fields:
        """The fields of the object ``name``; none when it is absent."""
        value = self.raw(name)
        if value is not None and not isinstance(value, Mapping):
            self.complain(name, "must be an object")
        document = value if isinstance(value, Mapping) else {}
        prefix = f"{self._prefix}{name}."
        inner = Fields(document, errors=self.errors, prefix=prefix)
        self._inner[name] = inner
        return inner

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Complain about every field that asks for something FKS does not do: ignoring it would
        change the trade. ``0``, ``false`` and an empty text ask for nothing.
        """
        for name, reason in reasons.items():
            value = self.raw(name)
            if value is None or value is False or value in ("0", "false") or value == 0:
                continue
            self.complain(name, reason, "UNSUPPORTED")

    def moment(self, name: str) -> datetime | None:
        """Seconds, milliseconds or ISO 8601, as UTC; a time without a zone is UTC."""
        value = self.raw(name)
        if value is None:
            return None
        try:
            moment = _moment(value)
        except (ValueError, OverflowError, Unreadable):
            self.complain(name, "must be seconds, milliseconds or an ISO 8601 time")
            return None
        if not MIN_MOMENT <= moment <= MAX_MOMENT:
            self.complain(name, "is not a time between 2000 and 2200", "OUT_OF_RANGE")
            return None
        return moment

    def unread(self) -> dict[str, Any]:
        """Fields nobody asked for: kept and shown, never executed."""
        left = {
            name: value
            for name, value in self._document.items()
            if name not in self._read and value is not MISSING
        }
        inner = {name: fields.unread() for name, fields in self._inner.items()}
        return left | {name: fields for name, fields in inner.items() if fields}

    def raise_if_wrong(self) -> None:
        if self.errors:
            raise Invalid(self.errors)


def is_missing(text: str) -> bool:
    """Whether a text is what TradingView leaves where it had no value."""
    return text.strip().lower() in MISSING_WORDS or "{{" in text


def _moment(value: Any) -> datetime:
    if isinstance(value, str) and not value.strip().replace(".", "", 1).isdigit():
        moment = datetime.fromisoformat(value.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    number = decimal_from(value.strip()) if isinstance(value, str) else value
    if not isinstance(number, Decimal):
        raise ValueError("not a time")
    seconds = number / 1000 if number >= 100_000_000_000 else number
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(seconds * 1_000_000))

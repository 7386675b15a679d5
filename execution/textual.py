"""Text alerts: ``name=value`` in three notations, read under the bounds JSON has.

Every reader is total: fields with the place of each value, or Unreadable with code and position.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from execution.parsing import MAX_KEYS, Unreadable, decode, refuse_text

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,39}", re.ASCII)
_WORD = re.compile(r"([^\s=|&\"]+)(?:(=)(\"[^\"\n]*\"|[^\s|&\"]*))?")
_PART = re.compile(r"((?:[^,\"\n]|\"[^\"\n]*\")*)")


class TextDocument(dict[str, Any]):
    """The fields of a text alert, names in lower case. ``places`` holds where each value stands:
    the offsets of its first character and of the one after its last.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.places: dict[str, tuple[int, int]] = {}

    def put(self, name: str, value: str, place: tuple[int, int]) -> None:
        """Add a field. Raises Unreadable for one that is there already, and beyond the bounds."""
        name = name.lower()
        if name in self:
            raise self.wrong("DUPLICATE_KEY", f"{name[:40]!r} appears twice", place[0])
        if len(self) >= MAX_KEYS:
            raise self.wrong("TOO_MANY_KEYS", f"more than {MAX_KEYS} fields", place[0])
        refuse_text(value)
        self[name] = value
        self.places[name] = place

    def copy(self) -> TextDocument:
        copied = TextDocument(self.text)
        copied.update(self)
        copied.places = dict(self.places)
        return copied

    def masked(self, names: Iterable[str]) -> str:
        """The text with asterisks for the values of ``names``; every other place stays the same."""
        text = self.text
        for start, end in (self.places[name] for name in names if name in self.places):
            text = text[:start] + "*" * (end - start) + text[end:]
        return text

    def wrong(self, code: str, detail: str, position: int) -> Unreadable:
        """The complaint about what stands at ``position``, with its line and column."""
        return Unreadable(code, f"{detail} at {place_in(self.text, position)}", position)


def place_in(text: str, position: int) -> str:
    """``position`` as an editor shows it, counted from 1."""
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return f"line {line}, column {column}"


def read_lines(body: bytes) -> TextDocument:
    """``NAME=VALUE``, one a line or separated by ``;`` (OctoBot). Raises Unreadable."""
    document = _document(body)
    for match in re.finditer(r"[^\r\n;]+", document.text):
        if match[0].strip():
            _put_pair(document, match[0], match.start())
    return _not_empty(document)


def read_words(body: bytes) -> TextDocument:
    """``name=value`` separated by spaces or ``&``, values quoted or not (Autoview's notation).

    Raises Unreadable; also for a second command, after a line break or ``|``: one alert is one order.
    """
    document = _document(body)
    for start, command in _commands(document.text):
        if document:
            raise document.wrong("SEVERAL_COMMANDS", "one alert is one command; another", start)
        for match in _words(document, command, start):
            if not match[2]:
                raise document.wrong("NOT_A_PAIR", "NAME=VALUE expected", start + match.start())
            _put_pair(document, match[0], start + match.start())
    return _not_empty(document)


def read_commas(body: bytes, names: tuple[str, ...]) -> TextDocument:
    """Values separated by commas: the first ones are called ``names``, the others ``name=value``
    (PineConnector). A quoted value may hold commas. Raises Unreadable.
    """
    document = _document(body)
    position, end = 0, len(document.text.rstrip())
    while position < end:
        match = _PART.match(document.text, position)
        part = match[0] if match else ""
        if position + len(part) < end and document.text[position + len(part)] != ",":
            raise document.wrong("NOT_A_LIST", "one line of values expected", position + len(part))
        if len(document) < len(names):
            _put_positional(document, names[len(document)], part, position)
        else:
            _put_pair(document, part, position)
        position += len(part) + 1
    return _not_empty(document)


def write_lines(fields: Mapping[str, str]) -> str:
    """What ``read_lines`` reads."""
    return "\n".join(f"{name}={value}" for name, value in fields.items())


def write_words(fields: Mapping[str, str]) -> str:
    """What ``read_words`` reads."""
    return " ".join(f'{name}="{value}"' for name, value in fields.items())


def write_commas(fields: Mapping[str, str], names: tuple[str, ...]) -> str:
    """What ``read_commas`` reads; one of ``names`` that is not given stays empty."""
    positional = [fields.get(name, "") for name in names]
    named = [f'{name}="{value}"' for name, value in fields.items() if name not in names]
    return ",".join(positional + named)


def _document(body: bytes) -> TextDocument:
    return TextDocument(decode(body))


def _not_empty(document: TextDocument) -> TextDocument:
    if not document:
        raise Unreadable("EMPTY", "the body holds no field", 0)
    return document


def _commands(text: str) -> Iterator[tuple[int, str]]:
    for match in re.finditer(r"[^\r\n|]+", text):
        if match[0].strip(" \t&"):
            yield match.start(), match[0]


def _words(document: TextDocument, command: str, start: int) -> Iterator[re.Match[str]]:
    position = 0
    while position < len(command):
        if command[position] in " \t&":
            position += 1
            continue
        match = _WORD.match(command, position)
        if match is None or match.end() == position:
            raise document.wrong("NOT_A_PAIR", "NAME=VALUE expected", start + position)
        yield match
        position = match.end()


def _put_positional(document: TextDocument, name: str, part: str, start: int) -> None:
    value = part.strip()
    begin = start + len(part) - len(part.lstrip())
    document.put(name, value, (begin, begin + len(value)))


def _put_pair(document: TextDocument, part: str, start: int) -> None:
    name, separator, value = part.partition("=")
    begin = start + len(name) - len(name.lstrip())
    if not separator or not _NAME.fullmatch(name.strip()):
        raise document.wrong("NOT_A_PAIR", "NAME=VALUE expected", begin)
    first = start + len(name) + 1 + len(value) - len(value.lstrip())
    value = value.strip()
    place = (first, first + len(value))
    if len(value) > 1 and value[0] == value[-1] == '"':
        value, place = value[1:-1], (place[0] + 1, place[1] - 1)
    document.put(name.strip(), value, place)

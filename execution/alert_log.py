"""A sender's own record of its alerts: TradingView's alert log as CSV, or a mailbox of its mails."""

from __future__ import annotations

import csv
import mailbox
from collections.abc import Iterator
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path

from execution.second_channel import Logged

MESSAGE = ("description", "message", "alert message")
NAMES = ("alert id", "name")
TIME = ("time", "fire time", "date")
BLOCKS = frozenset({"p", "div", "td", "tr", "table", "li", "pre", "h1", "h2", "h3"})
HIDDEN = frozenset({"style", "script", "head", "title"})


class BadLog(Exception):
    """The file is no alert log; the message is a sentence for the operator."""


def read_log(path: Path) -> list[Logged]:
    """Every alert in ``path``, the oldest first where the file has the newest first. Raises BadLog."""
    try:
        with path.open("rb") as file:
            is_mailbox = file.read(5) == b"From "
        logged = list(_mails(path) if is_mailbox else _rows(path))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise BadLog(f"{path} cannot be read: {error}") from error
    is_newest_first = bool(logged) and logged[0].at > logged[-1].at
    return logged[::-1] if is_newest_first else logged


def _rows(path: Path) -> Iterator[Logged]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        names = {name.strip().lower(): name for name in rows.fieldnames or () if name}
        message, moment = _column(names, MESSAGE), _column(names, TIME)
        for row in rows:
            place = f"line {rows.line_num}"
            called = tuple(row[names[name]] or "" for name in NAMES if name in names)
            body = (row[message] or "").encode()
            yield Logged(place, _moment(row[moment], place), (body,), called)


def _column(names: dict[str, str], wanted: tuple[str, ...]) -> str:
    for name in wanted:
        if name in names:
            return names[name]
    known = ", ".join(names) or "none"
    raise BadLog(f"the file has no column {' or '.join(wanted)}; it has: {known}")


def _moment(text: str | None, place: str) -> datetime:
    try:
        moment = datetime.fromisoformat((text or "").strip())
    except ValueError as error:
        raise BadLog(f"{place}: {text!r} is no ISO 8601 time") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _mails(path: Path) -> Iterator[Logged]:
    box = mailbox.mbox(str(path), create=False)
    try:
        for number, mail in enumerate(box, 1):
            place = f"mail {number}"
            yield Logged(place, _sent(mail, place), tuple(_candidates(_text(mail))))
    finally:
        box.close()


def _sent(mail: Message, place: str) -> datetime:
    try:
        moment = parsedate_to_datetime(str(make_header(decode_header(mail["Date"] or ""))))
    except (TypeError, ValueError) as error:
        raise BadLog(f"{place} has no date") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _text(mail: Message) -> str:
    """The mail's plain text; of one that has none, what its HTML shows."""
    for kind in ("text/plain", "text/html"):
        for part in mail.walk():
            content = part.get_payload(decode=True) if part.get_content_type() == kind else None
            if isinstance(content, bytes) and content.strip():
                text = _decoded(content, part.get_content_charset())
                return text if kind == "text/plain" else _shown(text)
    return ""


def _decoded(content: bytes, charset: str | None) -> str:
    try:
        return content.decode(charset or "utf-8", "replace")
    except LookupError:
        return content.decode("utf-8", "replace")


def _shown(html: str) -> str:
    page = _Page()
    page.feed(html)
    page.close()
    return "".join(page.text)


class _Page(HTMLParser):
    """The text of a page, a line for each block."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in HIDDEN
        self.text.append("\n" if tag == "br" else "\n\n" if tag in BLOCKS else "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in HIDDEN and self._hidden > 0
        self.text.append("\n\n" if tag in BLOCKS else "")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data)


def _candidates(text: str) -> Iterator[bytes]:
    """What of a mail may be the alert: the JSON object in it, a paragraph, or all of it."""
    text = text.replace("\r\n", "\n")
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        yield text[start : end + 1].encode()
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    yield from (part.encode() for part in [*paragraphs, text.strip()])

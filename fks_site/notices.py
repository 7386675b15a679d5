"""What a page says once about the last thing somebody did: "The cancel is on its way"."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib.messages.storage.base import Message
from django.contrib.messages.storage.fallback import FallbackStorage


class Notices(FallbackStorage):
    """The notices waiting for this person; what asks through htmx leaves them where they are.

    A page that refreshes itself takes one part of the answer and drops the rest: it would take a
    notice away in the moment between the deed and the page that is to tell of it.
    """

    def __iter__(self) -> Iterator[Message]:
        if "HX-Request" in self.request.headers:
            return iter(())
        return super().__iter__()

"""Requests the gate has answered together: who is in a turn, and that each has its own answer."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from fks_site.gate import Answer, BodyLimit, Environ, Gate, Together


class Slow:
    """One thread, three at once; the first turn lasts until ``finish``."""

    def __init__(self) -> None:
        self.turns: list[list[bytes]] = []
        self.refused: list[tuple[str, str]] = []
        self.begun, self.finish = threading.Event(), threading.Event()
        self.gate = Gate(
            self.refuse,
            (BodyLimit("", 100),),
            threads=1,
            max_waiting=4,
            together=Together(self.takes, self.answer, threads=1, most=3),
            refused=lambda path, code: self.refused.append((path, code)),
        )

    def refuse(self, environ: Environ, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [])
        return [b"alone"]

    def takes(self, environ: Environ) -> bool:
        return bool(environ["PATH_INFO"] == "/together")

    def answer(self, environs: list[Environ]) -> list[Answer]:
        bodies = [environ["wsgi.input"].read() for environ in environs]
        self.turns.append(bodies)
        self.begun.set()
        assert self.finish.wait(30)
        if b"broken" in bodies:
            raise ZeroDivisionError
        return [(200, [(b"x-seen", body)], body) for body in bodies]

    async def post(self, body: bytes, path: str = "/together") -> tuple[int, bytes]:
        scope = {
            "type": "http", "method": "POST", "raw_path": path.encode(), "query_string": b"",
            "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "http_version": "1.1",
            "scheme": "http", "headers": [(b"content-length", str(len(body)).encode())],
        }  # fmt: skip
        said: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: dict[str, Any]) -> None:
            said.append(message)

        await self.gate(scope, receive, send)
        return said[0]["status"], said[1]["body"]

    async def posted(self, *bodies: bytes) -> list[Any]:
        """A first one, and ``bodies`` while that is under way."""
        tasks = [asyncio.ensure_future(self.post(b"first"))]
        await asyncio.to_thread(self.begun.wait, 30)
        for body in bodies:
            tasks.append(asyncio.ensure_future(self.post(body)))
        while self.gate._gathering.qsize() + sum(task.done() for task in tasks) < len(bodies):
            await asyncio.sleep(0)
        self.finish.set()
        return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_is_answered_together_and_each_by_its_own() -> None:
    slow = Slow()

    answers = asyncio.run(slow.posted(b"a", b"b"))

    assert answers == [(200, b"first"), (200, b"a"), (200, b"b")]
    assert slow.turns == [[b"first"], [b"a", b"b"]]


def test_a_turn_holds_so_many_and_the_next_one_the_rest() -> None:
    slow = Slow()

    answers = asyncio.run(slow.posted(b"a", b"b", b"c", b"d"))

    assert [status for status, _ in answers] == [200] * 5
    assert slow.turns == [[b"first"], [b"a", b"b", b"c"], [b"d"]]


def test_more_than_can_wait_are_told_to_come_again() -> None:
    slow = Slow()

    answers = asyncio.run(slow.posted(*[b"x"] * 10))

    assert [status for status, _ in answers] == [200] * 5 + [503] * 6
    assert json.loads(answers[-1][1])["code"] == "OVERLOADED"
    assert slow.refused == [("/together", "OVERLOADED")] * 6


def test_what_goes_no_further_is_told_of_with_its_path() -> None:
    slow = Slow()

    status, _ = asyncio.run(slow.post(b"x" * 101, "/too%20large"))

    assert status == 413
    assert slow.refused == [("/too large", "TOO_LARGE")]


def test_a_failure_is_everybodys_and_the_next_turn_is_taken() -> None:
    slow = Slow()

    answers = asyncio.run(slow.posted(b"a", b"broken"))

    assert answers[0] == (200, b"first")
    assert [type(one) for one in answers[1:]] == [ZeroDivisionError] * 2
    assert asyncio.run(slow.post(b"next")) == (200, b"next")


@pytest.mark.parametrize("path", ["/", "/together/"])
def test_others_do_not_wait_for_a_turn(path: str) -> None:
    slow = Slow()

    async def beside() -> Any:
        first = asyncio.ensure_future(slow.post(b"first"))
        await asyncio.to_thread(slow.begun.wait, 30)
        other = await slow.post(b"other", path)
        slow.finish.set()
        await first
        return other

    assert asyncio.run(beside()) == (404, b"alone")
    assert slow.turns == [[b"first"]]


def test_one_that_has_left_takes_nothing_from_the_others() -> None:
    slow = Slow()

    async def leave() -> Any:
        first = asyncio.ensure_future(slow.post(b"first"))
        await asyncio.to_thread(slow.begun.wait, 30)
        gone, stays = (asyncio.ensure_future(slow.post(body)) for body in (b"gone", b"stays"))
        while slow.gate._gathering.qsize() < 2:
            await asyncio.sleep(0)
        gone.cancel()
        slow.finish.set()
        await first
        return await stays

    assert asyncio.run(leave()) == (200, b"stays")
    assert slow.turns == [[b"first"], [b"gone", b"stays"]]

"""What the pinned ccxt reads of a market's raw answer once the symbol list is made, from its source.

ccxt keeps each market's raw answer in the market's ``info``, the larger part of a symbol list. Its
own code reads few members of it afterwards, each by name; the others need not be kept. Whatever is
done with a whole raw answer cannot be told from the source, and then all of it is.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

INFO = "info"
METHOD = re.compile(r"^(?:    @.*\n)*    (?:async )?def ", re.MULTILINE)
USED = re.compile(r"[\[,] ?'info'")
MAKES_LISTS = ("fetch_markets", "parse_market")
"""How functions begin that make the list from the raw answers."""
SPARE = ("abstract", "static_dependencies")


def facts_read(exchange: type) -> frozenset[str] | None:
    """The members that are read of the ``info`` of ``exchange``'s markets; ``None``: any."""
    facts: set[str] = set()
    for cls in exchange.__mro__:
        module = cls.__module__
        if not module.startswith("ccxt") or any(part in module for part in SPARE):
            continue
        found = _facts_in(inspect.getsourcefile(cls) or "")
        if found is None:
            return None
        facts |= found
    return frozenset(facts)


@cache
def _facts_in(source: str) -> frozenset[str] | None:
    """Those of one module. Of its million lines only the functions that name ``info`` are parsed."""
    facts: set[str] = set()
    for text in METHOD.split(Path(source).read_text(encoding="utf-8"))[1:]:
        if USED.search(text) is None or text.lstrip().startswith(MAKES_LISTS):
            continue
        found = _Reading(ast.parse(f"class Part:\n    def {text}").body[0]).facts()
        if found is None:
            return None
        facts |= found
    return frozenset(facts)


class _Reading:
    """What one function does with members named ``info``."""

    def __init__(self, function: ast.AST) -> None:
        self._function = function
        self._above = {
            child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)
        }
        self._named: dict[str, bool] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                owner = _owner(node.value)
                if owner is not None:
                    name = node.targets[0].id
                    self._named[name] = self._named.get(name, False) or _is_market(owner)

    def facts(self) -> set[str] | None:
        """The members that are read; ``None`` where a market's ``info`` is used as a whole."""
        found: set[str] = set()
        for node, of_market in self._infos():
            names = self._names(node)
            if names is None and of_market:
                return None
            found |= names or set()
        return found

    def _infos(self) -> Iterator[tuple[ast.expr, bool]]:
        """Each place where an ``info`` is used, and whether it may be a market's."""
        for node in ast.walk(self._function):
            if not isinstance(node, ast.expr) or isinstance(getattr(node, "ctx", None), ast.Store):
                continue
            owner = _owner(node)
            if owner is not None:
                yield node, _is_market(owner)
            elif isinstance(node, ast.Name) and node.id in self._named:
                yield node, self._named[node.id]

    def _names(self, node: ast.expr) -> set[str] | None:
        """The members this place reads; ``None`` where it does something else."""
        above = self._above.get(node)
        if isinstance(above, ast.Assign) and isinstance(above.targets[0], ast.Name):
            return set()
        if isinstance(above, ast.Dict):  # handed out beside what was read of it
            return set()
        if isinstance(above, ast.Subscript) and above.value is node:
            return _texts([above.slice]) or None
        if _is_safe(above) and isinstance(above, ast.Call) and above.args[0] is node:
            return _texts(above.args[1:]) or None
        return None


def _owner(node: ast.expr) -> ast.expr | None:
    """What ``node`` takes the ``info`` of, ``None`` where it does not."""
    if isinstance(node, ast.Subscript) and _texts([node.slice]) == {INFO}:
        return node.value
    if _is_safe(node) and isinstance(node, ast.Call) and _texts(node.args[1:2]) == {INFO}:
        return node.args[0]
    return None


def _is_market(owner: ast.expr) -> bool:
    """ccxt names its things in full: whatever else has an ``info`` is called an order, a trade."""
    text = ast.unparse(owner).lower()
    return "market" in text or len(text) < 3


def _is_safe(node: ast.AST | None) -> bool:
    """Whether it is a call of the library's ``safe_...(thing, member)`` functions."""
    function = node.func if isinstance(node, ast.Call) and node.args else None
    return isinstance(function, ast.Attribute) and function.attr.startswith("safe_")


def _texts(nodes: list[ast.expr]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.List):
            found |= _texts(node.elts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if node.value.isidentifier() else set()
    return found

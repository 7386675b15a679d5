"""Which accounts somebody works with, and what follows for every row that belongs to one.

A role says what somebody may do. A restriction says on which accounts; without one the role holds for
all of them. Each floor names here whose its rows are; a model nobody named is hidden from everybody who
is restricted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet

from brokers.models import Account, AccountRestriction

_Row = TypeVar("_Row", bound=Model)
_REMEMBERED = "_fks_reach"
NONE = Q(pk__in=())
ALL = Q()


@dataclass(frozen=True)
class Reach:
    """The accounts somebody is restricted to. They may be none."""

    username: str
    accounts: tuple[Account, ...]

    @cached_property
    def ids(self) -> frozenset[int]:
        return frozenset(account.pk for account in self.accounts)

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(account.name for account in self.accounts)

    @cached_property
    def venues(self) -> frozenset[str]:
        return frozenset(account.venue for account in self.accounts)


@dataclass(frozen=True, slots=True)
class Rule:
    """Which rows of a model a restricted person sees, and which they may change or act on.

    ``may_add`` is whether new rows can be theirs at all; the row itself is judged once it is stored.
    """

    seen: Callable[[Reach], Q]
    own: Callable[[Reach], Q]
    may_add: bool = False


def _nothing(_reach: Reach) -> Q:
    return NONE


def _everything(_reach: Reach) -> Q:
    return ALL


HIDDEN = Rule(_nothing, _nothing)
"""What tells of accounts without saying which."""

SHARED = Rule(_everything, _nothing)
"""What holds for all accounts alike: shown, and changed by nobody who is restricted."""


def of_account(path: str = "account", *, may_add: bool = False) -> Rule:
    """Rows that belong to the account at ``path``."""

    def within(reach: Reach) -> Q:
        return Q(**{f"{path}__in": reach.ids})

    return Rule(within, within, may_add)


RULES: dict[type[Model], Rule] = {}


def rule_of(model: type[Model]) -> Rule:
    return RULES.get(model, HIDDEN)


def reach_of(user: Any) -> Reach | None:
    """What ``user`` is restricted to, ``None`` for nothing; one query, kept with the user's object.

    A superuser is never restricted.
    """
    if not hasattr(user, _REMEMBERED):
        setattr(user, _REMEMBERED, _read(user))
    reach: Reach | None = getattr(user, _REMEMBERED)
    return reach


def _read(user: Any) -> Reach | None:
    if user.pk is None or user.is_superuser:
        return None
    row = AccountRestriction.objects.filter(user=user.pk).first()
    return None if row is None else Reach(user.get_username(), tuple(row.accounts.all()))


def is_restricted(user: Any) -> bool:
    return reach_of(user) is not None


def within(reach: Reach | None, rows: QuerySet[_Row]) -> QuerySet[_Row]:
    """Those of ``rows`` that may be seen within ``reach``."""
    return rows if reach is None else rows.filter(rule_of(rows.model).seen(reach))


def seen(user: Any, rows: QuerySet[_Row]) -> QuerySet[_Row]:
    """Those of ``rows`` that ``user`` may see."""
    return within(reach_of(user), rows)


def own(user: Any, rows: QuerySet[_Row]) -> QuerySet[_Row]:
    """Those of ``rows`` that ``user`` may change or act on, as far as accounts go."""
    reach = reach_of(user)
    return rows if reach is None else rows.filter(rule_of(rows.model).own(reach))


def may_change(user: Any, row: Model) -> bool:
    """Whether ``row`` is one that ``user`` may change or act on, as far as accounts go."""
    if not is_restricted(user):
        return True
    return own(user, type(row)._default_manager.filter(pk=row.pk)).exists()


def may_add(user: Any, model: type[Model]) -> bool:
    return not is_restricted(user) or rule_of(model).may_add


def is_hidden(user: Any, model: type[Model]) -> bool:
    """Whether ``user`` sees no row of ``model``, whosever it is."""
    return is_restricted(user) and rule_of(model) is HIDDEN

"""What a change form showed when it was opened: whoever saves it later takes back nothing that they
have not seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import Model, QuerySet
from django.forms import Field, ModelForm

SEEN = "seen"
"""The hidden field a page carries it in. No page sends a form without it, which is held to nothing."""


class Stale(Exception):
    """Something has been changed since the page was opened."""


def shown(form: ModelForm[Any], formsets: Iterable[Any] = ()) -> str:
    """The values of a form and its inlines, as digests by name."""
    return json.dumps({name: _digest(value) for name, _, value in _values(form, formsets)})


def refuse_stale(posted: str, form: ModelForm[Any], formsets: Iterable[Any] = ()) -> None:
    """Raise Stale where the stored values are others than the page of ``posted`` showed."""
    try:
        then = dict(json.loads(posted or "{}"))
    except (TypeError, ValueError):
        then = {}
    changed = [
        str(of if isinstance(of, Model) else of.label or name)
        for name, of, value in _values(form, formsets)
        if name in then and then[name] != _digest(value)
    ]
    if changed:
        raise Stale(
            f"Changed by somebody since you opened this page: {', '.join(changed)}. Nothing of yours "
            "was saved. This is how it is now; the audit log says who changed it."
        )


def _values(
    form: ModelForm[Any], formsets: Iterable[Any]
) -> Iterator[tuple[str, Field | Model, Any]]:
    """Each stored value by name, and all those of a row of an inline together."""
    for name, field in form.fields.items():
        if name in form.initial and not field.disabled:
            yield name, field, form.initial[name]
    for formset in formsets:
        for row in formset.initial_forms:
            values = sorted((name, _plain(value)) for name, value in row.initial.items())
            yield f"{formset.prefix} {row.instance.pk}", row.instance, values


def _digest(value: Any) -> str:
    return hashlib.sha256(str(_plain(value)).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple, QuerySet)):
        return sorted(str(one.pk) if isinstance(one, Model) else str(one) for one in value)
    return value

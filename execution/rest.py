"""What the views of the REST API have in common."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from django.db import models
from django.db.models import QuerySet
from rest_framework import mixins, viewsets
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import SAFE_METHODS, DjangoModelPermissions
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from brokers import access
from execution.guards import client_ip
from execution.requests import StrictJSONParser, StrictSerializer
from execution.serializers import Row
from risk import audit, second_factor, switch

Model = TypeVar("Model", bound=models.Model)


class JsonAnswers(DefaultContentNegotiation):
    """Whatever a client says it accepts, the answer is JSON."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class MayView(DjangoModelPermissions):
    """The model's view permission to read, its add permission to POST; on rows of one's accounts."""

    perms_map = DjangoModelPermissions.perms_map | {
        "GET": ["%(app_label)s.view_%(model_name)s"],
        "HEAD": ["%(app_label)s.view_%(model_name)s"],
    }

    def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
        return request.method in SAFE_METHODS or access.may_change(request.user, obj)


class MayChange(MayView):
    """The model's change permission to POST."""

    perms_map = MayView.perms_map | {"POST": ["%(app_label)s.change_%(model_name)s"]}


class MayApprove(MayView):
    """The order's approve permission to POST."""

    perms_map = MayView.perms_map | {"POST": ["%(app_label)s.approve_%(model_name)s"]}


class MayOperate(MayView):
    """The breaker's operate permission to POST."""

    perms_map = MayView.perms_map | {"POST": ["%(app_label)s.operate_%(model_name)s"]}


class MayLookAndPost(MayView):
    """The model's view permission; what a POST takes is for the view to ask."""

    perms_map = MayView.perms_map | {"POST": ["%(app_label)s.view_%(model_name)s"]}


class MaySwitch(MayView):
    """To POST, the right to halt at least; which state may be set is for the view to ask."""

    perms_map = MayView.perms_map | {"POST": []}

    def has_permission(self, request: Request, view: Any) -> bool:
        if not super().has_permission(request, view):
            return False
        names = (switch.HALT, switch.CHANGE)
        return request.method != "POST" or any(request.user.has_perm(name) for name in names)


class StaleProof(APIException):
    """The session's second factor was proved too long ago for what loosens something."""

    status_code = 403
    default_code = "second_factor_stale"
    default_detail = (
        "this takes a one-time code of the last ten minutes: enter one at /admin/second-factor/, "
        "then send it again"
    )


def prove_again(request: Request) -> None:
    """Raises StaleProof for a session; a token was made with a code, and is short-lived."""
    by_session = isinstance(request.successful_authenticator, SessionAuthentication)
    if by_session and second_factor.is_due(request.user, request.session):
        raise StaleProof


class View(viewsets.GenericViewSet[Model]):
    """Strict JSON in, JSON out, for users with the model's permissions, of the accounts they see."""

    http_method_names: Sequence[str] = ("get", "head")
    permission_classes = (MayView,)
    parser_classes = (StrictJSONParser,)
    content_negotiation_class = JsonAnswers
    asks_itself: frozenset[str] = frozenset()
    """Actions that call ``prove_again`` themselves, or loosen nothing: all others ask at once."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.method not in SAFE_METHODS and self.action not in self.asks_itself:
            prove_again(request)

    def get_queryset(self) -> QuerySet[Model]:
        return access.seen(self.request.user, super().get_queryset())


class ReadView(mixins.ListModelMixin, mixins.RetrieveModelMixin, View[Model]):
    """Lists and details of one model. ``detail_class`` is the serializer of a single row."""

    lookup_value_regex = r"[^/\x00]+"
    detail_class: type[Row[Model]] | None = None

    def get_serializer_class(self) -> Any:
        if self.detail_class is not None and self.action == "retrieve":
            return self.detail_class
        return self.serializer_class


def acting(request: Request) -> AbstractContextManager[None]:
    """What happens inside is done by the request's user; a token's user is known only here."""
    return audit.acting(audit.Actor(request.user.get_username(), client_ip(request) or ""))


def given(kind: type[StrictSerializer], data: Any) -> Any:
    """``data`` read by ``kind``. Raises ValidationError."""
    serializer = kind(data=data)
    serializer.is_valid(raise_exception=True)
    return serializer

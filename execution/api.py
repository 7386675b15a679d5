"""The REST API under ``/api/v1/``: lists and details to read, and the few things operators do.

Reading needs Django's view permission of the model, doing its add or change permission.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import mixins
from rest_framework.decorators import action
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter

from brokers import access
from brokers.models import Account
from execution import commands, filters, halting, requests, serializers
from execution.halting import Mode
from execution.models import (
    Fill,
    Order,
    OrderEvent,
    Position,
    Route,
    RoutingDecision,
    Signal,
    SpreadWatch,
    Strategy,
)
from execution.rest import (
    MayApprove,
    MayChange,
    MayLookAndPost,
    MayOperate,
    MaySwitch,
    MayView,
    ReadView,
    View,
    acting,
    given,
    prove_again,
)
from execution.waiting import seconds_preferred
from risk import switch
from risk.models import AuditEvent, CircuitBreaker, Proposal, RiskLimit, TradingState

WAIT_SECONDS = 5.0
KEY_HELP = (
    "The same key again, from the same user and for the same account or order, answers with the first "
    "order instead of placing a second one; with another body it is refused as `KEY_REUSED`."
)
PREFER_HELP = f"`wait=N`: how many seconds (up to 10, else {WAIT_SECONDS:.0f}) to wait for news."


class SignalView(ReadView[Signal]):
    """Alerts as they were accepted, and what became of them."""

    queryset = Signal.objects.select_related("strategy")
    serializer_class = serializers.SignalSerializer
    detail_class = serializers.SignalDetailSerializer
    filterset_class = filters.SignalFilter

    def get_queryset(self) -> QuerySet[Signal]:
        rows = super().get_queryset()
        if self.action != "retrieve":
            return rows
        user = self.request.user
        orders = Order.objects.select_related("account", "strategy")
        return rows.prefetch_related(
            Prefetch("orders", access.seen(user, orders)),
            Prefetch("routing", access.seen(user, RoutingDecision.objects.all())),
        )


class OrderView(ReadView[Order]):
    """Orders: why they are as they are, and how they went."""

    http_method_names = ("get", "head", "post")
    queryset = Order.objects.select_related("account", "strategy")
    serializer_class = serializers.OrderSerializer
    detail_class = serializers.OrderDetailSerializer
    filterset_class = filters.OrderFilter
    asks_itself = frozenset({"create", "cancel", "reject"})

    def get_queryset(self) -> QuerySet[Order]:
        rows = super().get_queryset()
        if self.action != "retrieve":
            return rows
        return rows.prefetch_related(
            Prefetch("journal", OrderEvent.objects.order_by("id")),
            Prefetch("fills", Fill.objects.select_related("account")),
        )

    @extend_schema(
        request=requests.NewOrderSerializer,
        parameters=[
            OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER, description=KEY_HELP),
            OpenApiParameter("Prefer", str, OpenApiParameter.HEADER, description=PREFER_HELP),
        ],
        responses={
            201: serializers.OrderSerializer,
            202: OpenApiResponse(serializers.AcceptedSerializer, "Stored, not decided in time."),
        },
    )
    def create(self, request: Request) -> Response:
        """Place an order by hand. It meets the same facts, sizing and limits as a signal's."""
        order = given(requests.NewOrderSerializer, request.data)
        if not order.validated_data.get("reduce_only"):
            prove_again(request)
        account = order.validated_data["account"]
        if not access.own(request.user, Account.objects.filter(name=account)).exists():
            raise commands.Refused("UNKNOWN_ACCOUNT", f"there is no account {account!r}")
        with acting(request):
            signal, row = commands.place(
                order.to_alert(),
                key=request.headers.get("Idempotency-Key", ""),
                reason=order.validated_data.get("reason", ""),
                seconds=seconds_preferred(request.headers.get("Prefer", "")) or WAIT_SECONDS,
            )
        if row is None:
            return Response({"status": "accepted", "signal_id": str(signal.pk)}, status=202)
        return Response(self.get_serializer(row).data, status=201)

    @extend_schema(
        request=requests.OptionalReasonSerializer, responses={202: serializers.OrderSerializer}
    )
    @action(methods=["post"], detail=True, permission_classes=[MayChange])
    def cancel(self, request: Request, pk: str) -> Response:
        """Cancel an order: at once while unsent, else as soon as its venue has agreed."""
        reason = given(requests.OptionalReasonSerializer, request.data).validated_data
        order = self.get_object()
        with acting(request):
            commands.cancel(order, reason.get("reason", ""))
        return Response(serializers.OrderSerializer(order).data, status=202)

    @extend_schema(
        request=requests.OptionalReasonSerializer, responses={202: serializers.OrderSerializer}
    )
    @action(methods=["post"], detail=True, permission_classes=[MayApprove])
    def approve(self, request: Request, pk: str) -> Response:
        """Let an order that waits for approval go; it is judged anew before it is sent."""
        reason = given(requests.OptionalReasonSerializer, request.data).validated_data
        return self._decide(request, approve=True, note=reason.get("reason", ""))

    @extend_schema(request=requests.ReasonSerializer, responses={202: serializers.OrderSerializer})
    @action(methods=["post"], detail=True, permission_classes=[MayApprove])
    def reject(self, request: Request, pk: str) -> Response:
        """End an order that waits for approval."""
        reason = given(requests.ReasonSerializer, request.data).validated_data["reason"]
        return self._decide(request, approve=False, note=reason)

    def _decide(self, request: Request, *, approve: bool, note: str) -> Response:
        order, user = self.get_object(), request.user
        if not isinstance(user, User):
            raise PermissionDenied
        with acting(request):
            commands.decide_on_order(order, user, approve=approve, note=note)
        return Response(serializers.OrderSerializer(order).data, status=202)

    @extend_schema(
        request=requests.AmendSerializer,
        parameters=[
            OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER, description=KEY_HELP)
        ],
        responses={202: serializers.AcceptedSerializer},
    )
    @action(methods=["post"], detail=True, permission_classes=[MayView, MayChange])
    def amend(self, request: Request, pk: str) -> Response:
        """Replace a working limit order: cancelled, seen cancelled, then placed anew."""
        change = given(requests.AmendSerializer, request.data).validated_data
        with acting(request):
            signal = commands.amend(
                self.get_object(),
                price=change.get("price"),
                quantity=change.get("quantity"),
                key=request.headers.get("Idempotency-Key", ""),
                reason=change.get("reason", ""),
            )
        return Response({"status": "accepted", "signal_id": str(signal.pk)}, status=202)


class FillView(ReadView[Fill]):
    """Trades, each booked once."""

    queryset = Fill.objects.select_related("account")
    serializer_class = serializers.FillSerializer
    filterset_class = filters.FillFilter


class PositionView(ReadView[Position]):
    """What our fills add up to."""

    queryset = Position.objects.select_related("account")
    serializer_class = serializers.PositionSerializer
    filterset_class = filters.PositionFilter


class AccountView(ReadView[Account]):
    """Accounts at venues, without options and credentials."""

    queryset = Account.objects.all()
    serializer_class = serializers.AccountSerializer
    filterset_class = filters.AccountFilter
    lookup_field = "name"


class StrategyView(ReadView[Strategy]):
    """Senders of alerts and where their orders go, without secrets."""

    queryset = Strategy.objects.select_related("allowlist")
    serializer_class = serializers.StrategySerializer
    filterset_class = filters.StrategyFilter
    lookup_field = "slug"

    def get_queryset(self) -> QuerySet[Strategy]:
        routes = access.seen(self.request.user, Route.objects.select_related("account"))
        return super().get_queryset().prefetch_related(Prefetch("routes", routes))


class SpreadView(ReadView[SpreadWatch]):
    """Price gaps between accounts after fees, as last seen."""

    queryset = SpreadWatch.objects.all()
    serializer_class = serializers.SpreadSerializer
    filterset_class = filters.SpreadFilter


class BreakerView(ReadView[CircuitBreaker]):
    """Circuit breakers, by their account's name or as ``venue:<name>``. One unused so far has none
    yet."""

    http_method_names = ("get", "head", "post")
    queryset = CircuitBreaker.objects.select_related("account")
    serializer_class = serializers.BreakerSerializer
    filterset_class = filters.BreakerFilter
    asks_itself = frozenset({"trip"})
    lookup_field = "account__name"
    lookup_url_kwarg = "name"

    def get_object(self) -> CircuitBreaker:
        prefix, _, venue = str(self.kwargs["name"]).partition("venue:")
        if prefix or not venue:
            return super().get_object()
        breaker = get_object_or_404(self.get_queryset(), account=None, venue=venue)
        self.check_object_permissions(self.request, breaker)
        return breaker

    @extend_schema(request=requests.ReasonSerializer, responses=serializers.BreakerSerializer)
    @action(methods=["post"], detail=True, permission_classes=[MayOperate])
    def reset(self, request: Request, name: str) -> Response:
        """Close the breaker: the next order goes to the venue at once."""
        return self._operate(request, commands.reset_breaker)

    @extend_schema(request=requests.ReasonSerializer, responses=serializers.BreakerSerializer)
    @action(methods=["post"], detail=True, permission_classes=[MayOperate])
    def trip(self, request: Request, name: str) -> Response:
        """Open the breaker: no order is sent until it is reset, or until the venue has answered
        questions again.
        """
        return self._operate(request, commands.trip_breaker)

    def _operate(
        self, request: Request, operate: Callable[[CircuitBreaker, str], None]
    ) -> Response:
        reason = given(requests.ReasonSerializer, request.data).validated_data["reason"]
        breaker = self.get_object()
        with acting(request):
            operate(breaker, reason)
        return Response(self.get_serializer(breaker).data)


class LimitView(ReadView[RiskLimit]):
    """The limits in force, by scope."""

    queryset = RiskLimit.objects.select_related("policy__account")
    serializer_class = serializers.LimitSerializer
    filterset_class = filters.LimitFilter


class AuditView(ReadView[AuditEvent]):
    """Who did what to what, when, from where and why."""

    queryset = AuditEvent.objects.all()
    serializer_class = serializers.AuditEventSerializer
    filterset_class = filters.AuditFilter


class TradingStateView(mixins.ListModelMixin, View[TradingState]):
    """The kill switch. A scope without a row is active."""

    http_method_names = ("get", "head", "post")
    permission_classes = (MaySwitch,)
    queryset = TradingState.objects.all()
    serializer_class = serializers.TradingStateSerializer
    filterset_class = filters.TradingStateFilter
    asks_itself = frozenset({"create"})

    @extend_schema(
        request=requests.TradingStateChangeSerializer,
        responses={
            200: serializers.TradingStateSerializer,
            202: OpenApiResponse(serializers.ProposedSerializer, "Waits for another person."),
        },
    )
    def create(self, request: Request) -> Response:
        """Set the switch; in force everywhere when this is answered."""
        change = given(requests.TradingStateChangeSerializer, request.data).validated_data
        mode, scope = Mode(change["mode"]), TradingState.Scope(change["scope"])

        def may() -> None:
            if not halting.may_press(request.user, mode, scope, change["key"]):
                raise PermissionDenied(
                    "halting, releasing and doing away with orders are three rights"
                )
            if switch.loosens(mode.state, scope=scope, key=change["key"]):
                prove_again(request)

        with acting(request):
            row, proposal = commands.switch_trading(**change, may=may)
        if proposal is not None:
            return Response({"status": "proposed", "proposal_id": str(proposal.pk)}, status=202)
        return Response(self.get_serializer(row).data)


class ProposalView(ReadView[Proposal]):
    """What waits for another person's approval, and what became of it."""

    http_method_names = ("get", "head", "post")
    queryset = Proposal.objects.all()
    serializer_class = serializers.ProposalSerializer
    filterset_class = filters.ProposalFilter
    asks_itself = frozenset({"reject"})

    @extend_schema(request=requests.ReasonSerializer, responses=serializers.ProposalSerializer)
    @action(methods=["post"], detail=True, permission_classes=[MayLookAndPost])
    def approve(self, request: Request, pk: str) -> Response:
        """Make the proposed change: for another person with the right it takes."""
        return self._decide(request, approve=True)

    @extend_schema(request=requests.ReasonSerializer, responses=serializers.ProposalSerializer)
    @action(methods=["post"], detail=True, permission_classes=[MayLookAndPost])
    def reject(self, request: Request, pk: str) -> Response:
        """End a proposal without its change; who made it may take it back."""
        return self._decide(request, approve=False)

    def _decide(self, request: Request, *, approve: bool) -> Response:
        note = given(requests.ReasonSerializer, request.data).validated_data["reason"]
        row, user = self.get_object(), request.user
        if not isinstance(user, User):
            raise PermissionDenied
        with acting(request):
            row = commands.decide(row, user, approve=approve, note=note)
        return Response(self.get_serializer(row).data)


@csrf_exempt
def no_such_path(request: HttpRequest) -> JsonResponse:
    """What nobody answers below ``/api/``."""
    return JsonResponse({"code": "NOT_FOUND", "detail": "there is no such path"}, status=404)


class Router(SimpleRouter):
    """Every path with and without its trailing slash; none redirects."""

    def __init__(self) -> None:
        super().__init__()
        self.trailing_slash = "/?"


VIEWS: dict[str, type[View[Any]]] = {
    "signals": SignalView,
    "orders": OrderView,
    "fills": FillView,
    "positions": PositionView,
    "accounts": AccountView,
    "strategies": StrategyView,
    "spreads": SpreadView,
    "breakers": BreakerView,
    "limits": LimitView,
    "audit": AuditView,
    "trading-state": TradingStateView,
    "proposals": ProposalView,
}
router = Router()
for name, view in VIEWS.items():
    router.register(name, view, basename=name)

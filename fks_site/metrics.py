"""``GET /metrics`` for Prometheus: what the processes counted, and what the rows say (gauges.py)."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from brokers import access
from execution.guards import client_ip
from execution.rest import JsonAnswers
from fks_site.gauges import DatabaseCollector, SurroundingsCollector
from risk.allowlist import contains, networks, parse_address


def is_scraper(request: HttpRequest) -> bool:
    """Whether the peer is on this machine or in FKS_METRICS_NETWORKS.

    A request that a proxy passed on comes from no scraper, whoever the proxy is.
    """
    if "HTTP_X_FORWARDED_FOR" in request.META:
        return False
    address = parse_address(client_ip(request) or "")
    if address is not None and address.is_loopback:
        return True
    return contains(networks(settings.METRICS_NETWORKS), address)


class ScraperOrStaff(BasePermission):
    """A scraper (see is_scraper), or from anywhere a member of staff who sees every account."""

    def has_permission(self, request: Request, view: Any) -> bool:
        if is_scraper(request):
            return True
        user = request.user
        return bool(user and user.is_staff and not access.is_restricted(user))


class MetricsView(APIView):
    """``GET /metrics`` in Prometheus' text format."""

    permission_classes = (ScraperOrStaff,)
    content_negotiation_class = JsonAnswers
    http_method_names = ("get", "head")
    schema = None

    def get(self, request: Request) -> HttpResponse:
        body = generate_latest(_registry())
        return HttpResponse(body, content_type=CONTENT_TYPE_LATEST)


def _registry() -> CollectorRegistry:
    """What all processes counted (see PROMETHEUS_MULTIPROC_DIR), else this one; and the gauges."""
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    registry.register(DatabaseCollector())
    registry.register(SurroundingsCollector())
    return registry

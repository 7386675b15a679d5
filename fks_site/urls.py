from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from execution import webhooks
from execution.api import no_such_path, router
from execution.tokens import RefreshView, TokenView
from fks_site import health, metrics

admin.autodiscover()

api: list[URLPattern | URLResolver] = [
    re_path(r"^token/?$", TokenView.as_view(), name="token"),
    re_path(r"^token/refresh/?$", RefreshView.as_view(), name="token-refresh"),
    re_path(r"^schema/?$", SpectacularAPIView.as_view(), name="schema"),
    re_path(r"^docs/?$", SpectacularSwaggerSplitView.as_view(), name="docs"),
    path("v1/", include(router.urls)),
    re_path(r"", no_such_path),
]

handler400 = "fks_site.middleware.bad_request"
handler500 = "fks_site.middleware.server_error"

urlpatterns = [
    re_path(f"^{webhooks.PATH.pattern}", webhooks.webhook, name="webhook"),
    re_path(r"^health/?$", health.health, name="health"),
    re_path(r"^ready/?$", health.ready, name="ready"),
    re_path(r"^metrics/?$", metrics.MetricsView.as_view(), name="metrics"),
    path("api/", include(api)),
    path("api", no_such_path),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]

"""Reports of the controls' self-test."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.http import HttpRequest, HttpResponse

from brokers.admin.base import ReadOnlyAdmin
from brokers.admin.unfolded import display
from brokers.display import moment_column
from risk.models import RiskReport


@admin.register(RiskReport)
class RiskReportAdmin(ReadOnlyAdmin):
    change_form_template = "fks/risk_report.html"
    list_display = (moment_column("at"), "shown_outcome", "count", "actor")
    fields = (moment_column("at"), "outcome", "actor")
    readonly_fields = fields
    nothing_yet = "Run it with: manage.py riskcheck"

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        report = self.get_object(request, unquote(object_id))
        context = {**(extra_context or {}), "results": report.results if report else []}
        return super().change_view(request, object_id, form_url, context)

    @display(description="outcome")
    def outcome(self, report: RiskReport) -> str:
        return "passed" if report.passed else "failed"

    @display(description="outcome", label={"passed": "success", "failed": "danger"})
    def shown_outcome(self, report: RiskReport) -> tuple[str, str]:
        return self.outcome(report), self.outcome(report)

    @display(description="controls")
    def count(self, report: RiskReport) -> str:
        failed = sum(not one["passed"] for one in report.results)
        return f"{len(report.results)}, {failed} failed" if failed else str(len(report.results))

"""Which account of a group takes an alert, and why."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from execution.models.signals import Signal


class RoutingDecision(models.Model):
    """Where one alert went within one group of routes. Made once: whoever decides again keeps it.

    ``parts`` holds the accounts that take it, by id, each with what differs for it from the alert.
    ``candidates`` holds the comparison: one object for each account with its numbers, and why it was
    left out. None of them was asked where the position says where the alert goes.
    """

    signal = models.ForeignKey(Signal, on_delete=models.CASCADE, related_name="routing")
    group = models.CharField(max_length=40)
    parts = models.JSONField(default=dict)
    candidates = models.JSONField(default=list)
    reason = models.CharField(max_length=40, blank=True)
    detail = models.TextField()
    at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["group"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["signal", "group"], name="routed_once_per_group")
        ]

    def __str__(self) -> str:
        return f"{self.group}: {self.detail}"

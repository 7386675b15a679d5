"""Orders of unknown fate that an operator says he found at the venue."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from execution.models.orders import Order


class Adoption(models.Model):
    """An operator's word that an order of ours is a certain one at the venue, and what the venue says.

    The worker that asks fills in ``told``; nothing is taken over before the operator has seen it.
    """

    class State(models.TextChoices):
        ASKED = "asked", "being asked about"
        FOUND = "found", "found: waits for your word"
        TAKING = "taking", "being taken over"
        TAKEN = "taken", "taken over"
        REFUSED = "refused", "refused"

    FOR_WORKERS = (State.ASKED, State.TAKING)
    """States in which a worker has to ask the venue."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="adoptions")
    broker_order_id = models.CharField(max_length=100)
    state = models.CharField(max_length=10, choices=State.choices, default=State.ASKED)
    told = models.JSONField(default=dict, help_text="What the venue says of the order there.")
    code = models.CharField(max_length=40, blank=True, help_text="Why it is refused.")
    detail = models.TextField(blank=True)
    reason = models.TextField(help_text="The operator's.")
    asked_by = models.CharField(max_length=150)
    asked_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True)
    next_look_at = models.DateTimeField()
    give_up_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["order"],
                condition=Q(state__in=["asked", "found", "taking"]),
                name="adoption_once",
            )
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["next_look_at"],
                name="adoption_due",
                condition=Q(state__in=["asked", "taking"]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.order} as {self.broker_order_id}"

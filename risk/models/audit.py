"""What was done, by whom, and the chain that proves it."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class AuditEvent(models.Model):
    """Who did what to what, when, from where and why. Append-only: rows are never changed.

    ``risk.sealing`` fills the last three columns once; then the database itself refuses changes.
    """

    at = models.DateTimeField(db_index=True)
    kind = models.CharField(max_length=60)
    actor = models.CharField(max_length=150)
    address = models.CharField(max_length=45, blank=True)
    correlation_id = models.CharField(max_length=40, blank=True)
    subject = models.CharField(
        max_length=120, help_text="What was changed, e.g. limit max_order_value."
    )
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    reason = models.TextField(blank=True)
    position = models.BigIntegerField(
        null=True, unique=True, editable=False, help_text="Place in the chain; empty until sealed."
    )
    previous = models.CharField(max_length=64, blank=True, editable=False)
    hash = models.CharField(max_length=64, blank=True, editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["kind", "-id"], name="audit_by_kind"),
            models.Index(fields=["actor", "-id"], name="audit_by_actor"),
            models.Index(fields=["id"], name="audit_unsealed", condition=models.Q(position=None)),
            models.Index(
                fields=["correlation_id"],
                name="audit_by_correlation",
                condition=~models.Q(correlation_id=""),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} by {self.actor}"


class AuditChain(models.Model):
    """The one row that says where the chain of sealed events ends."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    position = models.BigIntegerField(default=0)
    hash = models.CharField(max_length=64)
    sealed_at = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(id=1), name="audit_chain_is_one")
        ]

    def __str__(self) -> str:
        return f"{self.position} events sealed"

"""The database refuses to change or remove an audit event; only its seal may be set, once."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations
from django.db.migrations.operations.base import Operation

GUARD = """
CREATE FUNCTION risk_guard_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.position IS NULL AND
        (OLD.id, OLD.at, OLD.kind, OLD.actor, OLD.address, OLD.correlation_id, OLD.subject,
         OLD.before, OLD.after, OLD.reason) IS NOT DISTINCT FROM
        (NEW.id, NEW.at, NEW.kind, NEW.actor, NEW.address, NEW.correlation_id, NEW.subject,
         NEW.before, NEW.after, NEW.reason)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'audit events are never changed or removed' USING ERRCODE = '42501';
END $$;
CREATE TRIGGER risk_guard_audit BEFORE UPDATE OR DELETE ON risk_auditevent
    FOR EACH ROW EXECUTE FUNCTION risk_guard_audit();
"""
NO_GUARD = """
DROP TRIGGER risk_guard_audit ON risk_auditevent;
DROP FUNCTION risk_guard_audit();
"""


class Migration(migrations.Migration):
    dependencies: ClassVar[list[tuple[str, str]]] = [("risk", "0001_initial")]
    operations: ClassVar[list[Operation]] = [migrations.RunSQL(GUARD, NO_GUARD)]

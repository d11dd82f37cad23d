"""Roles and what each may do, operations and what each takes: two tables, read by every way in."""

from collections.abc import Mapping
from enum import StrEnum

from domain.commands import Name
from domain.provider import Value


class Role(StrEnum):
    """What a token lets its holder be."""

    VIEWER = "viewer"
    BOOKER = "booker"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Permission(StrEnum):
    """What may be done."""

    READ = "read"
    """Appointments, lists, figures, streams of changes."""
    BOOK = "book"
    """Book, cancel, reschedule, events of the legacy front end."""
    AUDIT = "audit"
    """Audit trails, past states, replay, dead letters, reconciliation reports."""
    OPERATE = "operate"
    """An operator's actions."""
    RECONCILE = "reconcile"
    """Compare a calendar with the log."""
    HEAL = "heal"
    """Give the commands that a reconciliation proposes."""


MAY: Mapping[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.READ}),
    Role.BOOKER: frozenset({Permission.READ, Permission.BOOK}),
    Role.OPERATOR: frozenset(Permission),
    Role.AUDITOR: frozenset({Permission.READ, Permission.AUDIT, Permission.RECONCILE}),
    Role.ADMIN: frozenset(Permission),
}
"""Tokens are made on the command line, by whoever may read the store's folder: no role can make them."""

NEEDS: Mapping[str, Permission | None] = {
    "book": Permission.BOOK,
    "cancel": Permission.BOOK,
    "reschedule": Permission.BOOK,
    "ui_event": Permission.BOOK,
    "act": Permission.OPERATE,
    "list_appointments": Permission.READ,
    "appointment": Permission.READ,
    "figures": Permission.READ,
    "tenant_stream": Permission.READ,
    "appointment_stream": Permission.READ,
    "events": Permission.AUDIT,
    "state": Permission.AUDIT,
    "replay": Permission.AUDIT,
    "left_behind": Permission.AUDIT,
    "reconcile": Permission.RECONCILE,
    "report": Permission.AUDIT,
    "heal": Permission.HEAL,
    "called_back": None,
    "healthz": None,
    "readyz": None,
    "metrics": None,
}
"""What each operation of the HTTP API takes, by its name there; None: no token."""


class Principal(Value):
    """Whose request it is. Everything that it sees and does is of its tenant."""

    tenant: Name
    actor: Name
    role: Role


def allows(principal: Principal, permission: Permission) -> bool:
    """Whether the role of this principal may do that."""
    return permission in MAY[principal.role]

"""Roles: what each may do is one table; nobody may more than it says."""

import pytest

from appointments.access.roles import MAY, Permission, Principal, Role, allows

EXPECTED = {
    Role.VIEWER: {"read"},
    Role.BOOKER: {"read", "book"},
    Role.AUDITOR: {"read", "audit", "reconcile"},
    Role.OPERATOR: {"read", "book", "audit", "operate", "reconcile", "heal"},
    Role.ADMIN: {"read", "book", "audit", "operate", "reconcile", "heal"},
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("permission", Permission)
def test_every_role_may_what_is_written_here_and_nothing_else(role: Role, permission: Permission) -> None:
    assert allows(Principal(tenant="t", actor="a", role=role), permission) == (permission in EXPECTED[role])


def test_every_role_has_a_row() -> None:
    assert set(MAY) == set(Role)

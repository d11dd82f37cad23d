"""Personal data in events: which fields may name a person, whose they are, and what stands there once it is erased.

An event is stored in two parts. The open part says what happened, when and to which appointment, for ever. The private
part can be made unreadable for good; the course of an appointment never depends on it.
"""

from collections.abc import Mapping
from typing import Any
from unicodedata import normalize
from uuid import UUID

from domain import events as e
from domain.provider import BookingDetails

ERASED = "(erased)"
"""Stands where a text was erased."""
ERASED_EMAIL = "erased@erased.invalid"
"""Stands where an address was erased (RFC 2606: the name leads nowhere)."""

_BOOKING = {"booking": {"summary"}}
_BEGINNING = {"key": True, "fingerprint": True, "details": {"summary", "location", "metadata"}}
PRIVATE: Mapping[type[e.Event], Any] = {
    e.AppointmentRequested: _BEGINNING,
    e.AppointmentImported: {**_BEGINNING, **_BOOKING},
    e.CancellationRequested: {"key", "fingerprint", "reason"},
    e.RescheduleRequested: {"key", "fingerprint"},
    e.OperatorActed: {"key", "fingerprint", "reason"},
    e.BookingObserved: {"key": True, "fingerprint": True, "reason": True, "seen": {"summary"}},
    e.StepSucceeded: _BOOKING,
    e.StepPending: _BOOKING,
    e.BookingFound: _BOOKING,
    e.StepAttemptFailed: {"reason"},
    e.LookupFailed: {"reason"},
    e.CompensationBegun: {"detail"},
    e.RescheduleFailed: {"detail"},
    e.AppointmentParked: {"reason"},
    e.DeliveryAbandoned: {"reason"},
    e.RedeliveryRequested: {"reason"},
}
"""The texts of each event that may name somebody: what people typed, and what a provider said in words. Their form is
that of pydantic's `include`. The parties of a request are private too, each for itself."""

PARTIES = {"details": {"organizer", "attendees"}}


def subjects_of(details: BookingDetails | None, tenant: str, appointment: UUID) -> tuple[str, ...]:
    """Whom the texts of an appointment are about: its attendees, else its organizer, else the appointment itself.

    Whoever was erased is nobody any more: what is written later is about those who are still named.
    """
    if details is not None:
        for parties in (details.attendees, (details.organizer,) if details.organizer is not None else ()):
            named = {subject(tenant, party.email) for party in parties if party.email != ERASED_EMAIL}
            if named:
                return tuple(sorted(named))
    return (appointment_subject(appointment),)


def subject(tenant: str, email: str) -> str:
    """The name under which a person's key is kept: one for an address in any case, however its letters are composed.

    Caseless matching of canonical equivalents (Unicode, section 3.13, D145).
    """
    return f"{tenant}\x00{normalize('NFC', normalize('NFD', email).casefold())}"


def appointment_subject(appointment: UUID) -> str:
    """The subject of an appointment that names nobody."""
    return f"appointment\x00{appointment}"


def erased(type_: type[e.Event], fields: dict[str, Any]) -> dict[str, Any]:
    """An event's fields with what an erased text must at least be replaced by, so that it can still be read."""
    texts: Any = PRIVATE.get(type_, ())
    for name in texts:
        if name == "details":
            fields.setdefault("details", {}).setdefault("summary", ERASED)
        elif name not in ("booking", "seen") and type_.model_fields[name].is_required():
            fields.setdefault(name, ERASED)
        elif name == "detail":
            # An event whose detail was sealed had one.
            fields.setdefault(name, ERASED)
    return fields

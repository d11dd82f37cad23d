"""The appointment orchestrator's public names."""

from appointments.orchestrator import Orchestrator
from appointments.settings import Settings
from appointments.synchronous import SyncOrchestrator
from appointments.views import Appointment, AppointmentFilter, AuditEvent
from domain.commands import BookAppointment, OperatorAction
from domain.definition import RetryPolicy
from saga.definition import CalendarStep, Saga, Step, StepCall

__all__ = [
    "Appointment",
    "AppointmentFilter",
    "AuditEvent",
    "BookAppointment",
    "CalendarStep",
    "OperatorAction",
    "Orchestrator",
    "RetryPolicy",
    "Saga",
    "Settings",
    "Step",
    "StepCall",
    "SyncOrchestrator",
]

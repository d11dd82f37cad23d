"""What a log proves of itself and of a calendar: decided again, chained, complete, and true at the provider."""

from pathlib import Path

from appointments.orchestrator import Orchestrator
from domain.provider import Value
from projections.reconciliation.model import Kind
from projections.reconciliation.page import page
from projections.reconciliation.table import to_csv
from saga.audit import Auditor
from store.port import Store


class Proof(Value):
    """The verdicts."""

    streams: int
    decisions: int
    """Decisions of the process manager that were decided again."""
    diverging: int
    broken_chains: int
    findings: tuple[str, ...]
    """What the check of the store found, in words; parked appointments are no fault."""
    reconciled: dict[Kind, int]
    """Appointments and calendar entries by class."""
    agrees: bool
    """The provider's own listing holds what the log says, and nothing else."""
    success_rate: float | None
    booking_p50_ms: float | None
    booking_p95_ms: float | None

    @property
    def holds(self) -> bool:
        """Everything is as it should be."""
        return self.agrees and not (self.diverging or self.broken_chains or self.findings)


async def prove(desk: Orchestrator, store: Store, calendar: str, results: Path) -> Proof:
    """Replay every stream, check the store, reconcile the calendar; leaves what it found as files in `results`."""
    streams = decisions = diverging = broken = 0
    async for one in Auditor(store).replay_all():
        streams, decisions = streams + 1, decisions + one.decisions
        diverging += not one.matches
        broken += one.chain != "ok"
    health = await desk.health()
    report = await desk.reconcile(calendar)
    figures = await desk.figures()
    for name, content in (
        ("reconciliation.html", page(report)),
        ("reconciliation.csv", to_csv(report)),
        ("reconciliation.json", report.model_dump_json(indent=2) + "\n"),
        ("figures.json", figures.model_dump_json(indent=2) + "\n"),
    ):
        (results / name).write_text(content, encoding="utf-8")
    booking = figures.providers[0].booking.all if figures.providers else None
    return Proof(
        streams=streams,
        decisions=decisions,
        diverging=diverging,
        broken_chains=broken,
        findings=tuple(f"{one.kind}: {one.subject}: {one.detail}" for one in health.findings if one.kind != "parked"),
        reconciled=report.counts,
        agrees=report.agrees,
        success_rate=figures.providers[0].success_rate if figures.providers else None,
        booking_p50_ms=booking.p50_ms if booking else None,
        booking_p95_ms=booking.p95_ms if booking else None,
    )

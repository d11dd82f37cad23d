"""One reconciliation: both sides are read, what does not match is looked at again by itself, the rest is told.

A listing takes time and may lag, and the log goes on meanwhile. So a difference is only a suspicion until the
appointment's stream, its bookings and the stream once more have been read, in this order, with nothing new at the end.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field

from domain.commands import Name
from domain.errors import HistoryError
from domain.provider import Provider, ProviderBooking, SyncExpired, Value
from projections.ownership import tenant_of
from projections.reconciliation.bookmarks import OPEN_MAX, Bookmark, Bookmarks, Subject
from projections.reconciliation.calendar import Unsure, look
from projections.reconciliation.classify import Rules, as_intended, classify
from projections.reconciliation.healing import Cure
from projections.reconciliation.intended import Intended, Scope
from projections.reconciliation.log import read_one
from projections.reconciliation.model import Attempted, Finding, Kind, Policy, Report, Unchecked
from projections.reconciliation.survey import Sides, Survey, Told, appointment_of, read_all, read_changes

LOOKS_AT_ONCE = 8
ROUNDS_MAX = 5
"""How often an appointment that keeps changing is read again; after that it is plainly in progress."""
UNREADABLE = "its history cannot be read"
OWNERLESS = "a history cannot be read, not even whose it is; `appointments check` names it"


class Wanted(Value):
    """What is asked for. `changes`: only what the provider says has changed since the last reading."""

    calendar: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
    tenant: Name = "default"
    policy: Policy = Policy.PARK
    changes: bool = False
    with_matched: bool = False


def nobody(_title: str, _done: int, _total: int) -> None:
    """Nobody is told."""


async def reconcile(sides: Sides, wanted: Wanted, bookmarks: Bookmarks | None = None, told: Told = nobody) -> Report:
    """Compare one calendar with the log; writes nothing but the bookmark. Raises `ProviderUnavailable`."""
    began = sides.now()
    scope = Scope(wanted.calendar, sides.provider.name, wanted.tenant)
    rules = Rules(policy=wanted.policy, settle=timedelta(milliseconds=sides.provider.capabilities.settle_ms))
    kept = bookmarks.read(scope) if bookmarks is not None and wanted.changes else None
    note = "no earlier reading is kept" if wanted.changes and kept is None else ""
    survey = None
    if kept is not None:
        try:
            survey = await read_changes(sides, scope, kept, told)
        except SyncExpired:
            note = "the provider no longer knows where the last reading ended"
    mode: Literal["full", "changes"] = "changes" if survey is not None else "full"
    if survey is None:
        survey = await read_all(sides, scope, rules, told)
        if not survey.listed and not survey.known:
            note = "neither the log nor the provider has anything in this calendar"
    tally = _Tally(wanted.with_matched)
    tally.begin(survey)
    await _look_again(_Looking(sides, scope, rules, tally), survey.subjects, told)
    if bookmarks is not None:
        bookmarks.write(scope, tally.bookmark(survey.token))
    return tally.report(scope, survey, began, sides.now(), mode, note)


@dataclass
class _Tally:
    """What the appointments, and the entries that are none of ours, have come to so far."""

    with_matched: bool
    counts: Counter[Kind] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[Unchecked] = field(default_factory=list)
    open: list[Subject] = field(default_factory=list)
    """What is to be looked at again next time, changed or not."""
    in_progress: int = 0
    others: list[Subject] = field(default_factory=list)
    """What has proved to be none of those that are compared."""
    ownerless: bool = False

    def begin(self, survey: Survey) -> None:
        """What needs no second look."""
        for subject in survey.in_progress:
            self.go_on(subject)
        self.counts[Kind.MATCHED] = len(survey.matched)
        if self.with_matched:
            self.findings = [as_intended(record.intended, record.attempted) for record in survey.matched]
        self.unchecked = [Unchecked(appointment=id, reason=UNREADABLE) for id in survey.unreadable]
        self.ownerless = survey.ownerless

    def settle(self, subject: Subject, findings: tuple[Finding, ...]) -> None:
        """An appointment, or a stranger, has been looked at."""
        self.counts.update(finding.kind for finding in findings)
        self.findings += (f for f in findings if self.with_matched or f.kind is not Kind.MATCHED)
        if any(finding.appointment and finding.kind is not Kind.MATCHED for finding in findings):
            self.open.append(subject)

    def leave(self, subject: Subject, reason: str) -> None:
        """It could not be looked at."""
        ref = subject.refs[0] if subject.refs else None
        told = Unchecked(appointment=appointment_of(subject.client_ref), provider_ref=ref, reason=reason)
        self.unchecked.append(told)
        self.open.append(subject)

    def go_on(self, subject: Subject) -> None:
        """It is in progress."""
        self.in_progress += 1
        self.open.append(subject)

    def bookmark(self, token: str | None) -> Bookmark | None:
        """Where the next reading may go on."""
        return Bookmark(token=token, open=tuple(self.open)) if token and len(self.open) <= OPEN_MAX else None

    def report(
        self,
        scope: Scope,
        survey: Survey,
        began: datetime,
        ended: datetime,
        mode: Literal["full", "changes"],
        note: str,
    ) -> Report:
        """All of it, the oldest difference first."""
        strangers = sum(finding.appointment is None for finding in self.findings)
        ownerless = (Unchecked(reason=OWNERLESS),) if self.ownerless else ()
        return Report(
            calendar=scope.calendar,
            provider=scope.provider,
            tenant=scope.tenant,
            began=began,
            ended=ended,
            mode=mode,
            note=note,
            listed=survey.listed - sum(len(subject.refs) for subject in self.others),
            checked_again=len(survey.subjects) - len(self.others),
            in_progress=self.in_progress,
            counts={kind: self.counts[kind] for kind in Kind},
            strangers=strangers,
            findings=tuple(sorted(self.findings, key=_age)),
            unchecked=(*self.unchecked, *ownerless),
        )


def _age(finding: Finding) -> tuple[bool, datetime | None, str]:
    event = finding.event
    return (event is None, event.at if event else None, str(finding.appointment or finding.provider_ref))


@dataclass(frozen=True, slots=True)
class _Looking:
    """What a second look needs."""

    sides: Sides
    scope: Scope
    rules: Rules
    tally: _Tally


async def _look_again(at: _Looking, subjects: list[Subject], told: Told) -> None:
    waiting, done = iter(subjects), 0

    async def work() -> None:
        nonlocal done
        for subject in waiting:
            await _settle(at, subject)
            done += 1
            told("checking again", done, len(subjects))

    async with asyncio.TaskGroup() as group:
        for _ in range(min(LOOKS_AT_ONCE, len(subjects))):
            group.create_task(work())


async def _settle(at: _Looking, subject: Subject) -> None:
    try:
        for _ in range(ROUNDS_MAX):
            if await _settled(at, subject):
                return
        at.tally.go_on(subject)
    except HistoryError:
        await _leave_unread(at, subject)
    except Unsure as fault:
        at.tally.leave(subject, f"the provider's answer was of no use: {fault}")


async def _leave_unread(at: _Looking, subject: Subject) -> None:
    id = appointment_of(subject.client_ref)
    whose = await tenant_of(at.sides.store, id) if id else None
    if whose == at.scope.tenant:
        at.tally.leave(subject, UNREADABLE)
        return
    at.tally.others.append(subject)
    at.tally.ownerless = at.tally.ownerless or whose is None


async def still_there(sides: Sides, scope: Scope, cure: Cure) -> bool:
    """Whether the calendar shows what a command was planned for, or the appointment refuses it anyway.

    Raises `Unsure`, `HistoryError`.
    """
    record = await read_one(sides.store, cure.appointment, scope)
    if record is None or not record.within or record.intended.version != cure.version:
        return True
    refs = (cure.seen.provider_ref,) if cure.seen else ()
    subject = Subject(client_ref=record.intended.client_ref, refs=refs)
    return cure.fits(await _there(sides.provider, scope, record.intended, subject))


async def _settled(at: _Looking, subject: Subject) -> bool:
    """One look; False when the log has gone on meanwhile."""
    store, scope = at.sides.store, at.scope
    id = appointment_of(subject.client_ref)
    record = await read_one(store, id, scope) if id else None
    if record is not None and not record.within:
        at.tally.others.append(subject)
        return True
    intended = record.intended if record else None
    there = await _there(at.sides.provider, scope, intended, subject)
    if id and await store.events(id, after=intended.version if intended else 0, limit=1):
        return False
    attempted = record.attempted if record else Attempted()
    findings = classify(intended, attempted, there, at.sides.now(), at.rules)
    if intended is not None and not findings:
        at.tally.go_on(subject)
    at.tally.settle(subject, findings)
    return True


async def _there(
    provider: Provider, scope: Scope, intended: Intended | None, subject: Subject
) -> tuple[ProviderBooking, ...]:
    if intended is None:
        return await look(provider, scope, subject.client_ref, subject.refs, find=False)
    known = (intended.provider_ref,) if intended.provider_ref else ()
    # Another system's reference may stand for more than the one that was taken over.
    find = intended.foreign_ref is None
    return await look(provider, scope, intended.client_ref, (*known, *subject.refs), find=find)

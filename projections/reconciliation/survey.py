"""The first reading: which appointments match at once, and which references have to be looked at by themselves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from domain.errors import HistoryError
from domain.lifecycle import State
from domain.provider import LIVE, Provider, ProviderBooking
from projections.reconciliation.bookmarks import Bookmark, Subject
from projections.reconciliation.calendar import pages
from projections.reconciliation.classify import Rules, classify
from projections.reconciliation.intended import Record, Scope
from projections.reconciliation.log import Log, read_log
from projections.reconciliation.model import Kind
from store.port import Store

Told = Callable[[str, int, int], None]
"""Is told how far it is: what is done now, how many, and of how many (of a listing: as many as the log expects)."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What is compared: a log and a provider. `now` tells the time."""

    store: Store
    provider: Provider
    now: Callable[[], datetime]


@dataclass
class Survey:
    """What a reading came to. `token` says where the next one may go on."""

    subjects: list[Subject] = field(default_factory=list)
    """What has to be looked at by itself."""
    matched: list[Record] = field(default_factory=list)
    unreadable: frozenset[UUID] = frozenset()
    ownerless: bool = False
    """There is a history that cannot be read, not even whose it is."""
    in_progress: list[Subject] = field(default_factory=list)
    """Unfinished, with nothing wrong as yet."""
    known: int = 0
    """Appointments that the log has in this calendar."""
    listed: int = 0
    """Bookings there, but for those that the log knows to be somebody else's."""
    token: str | None = None


async def read_all(sides: Sides, scope: Scope, rules: Rules, told: Told) -> Survey:
    """Read the whole log, then the whole calendar. Raises `ProviderUnavailable`."""
    sorting = _Sorting(await read_log(sides.store, scope), sides.now(), rules)
    listed, token = 0, None
    async for page in pages(sides.provider, scope):
        for booking in page.bookings:
            sorting.meet(booking)
        listed, token = listed + len(page.bookings), page.next_token
        told("listing", listed, max(listed, len(sorting.log.records)))
    survey = sorting.survey()
    survey.token = token
    return survey


async def read_changes(sides: Sides, scope: Scope, kept: Bookmark, told: Told) -> Survey:
    """Read what changed in the calendar since; with it comes what was not matched then. Raises `SyncExpired` too."""
    refs = {subject.client_ref: dict.fromkeys(subject.refs) for subject in kept.open}
    listed, token = 0, None
    async for page in pages(sides.provider, scope, kept.token):
        for booking in page.bookings:
            refs.setdefault(booking.client_ref, {})[booking.provider_ref] = None
        listed, token = listed + len(page.bookings), page.next_token
        told("listing", listed, listed)
    refs = await _by_owner(sides, scope, refs)
    subjects = [Subject(client_ref=ref, refs=tuple(places)) for ref, places in refs.items()]
    return Survey(subjects, listed=listed, token=token)


async def _by_owner(sides: Sides, scope: Scope, refs: dict[str, dict[str, None]]) -> dict[str, dict[str, None]]:
    """Where bookings were listed, by appointment. What has gone may tell no more than its place."""
    unknown = {ref for ref in refs if not await _is_known(sides.store, appointment_of(ref))}
    if not unknown:
        return refs
    owners = (await read_log(sides.store, scope)).places
    named = {ref: places for ref, places in refs.items() if ref not in unknown}
    for ref in unknown:
        for place in refs[ref]:
            named.setdefault(str(owners.get(place, ref)), {})[place] = None
    return named


async def _is_known(store: Store, id: UUID | None) -> bool:
    try:
        return id is not None and bool(await store.events(id, limit=1))
    except HistoryError:  # it is there, and looked at by itself
        return True


def appointment_of(client_ref: str) -> UUID | None:
    """The appointment that a client reference of ours names."""
    try:
        id = UUID(client_ref)
    except ValueError:
        return None
    return id if str(id) == client_ref else None


class _Sorting:
    """Bookings as they are listed, against the log. Of what matches only the reference is kept."""

    def __init__(self, log: Log, now: datetime, rules: Rules) -> None:
        self.log = log
        self._now, self._rules = now, rules
        self._refs: dict[UUID, tuple[str, ...]] = {}
        self._suspects: set[UUID] = set()
        self._resting: set[UUID] = set()
        self._strangers: list[Subject] = []
        self._listed = 0

    def meet(self, booking: ProviderBooking) -> None:
        """One booking is listed."""
        id = appointment_of(booking.client_ref)
        if not self.log.knows(id):
            id = self.log.places.get(booking.provider_ref)
        if self.log.is_another_s(id):
            return
        self._listed += 1
        record = self.log.records.get(id) if id else None
        if id is None or record is None:
            if booking.status in LIVE and id is None:
                self._strangers.append(Subject(client_ref=booking.client_ref, refs=(booking.provider_ref,)))
            return
        refs = self._refs.get(id, ())
        if booking.provider_ref not in refs:
            self._refs[id] = refs = (*refs, booking.provider_ref)
        self._judge(id, record, (booking,))
        if len(refs) > 1 or (booking.status in LIVE and booking.start is None):
            # One that is listed without its times may be one that cannot be read.
            self._suspects.add(id)

    def survey(self) -> Survey:
        """What it comes to once everything was listed."""
        for id, record in self.log.records.items():
            if id not in self._refs:
                self._judge(id, record, ())
        quiet = self.log.records.keys() - self._suspects
        matched = [self.log.records[id] for id in quiet if id in self._resting]
        return Survey(
            [*map(self._subject, self._suspects), *self._strangers],
            matched,
            frozenset(self.log.unreadable),
            bool(self.log.ownerless) or self.log.nameless,
            in_progress=[self._subject(id) for id in quiet if id not in self._resting],
            known=len(self.log.records),
            listed=self._listed,
        )

    def _subject(self, id: UUID) -> Subject:
        return Subject(client_ref=str(id), refs=self._refs.get(id, ()))

    def _judge(self, id: UUID, record: Record, there: tuple[ProviderBooking, ...]) -> None:
        found = classify(record.intended, record.attempted, there, self._now, self._rules)
        if any(finding.kind is not Kind.MATCHED for finding in found):
            self._suspects.add(id)
        elif not found and record.intended.state is State.CONFIRMED:
            # Too young for its absence to count: it is looked at again, now and next time.
            self._suspects.add(id)
        elif found:
            self._resting.add(id)

"""A provider that fails, and two services beside it. Each keeps a record of every request that reached it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from domain.provider import (
    BookingDetails,
    BookingStatus,
    Call,
    Capabilities,
    Confirmed,
    Found,
    Missing,
    Page,
    ProviderBooking,
    ReadOutcome,
    Rejected,
    WriteOutcome,
)
from saga.definition import StepCall
from simulation.faulty_calls import Network
from simulation.ledger import Deposits, Ledger, Record
from simulation.weather import FAULTS_END_S, Weather

LAG_SHARE = 0.4


@dataclass(frozen=True)
class Sent:
    """One request as it was received."""

    at_s: float
    target: str
    operation: str
    client_ref: str
    operation_id: str


@dataclass(frozen=True)
class Webhook:
    """One callback to deliver, for `copies` times, the first `delay_s` after the change."""

    webhook_id: str
    record: Record
    status: BookingStatus
    version: int
    delays_s: tuple[float, ...]


Seen = Callable[[Sent], None]


@dataclass(frozen=True)
class Manner:
    """How a provider behaves when nothing is wrong."""

    capabilities: Capabilities
    pending_share: float = 0.0
    never_settles_share: float = 0.05
    rejects_share: float = 0.15
    settles_within_s: float = 6.0
    renames: bool = False
    """A move makes another booking."""
    very_late_share: float = 0.0
    """How many of its late effects come later than the settle delay; only one that calls back may do so."""

    @classmethod
    def drawn(cls, rng: Random) -> "Manner":
        """A provider's manner."""
        resend, callbacks = rng.random() < 0.65, rng.random() < 0.5
        able = Capabilities(
            resend=resend,
            lookup=rng.random() < 0.85,
            callbacks=callbacks,
            settle_ms=rng.choice((300, 1_000, 2_000)),
        )
        late = rng.choice((0.3, 1.0)) if resend and callbacks else 0.0
        return cls(able, rng.choice((0.0, 0.0, 0.3, 1.0)), renames=rng.random() < 0.3, very_late_share=late)


class FaultyProvider:
    """Implements `domain.provider.Provider` over a `Ledger`; `call_back` is told of every webhook to deliver."""

    def __init__(
        self, name: str, rng: Random, manner: Manner, weather: Weather, seen: Seen, call_back: Callable[[Webhook], None]
    ) -> None:
        self.name, self.capabilities = name, manner.capabilities
        self.rng, self.manner, self._seen, self._call_back = rng, manner, seen, call_back
        self.network = Network(rng, weather, manner.capabilities.settle_ms)
        self.ledger = Ledger(manner.capabilities.resend, manner.renames, self._now_s, self._changed)
        self._webhooks = 0

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        self._record("create", call)
        pending = self.rng.random() < self.manner.pending_share
        lag_s = self.rng.uniform(0, LAG_SHARE * self.capabilities.settle_ms / 1_000)
        very_late_s = 0.0
        if self.rng.random() < self.manner.very_late_share:
            very_late_s = self.capabilities.settle_ms / 1_000 + self.rng.uniform(0, 20)
        return await self.network.write(
            call,
            lambda: self.ledger.create(call.operation_id, call.client_ref, details, pending, lag_s),
            self._rejected,
            very_late_s,
            self.capabilities.resend,
        )

    async def get(self, call: Call, calendar: str, provider_ref: str) -> ReadOutcome:
        self._record("get", call)
        return await self.network.read(call, lambda: _seen(self.ledger.get(provider_ref)))

    async def find(self, call: Call, calendar: str) -> ReadOutcome:
        self._record("find", call)
        if not self.capabilities.lookup:
            return Rejected(reason="this provider has no such search")
        return await self.network.read(call, lambda: _seen(self.ledger.find(call.client_ref)))

    async def cancel(self, call: Call, calendar: str, provider_ref: str) -> WriteOutcome:
        self._record("cancel", call)
        return await self.network.write(call, lambda: self.ledger.cancel(provider_ref), self._rejected)

    async def reschedule(
        self, call: Call, provider_ref: str, etag: str | None, details: BookingDetails
    ) -> WriteOutcome:
        self._record("reschedule", call)
        return await self.network.write(
            call,
            lambda: self.ledger.reschedule(call.operation_id, provider_ref, etag, details.start, details.end),
            self._rejected,
        )

    async def listing(self, call: Call, calendar: str, token: str | None = None, limit: int = 100) -> Page:
        return Page(bookings=tuple(record.booking() for record in self.ledger.records))

    async def close(self) -> None:
        """Nothing to free."""

    def _rejected(self) -> WriteOutcome:
        return Rejected(reason="no", conflict=self.rng.random() < 0.3)

    def _record(self, operation: str, call: Call) -> None:
        whose = self.ledger.foreign.get(call.client_ref, call.client_ref)
        self._seen(Sent(self._now_s(), self.name, operation, whose, call.operation_id))

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()

    def _changed(self, record: Record) -> None:
        if record.status is BookingStatus.PENDING and record.version == 1:
            self._settle_later(record)
        if self.capabilities.callbacks and record.foreign_ref is None:  # nobody said where to call back
            self._webhooks += 1
            copies = self.rng.choice((1, 1, 2, 3))
            # The first copy may come before the answer to the call that made it, or after the next change's.
            delays_s = tuple(self.rng.uniform(0.0005, self.rng.choice((0.01, 0.5, 4))) for _ in range(copies))
            webhook_id = f"{self.name}-wh-{self._webhooks}"
            self._call_back(Webhook(webhook_id, record, record.status, record.version, delays_s))

    def _settle_later(self, record: Record) -> None:
        manner, now_s = self.manner, self._now_s()
        share = self.rng.random()
        if share < manner.never_settles_share and now_s < FAULTS_END_S:
            return
        rejects = share < manner.never_settles_share + manner.rejects_share and now_s < FAULTS_END_S
        status = BookingStatus.REJECTED if rejects else BookingStatus.ACCEPTED
        delay_s = self.rng.uniform(0.05, manner.settles_within_s if now_s < FAULTS_END_S else 1.0)
        asyncio.get_running_loop().call_later(delay_s, self.ledger.settle, record, status)


def _seen(record: Record | None) -> ReadOutcome:
    return Missing() if record is None else Found(booking=record.booking())


@dataclass
class DepositService:
    """What a user's own step calls: hold a deposit, give it back."""

    rng: Random
    network: Network
    idempotent: bool
    searchable: bool
    seen: Seen
    books: Deposits = field(init=False)

    def __post_init__(self) -> None:
        """Open the books."""
        self.books = Deposits(self.idempotent, self._now_s)

    async def hold(self, asked: StepCall) -> WriteOutcome:
        """The step's action."""
        self._record("hold", asked.call)
        return await self.network.write(
            asked.call,
            lambda: self.books.hold(asked.call.operation_id, asked.call.client_ref),
            lambda: Rejected(reason="card refused"),
            known=self.idempotent,
        )

    async def release(self, asked: StepCall) -> WriteOutcome:
        """The step's compensation."""
        self._record("release", asked.call)
        return await self.network.write(
            asked.call, lambda: self.books.release(asked.call.client_ref), lambda: Rejected(reason="account closed")
        )

    async def look(self, asked: StepCall) -> ReadOutcome:
        """The step's look-up."""
        self._record("look", asked.call)
        return await self.network.read(asked.call, lambda: self._found(asked.call.client_ref))

    def _found(self, client_ref: str) -> ReadOutcome:
        if not self.books.held.get(client_ref):
            return Missing()
        booking = ProviderBooking(provider_ref=f"dp_{client_ref}", client_ref=client_ref, status=BookingStatus.ACCEPTED)
        return Found(booking=booking)

    def _record(self, operation: str, call: Call) -> None:
        self.seen(Sent(self._now_s(), "deposit", operation, call.client_ref, call.operation_id))

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


@dataclass
class NotifyService:
    """The downstream that is told; it keeps no books."""

    network: Network
    seen: Seen

    async def tell(self, asked: StepCall) -> WriteOutcome:
        """The step's action."""
        now_s = asyncio.get_running_loop().time()
        self.seen(Sent(now_s, "notify", "tell", asked.call.client_ref, asked.call.operation_id))
        return await self.network.write(asked.call, Confirmed, lambda: Rejected(reason="unknown customer"))

"""What other steps keep, and what a provider says while it moves a booking, is not mistaken for the booking."""

import asyncio

from appointments import BookAppointment, CalendarStep, Orchestrator, RetryPolicy, Saga, Settings, Step, StepCall
from domain.lifecycle import State
from domain.provider import (
    BookingDetails,
    BookingStatus,
    Call,
    Confirmed,
    Found,
    ProviderBooking,
    Rejected,
    Unknown,
    WriteOutcome,
)
from providers.local import LocalProvider

BOOK = BookAppointment.model_validate(
    {
        "calendar": "main",
        "start": "2031-03-03T09:00:00Z",
        "end": "2031-03-03T09:30:00Z",
        "time_zone": "Europe/Berlin",
        "summary": "Check-up",
    }
)
SETTINGS = Settings(store="memory:", provider="local:", log_level="warning")


async def test_a_step_before_the_calendar_keeps_its_own_reference() -> None:
    """The deposit's answer is lost, and its look-up finds a reference: the cancel still takes the booking away."""

    async def hold(_asked: StepCall) -> WriteOutcome:
        return Unknown(reason="lost")

    async def find(asked: StepCall) -> Found:
        reference = asked.call.client_ref
        return Found(
            booking=ProviderBooking(provider_ref="deposit-1", client_ref=reference, status=BookingStatus.ACCEPTED)
        )

    async def done(_asked: StepCall) -> WriteOutcome:
        return Confirmed()

    calendar = LocalProvider("main")
    once = RetryPolicy(attempts_max=1)
    deposit = Step("deposit", action=hold, compensation=done, lookup=find, retry=once, settle_ms=0)
    saga = Saga("booking", 1, (deposit, CalendarStep(), Step("notify", action=done)))
    async with Orchestrator.open(SETTINGS, providers=(calendar,), sagas=(saga,)) as desk:
        booked = await desk.book(BOOK, key="book", wait=10)
        assert (booked.state, len(calendar.live("main"))) == (State.CONFIRMED, 1)
        assert booked.provider_ref == calendar.live("main")[0].provider_ref
        gone = await desk.cancel(booked.id, key="cancel", wait=10)
        assert (gone.state, len(calendar.live("main"))) == (State.CANCELLED, 0)


class Moving(LocalProvider):
    """Answers a move only when told, and then refuses it."""

    def __init__(self) -> None:
        super().__init__("main")
        self.asked, self.answer = asyncio.Event(), asyncio.Event()

    async def reschedule(
        self, call: Call, provider_ref: str, etag: str | None, details: BookingDetails
    ) -> WriteOutcome:
        self.asked.set()
        await self.answer.wait()
        return Rejected(reason="the booking is cancelled")


async def test_a_booking_that_its_provider_cancels_during_a_move_is_parked() -> None:
    calendar = Moving()
    async with Orchestrator.open(SETTINGS, providers=(calendar,)) as desk:
        booked = await desk.book(BOOK, key="book", wait=10)
        start, end = "2031-03-04T09:00:00Z", "2031-03-04T09:30:00Z"
        await desk.reschedule(booked.id, start=start, end=end, key="move")
        await calendar.asked.wait()
        assert booked.provider_ref is not None
        await desk.called_back("main", "wh-1", str(booked.id), booked.provider_ref, "cancelled", 2)
        calendar.answer.set()
        seen = await desk.show(booked.id, wait=10)
        assert seen.parked
        assert seen.parked_reason == "the provider says that the booking is cancelled"

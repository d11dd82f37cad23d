"""Sagas as declared: what cannot run is refused at once, and a plan has one name for ever."""

import pytest

from domain.commands import PolicyOverride
from domain.definition import RetryPolicy, SagaPlan, StepPlan, booking_step_of
from domain.provider import Capabilities, Confirmed, Found, Missing, ReadOutcome, WriteOutcome
from providers.local import LocalProvider
from saga.definition import CalendarStep, Saga, Step, StepCall, with_override


async def act(_asked: StepCall) -> WriteOutcome:
    return Confirmed()


async def look(_asked: StepCall) -> ReadOutcome:
    return Missing()


def saga(*steps: Step | CalendarStep, version: int = 1) -> Saga:
    return Saga("booking", version, steps or (CalendarStep(), Step("notify", act)))


def test_a_saga_without_a_calendar_step_or_with_two_cannot_run() -> None:
    with pytest.raises(ValueError, match="exactly one CalendarStep"):
        saga(Step("notify", act))
    with pytest.raises(ValueError, match="exactly one CalendarStep"):
        saga(CalendarStep(), CalendarStep("other"))


def test_two_steps_of_one_name_cannot_run() -> None:
    with pytest.raises(ValueError, match="two steps of one name"):
        saga(CalendarStep(), Step("notify", act), Step("notify", act))


def test_it_carries_a_plan_whose_steps_it_has_whatever_their_patience() -> None:
    plan = saga().plan(LocalProvider())
    patient = Step("notify", act, retry=RetryPolicy(attempts_max=9))
    assert saga(CalendarStep(), Step("deposit", act), patient).carries(plan)
    assert not saga(CalendarStep(), Step("deposit", act)).carries(plan)
    assert not saga(CalendarStep("notify"), Step("calendar", act)).carries(plan)


@pytest.mark.parametrize("name", ["", "Notify", "a b", "1st", "x" * 41])
def test_a_step_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        saga(CalendarStep(), Step(name, act)).plan(LocalProvider())


def test_what_a_step_can_do_follows_from_what_it_was_given() -> None:
    plain = Step("deposit", act).plan()
    assert (plain.compensated, plain.lookup, plain.resend, plain.target) == (False, False, True, "deposit")
    full = Step("deposit", act, compensation=act, lookup=look, resend=False, target="bank").plan()
    assert (full.compensated, full.lookup, full.resend, full.target) == (True, True, False, "bank")


def test_what_the_calendar_step_may_do_follows_from_the_provider() -> None:
    provider = LocalProvider("weak")
    provider.capabilities = Capabilities(resend=False, lookup=False, settle_ms=77)
    step = saga().plan(provider).booking_step
    assert (step.resend, step.lookup, step.settle_ms, step.target, step.compensated) == (False, False, 77, "weak", True)


def test_a_plan_survives_the_log_with_the_same_name() -> None:
    plan = saga().plan(LocalProvider())
    assert SagaPlan.model_validate(plan.model_dump(mode="json")).digest == plan.digest


def test_every_change_gives_another_name() -> None:
    provider = LocalProvider()
    plans = [
        saga(),
        saga(version=2),
        saga(CalendarStep(timeout_ms=1_000), Step("notify", act)),
        saga(CalendarStep(), Step("notify", act, retry=RetryPolicy(attempts_max=9))),
        saga(Step("notify", act), CalendarStep()),
        Saga("booking", 1, (CalendarStep(), Step("notify", act)), deadline_ms=500),
    ]
    assert len({one.plan(provider).digest for one in plans} | {saga().plan(LocalProvider("b")).digest}) == 7


def test_the_name_of_a_plan_is_frozen_as_of_today() -> None:
    plan = SagaPlan(name="booking", provider="main", steps=(StepPlan(name="calendar", target="main", books=True),))
    assert plan.digest == "booking/1@b70b478af063"


def test_the_name_of_a_plan_tells_which_step_books() -> None:
    plan = saga(Step("room", act), CalendarStep("slot")).plan(LocalProvider())
    assert plan.digest.endswith("#slot")
    assert booking_step_of(plan.digest) == plan.booking_step.name
    assert booking_step_of(saga().plan(LocalProvider()).digest) == "calendar"


def test_steps_are_found_by_name() -> None:
    one = saga()
    assert one.step("notify").name == one.plan(LocalProvider()).step("notify").name == "notify"
    for found in (one.step, one.plan(LocalProvider()).step):
        with pytest.raises(KeyError):
            found("room")


def test_an_override_touches_the_booking_step_alone() -> None:
    calendar = StepPlan(name="calendar", target="main", books=True)
    notify = StepPlan(name="notify", target="notify")
    own = PolicyOverride(attempts_max=1, timeout_ms=20, backoff_ms=0)
    changed = with_override(calendar, own)
    assert (changed.retry.attempts_max, changed.timeout_ms, changed.retry.backoff_ms) == (1, 20, 0)
    assert with_override(notify, own) is notify
    assert with_override(calendar, None) is calendar
    partly = with_override(calendar, PolicyOverride(backoff_ms=9))
    assert (partly.retry.attempts_max, partly.timeout_ms) == (calendar.retry.attempts_max, calendar.timeout_ms)


def test_a_look_is_an_outcome_of_a_read() -> None:
    assert {Found, Missing} <= set(ReadOutcome.__args__)

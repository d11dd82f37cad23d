"""What goes out when, what is tried again, what is given up, and up to where all is done: in time that is passed in."""

import random
from uuid import UUID

import pytest

from appointments.outbox.sink import Accepted, Answer, Away, Refused
from appointments.outbox.window import DOWN_AFTER, WINDOW_MAX, Delivery, Window
from domain.definition import RetryPolicy
from tests.unit.outbox.world import event_of

SEED = 20261125
RETRY = RetryPolicy(attempts_max=3, backoff_ms=1_000, backoff_max_ms=8_000, jitter=0)
DOWN = Away("no answer")
BAD = Refused("answered 422")


def window(concurrency: int = 8, retry: RetryPolicy = RETRY) -> Window:
    return Window(retry, concurrency, read_to=0)


def delivery(position: int, appointment: int, version: int = 1) -> Delivery:
    id = UUID(int=appointment)
    return Delivery(position, id, version, event_of(id, version))


def take_in(into: Window, *appointments: int) -> None:
    """One event for each, in this order."""
    versions: dict[int, int] = {}
    for appointment in appointments:
        versions[appointment] = versions.get(appointment, 0) + 1
        into.read_to += 1
        into.take_in(delivery(into.read_to, appointment, versions[appointment]))


def out(of: Window, now_s: float = 0) -> list[Delivery]:
    """All that may leave now."""
    found = []
    while (one := of.next(now_s)) is not None:
        found.append(one)
    return found


def positions(found: list[Delivery]) -> list[int]:
    return [one.position for one in found]


def test_appointments_go_out_side_by_side_and_each_ones_events_one_after_the_other() -> None:
    it = window()
    take_in(it, 1, 1, 2, 1, 3)
    first = out(it)
    assert positions(first) == [1, 3, 5]
    assert not it.answered(first[0], Accepted(), 0)
    assert positions(out(it)) == [2]


def test_no_more_leave_at_once_than_the_bound_says() -> None:
    it = window(concurrency=2)
    take_in(it, 1, 2, 3)
    first = out(it)
    assert positions(first) == [1, 2]
    it.answered(first[1], Accepted(), 0)
    assert positions(out(it)) == [3]


def test_the_checkpoint_is_the_last_position_before_the_first_that_is_not_done() -> None:
    it = window()
    take_in(it, 1, 2, 3)
    one, two, three = out(it)
    assert it.checkpoint == 0
    it.answered(two, Accepted(), 0)
    it.answered(three, Accepted(), 0)
    assert it.checkpoint == 0
    it.answered(one, Accepted(), 0)
    assert it.checkpoint == it.read_to == 3


def test_what_is_refused_is_tried_again_ever_later_and_given_up_in_the_end() -> None:
    it = window()
    take_in(it, 1, 1)
    (bad,) = out(it)
    assert not it.answered(bad, BAD, 0)
    assert (out(it, 0.9), it.next_at()) == ([], 1)
    assert out(it, 1) == [bad]
    assert not it.answered(bad, BAD, 1)
    assert (out(it, 2.9), it.next_at()) == ([], 3)
    assert out(it, 3) == [bad]
    assert it.answered(bad, BAD, 3)
    assert (out(it, 3), it.checkpoint) == ([], 0), "until it is kept, it is neither done nor passed by"
    it.done(bad)
    assert (positions(out(it, 3)), it.checkpoint) == ([2], 1)


def test_others_go_on_beside_one_that_is_refused() -> None:
    it = window(concurrency=1)
    take_in(it, 1, 2, 1, 2)
    (bad,) = out(it)
    it.answered(bad, BAD, 0)
    for expected in (2, 4):
        (other,) = out(it)
        assert other.position == expected
        it.answered(other, Accepted(), 0)


def test_a_subscriber_that_takes_nothing_is_tried_by_one_after_the_other_and_none_loses_an_attempt() -> None:
    it = window()
    take_in(it, *range(1, 6))
    for one in out(it):
        assert not it.answered(one, DOWN, 0)
    assert it.down
    assert out(it, 0.9) == []
    now_s, probed = 0.0, []
    for _ in range(50):
        now_s += 10
        (probe,) = out(it, now_s)
        probed.append(probe.position)
        assert not it.answered(probe, DOWN, now_s)
        assert probe.attempts == 0
    assert len(set(probed)) == 5
    assert set(probed[-5:]) == {1, 2, 3, 4, 5}
    (probe,) = out(it, now_s + 10)
    it.answered(probe, Accepted(), now_s + 10)
    assert not it.down
    assert len(out(it, now_s + 10)) == 4


def test_control_if_each_failure_counted_an_outage_would_put_everything_to_the_dead_letters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged = Window.answered
    monkeypatch.setattr(Window, "answered", lambda self, one, _answer, now_s: judged(self, one, BAD, now_s))
    it = window()
    take_in(it, *range(1, 6))
    now_s, lost = 0.0, 0
    for _ in range(10):
        now_s += 10
        for one in out(it, now_s):
            if it.answered(one, DOWN, now_s):
                it.done(one)
                lost += 1
    assert lost == 5


def test_the_probes_of_a_subscriber_that_is_down_come_ever_more_rarely_up_to_the_cap() -> None:
    it = window()
    take_in(it, *range(1, 6))
    for one in out(it):
        it.answered(one, DOWN, 0)
    waits, now_s = [], 0.0
    for _ in range(5):
        at = it.next_at()
        assert at is not None
        waits.append(at - now_s)
        now_s = at
        (probe,) = out(it, now_s)
        assert out(it, now_s) == []
        it.answered(probe, DOWN, now_s)
    assert waits == [1, 2, 4, 8, 8]


def test_an_event_at_which_a_subscriber_fails_while_it_takes_others_is_given_up() -> None:
    it = window()
    take_in(it, 1, *range(2, 9))
    poison, *others = out(it)
    now_s, given_up = 0.0, False
    for other in others:
        it.answered(other, Accepted(), now_s)
        given_up = it.answered(poison, DOWN, now_s)
        if given_up:
            break
        now_s += 10
        assert out(it, now_s) == [poison]
    assert given_up
    assert poison.attempts == RETRY.attempts_max


def test_an_event_that_fails_alone_is_not_held_against_and_holds_up_nobody() -> None:
    it = window()
    take_in(it, 1)
    (alone,) = out(it)
    for n in range(100):
        assert not it.answered(alone, DOWN, n * 10)
        assert not it.down
        assert out(it, n * 10 + 10) == [alone]
    take_in(it, 2)
    assert positions(out(it, 1_000)) == [2]


def test_a_wait_that_the_subscriber_asks_for_is_kept_up_to_an_hour() -> None:
    it = window()
    take_in(it, 1)
    (one,) = out(it)
    it.answered(one, Away("answered 429", retry_after_s=100), 0)
    assert it.next_at() == 100
    assert out(it, 100) == [one]
    it.answered(one, Away("answered 429", retry_after_s=1e9), 100)
    assert it.next_at() == 3_700


def test_it_is_full_with_so_many_that_are_not_done() -> None:
    it = window()
    take_in(it, *range(1, WINDOW_MAX))
    assert not it.full
    take_in(it, WINDOW_MAX + 1)
    assert it.full
    (first, *_) = out(it)
    it.answered(first, Accepted(), 0)
    assert not it.full


def any_course(chance: random.Random) -> dict[int, list[tuple[int, str]]]:
    """By appointment: the versions that came to an end and how, whatever the answers and their order."""
    it = window(concurrency=chance.randrange(1, 6), retry=RETRY.model_copy(update={"jitter": 0.5}))
    take_in(it, *(chance.randrange(8) for _ in range(60)))
    now_s, checkpoint, running = 0.0, 0, list[Delivery]()
    ended: dict[int, list[tuple[int, str]]] = {}
    for step in range(20_000):
        running += out(it, now_s)
        if not running:
            at = it.next_at()
            if at is None:
                break
            now_s = max(now_s, at)
            continue
        one = running.pop(chance.randrange(len(running)))
        sick = step < 200 and chance.random() < 0.5
        answer: Answer = chance.choice([DOWN, BAD]) if sick else Accepted()
        gone = it.answered(one, answer, now_s)
        if gone:
            it.done(one)
        if gone or isinstance(answer, Accepted):
            ended.setdefault(one.appointment.int, []).append((one.version, "gone" if gone else "told"))
        assert it.checkpoint >= checkpoint
        checkpoint = it.checkpoint
        now_s += chance.random()
    assert it.checkpoint == it.read_to
    return ended


def test_whatever_is_answered_each_event_ends_once_and_in_order() -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    ends = set[str]()
    for _ in range(200):
        for course in any_course(chance).values():
            assert [version for version, _ in course] == list(range(1, len(course) + 1))
            ends |= {end for _, end in course}
    assert ends == {"told", "gone"}, "both were seen"


def test_control_without_lanes_the_order_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    taken_in = Window.take_in

    def each_by_itself(self: Window, one: Delivery) -> None:
        taken_in(self, Delivery(one.position, UUID(int=1_000 * one.appointment.int + one.version), 1, one.event))

    monkeypatch.setattr(Window, "take_in", each_by_itself)
    it = window()
    take_in(it, 1, 1)
    assert positions(out(it)) == [1, 2], "both at once"


def test_so_few_that_fail_are_not_an_outage() -> None:
    it = window()
    take_in(it, *range(1, DOWN_AFTER + 1))
    failing = out(it)
    for one in failing[:-1]:
        it.answered(one, DOWN, 0)
    assert not it.down
    it.answered(failing[-1], DOWN, 0)
    assert it.down

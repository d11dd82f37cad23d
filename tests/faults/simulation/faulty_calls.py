"""One call over a bad network to a bad service: when it takes effect, and what the caller is told. Owns no ledger."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import TypeVar

from domain.provider import Call, Retryable, Unknown
from simulation.weather import Weather

T = TypeVar("T")
LATE_SHARE = 0.5
"""A call whose answer is unknown takes effect within this share of the settle delay, or never."""


class Network:
    """Carries calls to one target."""

    def __init__(self, rng: Random, weather: Weather, settle_ms: int) -> None:
        self.rng, self.weather, self.settle_ms = rng, weather, settle_ms
        self.processing: dict[str, int] = {}
        """Operation ids whose calls have been taken in and have not taken effect yet."""

    async def write(
        self, call: Call, apply: Callable[[], T], reject: Callable[[], T], very_late_s: float = 0.0, known: bool = True
    ) -> T | Retryable | Unknown:
        """Send a write.

        `very_late_s`: a service that calls back may take effect that much later than the settle delay allows.
        `known`: the service knows operation ids, and says so when one is still being worked on.
        """
        rng, timeout_s = self.rng, call.timeout_ms / 1_000
        fault = self.weather.fault(asyncio.get_running_loop().time(), write=True)
        if known and call.operation_id in self.processing and rng.random() < 0.7:
            await self._pass(0.005)
            return Unknown(reason="409 in_flight", in_flight=True)
        there_s = rng.uniform(0.001, 0.03)
        match fault:
            case "fine" | "slow":
                if fault == "slow":
                    there_s = rng.uniform(0, 0.9 * timeout_s)
                answer = self._apply_in(there_s, call, apply)
                await asyncio.wait((answer,), timeout=timeout_s)
                if not answer.done():
                    return Unknown(reason="timeout")
                back_s = rng.uniform(0.001, 0.02)
                await asyncio.sleep(min(back_s, max(timeout_s - there_s, 0)))
                return answer.result() if there_s + back_s <= timeout_s else Unknown(reason="timeout")
            case "timeout_lost":
                await asyncio.sleep(timeout_s)
                return Unknown(reason="timeout")
            case "timeout_applied":
                self._apply_in(rng.uniform(0, timeout_s), call, apply)
                await asyncio.sleep(timeout_s)
                return Unknown(reason="timeout")
            case "timeout_late":
                self._apply_in(timeout_s + very_late_s + self._late_s(), call, apply)
                await asyncio.sleep(timeout_s)
                return Unknown(reason="timeout")
            case "reset_late":
                self._apply_in(min(there_s, timeout_s) + very_late_s + self._late_s(), call, apply)
                await self._pass(min(there_s, timeout_s))
                return Unknown(reason="connection reset")
            case "lost_response" | "unavailable_applied":
                self._apply_in(min(there_s, timeout_s), call, apply)
                await self._pass(min(there_s, timeout_s) + 0.001)
                return Unknown(reason="connection reset" if fault == "lost_response" else "503")
            case "unavailable":
                await self._pass(there_s)
                return Unknown(reason="503")
            case "refused_connection":
                await self._pass(0.001)
                return Retryable(reason="connection refused")
            case "throttled" | "locked":
                await self._pass(0.001)
                after = rng.choice((None, 200, 2_000)) if fault == "throttled" else None
                return Retryable(reason="429" if fault == "throttled" else "423", retry_after_ms=after, throttled=True)
            case "raises":
                if rng.random() < 0.5:
                    self._apply_in(0.0, call, apply)
                await self._pass(0.002)
                raise RuntimeError("the adapter has a fault")
            case "overrun":
                if rng.random() < 0.5:
                    self._apply_in(rng.uniform(0, timeout_s), call, apply)
                await asyncio.sleep(timeout_s + 30)
                raise AssertionError("nobody cut the call off")
            case "rejected":
                await self._pass(0.002)
                return reject()
            case _:
                raise AssertionError(fault)

    async def read(self, call: Call, look: Callable[[], T]) -> T | Retryable | Unknown:
        """Send a read."""
        rng, timeout_s = self.rng, call.timeout_ms / 1_000
        fault = self.weather.fault(asyncio.get_running_loop().time(), write=False)
        match fault:
            case "fine" | "slow":
                await asyncio.sleep(rng.uniform(0, 0.02 if fault == "fine" else 0.9 * timeout_s))
                seen = look()
                await asyncio.sleep(rng.uniform(0, 0.02))
                return seen
            case "timeout_lost" | "timeout_applied" | "timeout_late":
                await asyncio.sleep(timeout_s)
                return Unknown(reason="timeout")
            case "raises":
                raise RuntimeError("the adapter has a fault")
            case "overrun":
                await asyncio.sleep(timeout_s + 30)
                raise AssertionError("nobody cut the call off")
            case "throttled" | "locked":
                return Retryable(reason="429", throttled=True)
            case _:
                await self._pass(0.002)
                return Unknown(reason="503") if fault == "unavailable" else Retryable(reason="connection refused")

    def _late_s(self) -> float:
        return self.rng.uniform(0, LATE_SHARE * self.settle_ms / 1_000)

    def _apply_in(self, delay_s: float, call: Call, apply: Callable[[], T]) -> "asyncio.Future[T]":
        """The service works on its own: whether the caller lives or not."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self.processing[call.operation_id] = self.processing.get(call.operation_id, 0) + 1

        def take_effect() -> None:
            self.processing[call.operation_id] -= 1
            if not self.processing[call.operation_id]:
                del self.processing[call.operation_id]
            answer.set_result(apply())

        loop.call_later(delay_s, take_effect, context=Context())
        return answer

    async def _pass(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.rng.uniform(0.5, 1.5))

"""The downstream that is told about appointments: `POST {url}/notifications`, once for each operation id."""

from collections.abc import Mapping
from typing import Any

from domain.provider import Call, Confirmed, WriteOutcome
from providers.api_v2 import post_json
from providers.api_v2_answers import refused
from providers.exchange import CONNECTIONS_MAX, Deadline, Exchange, Failure
from providers.outcomes import failed


class Notifier:
    """Tells one downstream; a 2xx is all that it needs to answer."""

    routes: Mapping[str, str] = {"action": "POST /notifications"}
    """What each call is over HTTP, below the address."""

    def __init__(self, name: str, url: str, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self.name = name
        self._url = f"{url.rstrip('/')}/notifications"
        self._exchange = Exchange({"Accept": "application/json"}, connections_max=connections_max)

    async def notify(self, call: Call, body: dict[str, Any]) -> WriteOutcome:
        """POST `body`; a repeat with the same operation id is told once."""
        answer = await post_json(self._exchange, self._url, call, body, Deadline.of(call))
        if isinstance(answer, Failure):
            return failed(answer)
        return Confirmed() if 200 <= answer.status < 300 else refused(answer)

    async def close(self) -> None:
        """Free connections."""
        await self._exchange.close()

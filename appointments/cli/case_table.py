"""How the cases are shown while they run: a table whose rows fill in on a terminal, a plain line for each elsewhere."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.live import Live
from rich.table import Table
from rich.text import Text

from appointments.cases import Case, Result
from appointments.cli import render
from appointments.cli.progress import ProgressReport
from appointments.cli.session import Session

VERDICTS = {"passed": "green", "failed": "bold red"}


@contextmanager
def shown(session: Session, cases: Sequence[Case]) -> Iterator[Callable[[Result], None]]:
    """Show the cases; call what is given with each result, in the order of the cases."""
    if session.as_json or not session.out.is_terminal:
        with ProgressReport(session, "cases", len(cases)) as progress:

            def tell(result: Result) -> None:
                if not session.as_json:
                    progress.line(line(result))
                progress.advance()

            yield tell
        return
    results: list[Result] = []
    # It is drawn anew when there is news: a thread that draws now and then would be one more thing to end.
    with Live(table(cases, results), console=session.out, auto_refresh=False) as live:

        def fill_in(result: Result) -> None:
            results.append(result)
            live.update(table(cases, results), refresh=True)

        yield fill_in


def table(cases: Sequence[Case], results: Sequence[Result]) -> Table:
    """All cases, with what came of those that have run; the first of the others is running."""
    made = render.table("case", "what it shows", "state", "attempts", "verdict")
    for number, case in enumerate(cases):
        if number < len(results):
            result = results[number]
            verdict = Text("\n".join((result.verdict, *result.differences)), style=VERDICTS[result.verdict])
            made.add_row(case.id, Text(case.title), Text(_end(result)), str(result.attempts), verdict)
        else:
            running = Text("running", style="dim") if number == len(results) else ""
            made.add_row(case.id, Text(case.title), "", "", running)
    return made


def line(result: Result) -> str:
    """One case in one line; calls are creates, attempts and retries."""
    counts = f"{result.provider_calls.get('create', 0)}/{result.attempts}/{result.retries}"
    calls = f"calls {counts:<7} live {result.live_bookings}"
    told = f"{result.id} {result.title:<18} {_end(result):<34} {calls}  {result.verdict}"
    return "; ".join((told, *result.differences))


def _end(result: Result) -> str:
    return f"{result.state} ({result.reason})" if result.reason else str(result.state)

"""Each requirement: what it asks in a few words, where it is built, and the tests whose evidence answers it."""

from dataclasses import dataclass

from generating.evidence import ACCEPTANCE, collected
from generating.markdown import table

TESTS_SHOWN = 3


@dataclass(frozen=True)
class Requirement:
    """`built`: files and folders; empty: not yet. `lacks`: what is not there. `shown`: by what, where by no test."""

    number: str
    asks: str
    built: tuple[str, ...] = ()
    lacks: str = ""
    shown: str = ""


def _of(number: str, asks: str, built: str = "", lacks: str = "", shown: str = "") -> Requirement:
    return Requirement(number, asks, tuple(built.split()), lacks, shown)


REQUIREMENTS = (
    _of("R1.1", "one aggregate, one state machine", "domain/lifecycle.py domain/appointment.py domain/events.py"),
    _of("R1.2", "commands, operator actions", "domain/commands.py domain/decide.py"),
    _of("R1.3", "UI events of the legacy front end", "domain/labels.py appointments/orchestrator.py"),
    _of("R2.1", "process manager, declared steps", "saga/process.py saga/definition.py saga/turn.py"),
    _of("R2.2", "idempotency", "domain/identity.py domain/decide.py"),
    _of("R2.3", "retry", "domain/definition.py saga/process.py", "per-provider and per-step defaults only in Python"),
    _of("R2.4", "timeouts, deadline, unknown outcome", "saga/process.py saga/interpret.py"),
    _of("R2.5", "breaker, limits", "saga/breaker.py saga/lanes.py"),
    _of("R2.6", "compensation", "saga/process.py domain/decide.py"),
    _of("R2.7", "pending, callbacks", "appointments/callbacks.py saga/interpret.py"),
    _of(
        "R2.8",
        "transactional outbox",
        "appointments/outbox",
        "dead letters are told again by a command or in the console, not over the API",
    ),
    _of("R2.9", "durable timers", "store/tables.py saga/runtime.py"),
    _of("R2.10", "definition versions", "saga/definition.py domain/definition.py"),
    _of("R3.1", "current state, lists", "projections/current_state.py projections/views.py", "no full-text search"),
    _of(
        "R3.2",
        "audit replay, tamper evidence",
        "saga/replay.py saga/audit.py store/chain.py store/checkpoint.py projections/export.py",
    ),
    _of("R3.3", "reconciliation, healing", "projections/reconciliation appointments/reconciling.py"),
    _of("R3.4", "metrics", "projections/figures.py projections/figures_query.py"),
    _of("R3.5", "rebuild", "projections/views.py projections/generations.py"),
    _of("R4.1", "Python face", "appointments/orchestrator.py appointments/synchronous.py"),
    _of("R4.2", "HTTP API", "appointments/http appointments/access"),
    _of("R4.3", "command line", "appointments/cli"),
    _of("R4.4", "web console", "appointments/console appointments/access appointments/http"),
    _of("R5.1", "provider port, adapters", "domain/provider.py providers", "Google Calendar, Microsoft Graph, Cal.com"),
    _of("R5.2", "mock provider", "mocks"),
    _of("R6.1", "structured logs", "appointments/logs.py"),
    _of("R6.2", "twenty cases", "data/test_data.json data/expected_postchange.json appointments/cases.py"),
    _of("R6.3", "results file", "appointments/cases.py appointments/cli/cases.py"),
    _of("R6.4", "comparison with the legacy system", "Shared/run_all.py Shared/harness Shared/legacy"),
    _of(
        "R6.5",
        "one command to run, test, validate",
        "setup.sh run_tests.sh appointments/validation.py requirements.txt",
    ),
    _of("R6.6", "documents", "docs/analysis docs/generate.py docs/generating"),
    _of("R6.7", "migration", "appointments/migration providers/legacy.py docs/migration"),
    _of("R7.1", "nothing acknowledged is lost", "store/journal.py store/log_writer.py saga/runtime.py"),
    _of("R7.2", "at most one live booking", "saga/process.py domain/identity.py"),
    _of(
        "R7.3",
        "fast; SQLite, PostgreSQL",
        "store/sqlite.py store/postgres.py appointments/sharding.py benchmarks",
        "",
        "[service levels](07-acceptance.md#73-service-levels)",
    ),
    _of(
        "R7.4",
        "safe: input, tenants, logs, erasure",
        "domain/commands.py domain/personal.py appointments/access appointments/privacy.py store/sealing.py",
    ),
    _of("R8.1", "three-way reconciliation", "projections/reconciliation"),
    _of("R8.2", "outcome unknown", "domain/provider.py saga/interpret.py"),
    _of("R8.3", "recovery in order of start", "saga/runtime.py store/tables.py"),
    _of("R8.4", "what-if", "saga/what_if.py saga/recording.py"),
    _of("R8.5", "edits at the provider", "domain/observed.py projections/reconciliation"),
    _of("R8.6", "nothing stranded looks healthy", "projections/health.py projections/pulse.py appointments/console"),
    _of("R8.7", "ended keys, references kept", "appointments/views.py saga/process.py"),
)


def requirement_table() -> str:
    """Every requirement with its place and its tests; acceptance criteria first, the others counted."""
    told = collected()
    rows = []
    for one in REQUIREMENTS:
        mine = [test for test in told if one.number in test.answers]
        mine.sort(key=lambda test: not test.path.startswith(ACCEPTANCE))
        names = [f"`{test.name or test.path}`" for test in mine[:TESTS_SHOWN]]
        more = len(mine) - TESTS_SHOWN
        tests = ", ".join(names) + (f" and {more} more" if more > 0 else "")
        place = ", ".join(f"`{path}`" for path in one.built) or "**not yet**"
        rows.append((one.number, one.asks, place, one.lacks, tests or one.shown or "none"))
    return table(("no.", "asks", "built in", "not yet", "tests"), rows)

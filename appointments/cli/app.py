"""All commands of `appointments`, gathered."""

from typing import Annotated

import typer

from appointments.cli import (
    backfill,
    backup,
    cases,
    check,
    checkpoint,
    erase,
    export,
    figures,
    main_job,
    outbox,
    read,
    rebuild,
    reconcile,
    replay,
    serve,
    shadow,
    split,
    token,
    validate,
    what_if,
    worker,
    write,
)

app = typer.Typer(
    name="appointments",
    help="Books appointments on calendars that it does not control, each to exactly one true end.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 refused (bad input), 3 still in progress.",
)


@app.callback()
def _all_commands(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an unexpected error came from.")] = False,
) -> None:
    """Books appointments on calendars that it does not control, each to exactly one true end."""


write.register(app)
read.register(app)
figures.register(app)
rebuild.register(app)
check.register(app)
checkpoint.register(app)
export.register(app)
reconcile.register(app)
replay.register(app)
what_if.register(app)
cases.register(app)
backfill.register(app)
backup.register(app)
erase.register(app)
serve.register(app)
outbox.register(app)
worker.register(app)
main_job.register(app)
validate.register(app)
shadow.register(app)
split.register(app)
token.register(app)

"""How a command is declared: its own parameters, plus those that every command takes."""

import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, get_type_hints

import typer

from appointments.cli.ending import ExitCode, run, tell, trouble
from appointments.cli.session import Session, open_session
from domain.errors import AppointmentsError

Handler = Callable[..., Coroutine[Any, Any, ExitCode]]

EVERYWHERE = "Every command"
COMMON: dict[str, Any] = {
    "store": Annotated[
        str | None,
        typer.Option(
            "--store",
            help="sqlite:///relative.db, sqlite:////absolute.db, postgresql://…, or the name of a shard.",
            rich_help_panel=EVERYWHERE,
        ),
    ],
    "provider": Annotated[
        str | None,
        typer.Option(
            "--provider", help="http(s)://host/api/v2, caldav+http(s)://host/home/, local:", rich_help_panel=EVERYWHERE
        ),
    ],
    "tenant": Annotated[str | None, typer.Option("--tenant", help="Whose data.", rich_help_panel=EVERYWHERE)],
    "actor": Annotated[
        str | None, typer.Option("--actor", help="Who asks, for the audit trail.", rich_help_panel=EVERYWHERE)
    ],
    "as_json": Annotated[bool, typer.Option("--json", help="Answer as JSON.", rich_help_panel=EVERYWHERE)],
}


def command(app: typer.Typer, name: str, example: str) -> Callable[[Handler], Handler]:
    """Register `async def handler(session, …) -> ExitCode` under `name`, with an example in its help."""

    def register(handler: Handler) -> Handler:
        def invoke(context: typer.Context, **given: Any) -> None:
            common = {option: given.pop(option) for option in COMMON}
            as_json = common.pop("as_json")
            debug = bool(context.find_root().params.get("debug"))
            try:
                session = open_session(as_json, common)
            except AppointmentsError as fault:
                raise typer.Exit(tell(trouble(fault), as_json)) from None
            raise typer.Exit(run(session, partial(handler, session, **given), debug))

        invoke.__doc__ = _paragraphs(handler)
        _take_parameters(invoke, handler)
        app.command(name, epilog=f"Example: {example}", short_help=_first_sentence(handler))(invoke)
        return handler

    return register


def _take_parameters(invoke: Callable[..., None], handler: Handler) -> None:
    hints = get_type_hints(handler, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(handler).parameters.values()
        if hints[parameter.name] is not Session
    ]
    common = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=False if name == "as_json" else None
        )
        for name, kind in COMMON.items()
    ]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    signature = inspect.Signature([context, *own, *common])
    invoke.__signature__ = signature  # type: ignore[attr-defined]
    invoke.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}


def _paragraphs(handler: Handler) -> str:
    """The docstring with each paragraph as one line, for the help to break where the terminal ends."""
    return "\n\n".join(" ".join(part.split("\n")) for part in (inspect.getdoc(handler) or "").split("\n\n"))


def _first_sentence(handler: Handler) -> str:
    return (handler.__doc__ or "").strip().split(". ")[0].rstrip(".") + "."

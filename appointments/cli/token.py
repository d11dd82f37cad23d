"""`token`: make, list and revoke the bearer tokens of a log, also while another process serves it."""

from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from appointments import bootstrap
from appointments.access.roles import MAY, Principal, Role
from appointments.access.tokens import Token, TokenFile
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.session import Session
from domain.commands import Name, Reason, parse
from domain.errors import InvalidFields
from domain.provider import Value
from saga.clock import WallClock

ROLES = "; ".join(f"{role}: {', '.join(sorted(MAY[role]))}" for role in Role)

Why = Annotated[str, typer.Option("--reason", help="Why, for the record of tokens.")]


class _Named(Value):
    name: Name


class _Why(Value):
    reason: Reason


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(name="token", help="Who may use what is served over HTTP, and as what.")
    group.info.no_args_is_help = True
    command(group, "create", "appointments token create --tenant acme --name front-desk --role booker --days 90")(
        create
    )
    command(group, "list", "appointments token list --tenant acme")(list_)
    command(group, "revoke", "appointments token revoke 3f9c0a1b2c3d --reason 'laptop lost'")(revoke)
    app.add_typer(group)


async def create(
    session: Session,
    name: Annotated[str, typer.Option(help="Who will use it: the actor in every audit trail.")],
    role: Annotated[Role, typer.Option(help=ROLES)],
    days: Annotated[int | None, typer.Option(help="How long it is valid; without, until it is revoked.")] = None,
    reason: Why = "",
) -> ExitCode:
    """Make a token for --tenant. It is shown this once; only its hash is kept."""
    actor = parse(_Named, {"name": name}).name
    principal = Principal(tenant=session.settings.tenant, actor=actor, role=role)
    life, why = timedelta(days=days) if days is not None else None, parse(_Why, {"reason": reason}).reason
    text, made = _tokens(session).make(principal, session.settings.actor, why, WallClock().now(), life)
    shown = Text(text)
    session.answer({"token": text, **made.model_dump(mode="json")}, shown)
    until = f"until {made.expires_at:%Y-%m-%d}" if made.expires_at else "until it is revoked"
    session.note(f"token {made.id}: {name} is {role} of tenant {made.tenant}, {until}; it is not shown again")
    return ExitCode.DONE


async def list_(
    session: Session, every: Annotated[bool, typer.Option("--all", help="Of every tenant.")] = False
) -> ExitCode:
    """List the tokens of --tenant, the newest first; none of them can be read."""
    now = WallClock().now()
    found = [one for one in _tokens(session).all() if every or one.tenant == session.settings.tenant]
    table = Table("id", "tenant", "who", "role", "made", "stands", box=None, pad_edge=False)
    for one in found:
        table.add_row(
            one.id, one.tenant, one.actor, one.role, f"{one.made_at:%Y-%m-%d %H:%M}", _stands(one, one.valid(now))
        )
    session.answer([one.model_dump(mode="json") for one in found], table if found else Text("there are no tokens"))
    return ExitCode.DONE


async def revoke(session: Session, id: Annotated[str, typer.Argument()], reason: Why = "") -> ExitCode:
    """Revoke a token, for good: the next request that carries it is refused, wherever the log is served."""
    why = parse(_Why, {"reason": reason}).reason
    gone = _tokens(session).revoke(id, session.settings.actor, why, WallClock().now())
    session.answer(gone.model_dump(mode="json"), Text(f"token {gone.id} of {gone.actor} ({gone.tenant}) is revoked"))
    return ExitCode.DONE


def _stands(one: Token, valid: bool) -> str:
    if one.revoked_at is not None:
        return f"revoked {one.revoked_at:%Y-%m-%d %H:%M}"
    if not valid:
        return f"expired {one.expires_at:%Y-%m-%d %H:%M}"
    return f"valid until {one.expires_at:%Y-%m-%d}" if one.expires_at else "valid"


def _tokens(session: Session) -> TokenFile:
    file = bootstrap.tokens_of(session.settings)
    if file is None:
        raise InvalidFields(
            "a store in memory has no tokens; name one with --store sqlite:///…", (("/store", "no file"),)
        )
    if not file.parent.is_dir():
        raise InvalidFields(f"there is no folder {file.parent}; make it, or name another store with --store")
    return TokenFile(file)

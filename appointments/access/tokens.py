"""Tokens at rest: a small SQLite file beside the log, with a hash of each and a record of who made and revoked it.

A token is `appt_<id>_<secret>_<checksum>`: a prefix that secret scanners know, and 256 bits that nobody can guess. The
hash is plain SHA-256 for that reason: a slow hash protects what people choose, and would cost every request its time.
Several processes use the file at once; a revocation holds with the next request of any of them.
"""

import hashlib
import hmac
import os
import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, StringConstraints
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, create_engine, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from appointments.access.roles import Principal, Role
from domain.commands import Instant, Name
from domain.errors import InvalidFields, StoreRefused, StoreUnavailable
from domain.provider import Value
from store.rows import instant, microseconds

APPLICATION_ID = 0x41505441
"""`PRAGMA application_id` of the file: "APTA"."""
SCHEMA_VERSION = 1
PREFIX = "appt"
SECRET_BYTES = 32
BUSY_TIMEOUT_S = 5.0
TOKEN_MAX = 128
LIFE_MAX = timedelta(days=3_660)

_metadata = MetaData()
_tokens = Table(
    "tokens",
    _metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("made_at", Integer, nullable=False),
    Column("expires_at", Integer),
    Column("revoked_at", Integer),
)
_record = Table(
    "record",
    _metadata,
    Column("number", Integer, primary_key=True),
    Column("at", Integer, nullable=False),
    Column("what", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("reason", Text, nullable=False),
)
"""Who did what to which token and why: rows are added, never changed."""

TokenId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]


class Token(Value):
    """A token as it is listed: everything but what opens the door."""

    id: TokenId
    tenant: Name
    actor: Name
    role: Role
    made_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None

    @property
    def principal(self) -> Principal:
        """Whose requests carry it."""
        return Principal(tenant=self.tenant, actor=self.actor, role=self.role)

    def valid(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class _Stored(Token):
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class TokenFile:
    """The tokens of one log. `path` None: there are none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._reading: sqlite3.Connection | None = None
        self._inode = 0

    def make(
        self, principal: Principal, by: str, reason: str, now: datetime, life: timedelta | None
    ) -> tuple[str, Token]:
        """Make a token; its text is returned this once. Raises `InvalidFields`, `StoreUnavailable`."""
        if life is not None and not timedelta() < life <= LIFE_MAX:
            raise InvalidFields(f"a token lives for up to {LIFE_MAX.days} days", (("/expires", "out of range"),))
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(SECRET_BYTES)
        body = f"{PREFIX}_{id}_{secret}"
        text = f"{body}_{_checksum(body)}"
        made = Token(
            id=id, **principal.model_dump(), made_at=now, expires_at=now + life if life else None, revoked_at=None
        )
        with self._writing() as connection:
            row = {**principal.model_dump(mode="json"), "id": id, "digest": _digest(text), "made_at": microseconds(now)}
            row["expires_at"] = microseconds(made.expires_at) if made.expires_at else None
            connection.execute(insert(_tokens).values(row))
            _note(connection, now, "made", id, by, reason)
        return text, made

    def revoke(self, id: str, by: str, reason: str, now: datetime) -> Token:
        """Revoke a token, for good. Twice is once. Raises `InvalidFields` for one that is not known."""
        with self._writing() as connection:
            found = connection.execute(select(_tokens).where(_tokens.c.id == id)).first()
            if found is None:
                raise InvalidFields(
                    f"there is no token {id!r}; `appointments token list` shows them", (("/id", "unknown"),)
                )
            token = _token(found._mapping)
            if token.revoked_at is None:
                connection.execute(update(_tokens).where(_tokens.c.id == id).values(revoked_at=microseconds(now)))
                _note(connection, now, "revoked", id, by, reason)
                token = token.model_copy(update={"revoked_at": now})
        return Token.model_validate(token.model_dump(exclude={"digest"}))

    def all(self) -> Sequence[Token]:
        """Every token that was ever made, the newest first."""
        if self._path is None or not self._path.exists():
            return ()
        with self._writing() as connection:
            rows = connection.execute(select(_tokens).order_by(_tokens.c.made_at.desc(), _tokens.c.id)).all()
        return [Token.model_validate(_token(row._mapping).model_dump(exclude={"digest"})) for row in rows]

    def find(self, text: str, now: datetime) -> Principal | None:
        """Whose token this is; None for one that is unknown, malformed, expired or revoked, after the same look."""
        id = text[len(PREFIX) + 1 : len(PREFIX) + 13] if len(text) <= TOKEN_MAX else ""
        known = self._look_up(id)
        same = hmac.compare_digest(_digest(text), known.digest if known is not None else _digest(""))
        return known.principal if known is not None and same and known.valid(now) else None

    def close(self) -> None:
        """Let go of the file."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _look_up(self, id: str) -> _Stored | None:
        try:
            reading = self._reader()
            if reading is None:
                return None
            found = reading.execute("SELECT * FROM tokens WHERE id = ?", (id,)).fetchone()
            return None if found is None else _token(dict(zip(_tokens.columns.keys(), found, strict=True)))
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as fault:
            raise StoreUnavailable(f"the tokens cannot be read: {self._path}") from fault

    def _reader(self) -> sqlite3.Connection | None:
        if self._path is None:
            return None
        try:
            inode = self._path.stat().st_ino
        except FileNotFoundError:
            self.close()
            return None
        if self._reading is None or inode != self._inode:
            self.close()
            self._reading = _connect(self._path, "ro")
            self._inode = inode
        return self._reading

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        if self._path is None:
            raise InvalidFields("a store in memory has no tokens; name a file with --store")
        path = self._path
        if not path.exists():
            # Made for its owner alone, before anything is in it.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        engine = create_engine("sqlite+pysqlite://", creator=partial(_connect, path, "rw"), poolclass=NullPool)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA synchronous=FULL")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                _check_ours(connection, path)
                yield connection
                connection.commit()
        except DBAPIError as fault:
            raise StoreUnavailable(f"the tokens in {path} cannot be written: {fault.orig}") from fault


def token_file(log: Path) -> Path:
    """Where the tokens of a log are kept."""
    return log.with_name(f"{log.name}.access.db")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"
    return sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None)


def _check_ours(connection: Connection, path: Path) -> None:
    application, version = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()) for name in ("application_id", "user_version")
    )
    if (
        application == version == 0
        and not connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one()
    ):
        _metadata.create_all(connection, checkfirst=False)
        connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
    elif application != APPLICATION_ID:
        raise StoreRefused(f"{path} holds something else than tokens: move it away")
    elif version != SCHEMA_VERSION:
        raise StoreRefused(
            f"{path} has version {version}, this program knows {SCHEMA_VERSION}: use the version that wrote it"
        )


def _token(row: Mapping[Any, Any]) -> _Stored:
    fields = dict(row)
    for name in ("made_at", "expires_at", "revoked_at"):
        fields[name] = None if fields[name] is None else instant(fields[name])
    return _Stored.model_validate(fields)


def _note(connection: Connection, now: datetime, what: str, token: str, by: str, reason: str) -> None:
    row = {"at": microseconds(now), "what": what, "token": token, "by": by, "reason": reason}
    connection.execute(insert(_record).values(row))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"

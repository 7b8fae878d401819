"""Who is signed in: a session for each sign-in, held by a refresh token that is good for one use.

A refresh token is `family.secret`, both random. The database has their SHA-256 only: with 256 bits there is nothing to
guess, so a slow hash would add nothing. The family says which session; the secret is another after each refresh.
Whoever shows a family with a secret that is out of date has a copy, or is the one who was copied. Nobody can tell
which, so the session ends for both.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import uuid
from dataclasses import dataclass

from sqlalchemy import Double, Engine, ForeignKey, String, delete, orm, select, update
from sqlalchemy.orm import Mapped, mapped_column

from .accounts import Account, Person
from .database import Base

IDLE = 7 * 86400
"""Seconds after its last refresh at which a session ends."""
LONGEST = 30 * 86400
"""Seconds after the sign-in at which it ends, however busy it is."""


class NoSession(Exception):
    """There is no session for a refresh token.

    Args:
        ended: the id of the session that was ended just now because of it; what else it holds is to be ended too.
    """

    def __init__(self, ended: str | None = None) -> None:
        super().__init__("there is no session for this refresh token")
        self.ended = ended


@dataclass(frozen=True, slots=True)
class Session:
    """A session, and whose it is. `id` is the `sid` of its tokens."""

    id: str
    person: Person


class Row(Base):
    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=lambda: uuid.uuid4().hex)
    account_id: Mapped[str] = mapped_column(ForeignKey(Account.id), index=True)
    family: Mapped[str] = mapped_column(String(64), unique=True)
    current: Mapped[str] = mapped_column(String(64))
    previous: Mapped[str | None] = mapped_column(String(64))
    # Unix times in seconds. `refreshed_at` is when `previous` was taken.
    created_at: Mapped[float] = mapped_column(Double)
    refreshed_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float] = mapped_column(Double, index=True)


class Sessions:
    """The sessions in one database. `now` is Unix time in seconds.

    Args:
        engine: the database.
        grace: seconds in which the refresh token before the current one is taken once more: its answer may have been
            lost on the way, or with a page that was reloaded.
    """

    def __init__(self, engine: Engine, *, grace: float) -> None:
        self._engine = engine
        self._grace = grace

    async def begin(self, person: Person, now: float) -> tuple[Session, str]:
        """Sign somebody in; return the session and its refresh token."""
        return await asyncio.to_thread(self._begin, person, now)

    async def refresh(self, token: str, now: float) -> tuple[Session, str]:
        """Take a refresh token; return its session and the next token. Raises `NoSession`."""
        return await asyncio.to_thread(self._refresh, token, now)

    async def end(self, token: str, now: float) -> Session:
        """End the session of a refresh token, and return which it was. Raises `NoSession`."""
        return await asyncio.to_thread(self._end, token, now, everywhere=False)

    async def end_all(self, token: str, now: float) -> Session:
        """End all sessions of the person who has this one, and return this one. Raises `NoSession`."""
        return await asyncio.to_thread(self._end, token, now, everywhere=True)

    def _begin(self, person: Person, now: float) -> tuple[Session, str]:
        family, secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        with orm.Session(self._engine) as database:
            database.execute(delete(Row).where(Row.expires_at <= now))
            row = Row(
                account_id=person.id,
                family=_digest(family),
                current=_digest(secret),
                created_at=now,
                refreshed_at=now,
                expires_at=now + IDLE,
            )
            database.add(row)
            database.commit()
            return Session(row.id, person), f"{family}.{secret}"

    def _refresh(self, token: str, now: float) -> tuple[Session, str]:
        family, _, shown = token.partition(".")
        secret = secrets.token_urlsafe(32)
        with orm.Session(self._engine) as database:
            while True:
                row, session = self._find(database, token, now)
                again = _digest(shown) != row.current
                # With a condition, for another request may be doing the same: then its token is the current one, and
                # this one has to be judged anew.
                taken = database.execute(
                    update(Row)
                    .where(Row.id == row.id, Row.current == row.current)
                    .values(
                        current=_digest(secret),
                        previous=_digest(shown),
                        refreshed_at=row.refreshed_at if again else now,
                        expires_at=min(now + IDLE, row.created_at + LONGEST),
                    )
                    .execution_options(synchronize_session=False)
                    .returning(Row.id)
                ).one_or_none()
                database.commit()
                if taken is not None:
                    return session, f"{family}.{secret}"

    def _end(self, token: str, now: float, *, everywhere: bool) -> Session:
        with orm.Session(self._engine) as database:
            row, session = self._find(database, token, now)
            which = Row.account_id == row.account_id if everywhere else Row.id == row.id
            database.execute(delete(Row).where(which))
            database.commit()
            return session

    def _find(self, database: orm.Session, token: str, now: float) -> tuple[Row, Session]:
        """Return the session that a refresh token is good for; one that must not go on is ended."""
        family, _, shown = token.partition(".")
        found = database.execute(
            select(Row, Account).join(Account, Account.id == Row.account_id).where(Row.family == _digest(family))
        ).one_or_none()
        if found is None:
            raise NoSession
        row, account = found
        secret = _digest(shown)
        good = secret == row.current or (secret == row.previous and now < row.refreshed_at + self._grace)
        if not good or row.expires_at <= now:
            database.execute(delete(Row).where(Row.id == row.id))
            ended = row.id
            database.commit()
            raise NoSession(ended)
        return row, Session(row.id, Person(account.id, account.name))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()

"""Who has an account. Passwords are kept as argon2id hashes.

Everything here blocks, for the database and for the hash, so the public methods run in a thread of their own.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import DateTime, Engine, String, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from .database import Base

T = TypeVar("T")

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,31}", re.ASCII)
PASSWORD_LENGTH = range(8, 257)


class AccountError(ValueError):
    """What was asked for cannot be done; the text is for the person who asked."""


class Invalid(AccountError):
    """A username or password that an account cannot have."""


class NameTaken(AccountError):
    """Somebody has this name already, in whatever mix of capitals."""


class Account(Base):
    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True, default=lambda: uuid.uuid4().hex)
    name: Mapped[str] = mapped_column(String(32))
    # "Ana" and "ana" are one person: the lower-case name is what must be unique.
    key: Mapped[str] = mapped_column(String(32), unique=True)
    password_hash: Mapped[str] = mapped_column(String(256))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Person:
    """An account without its password: what leaves this module."""

    id: str
    name: str


class Accounts:
    """The accounts in one database.

    Args:
        engine: the database.
        concurrent_hashes: how many passwords are hashed at once; each takes 64 MiB for about 50 ms.
    """

    def __init__(self, engine: Engine, *, concurrent_hashes: int = 2) -> None:
        self._engine = engine
        self._hasher = PasswordHasher()
        self._hashing = asyncio.Semaphore(concurrent_hashes)
        # Verified when the name is unknown, so that the answer takes as long as for a wrong password.
        self._nobody = self._hasher.hash(uuid.uuid4().hex)

    async def create(self, username: str, password: str) -> Person:
        """Make an account. Raises `Invalid` or `NameTaken`."""
        if not USERNAME.fullmatch(username):
            raise Invalid(
                "A name has 2 to 32 letters, digits, dots, dashes or underscores, and starts with a letter or digit."
            )
        if len(password) not in PASSWORD_LENGTH:
            raise Invalid(f"A password has {PASSWORD_LENGTH[0]} to {PASSWORD_LENGTH[-1]} characters.")
        return await self._hashed(lambda: self._create(username, password))

    async def sign_in(self, username: str, password: str) -> Person | None:
        """Return the person, or None when the name or the password is wrong: which of the two is not told."""
        if not USERNAME.fullmatch(username) or len(password) not in PASSWORD_LENGTH:
            # Nobody has these. It must not show sooner than with others, and the database need not see them.
            username, password = "", "x" * PASSWORD_LENGTH[0]
        return await self._hashed(lambda: self._sign_in(username, password))

    async def _hashed(self, work: Callable[[], T]) -> T:
        async with self._hashing:
            return await asyncio.to_thread(work)

    def _create(self, username: str, password: str) -> Person:
        account = Account(name=username, key=username.lower(), password_hash=self._hasher.hash(password))
        with Session(self._engine) as session:
            session.add(account)
            try:
                session.commit()
            except IntegrityError:
                raise NameTaken("This name is taken. Is it yours? Then sign in.") from None
            return Person(account.id, account.name)

    def _sign_in(self, username: str, password: str) -> Person | None:
        with Session(self._engine) as session:
            account = session.scalar(select(Account).where(Account.key == username.lower()))
            known = account.password_hash if account else self._nobody
            if not self._matches(known, password) or account is None:
                return None
            if self._hasher.check_needs_rehash(account.password_hash):
                account.password_hash = self._hasher.hash(password)
                session.commit()
            return Person(account.id, account.name)

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

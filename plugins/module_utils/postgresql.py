# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connects to PostgreSQL: options, retries, and errors that say what to do and never a password."""

from __future__ import annotations

import contextlib
import hashlib
import locale
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import (
    postgresql_driver,
    postgresql_failures,
    postgresql_pooler,
    rds_token,
)
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_driver import Connection, DatabaseError
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import without_secrets

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# Those that never give the password away to somebody who listens.
_ENCRYPTED = ("require", "verify-ca", "verify-full")

# A URL, or more than a name: "user@db", "db:5432", "host=db".
_NO_HOST_NAME = re.compile(r".*(://|[?\s=]).*|.+@.*|[^:/]+:[0-9]+", re.DOTALL)

# Shorter pieces of a password are ordinary words, of which no message would be left.
_SHORTEST_PIECE = 8


_IAM_REMEDY = (
    "Connect by the endpoint's own name, GRANT rds_iam to the role, and let this host's credentials do rds-db:connect "
    "as it."
)


class ConnectionFailed(OperationError):
    """There is no connection to the database, after all attempts."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with what describes a connection: a sentence of cause and one of remedy."""

    cause: str
    remedy: str


class ConnectionOptionsError(OperationError):
    """What describes the connection cannot be right; nothing was tried.

    Args:
        problems: all of them.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(" ".join(it.cause for it in problems), " ".join(it.remedy for it in problems))


@dataclass(frozen=True)
class ConnectionOptions:
    """How to reach a database; None leaves the choice to libpq.

    Attributes:
        host: name, address or directory of the server's socket.
        port: its port.
        database: its name.
        user: the role to log in as.
        password: its password.
        ssl_mode: one of SSL_MODES.
        ssl_root_cert: file with the certificates of the authorities that may sign the server's.
        connect_timeout: seconds for one attempt; libpq makes 2 of 1.
        connect_retries: further attempts after a first one that failed for a passing reason.
        application_name: what the server shows in pg_stat_activity.
        aws_iam_auth: log in with a token of AWS IAM instead of the password, over TLS only.
        aws_region: where the database is, if the host's name does not tell.
        on_secret: told every password and token before it is used, so that it can be hidden.
    """

    host: str | None = None
    port: int | None = None
    database: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ssl_mode: str | None = None
    ssl_root_cert: str | None = None
    connect_timeout: int = 10
    connect_retries: int = 3
    application_name: str = "pg_migrate"
    aws_iam_auth: bool | None = None
    aws_region: str | None = None
    on_secret: Callable[[str], None] | None = field(default=None, repr=False, compare=False)
    issued: list[str] = field(default_factory=list, repr=False, compare=False)
    """Tokens that were given out, for scrub()."""

    def __str__(self) -> str:
        server = f"{self.host}:{self.port or 5432}" if self.host else "the local socket"
        return f'database "{self.database or ""}" at {server} as "{self.user or ""}"'

    @property
    def tls(self) -> str | None:
        """The TLS mode: what was chosen, and verify-full for a token."""
        return self.ssl_mode or ("verify-full" if self.aws_iam_auth else None)

    def over(self, defaults: ConnectionOptions) -> ConnectionOptions:
        """These options, with what is not set here taken from others; a password set here needs no token."""
        names = ("host", "port", "database", "user", "password", "ssl_mode", "ssl_root_cert", "aws_iam_auth")
        missing = {name: getattr(defaults, name) for name in names if getattr(self, name) is None}
        if self.password is not None:
            missing.pop("aws_iam_auth", None)
        return replace(self, **missing)

    def problems(self) -> list[Problem]:
        """What no server could make good; values are not shown, since a host may be a URL with a password."""
        found = []
        if self.host is not None and _NO_HOST_NAME.fullmatch(self.host):
            found.append(
                Problem(
                    "The host of the database (host, PG_HOST) is not a plain name, address or directory.",
                    "Give the name alone: port, user, password and database have options of their own.",
                )
            )
        if self.port is not None and not 0 < self.port < 65536:
            found.append(Problem(f"The port {self.port} of the database is none.", "Give a number from 1 to 65535."))
        if self.connect_timeout < 1 or self.connect_retries < 0:
            found.append(
                Problem(
                    f"connect_timeout ({self.connect_timeout}) or connect_retries ({self.connect_retries}) is too low.",
                    "Give at least one second, and no or more retries.",
                )
            )
        if self.aws_iam_auth and self.tls not in _ENCRYPTED:
            found.append(
                Problem(
                    f"An IAM token goes over TLS only, and TLS mode {self.tls} allows a connection without it.",
                    "Use ssl_mode verify-full (PG_SSL=true) with the bundle of Amazon RDS (ssl_root_cert, PG_SSL_CA).",
                )
            )
        if self.aws_iam_auth and (self.host is None or self.host.startswith("/")):
            found.append(
                Problem(
                    "An IAM token is for an endpoint of Amazon RDS, and no host is given.",
                    "Give the endpoint's own name (host, PG_HOST).",
                )
            )
        return found

    def parameters(self) -> dict[str, Any]:
        """Keywords for libpq; keywords, because a password in a URL would need escaping.

        With IAM the password is a fresh token at every call.

        Raises:
            TokenError: no token could be signed.
        """
        chosen = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self._secret(),
            "sslmode": self.tls,
            "sslrootcert": self.ssl_root_cert,
        }
        return {
            **{name: value for name, value in chosen.items() if value is not None},
            "connect_timeout": self.connect_timeout,
            "application_name": self.application_name[:63],
            "client_encoding": "UTF8",
            # A server that vanished is noticed within a minute, whether this side waits or sends.
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,
        }

    def environment(self) -> dict[str, str]:
        """The same for the programs of PostgreSQL: what stands in an environment is in no process list.

        Raises:
            TokenError: no token could be signed.
        """
        chosen = {
            "PGHOST": self.host,
            "PGPORT": self.port,
            "PGDATABASE": self.database,
            "PGUSER": self.user,
            "PGPASSWORD": self._secret(),
            "PGSSLMODE": self.tls,
            "PGSSLROOTCERT": self.ssl_root_cert,
            "PGCONNECT_TIMEOUT": self.connect_timeout,
            "PGAPPNAME": self.application_name[:63],
        }
        return {name: str(value) for name, value in chosen.items() if value is not None}

    def scrub(self, text: str) -> str:
        """The text without password and tokens, also where they are written as in a URL or cut at its marks."""
        hidden = [secret for issued in self.issued for secret in rds_token.secrets_of(issued)]
        if self.password:
            names = (self.host, self.database, self.user)
            pieces = re.split(r"[#@/?&:%\s]", self.password)
            hidden += [self.password, *(it for it in pieces if len(it) >= _SHORTEST_PIECE and it not in names)]
        forms = {form for it in hidden for form in (it, urllib.parse.quote(it, safe=""), urllib.parse.quote(it))}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "********")
        return without_secrets(text)

    def _secret(self) -> str | None:
        """The password, or a new token."""
        secret = self.password
        if self.aws_iam_auth:
            secret = rds_token.token(self.host or "", self.port or 5432, self.user or "", self.aws_region)
            self.issued.append(secret)
        if secret and self.on_secret is not None:
            self.on_secret(secret)
        return secret


def connect(options: ConnectionOptions, sleep: Callable[[float], None] = time.sleep) -> Connection:
    """Open a connection in autocommit mode, trying again where the reason may pass.

    Args:
        options: how to reach the database.
        sleep: waits between attempts: 1, 2, 4 ... seconds.

    Raises:
        ConnectionOptionsError: the options cannot be right.
        ConnectionFailed: with host, port, database and user, never the password.
        PoolerError: a pooler is in the way that does not keep a client on one session.
        TokenError: no IAM token could be signed.
        DriverMissing: there is no driver for PostgreSQL on this host.
    """
    problems = options.problems()
    if problems:
        raise ConnectionOptionsError(problems)
    authority = options.ssl_root_cert
    if authority and authority != "system" and (options.tls or "").startswith("verify"):
        try:
            Path(authority).read_bytes()
        except OSError as error:
            raise ConnectionFailed(
                f"The certificate file {authority} cannot be read: {error.strerror}.",
                "Put the certificate of the database's authority there (ssl_root_cert, PG_SSL_CA).",
            ) from error
    attempts = 0
    while True:
        attempts += 1
        try:
            return _open(options)
        except (DatabaseError, TimeoutError) as error:
            text = options.scrub(str(error))
            reason = postgresql_failures.explain(text)
            if not reason.passing or attempts > options.connect_retries:
                tries = "" if attempts == 1 else f" after {attempts} attempts"
                iam = options.aws_iam_auth and "authentication failed" in text
                raise ConnectionFailed(
                    f"No connection to {options}{tries}: {reason.cause}.",
                    _IAM_REMEDY if iam else reason.remedy,
                    postgresql_failures.lines(text),
                ) from None
            sleep(2.0 ** (attempts - 1))


def _open(options: ConnectionOptions) -> Connection:
    def open_session() -> Connection:
        with _english_messages():
            return postgresql_driver.connect(options.parameters())

    connection = open_session()
    try:
        postgresql_pooler.refuse_shared_sessions(connection, open_session, str(options), options.connect_timeout)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _english_messages() -> Iterator[None]:
    """libpq tells the reason of a failed connection by its text alone, which it translates."""
    previous = locale.setlocale(locale.LC_MESSAGES)
    locale.setlocale(locale.LC_MESSAGES, "C")
    try:
        yield
    finally:
        locale.setlocale(locale.LC_MESSAGES, previous)


def identifier(name: str) -> str:
    """A name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | int | None) -> str:
    """A value written out for SQL, whatever standard_conforming_strings says."""
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    text = value.replace("'", "''")
    return "E'" + text.replace("\\", "\\\\") + "'" if "\\" in text else f"'{text}'"


def advisory_key(*words: str) -> int:
    """A number for advisory locks that these words, and no others, stand for."""
    return int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:8], "big", signed=True)

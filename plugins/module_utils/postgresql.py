# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connects to PostgreSQL: options, retries, and errors that say what to do and never a password."""

from __future__ import annotations

import contextlib
import locale
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils import dotenv
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.sql_statements import without_secrets

try:
    import psycopg2
except ImportError:  # the module says how to get it
    psycopg2 = None  # type: ignore[assignment]

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# A failure that may be gone in a moment. Anything else, a wrong password above all, is not tried again.
_TRANSIENT = re.compile(
    "|".join(
        (
            "Connection refused",
            "timeout expired",
            "Connection timed out",
            "Connection reset",
            "No route to host",
            "Network is unreachable",
            "Temporary failure in name resolution",
            "Name or service not known",
            "could not translate host name",
            "No such file or directory.*\n.*running locally",
            "server closed the connection unexpectedly",
            "SSL SYSCALL error",
            "SSL connection has been closed unexpectedly",
            "the database system is starting up",
            "the database system is shutting down",
            "the database system is in recovery mode",
            "the database system is not yet accepting connections",
            "too many clients already",
            "too many connections",
            "remaining connection slots are reserved",
        )
    )
)

_REMEDIES = (
    (r"password authentication failed|no password supplied", "Check the user and its password (PG_USER, PG_PASSWORD)."),
    (r'database ".*" does not exist', "Create the database first, or correct its name (PG_DATABASE)."),
    (r'role ".*" does not exist|not permitted to log in', "Create the role with LOGIN, or correct PG_USER."),
    (r"permission denied for database", "GRANT CONNECT ON DATABASE to this role."),
    (
        r"certificate verify failed|root certificate file",
        "Give the certificate of the authority that signed the server's (ssl_root_cert, PG_SSL_CA); for Amazon RDS "
        "it is the global bundle.",
    ),
    (
        r"does not match host name",
        "Connect by the name that the server's certificate bears (PG_HOST), or use ssl_mode verify-ca.",
    ),
    (
        r"server does not support SSL",
        "Turn TLS on at the server; only for a server on a private link use ssl_mode disable.",
    ),
    (
        r"no pg_hba.conf entry",
        "Allow this host and role in pg_hba.conf, or connect with TLS (ssl_mode require or stronger).",
    ),
    (
        r"could not translate host name|not known|name resolution",
        "Check the name of the database host (PG_HOST) and DNS.",
    ),
    (
        r"too many|connection slots",
        "Lower the connection pools of the applications or raise max_connections; the migration needs one connection.",
    ),
)
_DEFAULT_REMEDY = (
    "Check that the server runs and that a firewall or security group lets this host reach the port, then run again."
)

_SYSTEM_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")

_TRUE = ("true", "1", "yes", "on")
_FALSE = ("", "false", "0", "no", "off")


class ConnectionFailed(OperationError):
    """There is no connection to the database, after all attempts."""


class EnvironmentFileError(OperationError):
    """The application's .env cannot be used to connect."""


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
        connect_timeout: seconds for one attempt.
        connect_retries: further attempts after a first one that failed for a passing reason.
        application_name: what the server shows in pg_stat_activity.
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

    def __str__(self) -> str:
        server = f"{self.host}:{self.port or 5432}" if self.host else "the local socket"
        return f'database "{self.database or ""}" at {server} as "{self.user or ""}"'

    def over(self, defaults: ConnectionOptions) -> ConnectionOptions:
        """These options, with what is not set here taken from others."""
        names = ("host", "port", "database", "user", "password", "ssl_mode", "ssl_root_cert")
        missing = {name: getattr(defaults, name) for name in names if getattr(self, name) is None}
        return replace(self, **missing)

    def parameters(self) -> dict[str, Any]:
        """Keywords for libpq; keywords, because a password in a URL would need escaping."""
        chosen = {
            "host": self.host,
            "port": self.port,
            "dbname": self.database,
            "user": self.user,
            "password": self.password,
            "sslmode": self.ssl_mode,
            "sslrootcert": self.ssl_root_cert,
        }
        return {
            **{name: value for name, value in chosen.items() if value is not None},
            "connect_timeout": self.connect_timeout,
            "application_name": self.application_name[:63],
            "client_encoding": "UTF8",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }

    def environment(self) -> dict[str, str]:
        """The same for the programs of PostgreSQL: what stands in an environment is in no process list."""
        chosen = {
            "PGHOST": self.host,
            "PGPORT": self.port,
            "PGDATABASE": self.database,
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGSSLMODE": self.ssl_mode,
            "PGSSLROOTCERT": self.ssl_root_cert,
            "PGCONNECT_TIMEOUT": self.connect_timeout,
            "PGAPPNAME": self.application_name[:63],
        }
        return {name: str(value) for name, value in chosen.items() if value is not None}

    def scrub(self, text: str) -> str:
        """The text without the password, also where it is written as in a URL, and without other secrets."""
        if self.password:
            for form in {self.password, urllib.parse.quote(self.password, safe=""), urllib.parse.quote(self.password)}:
                text = text.replace(form, "********")
        return without_secrets(text)


def from_environment_file(path: Path) -> ConnectionOptions:
    """Connection options from the application's .env.

    Known are PG_HOST, PG_PORT, PG_DATABASE, PG_USER, PG_PASSWORD, PG_SSL (true, false or a mode of libpq)
    and PG_SSL_CA (path of a certificate file). As for Node.js, true means that name and chain are checked,
    against the authorities that the system trusts where PG_SSL_CA names none.

    Args:
        path: the file.

    Raises:
        EnvironmentFileError: the file cannot be read, or names a port or TLS mode that there is not.
    """
    try:
        values = dotenv.to_mapping(dotenv.parse(dotenv.decode(path.read_bytes())))
    except OSError as error:
        raise EnvironmentFileError(
            f"The environment file {path} cannot be read: {error.strerror}.",
            "Install the application's .env first, or give the connection options themselves.",
        ) from error
    return from_environment(values, str(path))


def from_environment(values: Mapping[str, str], source: str = "the environment") -> ConnectionOptions:
    """Connection options from the variables PG_*; see from_environment_file."""
    port = values.get("PG_PORT", "").strip()
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise EnvironmentFileError(f"PG_PORT in {source} is not a port.", "Give a number from 1 to 65535.")
    authority = values.get("PG_SSL_CA", "").strip() or None
    ssl = values.get("PG_SSL", "").strip().lower()
    mode: str | None
    if "PG_SSL" not in values:
        mode = "verify-full" if authority else None
    elif ssl in _FALSE:
        mode = "disable"
    elif ssl in _TRUE:
        mode = "verify-full"
        authority = authority or next((bundle for bundle in _SYSTEM_AUTHORITIES if Path(bundle).exists()), None)
    elif ssl in SSL_MODES:
        mode = ssl
    else:
        raise EnvironmentFileError(
            f"PG_SSL in {source} is neither true nor false nor a TLS mode.",
            f"Give true, false or one of {', '.join(SSL_MODES)}.",
        )
    return ConnectionOptions(
        host=values.get("PG_HOST") or None,
        port=int(port) if port else None,
        database=values.get("PG_DATABASE") or None,
        user=values.get("PG_USER") or None,
        password=values.get("PG_PASSWORD") or None,
        ssl_mode=mode,
        ssl_root_cert=authority,
    )


def connect(options: ConnectionOptions, sleep: Callable[[float], None] = time.sleep) -> Any:
    """Open a connection in autocommit mode, trying again where the reason may pass.

    Args:
        options: how to reach the database.
        sleep: waits between attempts: 1, 2, 4 ... seconds.

    Returns:
        A psycopg2 connection.

    Raises:
        ConnectionFailed: with host, port, database and user, never the password.
    """
    authority = options.ssl_root_cert
    if authority and authority != "system" and (options.ssl_mode or "").startswith("verify"):
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
            with _english_messages():
                connection = psycopg2.connect(**options.parameters())
        except psycopg2.OperationalError as error:
            reason = options.scrub(str(error)).strip()
            if not _TRANSIENT.search(reason) or attempts > options.connect_retries:
                tries = "" if attempts == 1 else f" after {attempts} attempts"
                raise ConnectionFailed(
                    f"No connection to {options}{tries}: {_in_one_line(reason)}", _remedy(reason)
                ) from None
            sleep(2.0 ** (attempts - 1))
        else:
            connection.autocommit = True
            return connection


@contextlib.contextmanager
def _english_messages() -> Any:
    """libpq tells the reason of a failed connection by its text alone, which it translates."""
    previous = locale.setlocale(locale.LC_MESSAGES)
    locale.setlocale(locale.LC_MESSAGES, "C")
    try:
        yield
    finally:
        locale.setlocale(locale.LC_MESSAGES, previous)


def _in_one_line(reason: str) -> str:
    # libpq has one line per address tried; the last FATAL one is the server's own word.
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))


def _remedy(reason: str) -> str:
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, reason):
            return remedy
    return _DEFAULT_REMEDY


def identifier(name: str) -> str:
    """A name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'

# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libpq, the server or a pooler says when there is no connection, told to a person."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why there is no connection.

    Attributes:
        pattern: tells it from other reasons; libpq has no codes for them, only this text.
        cause: ends the sentence "No connection to ...: ".
        remedy: a sentence of what to do.
        passing: whether it may be gone in a moment, so that another attempt makes sense.
    """

    pattern: str
    cause: str
    remedy: str
    passing: bool = False


_RUNNING = "Check that the server runs there and that host and port are right (PG_HOST, PG_PORT), then run again."
_REACHABLE = (
    "Check host and port (PG_HOST, PG_PORT), that a firewall or security group admits this host, and that a pooler "
    "there reaches the server."
)
_LATER = "Wait until the server is up, or look at its log, then run again."
_FEWER = "Lower the connection pools of the applications or raise the limit; a migration needs one connection."

# What lasts comes first: libpq tries every address of a name, and says of each why it failed.
_REASONS = (
    Reason(
        r"password authentication failed|SASL authentication failed|no such user|role \".*\" does not exist",
        "the server refuses this user with this password",
        "Check the user and its password (PG_USER, PG_PASSWORD), and that the role exists.",
    ),
    Reason(
        r"no password supplied",
        "the server asks for a password, and none is given",
        "Give the password (PG_PASSWORD).",
    ),
    Reason(
        r"authentication failed",
        "the server refuses this user",
        "Check the user (PG_USER) and how pg_hba.conf wants it to identify itself.",
    ),
    Reason(
        r"not permitted to log in",
        "this role may not log in",
        "ALTER ROLE ... LOGIN, or correct the user (PG_USER).",
    ),
    Reason(
        r"database \".*\" does not exist|no such database",
        "the server has no such database",
        "Create the database first, or correct its name (PG_DATABASE).",
    ),
    Reason(
        r"permission denied for database",
        "this role may not connect to that database",
        "GRANT CONNECT ON DATABASE to the role.",
    ),
    Reason(
        r"does not match host name",
        "the server's certificate bears another name",
        "Connect by the name that the certificate bears (PG_HOST), or use ssl_mode verify-ca.",
    ),
    Reason(
        r"certificate verify failed",
        "the server's certificate is not signed by an authority that this host was told to trust",
        "Give the certificate of the authority that signed it (ssl_root_cert, PG_SSL_CA); for Amazon RDS it is the "
        "global bundle.",
    ),
    Reason(
        r"root certificate file|could not load system root certificate",
        "no authority is named that the server's certificate could be checked against",
        "Give the certificate of the authority that signed it (ssl_root_cert, PG_SSL_CA); for Amazon RDS it is the "
        "global bundle.",
    ),
    Reason(
        r"server does not support SSL",
        "TLS is wanted, and the server does not offer it",
        "Turn TLS on at the server; only for a server on a private link use ssl_mode disable (PG_SSL=false).",
    ),
    Reason(
        r"no pg_hba.conf entry .*no encryption",
        "the server does not admit this user from this host without TLS",
        "Connect with TLS (ssl_mode verify-full, PG_SSL=true), or add an entry to the server's pg_hba.conf.",
    ),
    Reason(
        r"no pg_hba.conf entry",
        "the server does not admit this user from this host",
        "Add an entry for this host, user and database to the server's pg_hba.conf.",
    ),
    Reason(
        r"unsupported startup parameter",
        "the connection pooler refuses a parameter of the connection",
        "Name the parameter in ignore_startup_parameters of PgBouncer, or connect to the server's own port.",
    ),
    Reason(
        r"could not translate host name|failed to resolve host|Name or service not known|name resolution",
        "the name of the host cannot be resolved",
        "Check the name of the database's host (PG_HOST) and this host's DNS.",
        passing=True,
    ),
    Reason(
        r"too many clients already|too many connections|connection slots are reserved|no more connections allowed",
        "the server has no connection left",
        _FEWER,
        passing=True,
    ),
    Reason(
        r"the database system is|not yet accepting connections",
        "the server is starting, stopping or recovering",
        _LATER,
        passing=True,
    ),
    Reason(
        r"cannot connect to server|server login failed|query_wait_timeout|server_login_retry",
        "the connection pooler gets no connection to the server",
        "Check that the server runs and that the pooler may log in there; its log says why it cannot.",
        passing=True,
    ),
    Reason(
        r"no session of the server",
        "the connection pooler has no session of the server free",
        "Raise the size of its pool (default_pool_size), or lower what the applications take of it.",
        passing=True,
    ),
    Reason(r"Connection refused", "nothing accepts connections there", _RUNNING, passing=True),
    Reason(r"No such file or directory", "there is no socket of a server", _RUNNING, passing=True),
    Reason(
        r"timeout expired|timed out|No route to host|Network is unreachable",
        "the host does not answer",
        _REACHABLE,
        passing=True,
    ),
    Reason(
        r"closed the connection unexpectedly|closed unexpectedly|Connection reset|SSL SYSCALL error",
        "the server broke the connection off",
        _LATER,
        passing=True,
    ),
)


def explain(text: str) -> Reason:
    """The reason of a failed connection.

    Args:
        text: the message of libpq in English, secrets already hidden.
    """
    for reason in _REASONS:
        if re.search(reason.pattern, text):
            return reason
    return Reason("", "; ".join(lines(text)), "Correct what the server complains about, then run again.")


def lines(text: str) -> list[str]:
    """The lines of a message of libpq, each once: it says the same of several addresses."""
    stripped = (line.strip().removeprefix("connection failed: ") for line in text.splitlines())
    return list(dict.fromkeys(line for line in stripped if line))

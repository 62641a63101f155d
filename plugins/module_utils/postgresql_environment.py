# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to connect to PostgreSQL, out of an application's .env."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ansible_collections.roastify.ops.plugins.module_utils import dotenv
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import SSL_MODES, ConnectionOptions, Problem

_SYSTEM_AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")

_TRUE = ("true", "1", "yes", "on")
_FALSE = ("", "false", "0", "no", "off")


class EnvironmentFileError(OperationError):
    """The application's .env cannot be read."""


def read_environment_file(path: Path) -> dict[str, str]:
    """The variables of a .env.

    Raises:
        EnvironmentFileError: the file cannot be read.
    """
    try:
        return dotenv.to_mapping(dotenv.parse(dotenv.decode(path.read_bytes())))
    except OSError as error:
        raise EnvironmentFileError(
            f"The environment file {path} cannot be read: {error.strerror}.",
            "Install the application's .env first, or give the connection options themselves.",
        ) from error


def from_environment(values: Mapping[str, str], source: str) -> tuple[ConnectionOptions, list[Problem]]:
    """Connection options from variables.

    Known are PG_HOST, PG_PORT, PG_DATABASE, PG_USER, PG_PASSWORD, PG_SSL (true, false or a mode of libpq),
    PG_SSL_CA (path of a certificate file) and PG_IAM_AUTH (true or false). As for Node.js, PG_SSL=true means that name
    and chain are checked, against the authorities that the system trusts where PG_SSL_CA names none.

    Args:
        values: the variables.
        source: where they are from, for the problems.

    Returns:
        The options, and what cannot be understood; that is left out of them.
    """
    problems = []
    port = values.get("PG_PORT", "").strip()
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        problems.append(Problem(f"PG_PORT in {source} is not a port.", "Give a number from 1 to 65535."))
        port = ""
    iam = values.get("PG_IAM_AUTH", "").strip().lower()
    if iam not in (*_TRUE, *_FALSE):
        problems.append(Problem(f"PG_IAM_AUTH in {source} is neither true nor false.", "Give true or false."))
    authority = values.get("PG_SSL_CA", "").strip() or None
    ssl = values.get("PG_SSL", "").strip().lower()
    mode: str | None = None
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
        problems.append(
            Problem(
                f"PG_SSL in {source} is neither true nor false nor a TLS mode.",
                f"Give true, false or one of {', '.join(SSL_MODES)}.",
            )
        )
    options = ConnectionOptions(
        host=values.get("PG_HOST") or None,
        port=int(port) if port else None,
        database=values.get("PG_DATABASE") or None,
        user=values.get("PG_USER") or None,
        password=values.get("PG_PASSWORD") or None,
        ssl_mode=mode,
        ssl_root_cert=authority,
        aws_iam_auth=True if iam in _TRUE else None,
    )
    return options, problems

# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens of AWS IAM that Amazon RDS and Aurora take instead of a password.

A token is signed on this host with its own credentials, without a call to AWS, and admits for 15 minutes;
a session that is open lives on
(https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html).
"""

from __future__ import annotations

import os
import re
import sys
import urllib.parse

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError

# name.account.region.rds.amazonaws.com; clusters and proxies have one more label, China turns two around.
_REGION = r"([a-z]{2}(?:-[a-z]+)+-[0-9]+)"
_ENDPOINT = re.compile(rf".+\.(?:{_REGION}\.rds\.amazonaws\.com|rds\.{_REGION}\.amazonaws\.com\.cn)\.?", re.IGNORECASE)

# The parts of a token that admit; the others are names that are in no need of hiding.
_SECRET_PARTS = ("X-Amz-Signature", "X-Amz-Security-Token")


class TokenError(OperationError):
    """There is no token to log in with."""


def token(host: str, port: int, user: str, region: str | None = None) -> str:
    """A fresh token for one connection.

    Args:
        host: the endpoint's own name; another name for it does not pass, since it is signed.
        port: its port.
        user: the role to log in as, which has been granted rds_iam.
        region: of the database; else the one in the endpoint's name, else the one this host is configured for.

    Raises:
        TokenError: boto3, the region or the credentials are missing.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise TokenError(
            f"The IAM token for {host} needs boto3, which {sys.executable} cannot import.",
            "Install boto3 (package python3-boto3) for this Python on this host.",
        ) from None
    try:
        session = boto3.session.Session()
        place = region or region_of(host) or os.environ.get("AWS_REGION") or session.region_name
        if not place:
            raise TokenError(
                f"The AWS region of {host} is not known: its name does not tell.",
                "Give the region (aws_region), or connect by the endpoint's own name.",
            )
        client = session.client("rds", region_name=place)
        return str(client.generate_db_auth_token(DBHostname=host, Port=port, DBUsername=user))
    except BotoCoreError as error:
        raise TokenError(
            f"No IAM token for {host} could be signed: {str(error).rstrip('.')}.",
            "Give this host an instance profile that allows rds-db:connect, or AWS credentials in its environment.",
        ) from None


def region_of(host: str) -> str | None:
    """The region in the name of an endpoint of RDS, if it is one."""
    match = _ENDPOINT.fullmatch(host)
    return (match[1] or match[2]).lower() if match else None


def secrets_of(signed: str) -> list[str]:
    """What of a token may be seen nowhere: itself, its signature and the credentials' session token."""
    query = urllib.parse.parse_qs(signed.partition("?")[2])
    return [signed, *(value for name in _SECRET_PARTS for value in query.get(name, []))]

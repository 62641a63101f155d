# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that work on a PostgreSQL database."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of postgresql_arguments()."""

    DOCUMENTATION = r"""
options:
  env_file:
    description:
      - The application's C(.env) on the managed host. C(PG_HOST), C(PG_PORT), C(PG_DATABASE), C(PG_USER),
        C(PG_PASSWORD), C(PG_SSL), C(PG_SSL_CA) and C(PG_IAM_AUTH) are read from it. Host, database and user have to
        be set there or given as options.
      - With C(PG_SSL=true) the server's name and certificate are verified, against C(PG_SSL_CA) or what the
        system trusts. C(PG_SSL) may also be one of the values of O(ssl_mode).
      - C(PG_IAM_AUTH=true) is O(aws_iam_auth=true); C(PG_PASSWORD) then counts for nothing.
      - Options given beside it win over what it says.
    type: path
  host:
    description:
      - Name or address of the database server, or the directory of its socket. Without it and without O(env_file),
        the local socket.
      - It may be PgBouncer with C(pool_mode=session). A pooler that shares sessions between clients is refused, since
        a migration run needs a session to itself.
    type: str
  port:
    description: Port of the database server.
    type: int
  database:
    description: Name of the database. Has to be given here or in O(env_file).
    type: str
  user:
    description: Role to log in as. Has to be given here or in O(env_file).
    type: str
  password:
    description: Password of the role.
    type: str
  ssl_mode:
    description: How much TLS is wanted, in the words of libpq. Only V(verify-full) tells the right server
      from another one.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  ssl_root_cert:
    description:
      - File on the managed host with the certificates of the authorities that may sign the server's, for
        Amazon RDS its global bundle.
    type: path
  connect_timeout:
    description: Seconds that one attempt to connect may take.
    type: int
    default: 10
  connect_retries:
    description:
      - How often a connection is tried again, after 1, 2, 4 ... seconds, if the reason may pass (refused,
        timeout, name not found, server starting up, too many connections). A wrong password or certificate
        is never tried again.
    type: int
    default: 3
  aws_iam_auth:
    description:
      - Whether to log in to Amazon RDS or Aurora with a token of AWS IAM instead of a password. Every attempt to
        connect gets a fresh one, signed on the managed host with the credentials of its instance profile or its
        environment.
      - O(host) has to be the endpoint's own name. TLS is a must, O(ssl_mode=verify-full) if nothing is said; give the
        RDS bundle as O(ssl_root_cert).
      - Without a value, what C(PG_IAM_AUTH) in O(env_file) says; a O(password) given as an option needs no token.
    type: bool
  aws_region:
    description:
      - Region of the database for O(aws_iam_auth). If it is not given, the one in the endpoint's name, else
        C(AWS_REGION) or what the AWS SDK is configured for on the managed host.
    type: str
requirements:
  - psycopg2 2.8 or newer, or psycopg 3.1 or newer
  - boto3, if O(aws_iam_auth=true)
"""

    MIGRATIONS = r"""
options:
  directory:
    description:
      - Directory on the managed host that holds C(NNN_name.up.sql) and C(NNN_name.down.sql). C(NNN) is a
        number of any length; V(7) and V(007) are the same version.
      - Byte order marks, line ends and white space at the end of a file don't count. Files whose name
        doesn't end in C(.sql) are left alone; any other C(.sql) file is refused, as are duplicate versions
        and text that isn't UTF-8.
    type: path
    required: true
  table:
    description:
      - The tracking table, or C(schema.table). Without a schema it is looked for along the role's
        C(search_path) and made in the first schema of it.
    type: str
    default: migrations
"""

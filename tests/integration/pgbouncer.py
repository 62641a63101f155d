"""A private PgBouncer in front of a cluster of the tests, from the distribution's package.

PgBouncer refuses to run as root, as PostgreSQL does: a test run by root starts it as the server's owner.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions
from postgresql_server import Server

# Root's own PATH has it, that of others may not.
_PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


@contextlib.contextmanager
def pgbouncer(
    server: Server, database: str, port: int | None = None, **settings: object
) -> Iterator[ConnectionOptions]:
    """Run PgBouncer with its defaults but for what is given; how to connect through it.

    Args:
        server: behind it.
        database: the one to reach.
        port: of the server, if it is to be another one.
        settings: of pgbouncer.ini, such as pool_mode and default_pool_size.
    """
    if _PROGRAM is None:
        pytest.fail("No PgBouncer: apt-get install pgbouncer (or run tools/bootstrap)")
    options = replace(server.options, database=database)
    directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        own_port = probe.getsockname()[1]
    # It asks its clients for this password and logs in to the server with it.
    (directory / "users").write_text(f'"{options.user}" "{options.password}"\n')
    for name in ("server.crt", "server.key", "authority.crt"):
        shutil.copy(server.directory / name, directory)
    given = "".join(f"{name} = {value}\n" for name, value in settings.items())
    (directory / "pgbouncer.ini").write_text(
        f"""
[databases]
{database} = host=localhost port={port or options.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {directory}/users
server_tls_sslmode = verify-full
server_tls_ca_file = {directory}/authority.crt
client_tls_sslmode = require
client_tls_cert_file = {directory}/server.crt
client_tls_key_file = {directory}/server.key
{given}"""
    )
    command = [_PROGRAM, "--quiet", str(directory / "pgbouncer.ini")]
    if server.owner is not None:
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, server.owner, server.owner)
        command = ["setpriv", f"--reuid={server.owner}", f"--regid={server.owner}", "--clear-groups", *command]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", own_port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PgBouncer does not start:\n{(directory / 'log').read_text()}")
            time.sleep(0.05)
        yield replace(options, port=own_port)
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(directory, ignore_errors=True)

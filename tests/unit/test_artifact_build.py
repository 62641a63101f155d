"""Builds: what is checked before, what a failure leaves, what is packed. A stand-in plays npm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import time

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import artifact, artifact_build, progress
from ansible_collections.roastify.ops.plugins.module_utils.artifact import ArtifactError

NPM = """#!/bin/sh
if [ "$1" = --version ]; then echo 10.9.9; exit; fi
echo "npm $*"
case "$1" in
  ci) mkdir -p node_modules/.bin node_modules/tool && echo 'x' > node_modules/tool/index.js
      if [ -e broken-dependency ]; then echo 'npm error code ETARGET' >&2; exit 1; fi ;;
  test) if [ -e slow ]; then sleep 60; fi
        if [ -e tests.tap ]; then cat tests.tap; exit 1; fi
        env | grep -E '^(NODE_ENV|npm_config_omit|HTTPS_PROXY)=' > environment.txt; true ;;
  run) if [ -e broken-build ]; then echo 'SyntaxError: unexpected roast' >&2; exit 2; fi
       mkdir -p frontend/dist/assets
       echo '<script src="/assets/index-DX5W_Ixp.js">' > frontend/dist/index.html
       echo 'const a=1;' > frontend/dist/assets/index-DX5W_Ixp.js ;;
esac
"""


@pytest.fixture
def node_directory(tmp_path):
    directory = tmp_path / "node-bin"
    directory.mkdir()
    for name, text in {"node": "#!/bin/sh\necho v22.3.1\n", "npm": NPM}.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    return directory


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    root.mkdir()
    (root / "package.json").write_text(json.dumps({"version": "2.0.1", "engines": {"node": ">=18"}}))
    (root / "package-lock.json").write_text("{}")
    (root / "server.js").write_text("listen();")
    (root / ".env").write_text("PG_PASSWORD=never-packed")
    return root


@pytest.fixture
def migrations(tmp_path):
    root = tmp_path / "migrations"
    root.mkdir()
    for name in ("001_initial.up.sql", "001_initial.down.sql", "010_later.up.sql", "009_before.up.sql", "notes.txt"):
        (root / name).write_text("SELECT 1;")
    return root


@pytest.fixture
def plan(tmp_path, source, migrations, node_directory):
    def make(**options):
        return artifact_build.plan(
            **{
                "source": str(source),
                "migrations": str(migrations),
                "destination": str(tmp_path / "artifacts"),
                "name": "shop",
                "node_directory": str(node_directory),
                "expect": ["node_modules", "frontend/dist/index.html"],
                "bundles": "frontend/dist/assets",
                **options,
            }
        )

    return make


def names(path):
    with tarfile.open(path) as tar:
        return tar.getnames()


class TestRun:
    def test_an_artifact_holds_build_migrations_and_manifest(self, plan):
        build = plan()
        made = artifact_build.run(build)
        assert os.path.basename(made.path) == f"shop-2.0.1-{build.digest[:12]}.tar.gz"
        assert {"server.js", "frontend/dist/index.html", "migrations/010_later.up.sql"} <= set(names(made.path))
        assert ".env" not in names(made.path)
        expected = {
            "name": "shop",
            "version": "2.0.1",
            "commit": "unversioned",
            "modified": False,
            "node": ">=18",
            "schemaVersion": "010",
            "builder": "Node.js 22.3.1, npm 10.9.9",
        }
        assert {key: made.manifest[key] for key in expected} == expected
        assert [timing["step"] for timing in build.timings][:2] == ["npm ci", "npm test"]

    @pytest.mark.parametrize("engines, wanted", [({"node": 18}, "18"), ({}, None), (["node"], None)])
    def test_what_is_no_text_in_the_package(self, plan, source, engines, wanted):
        (source / "package.json").write_text(json.dumps({"version": "2.0.1", "engines": engines}))
        artifact_build.run(plan())
        assert artifact_build.existing(plan()).manifest["node"] == wanted

    def test_it_is_there_the_second_time(self, plan):
        assert artifact_build.existing(plan()) is None
        made = artifact_build.run(plan())
        assert artifact_build.existing(plan()) == made

    def test_twice_the_same_bytes(self, plan):
        first = artifact_build.run(plan()).sha256
        time.sleep(1.1)
        assert artifact_build.run(plan()).sha256 == first

    def test_the_source_is_not_touched(self, plan, source):
        before = sorted(os.listdir(source))
        artifact_build.run(plan())
        assert sorted(os.listdir(source)) == before

    @pytest.mark.parametrize(
        "change", ["source", "migration", "steps", "version", "node", "damage", "sidecar", "removed"]
    )
    def test_it_is_built_again_when_anything_differs(self, plan, source, migrations, node_directory, change):
        made = artifact_build.run(plan())
        options = {}
        if change == "source":
            (source / "server.js").write_text("listen(2);")
        elif change == "migration":
            (migrations / "011_new.up.sql").write_text("SELECT 2;")
        elif change == "steps":
            options["steps"] = ["ci", "run build"]
        elif change == "version":
            options["version"] = "2.0.2"
        elif change == "node":
            (node_directory / "node").write_text("#!/bin/sh\necho v24.0.0\n")
        elif change == "damage":
            with open(made.path, "ab") as stream:
                stream.write(b"x")
        elif change == "sidecar":
            with open(made.sidecar, "w", encoding="utf-8") as stream:
                stream.write("{")
        else:
            os.unlink(made.path)
        assert artifact_build.existing(plan(**options)) is None

    def test_misleading_variables_stay_out_and_others_pass(self, plan, monkeypatch):
        monkeypatch.setenv("NODE_ENV", "production")
        monkeypatch.setenv("npm_config_omit", "dev")
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
        made = artifact_build.run(plan())
        with tarfile.open(made.path) as tar:
            text = tar.extractfile("environment.txt").read().decode()
        assert "NODE_ENV=" not in text and "npm_config_omit" not in text
        assert "HTTPS_PROXY=http://proxy.example:3128" in text

    def test_a_compiled_module_is_warned_about(self, plan, node_directory):
        npm = node_directory / "npm"
        npm.write_text(npm.read_text().replace("case", "mkdir -p node_modules/a; touch node_modules/a/b.node\ncase", 1))
        build = plan()
        artifact_build.run(build)
        assert any("node_modules/a/b.node" in warning for warning in build.warnings)


class TestFailure:
    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            ("broken-dependency", ["npm ci failed with exit code 1", "package.json", "ETARGET"]),
            ("broken-build", ["npm run build failed with exit code 2", "SyntaxError: unexpected roast"]),
        ],
    )
    def test_npm_is_quoted_and_the_old_artifact_stays(self, plan, source, fault, words):
        before = artifact_build.run(plan())
        (source / fault).write_text("")
        with pytest.raises(ArtifactError) as error:
            artifact_build.run(plan())
        for word in [*words, "Nothing was packed", "shop.build.log"]:
            assert word in str(error.value)
        assert artifact.verify(before.path).sha256 == before.sha256
        assert len([name for name in os.listdir(os.path.dirname(before.path)) if name.endswith(".gz")]) == 1

    def test_the_output_finds_what_to_do_and_the_evidence(self, plan, source):
        (source / "broken-build").write_text("")
        with pytest.raises(ArtifactError) as error:
            artifact_build.run(plan())
        text = str(error.value)
        assert progress.REMEDY.findall(text) == [
            "check the script behind 'npm run build' in package.json and the sources it names"
        ]
        assert "SyntaxError: unexpected roast" in text
        assert "SyntaxError" not in progress.EVIDENCE.sub("", text)

    def test_tests_that_failed_come_before_the_many_that_passed(self, plan, source):
        """node --test tells what failed where it ran, and ends with those that passed and a sum."""
        reason = ["  ---", "  duration_ms: 1.2", "  error: |-", "    1 !== 2", "  ..."]
        passed = [f"ok {number} - well, and tells an Error: so" for number in range(200)]
        first, second = "not ok 20 - the sum of two", "not ok 150 - the tax"
        ran = [*passed[:20], first, *reason, *passed[20:150], second, *passed[150:]]
        (source / "tests.tap").write_text("\n".join([*ran, "# pass 200", "# fail 2"]))
        with pytest.raises(ArtifactError) as error:
            artifact_build.run(plan())
        evidence = [line.strip() for line in str(error.value).partition("Evidence:\n")[2].splitlines()]
        assert evidence[:6] == [first, *(line.strip() for line in reason)]
        assert evidence[6:9] == ["...", second, "..."]
        assert evidence[-1] == "# fail 2"
        assert len(evidence) == 6 + 3 + 20

    @pytest.mark.parametrize(
        "line",
        [
            "  ✖ adds two (1.2ms)",
            "   \u00d7 adds two 2ms",
            " FAIL  src/sum.test.ts > adds two",
            "AssertionError: expected 1 to be 2",
            "src/sum.ts(3,7): error TS2322: Type 'string' is not assignable",
        ],
    )
    def test_what_looks_like_a_failure(self, line):
        told = artifact_build.telling([line, *map(str, range(500))])
        assert told == [line, *map(str, range(12)), "...", *map(str, range(480, 500))]

    @pytest.mark.parametrize("failures", [2, 4, 10, 300])
    def test_many_failures_have_less_behind_each_and_never_more_lines_in_all(self, failures):
        lines = [line for number in range(failures) for line in [f"not ok {number}", *["at"] * 30]]
        told = artifact_build.telling([*lines, *["ok"] * 60])
        assert len(told) <= 60 and told[-20:] == ["ok"] * 20
        assert len([line for line in told if line.startswith("not ok")]) == min(failures, 20)

    def test_without_failures_the_end_is_shown(self):
        lines = [*map(str, range(100)), "Error: at the end"]
        assert artifact_build.telling(lines) == lines[-60:]

    def test_a_step_that_hangs_is_ended_with_its_children(self, plan, source):
        (source / "slow").write_text("")
        started = time.monotonic()
        with pytest.raises(ArtifactError, match="npm test took longer than 1 seconds"):
            artifact_build.run(plan(timeout=1))
        assert time.monotonic() - started < 10

    def test_an_incomplete_build_is_not_packed(self, plan):
        with pytest.raises(ArtifactError, match="backend/dist is missing"):
            artifact_build.run(plan(expect=["backend/dist"]))
        with pytest.raises(ArtifactError, match="public/assets holds no JavaScript"):
            artifact_build.run(plan(bundles="public/assets"))


class TestPlan:
    def test_all_problems_come_at_once(self, plan, source, tmp_path):
        (source / "package-lock.json").unlink()
        (source / "package.json").write_text("{}")
        (tmp_path / "empty").mkdir()
        with pytest.raises(ArtifactError) as error:
            plan(migrations=str(tmp_path / "none"), name="../x", node_directory=str(tmp_path / "empty"))
        text = str(error.value)
        for word in ("package-lock.json is missing", "migrations", "has no version", "name '../x'", "no Node.js"):
            assert word in text, text

    def test_a_missing_source_says_which_variable(self, plan, tmp_path):
        with pytest.raises(ArtifactError, match="set app_source"):
            plan(source=str(tmp_path / "none"))

    def test_two_directories_of_migrations(self, plan, source):
        (source / "migrations").mkdir()
        with pytest.raises(ArtifactError, match="keep one of them"):
            plan()

    def test_an_old_node_is_named(self, plan, node_directory):
        (node_directory / "node").write_text("#!/bin/sh\necho v16.20.2\n")
        with pytest.raises(ArtifactError, match=r"node is 16\.20\.2"):
            plan()

    def test_the_commit_comes_from_git(self, plan, source):
        def git(*arguments):
            identity = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
            subprocess.run(["git", "-C", str(source), *identity, *arguments], check=True, capture_output=True)

        git("init")
        assert plan().commit.name == "unversioned"
        git("add", "package.json", "package-lock.json", "server.js")
        git("commit", "-m", "x")
        (source / ".gitignore").write_text(".env\n.gitignore\n")
        commit = plan().commit
        assert len(commit.name) == 40 and commit.time > 1700000000 and not commit.modified
        (source / "server.js").write_text("listen(3);")
        changed = plan()
        assert changed.commit.modified and "uncommitted" in changed.warnings[0]
        assert plan(commit="f00ba12").commit.name == "f00ba12"

    def test_a_source_that_git_ignores_is_unversioned(self, plan, source, tmp_path):
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        assert plan().commit.name == "unversioned"


class TestPrune:
    def test_the_newest_and_the_current_stay(self, plan, source, tmp_path):
        made = []
        for number in range(4):
            (source / "server.js").write_text(f"listen({number});")
            made.append(artifact_build.run(plan()))
            os.utime(made[-1].path, (1000 + number, 1000 + number))
        other = tmp_path / "artifacts/shop-api-1.0.0-0123456789ab.tar.gz"
        shutil.copy(made[0].path, other)
        manifest = {**made[0].manifest, "name": "shop-api"}
        other.with_name(other.name + ".json").write_text(json.dumps(manifest))
        os.utime(other, (1, 1))
        expected = sorted([made[1].path, made[2].path])
        directory = str(tmp_path / "artifacts")
        assert artifact_build.prune(directory, "shop", 2, made[0].path, dry=True) == expected
        assert artifact_build.prune(directory, "shop", 2, made[0].path) == expected
        left = {name for name in os.listdir(directory) if name.endswith(".tar.gz")}
        assert left == {os.path.basename(path) for path in (made[0].path, made[3].path, str(other))}
        assert artifact_build.prune(directory, "shop", 2, made[0].path) == []


@pytest.mark.parametrize(
    ("text", "minified"),
    [
        ("const a=1;", True),
        ("x" * 5000 + "\n//# sourceMappingURL=a.map\n", True),
        ("\n".join(["const value = compute();"] * 50), False),
        ("\n".join(["a" * 400] * 20), True),
    ],
)
def test_minified_code_is_told_from_written_code(text, minified):
    assert artifact_build.is_minified(text) is minified


@pytest.mark.parametrize("name", ["index.js", "main-1.js"])
def test_a_bundle_without_hash_is_refused(tmp_path, name):
    (tmp_path / name).write_text("a=1")
    with pytest.raises(ArtifactError, match="no hash in its name"):
        artifact_build.check(str(tmp_path.parent), [], tmp_path.name)


def test_migrations_are_ordered_by_number(tmp_path):
    for name in ("9_a.up.sql", "010_b.up.sql", "002_c.up.sql", "011_d.down.sql"):
        (tmp_path / name).write_text("")
    assert artifact_build.newest_migration(str(tmp_path)) == "010"
    assert artifact_build.newest_migration(str(tmp_path / "none")) is None

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import env_file, env_input

CONTENT = "A=1\nB='two words'\n"


def install(path: Path, content: str = CONTENT) -> env_file.Plan:
    planned = env_file.plan(path, content, os.getuid(), os.getgid(), 0o600)
    if planned.any:
        env_file.install(path, content, os.getuid(), os.getgid(), 0o600)
    return planned


def test_installs_once(tmp_path: Path) -> None:
    path = tmp_path / "shared" / ".env"
    first = install(path)
    assert (first.exists, first.added, first.changed, first.removed) == (False, ["A", "B"], [], [])
    assert path.read_text() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert not install(path).any
    assert os.listdir(path.parent) == [".env"]


def test_knows_what_changes(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    install(path)
    planned = install(path, "B=other\nC=3\n")
    assert (planned.added, planned.changed, planned.removed) == (["C"], ["B"], ["A"])
    diff = env_file.masked_diff(path, planned, "B=other\nC=3\n")
    assert diff["before"] == "B=(old value)\nA=(removed)\n"
    assert diff["after"] == "B=(new value)\nC=(new)\n"


def test_a_new_file_is_compared_with_the_one_in_use(tmp_path: Path) -> None:
    path, before = tmp_path / "r2.env", tmp_path / "r1.env"
    before.write_text(CONTENT)
    planned = env_file.plan(path, "A=1\nB=other\nC=3\n", None, None, 0o600, previous=before)
    assert (planned.exists, planned.content) == (False, True)
    assert (planned.added, planned.changed, planned.removed) == (["C"], ["B"], [])
    install(path, "A=2\n")
    planned = env_file.plan(path, "A=2\n", None, None, 0o600, previous=before)
    assert not planned.any and planned.changed == []
    assert env_file.plan(path, "A=2\n", None, None, 0o600, previous=tmp_path / "missing").added == []


def test_finds_environments_that_say_the_same(tmp_path: Path) -> None:
    for name, content in (
        ("r1.env", CONTENT),
        ("r2.env", 'B="two words"\nA=1'),
        ("r3.env", "A=1"),
        ("r4.txt", CONTENT),
    ):
        (tmp_path / name).write_text(content)
    assert env_file.alike(tmp_path, CONTENT) == ["r1.env", "r2.env"]
    assert env_file.alike(tmp_path / "missing", CONTENT) == []


def test_corrects_a_mode_that_lets_others_read(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    install(path)
    path.chmod(0o644)
    planned = install(path)
    assert planned.mode and not planned.content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "# mode: differs" in env_file.masked_diff(path, planned, CONTENT)["before"]


def test_never_follows_a_link(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("untouched")
    (tmp_path / ".env").symlink_to(target)
    with pytest.raises(env_file.EnvFileError, match="is a symbolic link: move it away"):
        install(tmp_path / ".env")
    assert target.read_text() == "untouched"


def test_a_directory_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(env_file.EnvFileError, match="is not a regular file"):
        install(tmp_path / ".env")


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".env"
    install(path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(env_file.EnvFileError, match=r"No space left on device\. The file that was there is unchanged"):
        install(path, "A=2\n")
    assert path.read_text() == CONTENT
    assert os.listdir(tmp_path) == [".env"]


def test_input_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(env_input.InputError, match="cannot be read: No such file"):
        env_input.read_schema(tmp_path / "missing")
    (tmp_path / "bad.yml").write_text("a: b\nc: [\n")
    with pytest.raises(env_input.InputError, match=r"bad.yml:\d+ is not valid YAML"):
        env_input.read_schema(tmp_path / "bad.yml")
    (tmp_path / "good.json").write_text('{"variables": {}}')
    assert env_input.read_schema(tmp_path / "good.json") == {"variables": {}}
    with pytest.raises(env_input.InputError) as caught:
        env_input.read_variables('["canary"')
    assert "canary" not in str(caught.value)


def test_a_directory_that_a_killed_run_left_closed_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made, and belongs to nobody who is to read the file yet."""
    path = tmp_path / "environments" / "r1.env"
    owners: list[tuple[str, int, int]] = []

    def chown(directory: Path, uid: int, gid: int) -> None:
        owners.append((Path(directory).name, uid, gid))
        if len(owners) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "chown", chown)
    monkeypatch.setattr(os, "fchown", lambda *arguments: None)
    previous = os.umask(0o077)
    try:
        with pytest.raises(KeyboardInterrupt):
            env_file.install(path, CONTENT, 12345, 12345, 0o600)
        env_file.install(path, CONTENT, 12345, 12345, 0o600)
    finally:
        os.umask(previous)
    assert owners == [("environments", 12345, 12345)] * 2
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_directories_of_others_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "chown", None)
    monkeypatch.setattr(os, "fchown", lambda *arguments: None)
    for name, mode in (("public", 0o755), ("private", 0o700)):
        (tmp_path / name).mkdir(mode=mode)
    (tmp_path / "private" / "something").write_text("")
    for name in ("public", "private"):
        env_file.install(tmp_path / name / ".env", CONTENT, 12345, 12345, 0o600)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700

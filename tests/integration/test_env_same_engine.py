"""The module env_validate and the command line say the same of a file, word for word, and neither shows a secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "examples/roastify/env.schema.yml"
SECRETS = ["cAnArY9z8y7x6w5v4u3t", "hUnTeRhUnTeR0x9y8z7w", "MIIEvQIBADANBgkqhkiG9w0BAQ"]
BAD = f"""\
NODE_ENV=prodution
PORT=99999
PG_SSL=ture
PG_PASWORD={SECRETS[0]}
JWT_SECRET={SECRETS[1]}
SMTP_HOST='mail.example.com
nonsense
AWS_REGION=us-east-1a
AWS_REGION=us-east-1#b
{SECRETS[2]}==
"""


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "PYTHONPATH": str(ROOT / "collections"), **environment}
    return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=120, check=False)


def test_module_and_command_line_agree(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(BAD)
    program = "ansible_collections.roastify.ops.plugins.module_utils.env_check"
    options = ["--schema", str(SCHEMA), "--environment", "production", "--format", "json"]
    command = run([sys.executable, "-m", program, "validate", str(file), *options])
    assert command.returncode == 1, command.stderr
    arguments = {"path": str(file), "schema_file": str(SCHEMA), "environment": "production"}
    callback = {"ANSIBLE_LOAD_CALLBACK_PLUGINS": "true", "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}
    ad_hoc = ["ansible", "localhost", "-i", "localhost,", "-c", "local", "-m", "roastify.ops.env_validate"]
    module = run(
        [*ad_hoc, "-a", json.dumps(arguments), "-e", f"ansible_python_interpreter={sys.executable}"], **callback
    )
    result = json.loads(module.stdout[module.stdout.index("{") :])["plays"][0]["tasks"][0]["hosts"]["localhost"]
    said = json.loads(command.stdout)["files"][0]
    assert len(said["problems"]) > 15
    assert result["problems"] == said["problems"]
    assert (result["valid"], result["variables"]) == (said["valid"], said["variables"])
    loud = run([*ad_hoc, "-a", json.dumps(arguments), "-vvv"])
    for secret in SECRETS:
        assert secret[:12] not in command.stdout + command.stderr + module.stdout + module.stderr
        assert secret[:12] not in loud.stdout + loud.stderr

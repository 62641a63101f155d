"""A controller whose secrets come from every source that there is, and all that it writes down of its runs."""

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import boto3
import yaml

CHECKOUT = Path(__file__).parents[4]
sys.path.insert(0, str(CHECKOUT / "tests" / "integration"))
from moto_server import KEYS, REGION, aws_environment  # noqa: E402

PARAMETERS = "/roastify/local"
SECRET = "roastify/local"


class Run:
    """One run of a playbook, with everything that it left on the controller."""

    def __init__(self, status, output, log, facts):
        self.status = status
        self.output = output
        # Ansible folds long lines.
        self.text = " ".join(output.split())
        self.traces = {"output": output, "log": log, "facts": facts}


class Controller:
    """A controller that has a vault and an AWS account, and writes down all that it can."""

    def __init__(self, moto, directory):
        self.moto = moto
        self.directory = directory
        self.began = time.time()
        self.parameters = boto3.client("ssm", endpoint_url=moto, region_name=REGION, **KEYS)
        self.secrets = boto3.client("secretsmanager", endpoint_url=moto, region_name=REGION, **KEYS)
        self.password = directory / "vault-password"
        self.password.write_text(secrets.token_hex())
        self.canaries = {}
        self.runs = []

    def canary(self, name, value):
        """A secret that must show nowhere."""
        self.canaries[f"{name} {len(self.canaries)}"] = value
        return value

    def variables(self, **changes):
        """What the inventory says, with one secret of its own and one from its vault."""
        vaulted = self.run_program("ansible-vault", "encrypt_string", self.canary("vault", secrets.token_hex(16)))
        block = "\n".join(vaulted.stdout.strip().splitlines()[1:])
        own = {
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.canary("inventory", "AKIA" + "Q7" * 4 + "CANARYKY"),
            "AWS_SECRET_ACCESS_KEY": self.canary("inventory", secrets.token_hex(20)),
            "S3_BUCKET": "roastify-storage",
            "EMAIL_FROM": "noreply@roastify.online",
            "SMTP_HOST": "smtp.roastify.online",
            "SMTP_PORT": 587,
            "SMTP_USER": "mailer",
            # From the stores.
            "PG_PASSWORD": None,
            "JWT_SECRET": None,
            **changes,
        }
        path = self.directory / "variables.yml"
        path.write_text(
            f"smtp_password: !vault |\n{block}\n"
            + yaml.safe_dump({"own_environment": own})
            + "app_env_variables: >-\n  {{ app_environment_variables | combine(own_environment, "
            + "{'SMTP_PASS': smtp_password}) }}\n"
            + yaml.safe_dump({"app_env_ssm_path": PARAMETERS, "app_env_secret": SECRET})
        )
        path.chmod(0o600)
        return path

    def store(self, password, jwt):
        """Put the database's password into Parameter Store and the key of sessions into Secrets Manager."""
        self.parameters.put_parameter(
            Name=f"{PARAMETERS}/PG_PASSWORD", Value=password, Type="SecureString", Overwrite=True
        )
        text = json.dumps({"JWT_SECRET": jwt})
        try:
            self.secrets.create_secret(Name=SECRET, SecretString=text)
        except self.secrets.exceptions.ResourceExistsException:
            self.secrets.put_secret_value(SecretId=SECRET, SecretString=text)

    def run_program(self, program, *arguments, **environment):
        return subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments, f"--vault-password-file={self.password}"],
            # The paths of the inventory are those that molecule sees.
            cwd=CHECKOUT / "molecule" / "default",
            env={
                **os.environ,
                **aws_environment(self.moto),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_FORCE_COLOR": "0",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def play(self, playbook, *arguments, callback="ansible.builtin.default"):
        """Run a playbook as talkative as it gets."""
        number = len(self.runs)
        log, facts = self.directory / f"{number}.log", self.directory / f"{number}.facts"
        done = self.run_program(
            *("ansible-playbook", "-i", "../inventory", str(CHECKOUT / playbook), "-vvv", "--diff", *arguments),
            ANSIBLE_CONFIG=str(CHECKOUT / "ansible.cfg"),
            ANSIBLE_LOG_PATH=str(log),
            ANSIBLE_STDOUT_CALLBACK=callback,
            ANSIBLE_CACHE_PLUGIN="ansible.builtin.jsonfile",
            ANSIBLE_CACHE_PLUGIN_CONNECTION=str(facts),
        )
        cached = "".join(path.read_text() for path in sorted(facts.glob("*")))
        self.runs.append(Run(done.returncode, done.stdout + done.stderr, log.read_text(), cached))
        return self.runs[-1]

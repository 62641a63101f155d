"""What is asked of a host before anything is changed."""

import os
import pwd
import shutil
import tempfile
from pathlib import Path

import pytest
from ansible_collections.roastify.ops.plugins.module_utils.pm2 import Pm2
from ansible_collections.roastify.ops.plugins.modules import release_info

NOBODY = pwd.getpwnam("nobody")


class Application(Pm2):
    """One that runs as a user of its own, who says which program its Node.js is."""

    def __init__(self, program, user=NOBODY.pw_name):
        self.user = user
        self.program = program

    def node(self):
        return str(self.program)


@pytest.fixture
def program():
    """Says who runs it, as its version; where that user gets at it."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    program = directory / "node"
    program.write_text("#!/bin/sh\necho v$(id -u)\n")
    program.chmod(0o755)
    yield program
    shutil.rmtree(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_what_the_user_of_the_application_calls_its_nodejs_is_not_run_as_root(program):
    assert release_info.node_version(Application(program)) == str(NOBODY.pw_uid)


def test_there_may_be_no_such_program_or_user(program):
    assert release_info.node_version(Application(program.with_name("missing"))) is None
    assert release_info.node_version(Application(program, "nobody-of-this-name")) in (None, str(os.geteuid()))

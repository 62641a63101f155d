"""The callback `progress` in real runs of ansible-playbook, on this machine under several names.

A run on a terminal is judged by what its screen shows in the end, not by the bytes that were sent.
"""

import contextlib
import fcntl
import http.server
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SECRET = "f7Kq2xWm9PzR4tLd8VbN"
COLUMNS = 100
FLEET = ("app1", "app2", "app3")

#: A small deployment with the shapes of the real one: roles imported and included, batches, rescue, run_once.
DEPLOY = """
- name: Look before anything is changed
  hosts: app
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: See the hosts
      ansible.builtin.import_role: {name: toy, tasks_from: look}

- name: Deploy the release
  hosts: app
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Choose the ids
      ansible.builtin.set_fact: {id: 1}
      run_once: true
    - name: Say what is to come
      ansible.builtin.debug: {msg: "host  version\\n----  -------\\napp1  1.0.0"}
      run_once: true
    - name: Deploy, or leave everything as it was
      block:
        - name: Stage the release
          ansible.builtin.import_role: {name: toy, tasks_from: stage}
        - name: Try the release out
          ansible.builtin.import_role: {name: toy, tasks_from: candidate}
        - name: Have every host in the load balancer
          ansible.builtin.include_role: {name: toy, tasks_from: look}
          when: false
        - name: Switch, batch by batch
          ansible.builtin.include_tasks: switch.yml
          loop: [[app1], [app2, app3]]
          loop_control: {loop_var: batch, label: "{{ batch | join(', ') }}"}
      rescue:
        - name: Return to what served before
          ansible.builtin.include_tasks: abandon.yml
"""
SWITCH = """
- name: Switch to the release
  ansible.builtin.command: "true"
  when: inventory_hostname in batch
"""
ABANDON = """
- name: Keep what failed
  ansible.builtin.set_fact:
    failure: "{{ inventory_hostname }}, {{ ansible_failed_task.name }}: {{ ansible_failed_result.msg }}"
  when: ansible_failed_task is defined
- name: Report
  ansible.builtin.fail:
    msg: "{{ failure | default('Failed elsewhere: app2: see there') }}\\nThis host serves 1.0.0 as before"
"""
ROLE = {
    "look": """
- name: See what is deployed
  ansible.builtin.command: "true"
  changed_when: false
""",
    "stage": """
- name: Transfer the artifact
  ansible.builtin.copy:
    content: "release of {{ inventory_hostname }}\\n"
    dest: "{{ playbook_dir }}/{{ inventory_hostname }}.out"
    mode: "0600"
- name: Install the environment
  ansible.builtin.copy:
    content: "PG_PASSWORD=SECRET\\n"
    dest: "{{ playbook_dir }}/{{ inventory_hostname }}.env"
    mode: "0600"
  diff: false
""".replace("SECRET", SECRET),
    "candidate": """
- name: Try the release out on its own port
  ansible.builtin.fail:
    msg: "Candidate gate: HTTP 503 instead of 200\\nWhat to do: look at the log\\nEvidence:\\n  HTTP 503 in 4 ms"
  when: inventory_hostname in (bad | default([]))
""",
}


class Project:
    """A directory with an inventory, a role and playbooks."""

    def __init__(self, directory):
        self.directory = directory
        hosts = {name: {"ansible_connection": "local", "ansible_python_interpreter": sys.executable} for name in FLEET}
        away = {"away": {"ansible_host": "127.0.0.1", "ansible_port": 1}}
        self.write("hosts.yml", yaml.safe_dump({"app": {"hosts": hosts}, "gone": {"hosts": away}}))
        self.write("deploy.yml", DEPLOY)
        self.write("switch.yml", SWITCH)
        self.write("abandon.yml", ABANDON)
        for name, tasks in ROLE.items():
            self.write(f"roles/toy/tasks/{name}.yml", tasks)

    def write(self, name, text):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def command(self, *arguments):
        return [str(BIN / "ansible-playbook"), "-i", "hosts.yml", *arguments]

    def environment(self, **more):
        # COLUMNS: what runs tests side by side tells its children how wide a terminal is.
        foreign = "ANSIBLE_|NO_COLOR|FORCE_COLOR|COLUMNS"
        kept = {key: value for key, value in os.environ.items() if not re.match(foreign, key)}
        return {
            **kept,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "roastify.ops.progress",
            **more,
        }

    def run(self, *arguments, **environment):
        """Exit status, standard output and standard error of a run whose output nobody watches."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.directory,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "allback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def watch(self, *arguments, question=None, **environment):
        """Exit status and bytes of a run on a terminal; the question is answered after a while with yes."""
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(self.directory)
            command = self.command(*arguments)
            os.execve(command[0], command, self.environment(**{"TERM": "xterm-256color", **environment}))
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        output = b""
        # Linux reports the end of a terminal as an error.
        with contextlib.suppress(OSError):
            while data := os.read(terminal, 65536):
                output += data
                if question and output.endswith(question.encode()):
                    # Longer than two looks of the ticker.
                    time.sleep(2.5)
                    os.write(terminal, b"yes\n")
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output.decode()


def screen(output):
    """The lines that a terminal shows in the end; it knows what the callback and Ansible use, and refuses the rest."""
    lines, column = [[]], 0
    for piece in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|[^\x1b]", output):
        line = lines[-1]
        if piece == "\n":
            lines.append([])
            column = 0
        elif piece == "\r":
            column = 0
        elif piece == "\x1b[K":
            del line[column:]
        elif len(piece) == 1:
            assert piece.isprintable(), repr(piece)
            line[column : column + 1] = [piece]
            column += 1
        else:
            assert piece.endswith("m"), repr(piece)
    return ["".join(line).rstrip() for line in lines]


def without_times(lines):
    """Lines without what differs from one run to the next."""
    text = "\n".join(lines)
    return re.sub(r"\d\d:\d\d|\d+(\.\d)? (s|min)\b|\d{4}-\d\d-\d\d.*| +(?= )", "", text).strip()


def interrupted(project, *playbooks):
    """Output and errors of a run that is interrupted once it says that it waits for app1."""
    process = subprocess.Popen(
        project.command(*playbooks),
        cwd=project.directory,
        env=project.environment(ANSIBLE_PROGRESS_HEARTBEAT="1"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # It waits, and says so.
    for line in process.stdout:
        if "waiting for app1" in line:
            break
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    return output, errors


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def sick():
    """URL of a server whose health answers are always 503."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"status": "unhealthy", "version": "1.2.0"}).encode()
            self.send_response(503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/health"
        server.shutdown()


def test_a_good_run_in_plain_lines(project):
    status, output, errors = project.run("deploy.yml")
    assert (status, errors) == (0, ""), output + errors
    assert "\r" not in output and "\x1b" not in output
    marks = re.findall(r"^\d\d:\d\d    (\w+) +(\S.*?)(?:  +(\d/\d))?(?:  .*)?$", output, re.MULTILINE)
    assert marks == [
        ("done", "See the hosts", "3/3"),
        ("done", "Stage the release", "3/3"),
        ("done", "Switch, batch by batch: app1", "1/1"),
        ("done", "Switch, batch by batch: app2, app3", "2/2"),
    ]
    assert "\nhost  version\n----  -------\napp1  1.0.0\n" in output
    assert re.search(r"Stage the release .*changed on all 3\n", output)
    assert re.search(r"^app2 +ok +3 ", output, re.MULTILINE)
    assert output.rstrip().splitlines()[-1].startswith("deploy.yml: done in ")
    assert SECRET not in output


def test_a_failing_run_tells_what_failed_once_and_what_next(project):
    status, output, errors = project.run("deploy.yml", "-e", '{"bad": ["app2"]}')
    assert (status, errors) == (2, ""), output + errors
    assert "rescue   app2: Try the release out on its own port: Candidate gate: HTTP 503 instead of 200\n" in output
    assert "failed   Try the release out " in output
    assert output.count("Evidence:\n           HTTP 503 in 4 ms") == 1
    assert "stopped  app1, app3: another host failed\n         This host serves 1.0.0 as before\n" in output
    assert re.search(r"^app1 +stopped, another host failed", output, re.MULTILINE)
    assert re.search(r"^app2 +FAILED: Try the release out", output, re.MULTILINE)
    assert "FAILED after" in output and "on app2; stopped with it: app1, app3" in output
    assert "  1. look at the log\n" in output
    assert "     ansible-playbook -i hosts.yml roastify.ops.status\n" in output


def test_a_terminal_shows_the_same_and_a_line_of_what_is_under_way(project):
    _, plain, _ = project.run("deploy.yml", "-e", '{"bad": ["app2"]}')
    for path in project.directory.glob("app?.*"):
        path.unlink()
    status, output = project.watch("deploy.yml", "-e", '{"bad": ["app2"]}')
    assert status == 2
    live = re.findall(r"\r\x1b\[K(\d\d:\d\d  [^\r\n]*)\r", output)
    assert any("waiting for app1" in line for line in live)
    # A line that the terminal breaks could not be taken back.
    assert max(map(len, live)) < COLUMNS
    assert without_times(screen(output)) == without_times(plain.splitlines())


def test_warnings_do_not_stand_in_the_live_line_and_come_once(project):
    project.write(
        "library/careful.py",
        "from ansible.module_utils.basic import AnsibleModule\n"
        "import time\n"
        "module = AnsibleModule({})\n"
        "time.sleep(1.5)\n"
        "module.warn('the disk is nearly full')\n"
        "module.exit_json(changed=False)\n",
    )
    project.write("warn.yml", "- name: Warn\n  hosts: app\n  gather_facts: false\n  tasks:\n    - careful:\n")
    status, output = project.watch("warn.yml")
    shown = screen(output)
    assert status == 0
    assert re.search(r"\r\x1b\[K\d\d:\d\d  careful[^\r]*\r", output), "there was no live line to stand in"
    assert [line for line in shown if "disk" in line] == ["[WARNING]: the disk is nearly full"]
    assert not [line for line in shown if "waiting" in line]


def test_nothing_is_written_over_a_question(project):
    project.write(
        "ask.yml",
        "- name: Look\n  hosts: app1\n  gather_facts: false\n  tasks:\n    - command: sleep 1.2\n"
        "- name: Do\n  hosts: app1\n  gather_facts: false\n"
        "  vars_prompt: [{name: answer, prompt: Really, private: false}]\n"
        "  tasks:\n    - debug: {msg: 'You said {{ answer }}.'}\n",
    )
    status, output = project.watch("ask.yml", question="Really: ")
    shown = screen(output)
    assert status == 0
    assert "Really: yes" in shown and "You said yes." in shown
    # What the terminal got between the question and the answer is the answer.
    assert "Really: yes" in output
    assert re.search(r"\r\x1b\[K\d\d:\d\d  command", output), "there was no live line to be written over it"


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"ANSIBLE_PROGRESS_LIVE_LINE": "false"}])
def test_a_terminal_that_cannot_or_should_not_gets_plain_lines(project, environment):
    project.write(
        "wait.yml", "- hosts: app\n  gather_facts: false\n  tasks:\n    - ansible.builtin.command: sleep 1.2\n"
    )
    status, output = project.watch("wait.yml", **environment)
    assert status == 0 and "3/3" in output
    assert "\r" not in output.replace("\r\n", "\n") and "\x1b[K" not in output
    if "ANSIBLE_PROGRESS_LIVE_LINE" not in environment:
        assert "\x1b" not in output


def test_many_shapes_of_playbooks_are_taken_without_an_error(project):
    project.write(
        "zoo.yml",
        f"""
- name: Nobody
  hosts: "{{{{ [] }}}}"
  tasks: []
- name: Zoo
  hosts: app
  gather_facts: false
  tasks:
    - name: Ignore
      ansible.builtin.command: "false"
      ignore_errors: true
    - name: Deal with it
      block:
        - name: Break
          ansible.builtin.fail: {{msg: "broken\\nin two"}}
          when: inventory_hostname == 'app1'
      rescue:
        - name: Mend
          ansible.builtin.command: "true"
      always:
        - name: Sweep
          ansible.builtin.command: "true"
    - name: Loop
      ansible.builtin.fail: {{msg: "item {{{{ item }}}} is bad"}}
      loop: [one, two]
      ignore_errors: true
    - name: Keep to yourself
      ansible.builtin.fail: {{msg: {SECRET}}}
      no_log: true
      ignore_errors: true
    - name: Keep items to yourself
      ansible.builtin.debug: {{msg: "{{{{ item }}}}"}}
      loop: [{SECRET}]
      no_log: true
    - name: Log in
      ansible.builtin.command: echo {SECRET}
    - name: Poll
      ansible.builtin.command: sleep 1.2
      async: 20
      poll: 1
    - name: Try again
      ansible.builtin.command: "false"
      register: tried
      until: tried is succeeded
      retries: 2
      delay: 0
      ignore_errors: true
      run_once: true
    - name: Delegate
      ansible.builtin.command: "true"
      delegate_to: localhost
      run_once: true
      notify: Restart
    - name: Say
      ansible.builtin.debug: {{msg: "I am {{{{ inventory_hostname }}}}"}}
    - name: Say items
      ansible.builtin.debug: {{msg: "item {{{{ item }}}}"}}
      loop: [one, two]
    - name: Say a variable
      ansible.builtin.debug: {{var: group_names}}
    - name: End here
      ansible.builtin.meta: end_host
      when: inventory_hostname == 'app3'
  handlers:
    - name: Restart
      ansible.builtin.command: "true"
- name: Free
  hosts: app
  gather_facts: false
  strategy: free
  tasks:
    - name: One
      ansible.builtin.command: "true"
    - name: Two
      ansible.builtin.command: "true"
- name: One by one
  hosts: app
  gather_facts: false
  serial: 1
  tasks:
    - name: One
      ansible.builtin.command: "true"
""",
    )
    status, output, errors = project.run("zoo.yml")
    assert (status, errors) == (0, ""), output + errors
    assert SECRET not in output
    for line in (
        "skipped  Nobody: no host of the inventory fits",
        "ignored  app1, app2, app3: Ignore: non-zero return code",
        "rescue   app1: Break: broken",
        "ignored  app1, app2, app3: Loop: item one is bad",
        "ignored  app1, app2, app3: Keep to yourself: (hidden: the task says no_log)",
        "retry    app1: Try again failed, try 2 of 3: non-zero return code",
        "app2: I am app2",
        "item one\nitem two",
        "group_names: app",
    ):
        assert line in output
    assert re.search(r"done     Restart .*changed on app1", output)
    assert re.search(r"done     Free +3/3 .*changed on all 3", output)
    assert re.search(r"^app1 +ok, after a failure: Break", output, re.MULTILINE)
    assert "zoo.yml: done in" in output


def test_the_failure_that_ended_a_run_is_told_and_not_one_that_was_dealt_with(project):
    project.write(
        "outer.yml",
        """
- name: Outer
  hosts: app1,app2
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Outer
      block:
        - name: Small thing
          block:
            - name: Optional
              ansible.builtin.fail: {msg: the optional thing is missing}
              when: inventory_hostname == 'app1'
          rescue:
            - name: Go on without
              ansible.builtin.debug: {msg: going on}
        - name: Candidate
          ansible.builtin.fail: {msg: "candidate is ill"}
          when: inventory_hostname == 'app1'
      rescue:
        - name: Return to what served before
          ansible.builtin.include_tasks: inner.yml
""",
    )
    project.write(
        "inner.yml",
        """
- name: Return
  block:
    - name: Tidy
      ansible.builtin.fail: {msg: cannot tidy}
      when: inventory_hostname == 'app1'
  rescue:
    - name: Leave it
      ansible.builtin.debug: {msg: left as it is}
  always:
    - name: Sweep
      ansible.builtin.command: "true"
- name: Report
  ansible.builtin.fail:
    msg: "{{ 'candidate is ill: a report' if inventory_hostname == 'app1' else 'Failed elsewhere: app1' }}"
""",
    )
    status, output, errors = project.run("outer.yml")
    assert status == 2, output + errors
    assert re.search(r"^app1 +FAILED: Candidate", output, re.MULTILINE), output
    assert re.search(r"^app2 +stopped, another host failed", output, re.MULTILINE), output
    assert "FAILED before, app1: Optional" not in output


def test_a_host_that_does_not_answer(project):
    project.write("reach.yml", "- name: Reach\n  hosts: all\n  gather_facts: false\n  tasks:\n    - command: 'true'\n")
    status, output, errors = project.run("reach.yml")
    assert (status, errors) == (4, ""), output + errors
    assert re.search(r"UNREACHABLE  away: command\n +\S.*Connection refused", output)
    assert re.search(r"^away +UNREACHABLE: ", output, re.MULTILINE)
    assert "  1. see why a host does not answer:\n     ansible -i hosts.yml away -m ping -vvv\n" in output


def test_a_host_that_does_not_answer_to_what_is_done_on_it_for_another(project):
    project.write(
        "reach.yml",
        """
- name: Reach
  hosts: app1
  gather_facts: false
  tasks:
    - name: Look
      ansible.builtin.command: "true"
      delegate_to: "{{ item }}"
      loop: [localhost, away]
      ignore_unreachable: true
    - name: Drain
      ansible.builtin.command: "true"
      delegate_to: "{{ groups.gone | first }}"
""",
    )
    status, output, errors = project.run("reach.yml")
    assert status == 4, output + errors
    assert "ignored  app1 -> away: Look: " in output
    assert re.search(r"UNREACHABLE  app1 -> away: Drain\n +\S.*Connection refused", output)
    assert re.search(r"^app1 +UNREACHABLE -> away: ", output, re.MULTILINE)
    assert "     ansible -i hosts.yml away -m ping -vvv\n" in output


def test_a_module_that_is_killed_on_the_host(project):
    project.write("python", f"#!/bin/sh\necho {SECRET} >&2\necho no memory >&2\nexit 137\n")
    (project.directory / "python").chmod(0o700)
    project.write(
        "killed.yml",
        """
- hosts: app1
  gather_facts: false
  vars: {ansible_python_interpreter: "{{ playbook_dir }}/python"}
  tasks:
    - name: Hide it
      ansible.builtin.ping:
      no_log: true
      ignore_errors: true
    - name: Loop
      ansible.builtin.ping:
      loop: [1, 2]
      ignore_errors: true
    - name: Ping
      ansible.builtin.ping:
""",
    )
    status, output, errors = project.run("killed.yml")
    told = "it ended on the host without an answer, exit code 137: it was killed, or could not start."
    assert status == 2 and f"FAILED   app1: Ping\n         {told}" in output, output + errors
    assert f"ignored  app1: Loop: {told}" in output and "ignored  app1: Hide it: (hidden" in output
    assert output.count("Python: no memory)") == 3  # and one in what to do next
    assert "with -v" in output and SECRET not in output + errors


def test_the_last_health_answer_is_told_while_and_after_a_gate_is_waited_for(project, sick):
    project.write(
        "gate.yml",
        f"""
- name: Gate
  hosts: app1
  gather_facts: false
  tasks:
    - name: Wait until it is healthy
      roastify.ops.health_gate: {{url: "{sick}", patience: 0.2}}
      register: gate
      until: gate is succeeded
      retries: 2
      delay: 2
""",
    )
    status, output = project.watch("gate.yml")
    shown = "\n".join(screen(output))
    assert status == 2
    assert re.search(r"waiting for app1; last health answer, app1: HTTP 503", output)
    assert "retry    app1: Wait until it is healthy failed, try 2 of 3: Health gate at" in shown
    assert re.search(r"FAILED   app1: Wait until it is healthy\n +Health gate at .* stays shut", shown)


def test_silence_is_broken_in_plain_lines(project):
    project.write("wait.yml", "- hosts: app1\n  gather_facts: false\n  tasks:\n    - command: sleep 4\n")
    _, output, _ = project.run("wait.yml", ANSIBLE_PROGRESS_HEARTBEAT="2")
    assert re.search(r"^\d\d:\d\d  command  \d\.\d s; waiting for app1$", output, re.MULTILINE)


def test_check_and_diff(project):
    status, output, _ = project.run("deploy.yml", "--check", "--diff")
    assert status == 0
    assert output.count("CHECK MODE") == 1
    assert re.search(r"diff     app2: Transfer the artifact\n--- .*\n\+\+\+ .*\n@@ .*\n\+release of app2\n", output)
    assert "would change on all 3" in output
    assert SECRET not in output
    assert not list(project.directory.glob("*.out"))


def test_more_verbosity_is_the_default_output(project):
    _, ours, _ = project.run("deploy.yml", "-v", "--check")
    _, default, _ = project.run("deploy.yml", "-v", "--check", ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
    assert "TASK [toy : Transfer the artifact]" in ours and "PLAY RECAP" in ours

    def shape(text):
        # Hosts answer in any order.
        kinds = re.compile(r"PLAY|TASK|ok:|changed:|skipping:|included:")
        hosts = re.compile(r"(?<= for )app\d(?:, app\d)*")
        lines = (line for line in text.splitlines() if kinds.match(line))
        return sorted(hosts.sub(lambda found: ", ".join(sorted(found[0].split(", "))), line) for line in lines)

    volatile = re.compile(r"ansible-tmp-[\d.-]+|ansible-local-\w+/\w+|delta.*")
    assert [volatile.sub("", line) for line in shape(ours)] == [volatile.sub("", line) for line in shape(default)]


def test_an_interrupted_run_says_where_it_was_and_what_next(project):
    project.write("wait.yml", "- name: Wait\n  hosts: app1\n  gather_facts: false\n  tasks:\n    - command: sleep 60\n")
    output, errors = interrupted(project, "wait.yml")
    assert re.search(r"wait.yml was INTERRUPTED after \d.* in command; no answer yet from app1", output), (
        output + errors
    )
    assert "ansible-playbook -i hosts.yml roastify.ops.status" in output


def test_every_playbook_of_one_command_is_told_as_a_run_of_its_own(project):
    play = "- hosts: {0}\n  gather_facts: false\n  tasks:\n    - command: sleep {1}\n"
    project.write("setup.yml", play.format("app", 0))
    project.write("wait.yml", play.format("app1", 2))
    status, output = project.watch("setup.yml", "wait.yml")
    first, second = "\n".join(screen(output)).split("\nwait.yml, ")
    assert status == 0
    assert first.startswith("setup.yml, ") and "setup.yml: done in" in first and "wait.yml" not in first
    assert "wait.yml: done in" in second and "setup.yml" not in second
    # Ansible counts on from one playbook to the next.
    assert re.search(r"^app1 +ok +1 +\d", second, re.MULTILINE) and "app2" not in second
    # And what is under way is still shown.
    assert re.search(r"\r\x1b\[K00:0[12]  command  [12]\.\d s; waiting for app1", output.split("wait.yml, ")[1])


def test_the_second_playbook_of_a_command_can_be_interrupted(project):
    play = "- hosts: {0}\n  gather_facts: false\n  tasks:\n    - command: sleep {1}\n"
    project.write("setup.yml", play.format("app2", 0))
    project.write("wait.yml", play.format("app1", 60))
    output, errors = interrupted(project, "setup.yml", "wait.yml")
    said = r"^wait.yml was INTERRUPTED after \d.* in command; no answer yet from app1"
    assert re.search(said, output, re.MULTILINE), output + errors
    assert output.count("INTERRUPTED") == 1


def test_a_broken_template_of_the_inventory_is_told_with_file_and_line(project):
    project.write("group_vars/app.yml", f'---\npassword: {SECRET}\nbroken: "{{{{ nowhere }}}}{SECRET}"\n')
    project.write(
        "use.yml",
        """
- name: Use
  hosts: app
  gather_facts: false
  tasks:
    - name: Ignore it
      ansible.builtin.command: "echo {{ broken }}"
      ignore_errors: true
    - name: Ignore items
      ansible.builtin.command: "echo {{ broken }} {{ item }}"
      loop: [one, two]
      ignore_errors: true
    - name: Hide it
      ansible.builtin.command: "echo {{ broken }}"
      no_log: true
      ignore_errors: true
    - name: Fail by itself
      ansible.builtin.fail: {msg: no place to tell}
      ignore_errors: true
    - name: Use it
      ansible.builtin.command: "echo {{ broken }}"
""",
    )
    status, output, errors = project.run("use.yml")
    assert status == 2, output + errors
    place = r"\(at group_vars/app\.yml:3:9, used at use\.yml:%d:\d+\)\n"
    for name, line in (("Ignore it", 7), ("Ignore items", 10), ("Hide it", 14)):
        assert re.search(rf"ignored  app1, app2, app3: {name}: .*{place % line}", output), output
    assert "Fail by itself: no place to tell\n" in output
    assert re.search(rf"FAILED   app1, app2, app3: Use it\n.*'nowhere' is undefined {place % 21}", output), output
    assert SECRET not in output + errors


@pytest.mark.parametrize("text", ["a: b\n c: [\n", "$ANSIBLE_VAULT;1.1;AES256\n6162\n"])
def test_an_inventory_that_cannot_be_read_is_told_as_what_it_is(project, text):
    project.write("group_vars/app.yml", text)
    status, output, errors = project.run("deploy.yml")
    assert status not in (0, 99), output + errors
    assert "INTERRUPTED" not in output
    expected = "ault" if "VAULT" in text else r"YAML parsing failed: .* \(at group_vars/app\.yml:2:\d+\)"
    assert re.search(rf"deploy.yml FAILED after .* s\n         .*{expected}", output), output + errors
    assert "No host had begun: nothing was changed on any." in output


def test_a_playbook_of_the_checkout_names_its_neighbour(project):
    project.write("empty.yml", "app: {}\n")
    done = subprocess.run(
        [BIN / "ansible-playbook", "-i", project.directory / "empty.yml", "deploy.yml"],
        cwd=CHECKOUT,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "The inventory has no host in group app." in done.stdout
    assert f"     ansible-playbook -i {project.directory}/empty.yml playbooks/status.yml\n" in done.stdout


def test_nothing_of_the_default_output_comes_through():
    """An event that a later Ansible tells anew would be shown in its form, between our lines."""
    from ansible.plugins.callback.default import CallbackModule as Default
    from ansible_collections.roastify.ops.plugins.callback.progress import CallbackModule

    events = {name for name in dir(Default) if name.startswith("v2_") and name in vars(Default)}
    assert events and events <= set(vars(CallbackModule))


def test_it_is_documented(project):
    command = [BIN / "ansible-doc", "--json", "-t", "callback", "roastify.ops.progress"]
    done = subprocess.run(command, cwd=CHECKOUT, env=project.environment(), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    options = json.loads(done.stdout)["roastify.ops.progress"]["doc"]["options"]
    assert {"live_line", "heartbeat"} <= set(options)


def test_it_waits_for_no_lock_when_everything_happens_at_once(project):
    """Events, the ticker and warnings of many hosts on one terminal: nobody may wait for anybody for ever."""
    hosts = {
        f"h{number}": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        for number in range(30)
    }
    project.write("hosts.yml", yaml.safe_dump({"app": {"hosts": hosts}}))
    project.write(
        "crowd.yml",
        "- name: Crowd\n  hosts: app\n  gather_facts: false\n  tasks:\n"
        + "".join(f"    - name: Say {n}\n      ansible.builtin.debug: {{msg: 'x {n}'}}\n" for n in range(20)),
    )
    started = time.monotonic()
    status, output = project.watch("crowd.yml")
    assert status == 0 and time.monotonic() - started < 300
    shown = screen(output)
    assert [line for line in shown if line.startswith("x ")] == [f"x {n}" for n in range(20)]


@pytest.mark.parametrize("more", [(), ("-v",)])
def test_a_run_goes_on_to_its_end_when_nobody_reads_it_any_more(project, more):
    """Whoever ends `... 2>&1 | less`, or a CI that stops listening, must not leave a fleet half switched."""
    project.write(
        "piped.yml",
        """
- name: Deploy
  hosts: app
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - name: Deploy, or leave everything as it was
      block:
        - name: Warn
          ansible.builtin.debug: {msg: "{{ lookup('ansible.builtin.file', '/nowhere', errors='warn') }}"}
        - name: Switch
          ansible.builtin.fail: {msg: no}
          when: inventory_hostname == 'app2'
      rescue:
        - name: Return
          ansible.builtin.file: {path: "{{ playbook_dir }}/{{ inventory_hostname }}.back", state: touch, mode: "0600"}
""",
    )
    process = subprocess.Popen(
        project.command("piped.yml", *more),
        cwd=project.directory,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert sorted(path.stem for path in project.directory.glob("*.back")) == list(FLEET)

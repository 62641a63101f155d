# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: What an operator wants to know of a run
version_added: 0.1.0
author: The roastify.ops maintainers (!UNKNOWN)
description:
  - Shows the phases of a playbook, each with its hosts and its time, what a phase changed, and what it waits for;
    failures with their evidence, once and not once for each host; at the end one table, and what to do next.
  - A phase is a role or an include that a play names; steps that stand alone are told if they change something,
    fail or take long.
  - On a terminal the last line shows what is under way. Elsewhere there are only plain lines with the elapsed time.
  - Of a result only the message, the health answers, the release, file and line of a value that could not be used and,
    with C(--diff), the difference are shown; of a module that ended without an answer, killed for instance, the exit
    code and the last line of its standard error. With C(-v) and more it does what
    P(ansible.builtin.default#callback) does, and shows results in full.
  - Colours follow E(NO_COLOR), E(ANSIBLE_NOCOLOR) and E(ANSIBLE_FORCE_COLOR); without colours there is no live line.
requirements:
  - set as stdout callback in the configuration
extends_documentation_fragment:
  - default_callback
  - result_format_callback
options:
  live_line:
    description: Whether a terminal shows what is under way in a line that is written again and again.
    type: bool
    default: true
    env:
      - name: ANSIBLE_PROGRESS_LIVE_LINE
    ini:
      - section: callback_progress
        key: live_line
  heartbeat:
    description: >-
      Seconds without a line after which a run without a live line says what it waits for; 0 for never.
    type: int
    default: 30
    env:
      - name: ANSIBLE_PROGRESS_HEARTBEAT
    ini:
      - section: callback_progress
        key: heartbeat
"""

import atexit
import contextlib
import os
import shutil
import sys
import threading
import time
from pathlib import Path

from ansible import constants, context
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as DefaultCallback
from ansible.plugins.loader import action_loader, connection_loader, filter_loader, test_loader
from ansible_collections.roastify.ops.plugins.module_utils import progress

DEBUG = ("debug", "ansible.builtin.debug", "ansible.legacy.debug")
FAIL = ("fail", "ansible.builtin.fail", "ansible.legacy.fail")
PAUSE = ("pause", "ansible.builtin.pause", "ansible.legacy.pause")
SWITCH = "roastify.ops.release_activate"
COLORS = {
    progress.OK: "COLOR_OK",
    progress.CHANGED: "COLOR_CHANGED",
    progress.SKIPPED: "COLOR_SKIP",
    progress.FAILED: "COLOR_ERROR",
    progress.UNREACHABLE: "COLOR_UNREACHABLE",
    progress.IGNORED: "COLOR_CHANGED",
}
#: What nearly every step on a host needs, by its loader; to find one filter Ansible reads all those of its collection.
EVERYDAY = {
    action_loader: tuple(
        f"ansible.builtin.{name}"
        for name in ("assert", "debug", "fail", "normal", "set_fact", "validate_argument_spec")
    ),
    connection_loader: ("ansible.builtin.local", "ansible.builtin.ssh"),
    filter_loader: ("ansible.builtin.default", "roastify.ops.table"),
    test_loader: ("ansible.builtin.defined",),
}
#: To the first column, and empty the line.
ERASE = "\r\x1b[K"
#: Seconds between two looks of the ticker.
TICK = 1.0
#: Seconds at least between two live lines that events draw.
REDRAW = 0.1


class _Output:
    """Standard output or error that may lose its reader or its room (a pipe that was closed, a full disk).

    Ansible would end there, in the middle of a deployment and without what returns the fleet to what served before.
    """

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self):
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name):
        return getattr(self._stream, name)


class _Screen(_Output):
    """The same while there may be a live line: whatever is written, the live line goes first.

    It takes no lock: Display holds its own while it writes, and a second one could wait for the first.
    """

    def __init__(self, stream, shared):
        super().__init__(stream)
        self._shared = shared

    def write(self, text):
        # Display holds its lock meanwhile, so that nothing comes between the text and what is noted of it.
        if text.startswith(ERASE):
            self._shared["live"] = text != ERASE
        elif self._shared["live"] and text:
            self._shared["live"] = False
            text = ERASE + text
        return super().write(text)


class CallbackModule(DefaultCallback):
    """Translates what Ansible tells into the steps and outcomes of the module util, and shows its lines."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "roastify.ops.progress"

    def __init__(self):
        super().__init__()
        sys.stdout, sys.stderr = _Output(sys.stdout), _Output(sys.stderr)
        if self._display.verbosity:
            # Whoever asks for more gets all that the default callback shows, in its form.
            for name in [name for name in vars(type(self)) if name.startswith("v2_")]:
                setattr(self, name, getattr(super(), name))
            return
        # Events come from two threads of Ansible, one at a time; the ticker is a third.
        self._lock = threading.Lock()
        self._shared = {"live": False}
        self._streams = None
        self._drawn = 0.0
        # How many of the playbooks of the command have begun, and what Ansible had counted when the newest one did.
        self._begun = 0
        self._counted = {}
        self._steps = {}
        self._items = {}
        self._begin()

    # -- events ---------------------------------------------------------------------------------------

    def v2_playbook_on_start(self, playbook):
        first = not self._begun
        with self._lock:
            # One command may have several playbooks, and each is told as a run of its own: it has its own end.
            self._end_live()
            self._begin()
            self._begun += 1
            self._begin_live()
            lines = self._progress.start(_short(self._playbook()), time.strftime("%Y-%m-%d %H:%M:%S %Z"))
            self._show(lines if first else [progress.Line(""), *lines])
        if first:
            # A run that is interrupted, or ended by an error of Ansible, never gets to its statistics. What the error
            # was Ansible tells its display only.
            self._hear_errors()
            atexit.register(self._leave)
            # Ansible forks a process for each step on each host, and each would load these anew: a fifth of the
            # processor time of a deployment to three hosts.
            for loader, names in EVERYDAY.items():
                for name in names:
                    loader.get(name, class_only=True)
        threading.Thread(target=self._tick, args=(self._stop,), name="progress", daemon=True).start()

    def v2_playbook_on_play_start(self, play):
        self._play = play  # the default callback keeps it, too
        self._steps.clear()
        self._items.clear()
        with self._lock:
            self._show(self._progress.play(play.get_name().strip() or "Play", bool(play.any_errors_fatal)))

    def v2_playbook_on_vars_prompt(self, *arguments, **options):
        # Ansible asks now: nothing may be written over the question.
        with self._lock:
            self._show(self._progress.rest())

    def v2_playbook_on_no_hosts_matched(self):
        with self._lock:
            self._show(self._progress.nobody())

    def v2_playbook_on_no_hosts_remaining(self):
        with self._lock:
            self._show(self._progress.pause("no hosts are left; the rest of this play is left out"))

    def v2_playbook_on_task_start(self, task, is_conditional):
        with self._lock:
            self._show(self._progress.step(self._step_of(task)))

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_include(self, included_file):
        """The tasks that are included tell their phase themselves."""

    def v2_runner_on_start(self, host, task):
        with self._lock:
            self._progress.begin(host.get_name())
            self._draw()

    def v2_runner_on_ok(self, result):
        self._take(result, progress.CHANGED if result.is_changed() else progress.OK)

    def v2_runner_on_skipped(self, result):
        self._take(result, progress.SKIPPED)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._take(result, progress.IGNORED if ignore_errors else progress.FAILED)

    def v2_runner_on_unreachable(self, result):
        self._take(result, progress.IGNORED if result.task.ignore_unreachable else progress.UNREACHABLE)

    def v2_runner_item_on_ok(self, result):
        if result.task.action in DEBUG:
            self._keep_item(result, progress.spoken_by(result.result))

    def v2_runner_item_on_failed(self, result):
        self._keep_item(result, progress.text_of(result.result))

    def v2_runner_item_on_skipped(self, result):
        """The result of the whole loop tells it."""

    def v2_runner_retry(self, result):
        told = result.result
        outcome = progress.Outcome(progress.FAILED, progress.text_of(told), progress.answer_of(told))
        attempt, tries = told.get("attempts") or 1, told.get("retries") or 1
        with self._lock:
            step = self._step_of(result.task)
            self._show(self._progress.retry(step, result.host.get_name(), attempt, tries, outcome))

    def v2_runner_on_async_poll(self, result):
        outcome = progress.Outcome(progress.OK, answer=progress.answer_of(result.result))
        with self._lock:
            self._progress.poll(result.host.get_name(), outcome)
            self._draw()

    def v2_runner_on_async_ok(self, result):
        """The result of the task tells it."""

    def v2_runner_on_async_failed(self, result):
        """The result of the task tells it."""

    def v2_on_file_diff(self, result):
        items = result.result.get("results") if result.task.loop else None
        with self._lock:
            for item in items or [result.result]:
                difference = self._get_diff(item["diff"]) if item.get("diff") and item.get("changed") else ""
                if difference:
                    self._progress.diff(result.host.get_name(), difference)

    def v2_playbook_on_notify(self, handler, host):
        """Handlers tell themselves when they run."""

    def v2_playbook_on_stats(self, stats):
        counted = {host: stats.summarize(host) for host in sorted(stats.processed)}
        statistics = {}
        for host, counts in counted.items():
            # Ansible counts on from one playbook of a command to the next.
            before = self._counted.get(host)
            since = {what: count - (before or {}).get(what, 0) for what, count in counts.items()}
            if before is None or any(since.values()):
                statistics[host] = since
        self._counted = counted
        with self._lock:
            self._end_live()
            silent = self._progress.silent([host for host, count in statistics.items() if count["unreachable"]])
            self._show(self._progress.end(statistics, _next_commands(self._playbook(), silent)))

    # -- inside ---------------------------------------------------------------------------------------

    def _begin(self):
        """Know nothing yet of the playbook that begins."""
        self._progress = progress.Progress(time.monotonic, bool(context.CLIARGS.get("check")))
        # Each ticker has its own: one that was told to stop stays stopped.
        self._stop = threading.Event()
        self._error = None

    def _playbook(self):
        """The playbook that is under way, as it was typed."""
        playbooks = context.CLIARGS.get("args") or ("playbook",)
        return playbooks[min(max(self._begun, 1), len(playbooks)) - 1]

    def _take(self, result, kind):
        told = result.result
        # Warnings go where all warnings of Ansible go, and each one once.
        self._handle_warnings(told)
        step = self._step_of(result.task)
        before, now = (None, None) if kind == progress.SKIPPED else progress.releases_of(told)
        if result.task.check_mode and "live" not in told:
            # Nothing was switched: what would be live is not.
            before = now = None
        # What items said tells more than what is said of the whole loop.
        items = self._items.pop((result.host.get_name(), step.key), {})
        speaks = step.speaks and kind == progress.OK
        text = "\n".join(items) or (progress.spoken_by(told) if speaks else progress.text_of(told))
        place = ", ".join(filter(None, dict.fromkeys(place for place, _ in items.values()))) or _place_of(result)
        delegate = next(filter(None, (delegate for _, delegate in items.values())), "") or _delegate_of(result)
        outcome = progress.Outcome(kind, text, progress.answer_of(told), before, now, place, delegate)
        with self._lock:
            self._show(self._progress.result(step, result.host.get_name(), outcome))

    def _keep_item(self, result, text):
        if text:
            self._items.setdefault((result.host.get_name(), result.task._uuid), {})[text] = (
                _place_of(result),
                _delegate_of(result),
            )

    def _step_of(self, task):
        """The step of a task; every host has a copy of the task, and all copies have one id."""
        step = self._steps.get(task._uuid)
        phase = _phase_of(task)
        if step is None or step.phase_key != phase[0]:
            caught, catches, rescued, follows = _fate_of(task)
            step = self._steps[task._uuid] = progress.Step(
                key=task._uuid,
                name=task.name or task.action,
                phase=phase[1] if self._in_step() else self._play.get_name(),
                phase_key=phase[0] if self._in_step() else "",
                includes=isinstance(task, TaskInclude),
                speaks=task.action in DEBUG,
                once=bool(task.run_once),
                rescued=rescued,
                follows=follows,
                reports=follows and task.action in FAIL,
                switches=task.action == SWITCH,
                asks=task.action in PAUSE,
                caught=caught,
                catches=catches,
            )
        return step

    def _in_step(self):
        """Whether all hosts do a task before any does the next; elsewhere the play is the only phase."""
        return str(self._play.strategy).rpartition(".")[2] not in ("free", "host_pinned")

    def _show(self, lines):
        for line in lines:
            color = COLORS.get(line.style)
            self._display.display(line.text, color=getattr(constants, color) if color and line.text else None)
        if lines:
            # Ansible leaves this to the end, which is too late for whoever follows a log.
            sys.stdout.flush()
        self._draw(anew=bool(lines))

    # -- the live line --------------------------------------------------------------------------------

    def _begin_live(self):
        terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        # With --step Ansible asks before every task.
        wanted = self.get_option("live_line") and not constants.ANSIBLE_NOCOLOR and not context.CLIARGS.get("step")
        if not (terminal and wanted):
            return
        self._streams = (sys.stdout, sys.stderr)
        sys.stdout = _Screen(sys.stdout, self._shared)
        if sys.stderr.isatty():
            sys.stderr = _Screen(sys.stderr, self._shared)

    def _end_live(self):
        self._stop.set()
        if self._streams:
            if self._shared["live"]:
                self._display.display(ERASE, screen_only=True, newline=False)
                sys.stdout.flush()
            sys.stdout, sys.stderr = self._streams
            self._streams = None

    def _draw(self, anew=False):
        """Write the live line, at most so many times a second unless it has just gone."""
        now = time.monotonic()
        if not self._streams or (now - self._drawn < REDRAW and not anew):
            return
        # The cursor stays behind it, so that a shell that comes back has its prompt beside it, not on it.
        text = self._progress.live(shutil.get_terminal_size().columns - 1)
        if text:
            self._drawn = now
            self._display.display(ERASE + text, screen_only=True, newline=False)
            sys.stdout.flush()

    def _tick(self, stop):
        heartbeat = self.get_option("heartbeat")
        while not stop.wait(TICK):
            # An event may end the run while this waits for the lock.
            with self._lock:
                if stop.is_set():
                    return
                if self._streams:
                    self._draw()
                elif heartbeat > 0:
                    self._show(self._progress.heartbeat(heartbeat))

    def _leave(self):
        """The process ends: say where, if the run did not come to its end."""
        with self._lock:
            self._end_live()
            error, reason, place = self._error, "", ""
            if error is not None:
                # Ansible has shown it with all its causes; here it is the end of the run.
                reason = str(error) or type(error).__name__
                place = ", ".join(map(_short, progress.places_of(error)[-1:]))
            self._show(self._progress.interrupted(_next_commands(self._playbook()), reason, place))

    def _hear_errors(self):
        """Keep the newest error that the display is told: if it ended the run, nothing else says so."""
        show = self._display.error

        def error(msg, *arguments, **options):
            # Whoever interrupts a run is told so in words, without an exception.
            self._error = msg if isinstance(msg, BaseException) else None
            return show(msg, *arguments, **options)

        self._display.error = error


# -- what Ansible knows of a task -------------------------------------------------------------------------
# Some of it has no public name. Where a later Ansible calls it otherwise, phases are coarser and failures that
# something deals with are told as others are.


def _phase_of(task):
    """Key and title of the phase of a task: the outermost include that the play itself names, or a role of the play."""
    include, outermost = task if isinstance(task, TaskInclude) else task.get_first_parent_include(), None
    while include is not None:
        include, outermost = include.get_first_parent_include(), include
    role = getattr(task if outermost is None else outermost, "_role", None)
    if role is not None:
        name = role.get_name()
        return name, name.rpartition(".")[2]
    if outermost is None:
        return task._uuid, ""
    label = ""
    if getattr(outermost.loop_control, "label", None):
        label = str(outermost.vars.get("_ansible_item_label") or "")
    title = outermost.get_name()
    return f"{outermost._uuid} {label}", f"{title}: {label}" if label else title


def _fate_of(task):
    """What deals with a failure of a task, and which failures it deals with itself.

    Returns:
        Blocks of which something runs once it has failed, blocks that it belongs to what runs after a failure of,
        whether its failure is dealt with, and whether it deals with one that is not yet.
    """
    caught, catches, rescued, follows = [], [], False, False
    child, parent = task, getattr(task, "_parent", None)
    while parent is not None:
        rescue = {getattr(each, "_uuid", None) for each in getattr(parent, "rescue", None) or ()}
        always = {getattr(each, "_uuid", None) for each in getattr(parent, "always", None) or ()}
        if child._uuid in rescue or child._uuid in always:
            catches.append(parent._uuid)
            follows = follows or (child._uuid in rescue and not rescued)
        elif (rescue or always) and not rescued:
            caught.append(parent._uuid)
            rescued = bool(rescue)
        child, parent = parent, getattr(parent, "_parent", None)
    return tuple(caught), tuple(catches), rescued, follows


def _place_of(result):
    """File and line of the value or template that failed; nothing if the task failed at its work."""
    # The first place is the task.
    told = [_short(place) for place in progress.places_of(getattr(result, "exception", None))[1:]]
    return told[-1] + (f", used at {told[-2]}" if told[1:] else "") if told else ""


def _delegate_of(result):
    """The host that did not answer, where a step is done on another one than the host it is for; otherwise empty."""
    if not result.is_unreachable():
        return ""
    told = result.result.get("_ansible_delegated_vars") or {}
    # Of one that was never connected Ansible tells no variables. Of a whole loop it knows the template only.
    delegate = str(told.get("ansible_delegated_host") or result.task.delegate_to or "")
    return delegate if "{{" not in delegate and delegate != result.host.get_name() else ""


def _short(playbook):
    """A playbook as it was typed; of a long path the end."""
    path = Path(playbook)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and Path.cwd() in path.parents else playbook


def _next_commands(playbook, silent=()):
    """What helps after a failure of a playbook, for the inventory that was asked for, and where hosts do not answer."""
    playbook = Path(playbook)
    # As a playbook of this checkout, or of the collection where it is installed.
    beside = [playbook.parent / "playbooks" / "status.yml", playbook.parent / "status.yml"]
    status = next((str(path) for path in beside if path.is_file()), "roastify.ops.status")
    inventory = "".join(
        f" -i {_short(str(source))}" for source in context.CLIARGS.get("inventory") or () if _typed(source)
    )
    commands = []
    if silent:
        commands.append(f"see why a host does not answer:\nansible{inventory} {','.join(silent[:6])} -m ping -vvv")
    if playbook.name != "status.yml":
        commands.append(f"see what every host serves:\nansible-playbook{inventory} {status}")
    return commands


def _typed(source):
    """Whether an inventory was named on the command line, and is not the one of the configuration."""
    return str(source) not in {str(each) for each in constants.DEFAULT_HOST_LIST}

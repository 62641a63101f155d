# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator reads while a playbook runs: events go in, lines for people come out.

It knows nothing of Ansible and writes nothing itself. The callback ``progress`` translates events into `Step` and
`Outcome` and shows the lines. Of a result only its message, its health answers and its release are ever told, and of a
module that was killed how it ended, so that no argument and no other value of a task can show a secret.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ansible_collections.roastify.ops.plugins.module_utils.tables import align, ambiguous, columns, names, padded

#: How a result counts.
OK, CHANGED, SKIPPED, FAILED, UNREACHABLE, IGNORED = "ok", "changed", "skipped", "failed", "unreachable", "ignored"
#: What is said where Ansible hid a result.
HIDDEN = "(hidden: the task says no_log)"
#: Steps that stand alone in a play are mentioned if they took as long as this, in seconds.
NOTABLE_SECONDS = 3.0
#: Repeated tries are told one by one up to so many, then every tenth: waiting may try hundreds of times.
TRIES_TOLD = 5
#: Texts that are remembered to see at the end whether a failure was told in full.
REMEMBERED = 100
#: Different evidence that is shown where hosts fail for the same reason: in a large fleet one log is like the next.
EVIDENCE_TOLD = 3
#: Evidence in a message, as errors.OperationError has it.
EVIDENCE = re.compile(r"^Evidence:\n(?:(?:[ \t][^\n]*)?(?:\n|\Z))+", re.M)
#: Messages of modules and of Ansible that say less than the result, which is not shown here.
SAYS_LITTLE = re.compile(
    r"^(non-zero return code|module failure|one or more items failed|hidden)|see stdout/stderr"
    r"|ended on the host without an answer",
    re.I,
)
#: What ansible-core 2.19 and later say of a module that ended without a result.
NO_RESULT = "Module result deserialization failed"
#: First words of the failures that only follow another one (playbooks/tasks/abandon.yml, app_release/tasks/lock.yml).
FOLLOWS = re.compile(r"^(failed elsewhere|another host)\b", re.I)
REMEDY = re.compile(r"What to do:[ \t]*(\S.*)")
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
#: Stands for the name of a host in its own message; no text has it, since control characters are taken out.
ITSELF = "\0"
#: How long something took, and how often it was tried; two failures that differ in nothing else are one.
TOOK = re.compile(r"(?<![\w.])\d+(?:\.\d+)? ?(?:ms|s|min|seconds?|minutes?|times|requests)\b")
#: Where Ansible says that a value comes from, as first line of what it knows about the place.
ORIGIN = re.compile(r"^Origin: (?!<unknown>)([^\n]+)")
TITLE_WIDTH = 46
#: Columns that a name or a title may fill: that of a batch names all its hosts, which may be hundreds.
WIDEST = 100
#: Columns that the name of a step keeps in the live line, whatever else is to be said.
NARROWEST = 20
INDENT = " " * 9


class Release(NamedTuple):
    """What tells releases apart.

    Attributes:
        version: for people.
        id: two builds of one version differ in it; empty if it is not known.
    """

    version: str
    id: str = ""


@dataclass(frozen=True)
class Line:
    """One line for people.

    Attributes:
        text: the line, without its end.
        style: one of the kinds of a result, for its colour; empty for none.
    """

    text: str
    style: str = ""


@dataclass(frozen=True)
class Step:
    """A task, as far as it is shown.

    Attributes:
        key: what tells it from other tasks.
        name: its name, for people.
        phase: title of the phase that it belongs to; empty if it stands alone in its play.
        phase_key: what tells that phase from others.
        includes: whether it only brings other tasks.
        speaks: whether its message is meant for people (debug).
        once: whether one host does it for all.
        rescued: whether its play has tasks that deal with its failure.
        follows: whether it deals with a failure.
        reports: whether it does so by failing, to tell the end of it.
        switches: whether its failure leaves unknown which release is live.
        asks: whether it may ask the person at the terminal.
        caught: the blocks of which something runs once it has failed, up to the one that ends its failure.
        catches: the blocks that it belongs to what runs after a failure of.
    """

    key: str
    name: str
    phase: str = ""
    phase_key: str = ""
    includes: bool = False
    speaks: bool = False
    once: bool = False
    rescued: bool = False
    follows: bool = False
    reports: bool = False
    switches: bool = False
    asks: bool = False
    caught: tuple[str, ...] = ()
    catches: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a host made of a step.

    Attributes:
        kind: one of the kinds of a result.
        text: the message.
        answer: the newest health answer, or empty.
        before: what was live before a switch, if the result tells.
        now: what is live now, if the result tells.
        place: file and line of the value or template that failed, or empty.
        delegate: the host that did not answer, where the step is done on another one than the host it is for, or empty.
    """

    kind: str
    text: str = ""
    answer: str = ""
    before: Release | None = None
    now: Release | None = None
    place: str = ""
    delegate: str = ""


@dataclass
class _Tally:
    """What is counted of a play or a phase."""

    title: str
    started: float
    bare: bool = False
    ran: dict[str, None] = field(default_factory=dict)
    changed: dict[str, None] = field(default_factory=dict)
    failed: dict[str, None] = field(default_factory=dict)
    rescued: bool = True
    answer: str = ""

    def count(self, step: Step, host: str, kind: str) -> None:
        # An include is told by its tasks.
        if kind == SKIPPED or (step.includes and kind == OK):
            return
        self.ran[host] = None
        if kind == CHANGED:
            self.changed[host] = None
        if kind in (FAILED, UNREACHABLE) and not step.reports:
            self.failed[host] = None
            self.rescued = self.rescued and step.rescued and kind == FAILED


@dataclass
class _Failure:
    """A failure, of one host or of several that say the same."""

    text: str
    hosts: list[str] = field(default_factory=list)


@dataclass
class _Host:
    """What the table says of a host."""

    seconds: float = 0.0
    before: Release | None = None
    now: Release | None = None
    failed_in: str = ""
    #: The blocks that deal with that failure, for as long as they do.
    dealing: set[str] = field(default_factory=set)
    #: Where it failed last and went on.
    dealt_with: str = ""
    delegate: str = ""
    stopped: bool = False
    followed: bool = False


class Progress:
    """Collects the events of one run and says what is worth telling.

    Every method that takes an event returns the lines to show now, often none: what several hosts say is held back
    until the step ends, to be told once.

    Args:
        clock: seconds that only grow, for instance ``time.monotonic``.
        check: whether the run only shows what it would do.
    """

    def __init__(self, clock: Callable[[], float], check: bool = False) -> None:
        self._clock = clock
        self._check = check
        self._began = self._spoke = clock()
        self._playbook = ""
        self._play: _Tally | None = None
        self._play_told = False
        self._play_hosts: dict[str, None] = {}
        self._fatal = False
        self._phase: _Tally | None = None
        self._phase_key = ""
        self._step: Step | None = None
        self._step_began = self._began
        self._waiting: dict[str, float] = {}
        self._answer = ""
        self._messages: dict[str, list[str]] = {}
        self._failures: dict[tuple[str, str, str, str, Step], _Failure] = {}
        self._said: dict[tuple[str, str, str, str, Step], _Failure] = {}
        self._diffs: dict[str, list[str]] = {}
        self._hosts: dict[str, _Host] = {}
        self._told: deque[str] = deque(maxlen=REMEMBERED)
        self._rescued: dict[tuple[str, str, str], _Failure] = {}
        self._remedies: dict[str, str] = {}
        self._says_little = False
        self._ended = False

    # -- events ---------------------------------------------------------------------------------------

    def start(self, playbook: str, when: str) -> list[Line]:
        """The run begins.

        Args:
            playbook: its name, for people.
            when: date and time, for people.
        """
        self._playbook = plain(playbook)
        lines = [Line(f"{self._playbook}, {when}")]
        if self._check:
            lines.append(Line("CHECK MODE: nothing is changed; what is called changed would be.", CHANGED))
        return self._say(lines)

    def play(self, name: str, fatal: bool = False) -> list[Line]:
        """A play begins, and the one before it has ended.

        Args:
            name: its name.
            fatal: whether a failure on one host stops it for all.
        """
        lines = self._close_play()
        self._play = _Tally(title(name), self._clock(), bare=True)
        self._play_told = False
        self._play_hosts.clear()
        self._waiting.clear()
        self._fatal = fatal
        return self._say(lines)

    def rest(self) -> list[Line]:
        """The play has ended, and what follows is not known yet."""
        return self._say(self._close_play())

    def nobody(self) -> list[Line]:
        """The play that has begun has no hosts."""
        name, self._play = self._play.title if self._play else "", None
        return self._say(self._told_line(SKIPPED, f"{name}: no host of the inventory fits"))

    def step(self, step: Step) -> list[Line]:
        """A task begins, and the one before it has ended where hosts go in step."""
        lines = self._close_step()
        key = step.phase_key if step.phase else step.key
        if self._phase is None or key != self._phase_key:
            lines += self._close_phase()
            self._phase = _Tally(title(step.phase or step.name), self._clock(), bare=not step.phase)
            self._phase_key = key
        self._step = step
        self._step_began = self._clock()
        self._answer = ""
        return self._say(lines)

    def begin(self, host: str) -> None:
        """A host begins the step."""
        self._hosts.setdefault(host, _Host())
        self._play_hosts[host] = None
        self._waiting[host] = self._clock()

    def retry(self, step: Step, host: str, attempt: int, tries: int, outcome: Outcome) -> list[Line]:
        """A try failed and another one follows.

        Args:
            step: the task.
            host: where.
            attempt: number of the try that failed, from 1.
            tries: how many there are at most.
            outcome: what was said.
        """
        self._keep_answer(host, outcome)
        if attempt >= tries or (attempt > TRIES_TOLD and attempt % 10):
            return []
        reason = _first_line(outcome.text)
        said = f"{host}: {title(step.name)} failed, try {attempt + 1} of {tries}" + (f": {reason}" if reason else "")
        return self._say(self._told_line("retry", said, CHANGED))

    def poll(self, host: str, outcome: Outcome) -> None:
        """A host says that it is still at work."""
        self._keep_answer(host, outcome)

    def diff(self, host: str, text: str) -> None:
        """A host shows what it changed or would change."""
        self._diffs.setdefault(plain(text).rstrip(), []).append(host)

    def result(self, step: Step, host: str, outcome: Outcome) -> list[Line]:
        """A host has ended the step."""
        now = self._clock()
        record = self._hosts.setdefault(host, _Host())
        record.seconds += now - self._waiting.pop(host, now)
        for tally in (self._play, self._phase):
            if tally is not None:
                tally.count(step, host, outcome.kind)
        if record.dealing and record.dealing.isdisjoint(step.catches):
            self._go_on(host, record)
        self._keep_answer(host, outcome)
        self._keep_release(record, step, outcome)
        text = plain(outcome.text).strip("\n")
        if outcome.kind in (FAILED, UNREACHABLE, IGNORED):
            self._fail(step, host, record, outcome, text)
        elif step.speaks and outcome.kind != SKIPPED and text:
            self._messages.setdefault(text, []).append(host)
        # Nobody has to wait for the end of the step where one host speaks for all.
        return self._say(self._tell_messages()) if step.speaks and step.once else []

    def pause(self, why: str) -> list[Line]:
        """Something that concerns all hosts is to be told."""
        return self._say([*self._close_step(), *self._told_line(SKIPPED, why)])

    def end(self, statistics: Mapping[str, Mapping[str, int]], next_commands: Sequence[str] = ()) -> list[Line]:
        """The run has ended: what is left to tell, the table, and what next.

        Args:
            statistics: of each host how often ``changed``, ``failures``, ``unreachable`` and ``rescued``.
            next_commands: what helps after a failure, a command with what it shows in each.
        """
        lines = self._close_play()
        self._ended = True
        bad = [host for host, count in statistics.items() if count.get("failures") or count.get("unreachable")]
        lines += self._tell_rescued(bad)
        records = [self._hosts.get(host, _Host()) for host in statistics]
        alike = ambiguous(release for record in records for release in (record.before, record.now) if release)
        rows = [self._row(host, count, bool(bad), alike) for host, count in statistics.items()]
        if rows:
            # A column that says nothing is left out.
            columns = ["host", "result", *(["release"] if any(row["release"] for row in rows) else [])]
            columns += ["would change" if self._check else "changed", "time"]
            cells = [
                [row["changed" if column == "would change" else column] or "-" for column in columns] for row in rows
            ]
            heading, *body = align([columns, *cells])
            styles = [row["style"] for row in rows]
            lines += [Line(""), Line(heading), *(Line(text, style) for text, style in zip(body, styles))]
        lines.append(Line(""))
        took = duration(self._clock() - self._began)
        if bad:
            stopped = [row["host"] for row in rows if row["result"].startswith("stopped")]
            where = names([host for host in bad if host not in stopped], 20)
            others = f"; stopped with it: {names(stopped)}" if stopped else ""
            lines.append(Line(f"{self._playbook} FAILED after {took} on {where}{others}", FAILED))
            lines += self._what_next(next_commands)
        else:
            ended = "done in check mode, nothing was changed," if self._check else "done"
            lines.append(Line(f"{self._playbook}: {ended} in {took}", OK))
        return self._say(lines)

    def interrupted(self, next_commands: Sequence[str] = (), reason: str = "", place: str = "") -> list[Line]:
        """The process ends before the run does; nothing if the run has ended.

        Args:
            next_commands: as in `end`.
            reason: the error that ended it; empty if somebody interrupted it.
            place: file and line that the error is about, or empty.
        """
        if self._ended or not self._playbook:
            return []
        self._ended = True
        where = f" in {self._phase.title}" if self._phase else ""
        waiting = f"; no answer yet from {names(list(self._waiting))}" if self._waiting else ""
        lines = [*self._close_step(), Line("")]
        took = duration(self._clock() - self._began)
        if not reason:
            lines.append(Line(f"{self._playbook} was INTERRUPTED after {took}{where}{waiting}", FAILED))
            again = "run the same command again, which ends or undoes what was begun: there is nothing to clear up"
            return self._say(lines + self._what_next([again, *next_commands]))
        lines.append(Line(f"{self._playbook} FAILED after {took}{where}{waiting}", FAILED))
        lines += [Line(f"{INDENT}{part}".rstrip(), FAILED) for part in _placed(plain(reason), place).split("\n")]
        if not set(self._hosts) - {"localhost"}:
            # Whatever else looks at the same files fails in the same way.
            lines.append(Line(f"{INDENT}No host had begun: nothing was changed on any.", FAILED))
            next_commands = ["put right what the message says, and run the same command again"]
        return self._say(lines + self._what_next(next_commands))

    def silent(self, hosts: Sequence[str]) -> list[str]:
        """Which hosts did not answer, where the play lost some.

        Args:
            hosts: those that it lost: what was asked in vain may have been another host, for them.
        """
        return list(dict.fromkeys(self._hosts.get(host, _Host()).delegate or host for host in hosts))

    # -- what is under way ----------------------------------------------------------------------------

    def live(self, width: int = 0) -> str:
        """What is under way, in one line; empty if nothing is.

        Args:
            width: columns that it may fill; 0 for any number.
        """
        if self._step is None or self._step.asks or self._ended:
            return ""
        phase = self._phase.title if self._phase else ""
        name = title(self._step.name)
        failed = {host for key, failure in self._failures.items() if key[0] != IGNORED for host in failure.hosts}
        parts = [duration(self._clock() - self._step_began)]
        if self._waiting:
            parts.append(f"waiting for {self._names(self._waiting, 4)}")
        if failed:
            parts.append(f"failed: {self._names(failed, 4)}")
        if self._answer:
            parts.append(f"last health answer, {self._answer}")
        rest = "; ".join(parts)
        whole = f"{self._time()}  {phase}: {name}  {rest}"
        if phase in ("", name) or name.startswith(phase) or (width and columns(whole) > width):
            # Whom it waits for matters more than the phase, which the lines above tell as well, and than a long name.
            room = width - columns(f"{self._time()}    {rest}") if width else WIDEST
            whole = f"{self._time()}  {clip(name, max(room, NARROWEST))}  {rest}"
        return clip(whole, width) if width else whole

    def heartbeat(self, silence: float) -> list[Line]:
        """What is under way, if nothing was told for a while.

        Args:
            silence: seconds without a line.
        """
        text = self.live()
        if not text or self._clock() - self._spoke < silence:
            return []
        return self._say([Line(text, SKIPPED)])

    # -- inside ---------------------------------------------------------------------------------------

    def _say(self, lines: list[Line]) -> list[Line]:
        if lines:
            self._spoke = self._clock()
        return lines

    def _time(self) -> str:
        seconds = int(self._clock() - self._began)
        return f"{seconds // 60:02}:{seconds % 60:02}"

    def _told_line(self, mark: str, text: str, style: str | None = None) -> list[Line]:
        """A line with time and mark, under the heading of its play."""
        lines = self._heading()
        lines.append(Line(f"{self._time()}    {mark:<7}  {text}", mark if style is None else style))
        return lines

    def _heading(self) -> list[Line]:
        """The title of the play, before the first line that belongs to it."""
        if self._play is None or self._play_told:
            return []
        self._play_told = True
        return [Line(f"{self._time()}  {self._play.title}")]

    def _names(self, hosts: Iterable[str], limit: int = 6) -> str:
        """Hosts in the order in which they began, which is that of the inventory."""
        wanted = set(hosts)
        return names([host for host in self._hosts if host in wanted], limit)

    def _keep_answer(self, host: str, outcome: Outcome) -> None:
        if outcome.answer:
            self._answer = f"{host}: {' '.join(_first_line(outcome.answer).split())}"
            if self._phase is not None:
                self._phase.answer = self._answer

    def _keep_release(self, record: _Host, step: Step, outcome: Outcome) -> None:
        record.before = record.before or outcome.before or outcome.now
        if step.switches and outcome.kind == FAILED:
            record.now = Release("unknown")
        elif outcome.now:
            record.now = outcome.now

    def _go_on(self, host: str, record: _Host) -> None:
        """A host does something else after a failure was dealt with: that one is not to blame for what comes now."""
        record.dealt_with, record.failed_in = record.failed_in or record.dealt_with, ""
        record.dealing.clear()
        for key, failure in list(self._rescued.items()):
            failure.hosts = [each for each in failure.hosts if each != host]
            if not failure.hosts:
                del self._rescued[key]

    def _fail(self, step: Step, host: str, record: _Host, outcome: Outcome, text: str) -> None:
        kind, place, delegate = outcome.kind, plain(outcome.place), plain(outcome.delegate)
        # "Nothing was changed on app1" and "... on app2" are one message.
        neutral = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-]|\.\w)", ITSELF, text)
        alike = (text, kind, place, delegate, step)
        failure = self._said.get(alike)
        if failure is None:
            failure = self._failures.setdefault((kind, _timeless(neutral), place, delegate, step), _Failure(neutral))
            self._said[alike] = failure
        else:
            # What all say of all of them, of their batch for instance, is one message as it is.
            failure.text = text
        failure.hosts.append(host)
        if kind == IGNORED:
            return
        if kind == UNREACHABLE:
            record.delegate = delegate
        rescued = kind == FAILED and step.rescued
        elsewhere = bool(FOLLOWS.match(text))
        # What deals with a failure may fail in turn: the first one is what matters.
        if not elsewhere and not (record.failed_in and (rescued or step.follows) and kind == FAILED):
            record.failed_in = self._phase.title if self._phase else title(step.name)
        if rescued:
            # What fails while it deals with another failure may leave that one as it is, until all of that is over.
            record.dealing.update(step.caught, step.catches if step.caught else ())
            if len(self._rescued) < REMEMBERED:
                rescue = self._rescued.setdefault((title(step.name), _timeless(text), place), _Failure(text))
                rescue.hosts.append(host)
            return
        # Nothing brings the host back: whatever runs there now runs because of this.
        record.dealing.clear()
        if self._fatal:
            # What one host does for all ends it for all, also for those that this play has not begun on.
            for other in [each for each in self._hosts if each != "localhost"] if step.once else self._play_hosts:
                self._hosts[other].stopped = True
        record.stopped = elsewhere
        record.followed = step.follows
        self._learn(text)

    def _learn(self, text: str) -> None:
        """Keep what a failure says about what to do."""
        for remedy in REMEDY.findall(text):
            if len(self._remedies) < REMEMBERED:
                self._remedies.setdefault(_timeless(remedy), remedy.strip())
        self._says_little = self._says_little or bool(SAYS_LITTLE.search(text)) or text == HIDDEN

    def _close_step(self) -> list[Line]:
        lines = self._tell_diffs() + self._tell_failures() + self._tell_messages()
        self._step = None
        return lines

    def _close_phase(self) -> list[Line]:
        phase, self._phase = self._phase, None
        if phase is None or not phase.ran:
            return []
        seconds = self._clock() - phase.started
        if phase.bare and not phase.changed and (phase.failed or seconds < NOTABLE_SECONDS):
            return []
        return self._summary(phase)

    def _close_play(self) -> list[Line]:
        lines = self._close_step() + self._close_phase()
        play = self._play
        if play is not None and not self._play_told and play.ran:
            # No phase of its own was worth a line: the play is one.
            self._play_told = True
            lines += self._summary(play)
        self._play = None
        return lines

    def _summary(self, tally: _Tally) -> list[Line]:
        """The line of a phase that has ended."""
        done = len(tally.ran) - len(tally.failed)
        mark, style = "done", CHANGED if tally.changed else OK
        if tally.failed:
            mark, style = ("failed", CHANGED) if tally.rescued else ("FAILED", FAILED)
        text = (
            f"{padded(tally.title, TITLE_WIDTH)}  {done}/{len(tally.ran)}  {duration(self._clock() - tally.started):>7}"
        )
        notes = []
        if tally.failed:
            notes.append(f"failed on {self._names(tally.failed)}")
        if tally.changed:
            everywhere = len(tally.changed) == len(tally.ran) > 2
            where = f"all {len(tally.ran)}" if everywhere else self._names(tally.changed)
            notes.append(f"{'would change' if self._check else 'changed'} on {where}")
        lines = self._told_line(mark, "  ".join([text, "; ".join(notes)]).rstrip(), style)
        if tally.answer:
            lines.append(Line(f"{'':9}{'':9}last health answer, {tally.answer}", style))
        return lines

    def _tell_diffs(self) -> list[Line]:
        lines: list[Line] = []
        for text, hosts in self._diffs.items():
            lines += self._told_line(
                "diff", f"{self._names(hosts)}: {title(self._step.name) if self._step else ''}", CHANGED
            )
            lines += [Line(part, _diff_style(part)) for part in text.split("\n")]
        self._diffs.clear()
        return lines

    def _by_reason(self) -> Iterator[tuple[tuple[str, str, str, Step], _Failure]]:
        """The failures of the step, those for the same reason beside each other, and only some with their evidence."""
        groups: dict[tuple[str, str, str, str, Step], list[_Failure]] = {}
        # What failed by itself comes before what only followed it.
        for key, failure in sorted(self._failures.items(), key=lambda each: bool(FOLLOWS.match(each[1].text))):
            kind, _timeless_text, place, delegate, step = key
            reason = _reason(failure.text) if _in_full(kind, step) else _timeless(_first_line(failure.text))
            groups.setdefault((kind, place, delegate, reason, step), []).append(failure)
        for (kind, place, delegate, _same, step), failures in groups.items():
            first = failures[0]
            if not _in_full(kind, step):
                failures = [_Failure(first.text, [host for failure in failures for host in failure.hosts])]
            elif len(failures) > EVIDENCE_TOLD:
                others = [host for failure in failures[EVIDENCE_TOLD:] for host in failure.hosts]
                told = f"the same as on {self._names(first.hosts)}, each with evidence of its own"
                failures = [*failures[:EVIDENCE_TOLD], _Failure(told, others)]
            for failure in failures:
                yield (kind, place, delegate, step), failure

    def _tell_failures(self) -> list[Line]:
        lines: list[Line] = []
        for (kind, place, delegate, step), failure in self._by_reason():
            where, name = self._names(failure.hosts, 20), title(step.name)
            text = _placed(failure.text.replace(ITSELF, where), place)
            where += f" -> {delegate}" if delegate else ""
            first, _, body = text.partition("\n")
            style = kind
            if kind == IGNORED:
                lines += self._told_line(IGNORED, f"{where}: {name}: {first}", CHANGED)
                continue
            if kind == FAILED and step.rescued:
                lines += self._told_line("rescue", f"{where}: {name}: {first}", CHANGED)
                continue
            self._told.append(_reason(text))
            if FOLLOWS.match(text):
                said = "another host failed" if first.lower().startswith("failed elsewhere") else first
                style = CHANGED
                lines += self._told_line("stopped", f"{where}: {said}", style)
            else:
                lines += self._told_line("UNREACHABLE" if kind == UNREACHABLE else "FAILED", f"{where}: {name}", kind)
                body = text
            lines += [Line(f"{INDENT}{part}".rstrip(), style) for part in body.split("\n") if body]
        self._failures.clear()
        self._said.clear()
        return lines

    def _tell_messages(self) -> list[Line]:
        lines = self._heading() if self._messages else []
        several = len(self._messages) > 1 or (self._play is not None and len(self._play.ran) > 1)
        for text, hosts in self._messages.items():
            self._told.append(_reason(text))
            everybody = self._play is not None and len(hosts) == len(self._play.ran)
            named = several and not everybody and not (self._step is not None and self._step.once)
            parts = text.split("\n")
            if named and len(parts) == 1:
                parts = [f"{self._names(hosts)}: {text}"]
            elif named:
                parts = [f"{self._names(hosts)}:", *parts]
            lines += [Line(part.rstrip()) for part in parts]
        self._messages.clear()
        return lines

    def _tell_rescued(self, bad: Sequence[str]) -> list[Line]:
        """Failures that were told in one line because something dealt with them, where the run failed all the same."""
        lines: list[Line] = []
        for (name, _timeless_text, place), failure in self._rescued.items():
            concerned = [host for host in failure.hosts if host in bad and self._hosts[host].followed]
            if concerned:
                text = failure.text
                self._learn(text)
                if not any(_reason(text) in told for told in self._told):
                    lines += [Line(""), Line(f"FAILED before, {self._names(concerned, 20)}: {name}", FAILED)]
                    lines += [Line(f"{INDENT}{part}".rstrip(), FAILED) for part in _placed(text, place).split("\n")]
        return lines

    def _row(self, host: str, count: Mapping[str, int], failed: bool, alike: frozenset[str]) -> dict[str, str]:
        record = self._hosts.get(host, _Host())
        where = f": {record.failed_in}" if record.failed_in else ""
        style = OK
        if count.get("unreachable"):
            other = f" -> {record.delegate}" if record.delegate else ""
            result, style = f"UNREACHABLE{other}{where}", UNREACHABLE
        elif count.get("failures") and not (record.stopped and not record.failed_in):
            result, style = f"FAILED{where}", FAILED
        elif failed and record.stopped:
            result, style = "stopped, another host failed", CHANGED
        elif count.get("rescued"):
            last = record.failed_in or record.dealt_with
            result, style = "ok, after a failure" + (f": {last}" if last else ""), CHANGED
        else:
            result = OK
        before, now = (
            (release.id or release.version) if release and release.version in alike else release and release.version
            for release in (record.before, record.now)
        )
        release = f"{before} -> {now or 'unknown'}" if before and before != now else now or ""
        changed = count.get("changed", 0)
        style = CHANGED if changed and style == OK else style
        seconds = duration(record.seconds)
        return {
            "host": host, "result": result, "release": release, "changed": str(changed), "time": seconds, "style": style
        }  # fmt: skip

    def _what_next(self, commands: Sequence[str]) -> list[Line]:
        steps = [*self._remedies.values(), *commands]
        if self._says_little:
            steps.append("run the same command again with -v: it shows results in full, which may hold secrets")
        lines = [Line("What next:")] if steps else []
        for number, step in enumerate(steps, 1):
            first, *rest = step.split("\n")
            lines += [Line(f"  {number}. {first}"), *(Line(f"     {part}") for part in rest)]
        return lines


# -- text ---------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text without anything that would move a cursor or colour a terminal: what hosts answer is shown, not obeyed.

    Args:
        text: any text; line ends and tabs stay.
    """
    text = ESCAPE.sub("", text.replace("\r\n", "\n"))
    return "".join(
        letter if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Zl", "Zp") else " "
        for letter in text
    ) if not text.isprintable() else text  # fmt: skip


def clip(text: str, width: int) -> str:
    """Text cut to a width.

    Args:
        text: one line.
        width: columns of the terminal that it may fill; wide letters take two.
    """
    if columns(text) <= width:
        return text
    used = 0
    for index, letter in enumerate(text):
        used += columns(letter)
        if used > max(0, width - 3):
            return text[:index] + "..."
    return text


def title(text: str, width: int = WIDEST) -> str:
    """A name in one line, whatever somebody wrote or a loop put into it.

    Args:
        text: the name; of what follows a colon, hosts for instance, as many are kept as there is room for.
        width: columns that it may fill.
    """
    short = text = " ".join(plain(text).split())
    head, colon, tail = text.partition(": ")
    parts = tail.split(", ")
    for limit in range(6, 0, -1):
        if columns(short) <= width:
            return short
        short = head + colon + names(parts, limit)
    return clip(short, width)


def duration(seconds: float) -> str:
    """A time for people.

    Args:
        seconds: how long.
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60} s"


def _timeless(text: str) -> str:
    """Text in one line, without how long and how often."""
    return " ".join(TOOK.sub("~", text).split())


def _in_full(kind: str, step: Step) -> bool:
    """Whether a failure is told in full: of what is ignored or dealt with one line is."""
    return kind != IGNORED and not (kind == FAILED and step.rescued)


def _reason(text: str) -> str:
    """The same without evidence, too."""
    return _timeless(EVIDENCE.sub("", text))


def _placed(text: str, place: str) -> str:
    """A message with the place that it is about, in its first line, which is always shown."""
    first, newline, rest = text.partition("\n")
    return f"{first} (at {place}){newline}{rest}" if place else text


def _first_line(text: str) -> str:
    lines = plain(text).strip().splitlines()
    return lines[0] if lines else ""


def _diff_style(line: str) -> str:
    return {"+": OK, "-": FAILED}.get(line[:1], "")


# -- results ------------------------------------------------------------------------------------------


def text_of(result: Mapping[str, Any]) -> str:
    """What a result says to people, and nothing else of it.

    Args:
        result: the result of a task or of an item of its loop.
    """
    if _is_hidden(result):
        return HIDDEN
    text = _readable(result.get("msg"))
    return _killed(result) if NO_RESULT in text else text


def spoken_by(result: Mapping[str, Any]) -> str:
    """What a task said that only speaks (debug): its message, or the variable that it was asked for.

    Args:
        result: the result of a task or of an item of its loop.
    """
    if _is_hidden(result):
        return HIDDEN
    if "msg" in result:
        return _readable(result["msg"])
    about = ("changed", "failed", "skipped", "item", "results", "warnings", "deprecations", "exception")
    return "\n".join(
        f"{key}: {_readable(value)}"
        for key, value in result.items()
        if key not in about and not key.startswith(("_", "ansible_"))
    )


def answer_of(result: Mapping[str, Any]) -> str:
    """The newest health answer that a result brings, or an empty text.

    Args:
        result: the result of a task.
    """
    answers = result.get("answers")
    if _is_hidden(result) or not isinstance(answers, (list, tuple)) or not answers:
        return ""
    return answers[-1] if isinstance(answers[-1], str) else ""


def places_of(error: Any) -> list[str]:
    """Where the values come from that an error of Ansible is about; of a task that failed, the task itself first.

    Args:
        error: summary of an error as ansible-core 2.19 and later keep it beside a result, or an exception.

    Returns:
        Files with line and column (``group_vars/app.yml:3:9``), from the outermost to the value itself, each once. The
        lines themselves are left out: a variable may hold a secret. Empty if it does not tell.
    """
    places: dict[str, None] = {}
    pending, seen = [getattr(error, "event", error)], 0
    while pending and seen < REMEMBERED:
        each, seen = pending.pop(0), seen + 1
        if each is None:
            continue
        exception = isinstance(each, BaseException)
        told = getattr(each, "_formatted_source_context" if exception else "formatted_source_context", None)
        found = ORIGIN.match(told) if isinstance(told, str) else None
        if found:
            places[found[1].strip()] = None
        if exception:
            pending.append(each.__cause__ or each.__context__)
        else:
            pending += [getattr(getattr(each, "chain", None), "event", None), *(getattr(each, "events", None) or ())]
    return list(places)


def releases_of(result: Mapping[str, Any]) -> tuple[Release | None, Release | None]:
    """The releases before and after, of the results of release_info (``live``) and release_activate (``release``).

    Args:
        result: the result of a task.

    Returns:
        Release before and release now; None where the result does not tell.
    """
    if _is_hidden(result):
        return None, None
    if "live" in result:
        return None, _release(result["live"])
    if "previous" in result and "release" in result:
        return _release(result["previous"]), _release(result["release"])
    return None, None


def _killed(result: Mapping[str, Any]) -> str:
    """What is known of a module that ended without a result.

    Of the rest of its output nothing is told: it may be anything.
    """
    stderr = result.get("module_stderr")
    lines = stderr.strip().splitlines() if isinstance(stderr, str) else []
    return (
        f"it ended on the host without an answer, exit code {result.get('rc', 'unknown')}: it was killed, or could not "
        f"start. What to do: look for the reason (memory: journalctl -k; Python: {lines[-1] if lines else 'nothing'}), "
        "then run the same command again"
    )


def _is_hidden(result: Mapping[str, Any]) -> bool:
    return bool(result.get("censored") or result.get("_ansible_no_log"))


def _release(manifest: Any) -> Release | None:
    if not isinstance(manifest, Mapping):
        return None
    version, identifier = (
        value if isinstance(value, str) and re.fullmatch(r"[\w.+-]{1,120}", value) else ""
        for value in (manifest.get("version"), manifest.get("id"))
    )
    return Release(version, identifier) if version else None


def _readable(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        value = list(value)
        if all(isinstance(part, str) for part in value):
            return "\n".join(value)
    return json.dumps(value, ensure_ascii=False, default=str, indent=2)

"""What an operator reads: events in, lines out."""

import tracemalloc

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import progress
from ansible_collections.roastify.ops.plugins.module_utils.progress import Outcome, Progress, Release, Step

FLEET = ("app1", "app2", "app3")
OLD, NEW = Release("1.0.0", "20260101T000000Z-1.0.0-aaaaaaa"), Release("1.1.0", "20260102T000000Z-1.1.0-bbbbbbb")
FINE = {"changed": 0, "failures": 0, "unreachable": 0, "rescued": 0}


class Run:
    """One run, with a clock that only moves when it is told to."""

    def __init__(self, check=False):
        self.now = 100.0
        self.lines = []
        self.progress = Progress(lambda: self.now, check)
        self.show(self.progress.start("deploy.yml", "2026-01-02 03:04:05 UTC"))

    def show(self, lines):
        self.lines += lines

    def play(self, title="Deploy", fatal=False):
        self.show(self.progress.play(title, fatal))

    def step(self, step, outcomes, seconds=1.0):
        """Every host begins, and all end after some seconds."""
        self.show(self.progress.step(step))
        for host in outcomes:
            self.progress.begin(host)
        self.now += seconds
        for host, outcome in outcomes.items():
            self.show(self.progress.result(step, host, outcome))

    def end(self, commands=(), **counts):
        hosts = {host: {**FINE, **counts.get(host, {})} for host in FLEET}
        self.show(self.progress.end(hosts, commands))

    @property
    def text(self):
        return "\n".join(line.text for line in self.lines)


def stage(name="Transfer", **more):
    return Step(key=name, name=name, phase="Stage the release", phase_key="stage", **more)


def alone(name, **more):
    return Step(key=name, name=name, **more)


def all_hosts(*outcome):
    return {host: Outcome(*outcome) for host in FLEET}


@pytest.fixture
def run():
    run = Run()
    run.play()
    return run


def test_a_phase_is_one_line_with_its_hosts_its_time_and_what_it_changed(run):
    run.step(stage("Transfer"), {**all_hosts("ok"), "app3": Outcome("changed")}, 2)
    run.step(stage("Unpack"), all_hosts("ok"), 3)
    run.step(alone("Next"), all_hosts("ok"))
    assert [line.text.split() for line in run.lines[1:]] == [
        ["00:05", "Deploy"],
        ["00:05", "done", "Stage", "the", "release", "3/3", "5.0", "s", "changed", "on", "app3"],
    ]


def test_a_phase_or_a_play_that_all_hosts_skip_is_not_told(run):
    before = list(run.lines)
    run.step(stage(), all_hosts("skipped"))
    run.play("Another")
    assert run.lines == before


def test_hosts_that_skip_do_not_count(run):
    run.step(stage(), {**all_hosts("skipped"), "app1": Outcome("ok")})
    run.play("Another")
    assert "1/1" in run.text


def test_an_include_is_told_by_its_tasks_only(run):
    include = Step("include", "Stage the release", "Stage the release", "stage", includes=True)
    run.step(include, all_hosts("ok"))
    run.play("Another")
    assert "Stage the release" not in run.text


def test_small_steps_that_stand_alone_are_not_told_where_phases_are(run):
    run.step(alone("Choose"), all_hosts("ok"))
    run.step(stage(), all_hosts("ok"))
    run.step(alone("Mend"), all_hosts("changed"))
    run.step(alone("Wait"), all_hosts("ok"), progress.NOTABLE_SECONDS)
    run.play("Another")
    assert "Choose" not in run.text
    assert "Mend" in run.text and "Wait" in run.text


def test_a_play_of_small_steps_is_one_phase(run):
    run.step(alone("Choose"), all_hosts("ok"))
    run.step(alone("Choose again"), all_hosts("ok"))
    run.end()
    assert [line.text.split()[:3] for line in run.lines[1:2]] == [["00:02", "done", "Deploy"]]


def test_a_play_without_hosts_says_so_once(run):
    run.show(run.progress.nobody())
    run.play("Another")
    assert run.text.count("Deploy:") == 1 and "no host of the inventory fits" in run.text


def test_a_failure_is_told_in_full_once_with_its_hosts(run):
    message = "the gate stays shut\nWhat to do: look at the log\nEvidence:\n  HTTP 503\n\n  HTTP 502"
    run.step(
        stage("Gate"), {"app1": Outcome("ok"), "app2": Outcome("failed", message), "app3": Outcome("failed", message)}
    )
    run.end(app2={"failures": 1}, app3={"failures": 1})
    indented = "\n".join(("         " + line).rstrip() for line in message.split("\n"))
    assert f"FAILED   app2, app3: Gate\n{indented}\n" in run.text
    assert run.text.count("HTTP 503") == 1
    assert "1/3" in run.text and "failed on app2, app3" in run.text
    assert "deploy.yml FAILED after 1.0 s on app2, app3" in run.text
    assert "  1. look at the log" in run.text


def test_messages_that_differ_by_the_name_of_the_host_only_are_one(run):
    look = stage("Look")
    run.step(look, {host: Outcome("failed", f"Nothing was changed. On {host}:\nno disk") for host in FLEET})
    run.step(look, {host: Outcome("failed", f"no {host}.example and no my-{host}") for host in FLEET})
    run.end(**{host: {"failures": 1} for host in FLEET})
    assert "app1, app2, app3: Look\n         Nothing was changed. On app1, app2, app3:\n         no disk" in run.text
    # A name within another name is another text.
    assert "app2: Look\n         no app2.example and no my-app2" in run.text


def test_what_all_hosts_say_of_all_of_them_is_one(run):
    run.step(stage("Leave"), all_hosts("failed", "Nothing was changed on app1, app2, app3: nobody else serves"))
    run.end(**{host: {"failures": 1} for host in FLEET})
    told = "FAILED   app1, app2, app3: Leave\n         Nothing was changed on app1, app2, app3: nobody else serves\n"
    assert told in run.text and run.text.count("nobody else") == 1


def test_failures_that_differ_by_the_time_they_took_only_are_one(run):
    run.step(
        stage("Gate"),
        {
            "app1": Outcome("failed", "No answer after 3.1 s\nEvidence:\n  HTTP 503 in 4 ms"),
            "app2": Outcome("failed", "No answer after 3.2 s\nEvidence:\n  HTTP 503 in 12 ms"),
            "app3": Outcome("failed", "No answer after 3 tries"),
        },
    )
    run.end(**{host: {"failures": 1} for host in FLEET})
    assert "FAILED   app1, app2: Gate\n         No answer after 3.1 s\n" in run.text
    assert "3.2 s" not in run.text and "FAILED   app3: Gate\n         No answer after 3 tries" in run.text


def unfit(process):
    return f"not fit\nWhat to do: mend it\nEvidence:\n  {process} ended\n\n  nothing listens\nIt serves 1.0.0"


def test_a_fleet_that_fails_for_one_reason_shows_the_evidence_of_some_hosts():
    run = Run()
    run.play(fatal=True)
    fleet = [f"h{number:03}" for number in range(1, 101)]
    # Each log has times and process ids of its own.
    run.step(stage("Try", rescued=True), {host: Outcome("failed", unfit(host[1:])) for host in fleet})
    run.step(alone("Report", follows=True, reports=True), {
        host: Outcome("failed", f"{host}, Try: {unfit(host[1:])}") for host in fleet
    })  # fmt: skip
    run.show(run.progress.end({host: {**FINE, "failures": 1, "rescued": 1} for host in fleet}))
    head, table = run.text.split("\nhost ")
    assert f"rescue   {', '.join(fleet[:20])} and 80 more: Try: not fit" in head
    assert head.count("Evidence:") == 3 and "FAILED before" not in head
    assert "FAILED   h001: Report\n         h001, Try: not fit" in head
    assert "FAILED   h004, h005" in head
    assert "and 77 more: Report\n         the same as on h001, each with evidence of its own" in head
    assert len(head.split("\n")) < 35 and "h100  FAILED: Stage the release" in table
    assert table.count("mend it") == 1


def test_what_hosts_say_beside_their_evidence_is_told_of_each(run):
    """Problems of a host are no evidence: each has what to do."""
    problems = {f"h{number}": Outcome("failed", f"Nothing was changed:\n  - no {number}") for number in range(9)}
    run.step(stage("Look"), problems)
    run.end()
    assert run.text.count("Nothing was changed:") == 9


def test_a_failure_that_was_reported_with_another_time_is_not_told_again():
    run = Run()
    run.play(fatal=True)
    run.step(stage("Gate", rescued=True), {"app2": Outcome("failed", "shut after 3.1 s\nmore")})
    run.step(alone("Report", follows=True), {"app2": Outcome("failed", "app2: shut after 3.2 s\nmore")})
    run.end(app2={"failures": 1})
    assert "FAILED before" not in run.text and run.text.count("more") == 1


def test_a_failure_is_told_with_the_place_that_it_is_about(run):
    outcome = Outcome("failed", "'x' is undefined\nmore", place="group_vars/app.yml:3:9, used at site.yml:7:5")
    run.step(stage("Install"), {host: outcome for host in FLEET})
    run.step(stage("Install again", rescued=True), {"app1": outcome})
    run.end(**{host: {"failures": 1} for host in FLEET})
    told = "'x' is undefined (at group_vars/app.yml:3:9, used at site.yml:7:5)"
    assert f"FAILED   app1, app2, app3: Install\n         {told}\n         more" in run.text
    assert f"rescue   app1: Install again: {told}\n" in run.text


class Event:
    """As ansible-core describes an error."""

    def __init__(self, context=None, cause=None, events=None):
        self.formatted_source_context = context
        self.chain = type("Chain", (), {"event": cause}) if cause else None
        self.events = events


def test_the_places_of_an_error_are_told_without_the_lines_that_stand_there():
    secret = "Origin: /x/vars.yml:3:9\n\n3 password: s3cr3t\n            ^ column 9"
    cause = Event("Origin: /x/site.yml:7:5", Event("Origin: /x/site.yml:7:5", Event(secret)))
    error = type("Summary", (), {"event": Event("Origin: /x/site.yml:6:3", cause)})
    assert progress.places_of(error) == ["/x/site.yml:6:3", "/x/site.yml:7:5", "/x/vars.yml:3:9"]
    several = Event(None, None, (Event("Origin: <unknown>"), Event("Origin: <CLI option '-e'>")))
    assert progress.places_of(type("Summary", (), {"event": several})) == ["<CLI option '-e'>"]
    assert progress.places_of(None) == progress.places_of("text") == progress.places_of({"event": 1}) == []


def test_the_place_of_an_exception_is_found_in_its_cause():
    class Broken(Exception):
        _formatted_source_context = "Origin: /x/vars.yml:2:4"

    try:
        try:
            raise Broken
        except Broken:
            # Deliberately without `from`: so does Ansible where it reads group_vars.
            raise ValueError("YAML parsing failed")  # noqa: B904
    except ValueError as error:
        assert progress.places_of(error) == ["/x/vars.yml:2:4"]


def test_different_failures_are_told_apart(run):
    run.step(stage("Gate"), {"app1": Outcome("failed", "one"), "app2": Outcome("failed", "two")})
    run.end(app1={"failures": 1}, app2={"failures": 1})
    assert "app1: Gate\n         one" in run.text
    assert "app2: Gate\n         two" in run.text


def test_an_unreachable_host_is_told_clearly(run):
    run.step(stage("Transfer"), {**all_hosts("ok"), "app2": Outcome("unreachable", "Connection refused")})
    run.end(["see why:\nansible app2 -m ping"], app2={"unreachable": 1})
    assert "UNREACHABLE  app2: Transfer\n         Connection refused" in run.text
    assert "app2  UNREACHABLE: Stage the release" in run.text
    assert "  1. see why:\n     ansible app2 -m ping" in run.text


def test_of_a_step_for_another_host_the_one_that_does_not_answer_is_named(run):
    refused = Outcome("unreachable", "Connection refused", delegate="balancer1")
    elsewhere = Outcome("unreachable", "Connection refused", delegate="balancer2")
    run.step(stage("Drain"), {"app1": refused, "app2": refused, "app3": elsewhere})
    run.step(stage("Note"), {"app1": Outcome("ignored", "Connection refused", delegate="balancer1")})
    run.end(app1={"unreachable": 1}, app2={"unreachable": 1}, app3={"unreachable": 1})
    assert "UNREACHABLE  app1, app2 -> balancer1: Drain\n         Connection refused" in run.text
    assert "UNREACHABLE  app3 -> balancer2: Drain\n" in run.text
    assert "ignored  app1 -> balancer1: Note: Connection refused" in run.text
    assert "app1  UNREACHABLE -> balancer1: Stage the release" in run.text
    hosts = [*FLEET, "new"]
    assert run.progress.silent(hosts) == ["balancer1", "balancer2", "new"]
    # Another time it was the host itself.
    run.step(stage("Note"), {"app1": Outcome("unreachable", "Connection refused")})
    assert run.progress.silent(hosts) == ["app1", "balancer1", "balancer2", "new"]


def test_an_ignored_failure_is_one_line_and_no_failure_of_the_run(run):
    run.step(stage("Look"), all_hosts("ignored", "not there\nat all"))
    run.end()
    assert "ignored  app1, app2, app3: Look: not there" in run.text
    assert "at all" not in run.text and "FAILED" not in run.text
    assert "deploy.yml: done in 1.0 s" in run.text


def test_a_failure_that_was_dealt_with_is_one_line_and_no_failure_of_the_run(run):
    run.step(stage("Gate", rescued=True), {**all_hosts("ok"), "app2": Outcome("failed", "shut\nEvidence: 503")})
    run.step(alone("Mend", follows=True), {"app2": Outcome("ok")})
    run.end(app2={"rescued": 1})
    assert "rescue   app2: Gate: shut" in run.text
    assert "503" not in run.text and "FAILED" not in run.text
    assert "app2  ok, after a failure: Stage the release" in run.text


OPTIONAL = alone("Optional", rescued=True, caught=("small",))
WITHOUT = alone("Go on without", follows=True, catches=("small",))
GATE = alone("Gate", rescued=True, caught=("outer",))
REPORT = alone("Report", follows=True, reports=True, catches=("outer",))


def test_a_failure_that_was_dealt_with_is_not_to_blame_for_a_later_one():
    run = Run()
    run.play(fatal=True)
    run.step(OPTIONAL, {"app1": Outcome("failed", "not there\nmore of it"), "app2": Outcome("failed", "not there")})
    run.step(WITHOUT, {"app1": Outcome("ok"), "app2": Outcome("ok")})
    # One fails at once, the other after it has gone on.
    run.step(GATE, {"app1": Outcome("failed", "shut"), "app2": Outcome("ok"), "app3": Outcome("ok")})
    run.step(GATE, {"app2": Outcome("failed", "shut")})
    elsewhere = Outcome("failed", "Failed elsewhere: app1")
    run.step(REPORT, {"app1": Outcome("failed", "shut"), "app2": Outcome("failed", "shut"), "app3": elsewhere})
    run.end(**{host: {"failures": 1, "rescued": 1} for host in FLEET})
    assert "app1  FAILED: Gate" in run.text and "app2  FAILED: Gate" in run.text
    assert "FAILED before" not in run.text


def test_a_host_that_had_dealt_with_a_failure_and_stops_for_another_has_not_failed():
    run = Run()
    run.play(fatal=True)
    run.step(OPTIONAL, {"app1": Outcome("failed", "not there")})
    run.step(WITHOUT, {"app1": Outcome("ok")})
    run.step(GATE, {"app1": Outcome("ok"), "app2": Outcome("failed", "shut")})
    run.step(REPORT, {"app1": Outcome("failed", "Failed elsewhere: app2"), "app2": Outcome("failed", "shut")})
    run.end(app1={"failures": 1, "rescued": 1}, app2={"failures": 1})
    assert "app1  stopped, another host failed" in run.text and "app2  FAILED: Gate" in run.text
    assert "on app2; stopped with it: app1" in run.text


def test_a_host_that_dealt_with_a_failure_and_went_on_is_ok_after_it(run):
    run.step(OPTIONAL, all_hosts("failed", "not there"))
    run.step(WITHOUT, all_hosts("ok"))
    run.step(GATE, all_hosts("ok"))
    run.end(**{host: {"rescued": 1} for host in FLEET})
    assert "app1  ok, after a failure: Optional" in run.text


def test_what_deals_with_a_failure_does_not_take_the_blame(run):
    """Neither by failing in turn, nor where steps of a block that always run come between."""
    run.step(OPTIONAL, {"app1": Outcome("failed", "not there")})
    # It stands in the rescue of the one, and has a rescue of its own within that.
    run.step(alone("Tidy", rescued=True, caught=("tidy",), catches=("small",)), {"app1": Outcome("failed", "dirty")})
    run.step(alone("Sweep", follows=True, catches=("tidy", "small")), {"app1": Outcome("ok")})
    run.step(alone("Go on", follows=True, rescued=True, caught=("kept", "outer"), catches=("small",)), {
        "app1": Outcome("failed", "no way")
    })  # fmt: skip
    run.step(alone("Always", catches=("kept",)), {"app1": Outcome("ok")})
    run.step(REPORT, {"app1": Outcome("failed", "no way")})
    run.step(alone("At the very end", catches=("all",)), {"app1": Outcome("ok")})
    run.end(app1={"failures": 1})
    assert "app1  FAILED: Optional" in run.text
    assert "FAILED before, app1: Optional\n         not there" in run.text


def test_a_host_that_could_not_return_after_another_failed_has_failed():
    run = Run()
    run.play(fatal=True)
    run.step(GATE, {"app1": Outcome("ok"), "app2": Outcome("failed", "shut")})
    back = alone("Return", rescued=True, caught=("return",), catches=("outer",))
    run.step(back, {"app1": Outcome("failed", "no disk"), "app2": Outcome("ok")})
    run.step(alone("Note", catches=("outer",)), {"app1": Outcome("ok"), "app2": Outcome("ok")})
    run.step(REPORT, {"app1": Outcome("failed", "Failed elsewhere: app2"), "app2": Outcome("failed", "shut")})
    run.end(app1={"failures": 1}, app2={"failures": 1})
    assert "app1  FAILED: Return" in run.text and "FAILED before, app1: Return\n         no disk" in run.text


def failed_deployment(run, report):
    """One host fails, all return to what they served, and each reports."""
    run.step(stage("Gate", rescued=True), {**all_hosts("ok"), "app2": Outcome("failed", "shut\nWhat to do: mend")})
    back = Step("Report", "Report", "Return", "return", follows=True, reports=True)
    elsewhere = Outcome("failed", "Failed elsewhere: app2: shut\nThis host serves 1.0.0 as before")
    run.step(back, {"app1": elsewhere, "app2": Outcome("failed", report), "app3": elsewhere})
    run.end(**{host: {"failures": 1, "rescued": 1} for host in FLEET})


def test_hosts_that_only_stop_because_another_failed_are_folded():
    run = Run()
    run.play(fatal=True)
    failed_deployment(run, "app2, Gate: shut\nWhat to do: mend\nThis host serves 1.0.0 as before")
    assert "stopped  app1, app3: another host failed\n         This host serves 1.0.0 as before" in run.text
    assert run.text.index("FAILED   app2") < run.text.index("stopped  app1")
    assert "app1  stopped, another host failed" in run.text
    assert "app2  FAILED: Stage the release" in run.text
    assert "FAILED after 2.0 s on app2; stopped with it: app1, app3" in run.text
    # What reports the failure of another task has done its own work.
    assert "done     Return" in run.text and "failed   Stage the release" in run.text
    assert "FAILED before" not in run.text


def test_a_failure_that_nobody_reported_in_full_is_told_at_the_end(run):
    failed_deployment(run, "something else")
    assert "FAILED before, app2: Gate\n         shut\n         What to do: mend" in run.text
    assert "  1. mend" in run.text


def test_hosts_of_a_play_that_stops_for_all_are_stopped():
    run = Run()
    run.play(fatal=True)
    run.step(alone("Look"), {**all_hosts("skipped"), "app2": Outcome("failed", "no")})
    run.end(app2={"failures": 1})
    assert "app1  stopped, another host failed" in run.text


def test_what_debug_says_is_shown_as_it_is_and_once():
    run = Run()
    run.play("Show")
    table = "host  version\n----  -------\napp1  1.0.0"
    run.step(alone("Say", speaks=True, once=True), {"app1": Outcome("ok", table)})
    assert table in run.text
    run.step(alone("Say all", speaks=True), all_hosts("ok", "the same"))
    run.step(alone("Say each", speaks=True), {host: Outcome("ok", f"I am {host}") for host in FLEET})
    run.end()
    assert run.text.count("the same") == 1
    assert "app2: I am app2" in run.text


def test_a_retry_is_told_with_its_number(run):
    step = stage("Transfer")
    run.show(run.progress.step(step))
    run.progress.begin("app1")
    run.show(run.progress.retry(step, "app1", 1, 3, Outcome("failed", "broken pipe\nmore")))
    assert "retry    app1: Transfer failed, try 2 of 3: broken pipe" in run.text


def test_hundreds_of_retries_are_not_hundreds_of_lines(run):
    step = stage("Wait")
    run.show(run.progress.step(step))
    for attempt in range(1, 500):
        run.show(run.progress.retry(step, "app1", attempt, 500, Outcome("failed", "not yet")))
    assert 10 < run.text.count("retry") < 60


def test_the_live_line_says_whom_it_waits_for_and_the_last_answer(run):
    step = stage("Gate")
    run.show(run.progress.step(step))
    for host in FLEET:
        run.progress.begin(host)
    run.now += 12
    run.show(run.progress.result(step, "app1", Outcome("ok")))
    run.progress.poll("app2", Outcome("ok", answer="HTTP 503 in 4 ms"))
    live = run.progress.live()
    assert live == (
        "00:12  Stage the release: Gate  12 s; waiting for app2, app3; last health answer, app2: HTTP 503 in 4 ms"
    )
    # Where there is less room, the phase goes first: whom it waits for matters more.
    assert run.progress.live(60) == "00:12  Gate  12 s; waiting for app2, app3; last health an..."
    assert len(run.progress.live(60)) == 60


def test_a_long_name_leaves_room_for_what_is_waited_for(run):
    step = stage("Wait until the application " + "really " * 10 + "answers")
    run.show(run.progress.step(step))
    run.progress.begin("app2")
    run.now += 12
    run.progress.poll("app2", Outcome("ok", answer="HTTP\t503"))
    live = run.progress.live(100)
    assert live.startswith("00:12  Wait until the application rea...") and len(live) == 100
    assert live.endswith("  12 s; waiting for app2; last health answer, app2: HTTP 503")
    # Some of the name is always there.
    assert run.progress.live(40) == "00:12  Wait until the ap...  12 s; wa..."


def test_a_name_is_one_line(run):
    step = Step("k", "Wait\n\tfor it", "Stage\nall", "stage")
    run.step(step, {"app1": Outcome("failed", "no"), "app2": Outcome("ignored", "no")})
    run.progress.begin("app3")
    assert "00:01  Stage all: Wait for it" in run.progress.live() and run.progress.live().isprintable()
    run.show(run.progress.retry(step, "app3", 1, 3, Outcome("failed", "no")))
    run.end(app1={"failures": 1})
    for line in (
        "FAILED   app1: Wait for it",
        "ignored  app2: Wait for it: no",
        "app3: Wait for it failed, try 2",
        "Stage all ",
    ):
        assert line in run.text
    assert "app1  FAILED: Stage all" in run.text


def test_the_title_of_a_batch_of_many_hosts_is_short():
    fleet = [f"app{number:03}.prod.example.com" for number in range(100)]
    run = Run()
    run.play("Deploy", True)
    step = Step("k", "Switch", f"Switch, batch by batch: {', '.join(fleet)}", "batch", rescued=True)
    run.step(step, {host: Outcome("failed" if host == fleet[0] else "changed", "boom") for host in fleet})
    run.show(run.progress.end({host: {**FINE, "failures": int(host == fleet[0])} for host in fleet}))
    title = "Switch, batch by batch: app000.prod.example.com, app001.prod.example.com and 98 more"
    assert f"failed   {title}  99/100" in run.text and f"{fleet[0]}  FAILED: {title} " in run.text
    assert max(map(len, run.text.splitlines())) < 350


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("Switch: app1, app2", "Switch: app1, app2"),
        ("Switch: app1, app2, app3, app4, app5", "Switch: app1 and 4 more"),
        ("Switch: app1, app2, app3 and some", "Switch: app1 and 2 more"),
        ("Switch: a-host-with-a-long-name, b", "Switch: a-host-with-a-..."),
        ("Switch to what is, for now, new", "Switch to what is, for..."),
        (" Switch\r\n  to it\t", "Switch to it"),
    ],
)
def test_titles(text, short):
    assert progress.title(text, 25) == short


def test_the_answer_that_opened_the_gate_is_told(run):
    run.step(stage("Gate"), {"app1": Outcome("ok", answer='HTTP 200 in 5 ms: status "healthy", version 1.1.0')})
    run.play("Another")
    assert 'last health answer, app1: HTTP 200 in 5 ms: status "healthy", version 1.1.0' in run.text


def test_silence_is_broken_where_there_is_no_live_line(run):
    run.show(run.progress.step(stage("Gate")))
    run.progress.begin("app2")
    run.now += 20
    assert run.progress.heartbeat(30) == []
    run.now += 11
    (line,) = run.progress.heartbeat(30)
    assert "Gate" in line.text and "31 s" in line.text and "waiting for app2" in line.text
    assert run.progress.heartbeat(30) == []


def test_the_table_tells_versions_changes_and_time(run):
    run.step(alone("Look"), all_hosts("ok", "", "", None, OLD))
    run.step(alone("Switch", switches=True), all_hosts("changed", "", "", OLD, NEW), 5)
    run.end(**{host: {"changed": 2} for host in FLEET})
    heading, first = (line.text.split() for line in run.lines[-6:-4])
    assert heading == ["host", "result", "release", "changed", "time"]
    assert first == ["app1", "ok", "1.0.0", "->", "1.1.0", "2", "6.0", "s"]


def test_the_table_shows_ids_where_versions_do_not_tell_releases_apart(run):
    again = Release("1.0.0", "20260103T000000Z-1.0.0-ccccccc")
    run.step(alone("Look"), {**all_hosts("ok", "", "", None, OLD), "app3": Outcome("ok", now=NEW)})
    run.step(alone("Switch", switches=True), {"app2": Outcome("changed", before=OLD, now=again)})
    run.end()
    rows = {line.text.split()[0]: line.text for line in run.lines if line.text}
    assert f"  {OLD.id}  " in rows["app1"]
    assert f"  {OLD.id} -> {again.id}  " in rows["app2"]
    assert "  1.1.0  " in rows["app3"]


def test_what_a_failed_switch_left_is_unknown_until_it_is_known(run):
    run.step(alone("Look"), all_hosts("ok", "", "", None, OLD))
    switch = alone("Switch", switches=True)
    run.step(switch, all_hosts("failed", "no"))
    run.step(switch, {"app1": Outcome("ok", now=OLD)})
    run.end(**{host: {"failures": 1} for host in FLEET})
    rows = {line.text.split()[0]: line.text for line in run.lines if line.text}
    assert "unknown" not in rows["app1"] and "1.0.0 -> unknown" in rows["app2"]


def test_check_mode_is_said_and_nothing_is_called_changed():
    run = Run(check=True)
    run.play()
    run.step(stage(), all_hosts("changed"))
    run.end(**{host: {"changed": 1} for host in FLEET})
    assert run.text.count("CHECK MODE") == 1
    assert "would change on all 3" in run.text
    assert "would change  time" in run.text
    assert "done in check mode, nothing was changed" in run.text


def test_the_same_difference_is_shown_once(run):
    run.show(run.progress.step(stage("Install")))
    for host in FLEET:
        run.progress.begin(host)
        run.progress.diff(host, "--- before\n+++ after\n@@ -1 +1 @@\n-A=1\n+A=2\n")
        run.show(run.progress.result(stage("Install"), host, Outcome("changed")))
    run.end()
    assert "diff     app1, app2, app3: Install\n--- before\n+++ after\n@@ -1 +1 @@\n-A=1\n+A=2\n" in run.text
    assert run.text.count("+A=2") == 1


def test_an_interrupted_run_says_where_it_was(run):
    run.show(run.progress.step(stage("Gate")))
    run.progress.begin("app2")
    run.now += 7
    run.show(run.progress.interrupted(["see:\nansible-playbook status.yml"]))
    assert "deploy.yml was INTERRUPTED after 7.0 s in Stage the release; no answer yet from app2" in run.text
    assert "ansible-playbook status.yml" in run.text
    assert run.progress.interrupted() == []


def test_a_run_that_an_error_ended_was_not_interrupted(run):
    run.step(alone("Look", once=True), {"localhost": Outcome("ok")}, 0)
    run.show(run.progress.interrupted(["see"], "YAML parsing failed: no colon", "group_vars/app.yml:2:4"))
    assert "INTERRUPTED" not in run.text
    assert (
        "deploy.yml FAILED after 0.0 s in Look\n         YAML parsing failed: no colon (at group_vars/app.yml:2:4)"
        in run.text
    )
    # Whatever looks at the hosts reads the same file.
    assert "No host had begun: nothing was changed on any." in run.text and "see" not in run.text
    assert "  1. put right what the message says, and run the same command again" in run.text


def test_an_error_that_ends_a_run_in_its_midst_leaves_the_commands_that_look_at_hosts(run):
    run.step(stage("Gate"), all_hosts("ok"))
    run.show(run.progress.interrupted(["see every host"], "no space left"))
    assert "FAILED after 1.0 s in Stage the release\n         no space left" in run.text
    assert "No host" not in run.text and "  1. see every host" in run.text


def test_nothing_is_under_way_while_somebody_is_asked(run):
    run.show(run.progress.step(alone("Ask", asks=True)))
    assert run.progress.live() == "" and run.progress.heartbeat(0) == []
    run.step(alone("Work"), all_hosts("ok"))
    assert "Work" in run.progress.live()
    run.show(run.progress.rest())
    assert run.progress.live() == "" and "done     Deploy" in run.text


def test_nothing_follows_the_end(run):
    run.end()
    assert run.progress.interrupted() == [] and run.progress.live() == "" and run.progress.heartbeat(0) == []


def test_what_hosts_say_cannot_move_the_cursor(run):
    run.step(
        stage("\x1b[2JGate"), {"app1": Outcome("failed", "a\x1b[31mred\x1b[0m\r\nb\x07c\rd\x9b2J \x1b]0;title\x07e")}
    )
    run.end(app1={"failures": 1})
    assert not any((ord(letter) < 32 and letter != "\n") or 0x7F <= ord(letter) < 0xA0 for letter in run.text)
    assert "ared\n         b c d 2J e" in run.text


def test_a_result_that_says_little_is_shown_with_the_way_to_see_more(run):
    run.step(alone("Run"), {"app1": Outcome("failed", "non-zero return code")})
    run.end(app1={"failures": 1})
    assert "run the same command again with -v" in run.text


KILLED = {
    "msg": "Module result deserialization failed: No start of json char found",
    "module_stderr": "PG_PASSWORD=s3cr3t\ncannot allocate memory\n",
    "module_stdout": "s3cr3t",
    "rc": 137,
}


def test_a_module_that_was_killed_is_told_with_what_is_known_of_it(run):
    text = progress.text_of(KILLED)
    # In the words of playbooks/tasks/abandon.yml, so that a report of it is not told twice.
    assert text == (
        "it ended on the host without an answer, exit code 137: it was killed, or could not start. What to do: look for"
        " the reason (memory: journalctl -k; Python: cannot allocate memory), then run the same command again"
    )
    bare = progress.text_of({"msg": KILLED["msg"]})
    assert "exit code unknown: it was killed" in bare and "Python: nothing)" in bare
    assert progress.text_of({**KILLED, "censored": "hidden"}) == progress.HIDDEN
    run.step(stage("Transfer", rescued=True), {"app1": Outcome("failed", text)})
    run.step(alone("Report", follows=True, reports=True), {"app1": Outcome("failed", f"app1, Transfer: {text}")})
    run.end(app1={"failures": 1})
    assert "FAILED before" not in run.text
    assert "  1. look for the reason (memory: journalctl -k; " in run.text
    assert "run the same command again with -v" in run.text


def test_nothing_but_what_is_meant_for_people_is_taken_from_a_result():
    result = {"msg": "no", "stdout": "s3cr3t", "invocation": {"password": "s3cr3t"}, "cmd": "login s3cr3t"}
    assert progress.text_of(result) == "no"
    hidden = {
        "censored": "the output has been hidden",
        "msg": "s3cr3t",
        "answers": ["s3cr3t"],
        "live": {"version": "3"},
    }
    assert progress.text_of(hidden) == progress.spoken_by(hidden) == progress.HIDDEN
    assert progress.answer_of(hidden) == "" and progress.releases_of(hidden) == (None, None)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"msg": "a\nb"}, "a\nb"),
        ({"msg": ["a", "b"]}, "a\nb"),
        ({"msg": {"a": 1}}, '{\n  "a": 1\n}'),
        ({"msg": 7}, "7"),
        ({"app_port": 5000, "changed": False, "_ansible_verbose_always": True}, "app_port: 5000"),
        ({"groups": ["a", "b"]}, "groups: a\nb"),
    ],
)
def test_what_debug_says(result, text):
    assert progress.spoken_by(result) == text


def test_health_answers_and_releases_are_read_from_the_modules_results():
    assert progress.answer_of({"answers": ["HTTP 503", "HTTP 200"]}) == "HTTP 200"
    assert progress.answer_of({"answers": []}) == progress.answer_of({"answers": "x"}) == ""
    assert progress.releases_of({"live": {"version": "1.0.0", "id": "r1"}}) == (None, Release("1.0.0", "r1"))
    assert progress.releases_of({"live": None}) == (None, None)
    switched = {"release": {"version": "2"}, "previous": {"version": "1", "id": "\x1b[2J"}}
    assert progress.releases_of(switched) == (Release("1"), Release("2"))
    assert progress.releases_of({"release": {"version": "x y\n"}, "previous": None}) == (None, None)


def test_text_is_cut_by_columns_and_not_by_letters():
    assert progress.clip("abcdefgh", 8) == "abcdefgh"
    assert progress.clip("abcdefghi", 8) == "abcde..."
    assert progress.clip("日本語", 6) == "日本語"
    assert progress.clip("日本語のなまえ", 8) == "日本..."
    assert progress.clip("Größe des Ganzen", 8) == "Größe..."


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (99, "99 s"), (125, "2 min 5 s")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


def test_many_hosts_are_counted_and_not_listed():
    hosts = [f"app{number}" for number in range(1, 101)]
    assert progress.names(hosts, 3) == "app1, app2, app3 and 97 more"
    assert progress.names(hosts[:4], 3) == "app1, app2, app3, app4"


def test_a_large_fleet_needs_few_lines_and_no_more_memory_the_longer_it_runs():
    hosts = [f"app{number}" for number in range(100)]
    run = Run()
    run.play()

    def work(first, last):
        for number in range(first, last):
            step = Step(f"t{number}", f"Task {number}", f"Phase {number // 10}", f"p{number // 10}")
            outcomes = {host: Outcome("ignored", f"{number} {host} " + "x" * 200) for host in hosts}
            outcomes.update({host: Outcome("changed") for host in hosts[5:]})
            run.step(step, outcomes)
        # What was shown is not kept.
        shown = len(run.lines)
        run.lines.clear()
        return shown

    assert work(0, 60) < 60 * 5 + 20
    tracemalloc.start()
    try:
        work(60, 120)
        before = tracemalloc.get_traced_memory()[0]
        work(120, 600)
        assert tracemalloc.get_traced_memory()[0] - before < 300_000
    finally:
        tracemalloc.stop()

"""What a load balancer says: how long a switch may take, and who gets requests."""

import pytest
from ansible_collections.roastify.ops.plugins.module_utils import haproxy, load_balancer
from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.load_balancer import Balancer, Limits, Target

FLEET = [f"h{number}" for number in range(1, 11)]
ALB = Balancer("target group shop", 300.0, "deregistration_delay.timeout_seconds", 65.0, "2 checks, one every 30 s")
ENOUGH = Limits(timeout=320, confirm_within=3600, lease=3600, forks=20)
# As HAProxy 2.6.12 answers; columns in between are left out.
STATISTICS = """\
# pxname,svname,scur,status,check_status,last_chk,check_rise,check_fall,addr,
http,FRONTEND,0,OPEN,,,,,,
shop,app1,0,UP,L7OK,,2,3,10.0.0.1:5000,
shop,app2,0,DOWN 1/2,* L7OK,"OK, nearly",2,3,10.0.0.2:5000,
shop,app3,0,MAINT,,,,,10.0.0.3:5000,
shop,app4,0,DOWN,L4CON,Connection refused,2,3,10.0.0.4:5000,
shop,app5,0,no check,,,,,10.0.0.5:5000,
shop,app6,0,UP 2/3,L7STS,,2,3,10.0.0.6:5000,
shop,BACKEND,0,UP,,,,,,
other,app1,0,UP,L7OK,,9,3,10.0.0.1:5001,

"""


def target_group(**changes):
    return {
        "target_groups": [
            {
                "deregistration_delay_timeout_seconds": "300",
                "health_check_interval_seconds": 30,
                "health_check_timeout_seconds": 5,
                "healthy_threshold_count": 2,
                "targets_health_description": [
                    {"target": {"id": "i-1", "port": 5000}, "target_health": {"state": "healthy"}},
                    {
                        "target": {"id": "i-2", "port": 5000},
                        "target_health": {
                            "state": "draining",
                            "reason": "Target.DeregistrationInProgress",
                            "description": "Target deregistration is in progress",
                        },
                    },
                ],
                **changes,
            }
        ]
    }


def budget(plan, bake=(0,), drain=True, balancer=ALB, limits=ENOUGH):
    return load_balancer.budget(balancer, plan, bake, drain, limits)


# -- numbers ----------------------------------------------------------------------------------------------


def test_a_target_group_says_how_long_it_takes():
    balancer = load_balancer.from_aws(target_group(), "shop")
    assert (balancer.drain, balancer.verdict) == (300, 65)
    assert balancer.targets == {
        "i-1:5000": Target("in"),
        "i-2:5000": Target("leaving", "Target.DeregistrationInProgress Target deregistration is in progress"),
    }


def test_haproxy_says_how_often_it_asks_and_the_inventory_when():
    balancer = load_balancer.from_haproxy({"servers": haproxy.parse(STATISTICS, "shop")}, "shop", 3)
    assert (balancer.drain, balancer.verdict) == (0, 9)
    assert {name: target.state for name, target in balancer.targets.items()} == {
        "app1": "in",
        "app2": "joining",
        "app3": "out",
        "app4": "unhealthy",
        "app5": "in",
        "app6": "in",
    }
    assert balancer.targets["app2"].reason == "DOWN 1/2 L7OK OK, nearly"


def test_what_is_no_answer_of_haproxy():
    with pytest.raises(OperationError, match="something else than statistics: 'Unknown command'"):
        haproxy.parse("Unknown command\n", "shop")
    with pytest.raises(OperationError, match=r"does not answer at /nowhere/admin\.sock: No such file"):
        haproxy.servers("/nowhere/admin.sock", "shop")


@pytest.mark.parametrize(
    ("answer", "place", "message"),
    [
        (
            {"failed": False, "msg": "AccessDenied\nat"},
            "aws",
            "could not be asked for target group shop: AccessDenied\nWhat",
        ),
        ({}, "aws", "could not be asked for target group shop: no answer"),
        ({"target_groups": []}, "aws", "there is no target group shop in eu-west-1"),
        ({"unreachable": True, "msg": "no route"}, "haproxy", "could not be asked for backend shop: no route"),
        ({"servers": []}, "haproxy", "HAProxy has no backend shop"),
    ],
)
def test_a_load_balancer_that_does_not_answer(answer, place, message):
    where = {"provider": place, "name": "shop", "region": "eu-west-1", "interval": 2}
    with pytest.raises(OperationError, match=message):
        load_balancer.see(answer, where)
    assert load_balancer.target(answer, where, "i-1:5000").state == "unknown"


# -- time -------------------------------------------------------------------------------------------------


def test_enough_time_for_everything():
    found = budget([FLEET[:1], FLEET[1:]], [30, 0])
    # Twice 300 to drain, 65 to be healthy and 10 to switch; the first batch is watched for 30.
    assert found.problems == []
    assert found.line == (
        "Time: the target group shop drains a host in 300 s and calls it healthy in 65 s at most "
        "(2 checks, one every 30 s); 2 batches may take 13 min."
    )


def test_a_limit_for_the_verdict_that_is_too_short():
    drained, healthy = budget([["a"], ["b"]], limits=Limits(timeout=60)).problems
    assert drained.startswith(
        "no host would be drained in time: the target group shop takes 300 s (deregistration_delay.timeout_seconds), "
        "and alb_target_timeout is 60 s. What to do: set alb_target_timeout to 330, or"
    )
    assert healthy.startswith("no host would be called healthy in time: the target group shop takes up to 65 s")
    assert "set alb_target_timeout to 90, or" in healthy


def test_who_does_not_leave_need_not_come_back():
    for plan, drain in (([FLEET], True), ([FLEET[:1], FLEET[1:]], False)):
        found = budget(plan, drain=drain, limits=Limits(timeout=1, confirm_within=60))
        assert found.problems == []
        assert found.line.startswith("Time: no host leaves the target group shop; ")


def test_hosts_that_would_return_before_the_last_ones_are_switched():
    (problem,) = budget([[host] for host in FLEET[:5]], limits=Limits(320, 900, 0)).problems
    # 5 x (300 + 10 + 65), without the 300 before the first switch.
    assert problem == (
        "hosts that are switched first would return by themselves before the deployment ends: that takes 26 min 15 s, "
        "and they wait 900 s (app_release_confirm_within). What to do: set app_release_confirm_within to 1590, or have "
        "larger batches (deploy_batches)"
    )
    (problem,) = budget([[host] for host in FLEET[:5]], limits=Limits(320, 900, 900)).problems
    assert "before it is their turn: that takes 30 min, and it holds for 900 s (app_release_lease)" in problem
    assert "set app_release_confirm_within and app_release_lease to 1830" in problem


@pytest.mark.parametrize(("limit", "problems"), [(449, 1), (450, 0), (0, 0)])
def test_the_limit_is_exact_and_none_is_none(limit, problems):
    assert len(budget([["a"], ["b"]], limits=Limits(320, limit)).problems) == problems


def test_a_batch_that_is_larger_than_ansible_has_forks_waits_in_turns():
    assert budget([FLEET[:1], FLEET[1:]], limits=Limits(320, 900, 0, forks=20)).problems == []
    (problem,) = budget([FLEET[:1], FLEET[1:]], limits=Limits(320, 900, 0, forks=4)).problems
    assert problem.endswith("more hosts at a time (forks in ansible.cfg, which is 4)")


def test_the_timer_of_a_host_starts_when_all_of_its_batch_have_left():
    # In two turns each: 2 x (300 + 10 + 65) for either batch, without the 600 before the first switch.
    plan = [FLEET[:5], FLEET[5:]]
    assert budget(plan, limits=Limits(320, 900, 0, forks=4)).problems == []
    assert budget(plan, limits=Limits(320, 899, 0, forks=4)).problems != []
    # The last one: 750 for the first batch, 600 for its own to leave, 10 for those before it.
    assert budget(plan, limits=Limits(320, 0, 1360, forks=4)).problems == []
    assert "their turn: that takes 22 min 40 s" in budget(plan, limits=Limits(320, 0, 1359, forks=4)).problems[0]


def test_hosts_wait_for_each_other_without_a_load_balancer_too():
    nobody = load_balancer.see({}, {"provider": "none"})
    fleet = [f"h{number}" for number in range(100)]
    usual = [fleet[:1], fleet[1:]]
    few, many = (Limits(0, 900, 900, forks) for forks in (5, 20))
    # A switch takes its time in each turn.
    assert budget(usual, drain=False, balancer=nobody, limits=few).line.endswith("2 batches may take 3 min 30 s.")
    assert budget(usual, drain=False, balancer=nobody, limits=many).line.endswith("2 batches may take 1 min.")
    assert budget(usual, drain=False, balancer=nobody, limits=few).problems == []
    (problem,) = budget([[host] for host in fleet], drain=False, balancer=nobody, limits=many).problems
    assert "before the deployment ends: that takes 16 min 40 s" in problem
    assert problem.endswith("or have larger batches (deploy_batches)")
    # The first batch alone is watched for longer than it waits for the end of that.
    (problem,) = budget(usual, [1200, 0], False, nobody, limits=few).problems
    assert "or a shorter time to watch them (deploy_bake)" in problem and "forks in ansible.cfg, which is 5" in problem


def test_watching_counts_and_the_last_number_repeats():
    quick = Balancer("backend shop", 0, "maintenance mode", 3, "2 checks")
    assert "3 batches may take 3 min 9 s." in budget([["a"], ["b"], ["c"]], [60, 45], balancer=quick).line
    assert "1 batch may take 10 s." in budget([["a"]], [], balancer=quick).line


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (59.2, "1 min"), (61, "1 min 1 s"), (600, "10 min")])
def test_seconds_for_people(seconds, words):
    assert load_balancer.spell(seconds) == words


# -- hosts ------------------------------------------------------------------------------------------------


def test_a_host_that_the_target_group_does_not_know_is_out():
    place = {"provider": "aws", "name": "shop", "region": "", "interval": 2}
    found = load_balancer.target(target_group(), place, "i-1:5001")
    assert found == Target("out", "i-1:5001 is not in the target group shop")
    assert load_balancer.remark("app1", found).startswith("app1 is out of the load balancer and gets no requests (i-1:")


@pytest.mark.parametrize(
    ("reason", "state", "remedy"),
    [
        ("Target.NotRegistered", "out", "the next deployment puts it back"),
        ("Target.NotInUse", "unused", "What to do: enable the availability zone of this host for the load balancer"),
        ("Target.NotInUse", "unused", "or add a listener that forwards to the target group"),
        ("Target.InvalidState", "unused", "What to do: see why its instance does not run"),
        ("Target.IpUnusable", "unused", "What to do: see what AWS says of that reason"),
    ],
)
def test_a_target_that_is_registered_and_not_used_is_not_out(reason, state, remedy):
    balancer = load_balancer.from_aws(group_of(app1=f"unused {reason}"), "shop")
    found = balancer.targets["i-1:5000"]
    assert found == Target(state, reason)
    told = load_balancer.remark("app1", found)
    assert f"({reason})" in told and remedy in told
    if state == "unused":
        assert told.startswith("app1 is registered in the load balancer, which does not use it: it gets no requests (")
        assert load_balancer.finding(found, True)["remedy"] in told


@pytest.mark.parametrize("state", ["in", "joining"])
def test_a_host_that_is_well_needs_no_words(state):
    assert load_balancer.remark("app1", Target(state)) is None
    assert load_balancer.finding(Target(state), True) is None


@pytest.mark.parametrize(
    ("state", "healthy", "repairable"),
    [
        ("out", True, True),
        ("out", False, False),
        ("leaving", True, True),
        ("unhealthy", True, False),
        # The doctor of the host itself says what is wrong.
        ("unhealthy", False, None),
        ("unknown", True, False),
        # Registered already: nothing that a program may do.
        ("unused", True, False),
        ("unused", False, False),
    ],
)
def test_only_a_healthy_host_is_put_back(state, healthy, repairable):
    found = load_balancer.finding(Target(state, "why"), healthy)
    assert (found and found["repairable"]) == repairable
    if found:
        assert found["evidence"] == ["why"] and found["what"] and found["remedy"]
    assert load_balancer.remark("app1", Target(state, "why")).startswith("app1")


# -- who may leave ----------------------------------------------------------------------------------------

PLACE = {"provider": "aws", "name": "shop", "region": "", "interval": 2}
NAMES = {"app1": "i-1:5000", "app2": "i-2:5000", "app3": "i-3:5000"}


def group_of(**states):
    """A target group in which app1 is i-1; ``healthy`` or a state with its reason."""
    told = [state.partition(" ") for state in states.values()]
    return target_group(
        targets_health_description=[
            {"target": {"id": f"i-{host[3:]}", "port": 5000}, "target_health": {"state": state, "reason": reason}}
            for host, (state, _, reason) in zip(states, told)
        ]
    )


@pytest.mark.parametrize(
    ("answer", "batch", "verdict"),
    [
        (group_of(app1="healthy", app2="healthy"), ["app1"], "leave"),
        (group_of(app1="healthy", app2="unhealthy"), ["app1"], "stop"),
        (group_of(app1="healthy", app2="initial", app3="draining"), ["app1"], "stop"),
        (group_of(app1="healthy", app2="healthy", app3="unhealthy"), ["app1", "app2"], "stop"),
        (group_of(app1="unhealthy", app2="healthy"), ["app1"], "leave"),
        # Of another fleet, or left out by --limit: it serves.
        (group_of(app1="healthy", app9="healthy"), ["app1"], "leave"),
        # Nobody serves by its word: there is nobody to spare, and this deployment may be what mends it.
        (group_of(app1="unhealthy", app2="unhealthy"), ["app1"], "stay"),
        ({"msg": "AccessDenied"}, ["app1"], "stop"),
    ],
)
def test_who_may_leave(answer, batch, verdict):
    found = load_balancer.departure(answer, PLACE, batch, NAMES)
    assert found.verdict == verdict
    assert ("What to do: " in found.told) == (verdict == "stop") and bool(found.told) == (verdict != "leave")


def test_where_zones_are_kept_apart_nobody_leaves():
    """Which host is in which zone the target group does not tell: a zone may have no other."""
    answer = group_of(app1="healthy", app2="healthy")
    for setting, verdict in (("true", "leave"), ("use_load_balancer_configuration", "leave"), ("false", "stay")):
        answer["target_groups"][0]["load_balancing_cross_zone_enabled"] = setting
        assert load_balancer.departure(answer, PLACE, ["app1"], NAMES).verdict == verdict
    assert load_balancer.departure(answer, PLACE, ["app1"], NAMES).told == (
        "the target group shop keeps zones apart (load_balancing.cross_zone.enabled is false), so that a zone may have "
        "nobody else than app1"
    )
    apart = load_balancer.from_aws(answer, "shop")
    told = budget([["app1"], ["app2"]], balancer=apart, limits=Limits(timeout=30))
    assert (told.line.partition(";")[0], told.problems) == ("Time: no host leaves the target group shop", [])


@pytest.mark.parametrize("names", [{}, {"app1": "", "app2": "i-2:5000"}])
def test_whoever_has_no_name_there_does_not_leave(names):
    found = load_balancer.departure(group_of(app1="healthy"), PLACE, ["app1"], names)
    assert found.verdict == "stop"
    assert "what the load balancer calls app1 is not known" in found.told
    assert "What to do: " in found.told


def test_why_a_host_may_not_leave():
    answer = group_of(app1="healthy", app2="unhealthy Target.Timeout")
    assert load_balancer.departure(answer, PLACE, ["app1"], NAMES).told == (
        "while app1 would be out of the load balancer nobody would serve: the target group shop calls no other host "
        "healthy (app2: unhealthy, Target.Timeout; app3: out, i-3:5000 is not in the target group shop). What to do: "
        "see why (playbooks/doctor.yml) and mend it, or leave hosts in the load balancer while they are switched: "
        "-e deploy_drain=false"
    )
    told = load_balancer.departure({"msg": "AccessDenied"}, PLACE, ["app1", "app2"], NAMES).told
    assert told.startswith("whether anybody would serve while app1, app2 are out of the load balancer is not known: ")
    assert "AccessDenied" in told


def test_of_a_large_fleet_some_hosts_are_named():
    fleet = {f"app{number}": f"i-{number}:5000" for number in range(1, 101)}
    states = {host: "healthy" if host == "app1" else "unhealthy" for host in fleet}
    told = load_balancer.departure(group_of(**states), PLACE, ["app1"], fleet).told
    assert "app7: unhealthy; and 93 more). What to do: " in told
    told = load_balancer.departure(group_of(**dict.fromkeys(fleet, "unhealthy")), PLACE, list(fleet)[1:], fleet).told
    assert told.endswith("could take over from app2, app3, app4, app5, app6, app7 and 93 more")

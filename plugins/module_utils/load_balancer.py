# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a load balancer says of itself and of its targets: how long a switch must be allowed to take, who gets requests.

Sources: docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html (states of targets,
interval, threshold) and load-balancer-target-groups.html (a target stays ``draining`` for the whole deregistration
delay, also without a request under way) and disable-cross-zone.html (a node of the load balancer sends nothing to other
zones then); docs.haproxy.org/2.6/management.html, 9.1 (columns of ``show stat``; the
interval of the checks is not among them).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.roastify.ops.plugins.module_utils.errors import OperationError
from ansible_collections.roastify.ops.plugins.module_utils.tables import names as named

AWS, HAPROXY, NONE = "aws", "haproxy", "none"
#: What a host is to its load balancer.
IN, ILL, JOINING, LEAVING, OUT, UNKNOWN = "in", "unhealthy", "joining", "leaving", "out", "unknown"
#: Registered, but the load balancer sends it nothing, whatever it answers: to register it again changes nothing.
UNUSED = "unused"
#: Of the hosts that cannot take over, how many are told.
SEEN = 6
#: Whether hosts may be taken out of it.
LEAVE, STAY, STOP = "leave", "stay", "stop"
#: Seconds that the switch of as many hosts as Ansible works on at the same time takes beside all waiting; an estimate,
#: since applications differ.
SWITCH = 10
#: Seconds by which a limit has to exceed what the load balancer takes: it is asked once a second, and answers late.
MARGIN = 10
_AWS_STATES = {
    "healthy": IN,
    # Health checks are disabled: it gets requests whatever it answers.
    "unavailable": IN,
    "initial": JOINING,
    "unhealthy": ILL,
    "unhealthy.draining": ILL,
    "draining": LEAVING,
    "unused": UNUSED,
}
#: The only reason for ``unused`` that means that it is not registered.
_NOT_REGISTERED = "Target.NotRegistered"
#: What to do about the others.
_UNUSED_REMEDIES = {
    "Target.NotInUse": (
        "enable the availability zone of this host for the load balancer, or add a listener that forwards to the "
        "target group"
    ),
    "Target.InvalidState": "see why its instance does not run",
}
#: By the first word; ``no check`` gets requests whatever it answers.
_HAPROXY_STATES = {"UP": IN, "no": IN, "DOWN": ILL, "NOLB": LEAVING, "DRAIN": LEAVING, "MAINT": OUT}


@dataclass(frozen=True)
class Target:
    """A host, as its load balancer sees it.

    Attributes:
        state: one of the words above.
        reason: why, in the load balancer's own words; may be empty.
    """

    state: str
    reason: str = ""


@dataclass(frozen=True)
class Balancer:
    """A load balancer, by its own numbers.

    Attributes:
        name: for people.
        drain: seconds until a host that is taken out counts as drained.
        drain_setting: what decides that, for people.
        verdict: seconds until a host that is put back is called healthy, at most.
        checks: how that comes about, for people.
        targets: by host name or instance and port.
        apart: whether each zone has only its own targets; which are whose is not known.
    """

    name: str
    drain: float
    drain_setting: str
    verdict: float
    checks: str
    targets: Mapping[str, Target] = field(default_factory=dict)
    apart: bool = False


@dataclass(frozen=True)
class Limits:
    """How long what may take, in seconds, and where that is set.

    Attributes:
        timeout: for a verdict of the load balancer (alb_target_timeout).
        confirm_within: from the switch of a host to the end of the deployment (app_release_confirm_within); 0: none.
        lease: of the lock of a host that waits for its batch (app_release_lease); 0: none.
        forks: hosts that Ansible works on at the same time.
    """

    timeout: float
    confirm_within: float = 0
    lease: float = 0
    forks: int = 5


@dataclass(frozen=True)
class Departure:
    """Whether hosts may be taken out of their load balancer.

    Attributes:
        verdict: `LEAVE`; `STAY` where nobody serves at all, or a zone may have nobody else; `STOP` where nobody would
            any more, or that is not known.
        told: why not, for people; empty if they may leave.
    """

    verdict: str
    told: str = ""


@dataclass(frozen=True)
class Budget:
    """What a switch of the fleet takes.

    Attributes:
        line: one line for people.
        problems: what is too short for it, each with what to do.
    """

    line: str
    problems: list[str]


def from_aws(answer: Mapping[str, Any], group: str, region: str = "") -> Balancer:
    """A target group.

    Args:
        answer: of module community.aws.elb_target_group_info.
        group: its name.
        region: its region, for the message.

    Raises:
        OperationError: there is no answer, or no such group.
    """
    found = _answered(
        answer,
        "target_groups",
        f"target group {group}",
        "see that the controller has credentials for AWS, and may do elasticloadbalancing:DescribeTargetGroups, "
        "DescribeTargetGroupAttributes, DescribeTargetHealth and DescribeTags",
    )
    if not found:
        raise OperationError(
            f"there is no target group {group}{f' in {region}' if region else ''}",
            "set alb_target_group and alb_target_region, or create it",
        )
    numbers = found[0]
    interval, times = int(numbers["health_check_interval_seconds"]), int(numbers["healthy_threshold_count"])
    limit = int(numbers["health_check_timeout_seconds"])
    targets = {}
    for each in numbers.get("targets_health_description") or []:
        health = each["target_health"]
        reason = " ".join(filter(None, [health.get("reason", ""), health.get("description", "")]))
        state = OUT if health.get("reason") == _NOT_REGISTERED else _AWS_STATES.get(health["state"], UNKNOWN)
        targets[f"{each['target']['id']}:{each['target']['port']}"] = Target(state, reason)
    return Balancer(
        f"target group {group}",
        float(numbers["deregistration_delay_timeout_seconds"]),
        "deregistration_delay.timeout_seconds",
        interval * times + limit,
        f"{times} checks, one every {interval} s, of {limit} s at most",
        targets,
        numbers.get("load_balancing_cross_zone_enabled") == "false",
    )


def from_haproxy(answer: Mapping[str, Any], backend: str, interval: float) -> Balancer:
    """A backend of HAProxy.

    Args:
        answer: of module roastify.ops.haproxy_info.
        backend: its name.
        interval: seconds between two checks, which HAProxy does not tell.

    Raises:
        OperationError: there is no answer, or no such backend.
    """
    servers = _answered(
        answer,
        "servers",
        f"backend {backend}",
        "see that HAProxy runs, and what alb_target_balancer and alb_target_socket say",
    )
    if not servers:
        raise OperationError(f"HAProxy has no backend {backend}, or it has no server", "set alb_target_backend")
    # 0: a server without checks is called healthy at once.
    times = max(int(server["rise"] or 0) for server in servers)
    return Balancer(
        f"backend {backend}",
        0.0,
        "maintenance mode, which takes effect at once",
        interval * (times + 1),
        f"{times} checks, one every {interval:g} s",
        {server["name"]: _server(server) for server in servers},
    )


def see(answer: Mapping[str, Any], place: Mapping[str, Any]) -> Balancer:
    """A load balancer of any kind.

    Args:
        answer: of the module that asked it.
        place: which one: ``provider``, ``name``, and ``region`` or ``interval``. Where the provider is ``none`` nobody
            waits for anything.

    Raises:
        OperationError: there is no answer.
    """
    if place["provider"] == NONE:
        return Balancer("load balancer", 0.0, "", 0.0, "")
    if place["provider"] == AWS:
        return from_aws(answer, str(place["name"]), str(place.get("region") or ""))
    return from_haproxy(answer, str(place["name"]), float(place["interval"]))


def target(answer: Mapping[str, Any], place: Mapping[str, Any], name: str) -> Target:
    """How a load balancer sees a host. Where it does not answer that is not known, and why.

    Args:
        answer: of the module that asked it.
        place: which one, as for `see`.
        name: of the host there: that of a server, or instance and port (``i-0123:5000``).
    """
    try:
        balancer = see(answer, place)
    except OperationError as error:
        return Target(UNKNOWN, error.cause)
    return _find(balancer, name)


def departure(
    answer: Mapping[str, Any], place: Mapping[str, Any], batch: Collection[str], names: Mapping[str, str]
) -> Departure:
    """Whether somebody is left to serve, by the load balancer's own word, while a batch is out of it.

    That a host answers well itself is not enough: the load balancer may see it otherwise (a security group, another
    path), and sends it nothing then. Whoever else gets requests counts, also a target that is no host of the fleet.

    Args:
        answer: of the module that asked it.
        place: which one, as for `see`.
        batch: hosts that are to leave.
        names: of each host of the fleet that of its target.
    """
    who = named(list(batch))
    try:
        balancer = see(answer, place)
    except OperationError as error:
        return Departure(
            STOP,
            f"whether anybody would serve while {who} {'are' if len(batch) > 1 else 'is'} out of the load balancer is "
            f"not known: {error.cause}. What to do: {error.remedy}",
        )
    nameless = [host for host in batch if not names.get(host)]
    if nameless:
        # It would count among those that are left.
        return Departure(
            STOP,
            f"what the load balancer calls {named(nameless)} is not known. What to do: run entry point budget of "
            "the role alb_target on all hosts before",
        )
    leaving = {names[host] for host in batch}
    serving = {name for name, target in balancer.targets.items() if target.state == IN}
    if serving - leaving and balancer.apart:
        return Departure(
            STAY,
            f"the {balancer.name} keeps zones apart (load_balancing.cross_zone.enabled is false), so that a zone may "
            f"have nobody else than {who}",
        )
    if serving - leaving:
        return Departure(LEAVE)
    if not serving:
        return Departure(
            STAY,
            f"the {balancer.name} calls no host healthy, so that none could take over from {who}",
        )
    others = {host: _find(balancer, name) for host, name in names.items() if host not in batch}
    seen = [", ".join(filter(None, [f"{host}: {target.state}", target.reason])) for host, target in others.items()]
    if len(seen) > SEEN:
        seen[SEEN:] = [f"and {len(seen) - SEEN} more"]
    return Departure(
        STOP,
        f"while {who} would be out of the load balancer nobody would serve: the {balancer.name} calls no other host "
        f"healthy{' (' + '; '.join(seen) + ')' if seen else ''}. What to do: see why (playbooks/doctor.yml) and mend "
        "it, or leave hosts in the load balancer while they are switched: -e deploy_drain=false",
    )


def _find(balancer: Balancer, name: str) -> Target:
    return balancer.targets.get(name, Target(OUT, f"{name} is not in the {balancer.name}"))


def _server(server: Mapping[str, Any]) -> Target:
    status = str(server["status"])
    reason = " ".join(filter(None, [status, str(server.get("check") or ""), str(server.get("answer") or "")]))
    # "UP 1/3" is going down and serves still; "DOWN 1/2" is coming up and does not yet.
    word = status.split(" ")[0]
    if word == "DOWN" and "/" in status:
        return Target(JOINING, reason)
    return Target(_HAPROXY_STATES.get(word, UNKNOWN), reason)


def _answered(answer: Mapping[str, Any], key: str, what: str, remedy: str) -> Sequence[Mapping[str, Any]]:
    """What a module returned; a failure that the playbook ignores does not call itself one."""
    if key not in answer:
        message = str(answer.get("msg") or "no answer").strip().splitlines()[0]
        raise OperationError(f"the load balancer could not be asked for {what}: {message}", remedy)
    return answer[key] or ()


def budget(
    balancer: Balancer, plan: Sequence[Sequence[str]], bake: Sequence[float], drain: bool, limits: Limits
) -> Budget:
    """How long a switch of the fleet takes by the load balancer's own numbers, and what is too short for that.

    Hosts leave only where others are left to serve: not in a plan of one batch. Those of one batch wait together, as
    many at a time as Ansible has forks, and each step ends on all of them before the next one begins.

    Args:
        balancer: which.
        plan: batches that are switched one after the other.
        bake: seconds that each batch is watched; the last number repeats.
        drain: whether hosts leave the load balancer while they are switched.
        limits: what is set.
    """
    leaves = drain and len(plan) > 1 and not balancer.apart
    waits = [balancer.drain, balancer.verdict] if leaves else [0.0, 0.0]
    # When the first host is switched, which starts its timer, when the last one is, and when all of it is over.
    first, last, ends = 0.0, 0.0, 0.0
    for number, batch in enumerate(plan):
        rounds = math.ceil(len(batch) / max(limits.forks, 1))
        left = ends + rounds * waits[0]
        first, last = first if number else left, left + (rounds - 1) * SWITCH
        watched = float(bake[min(number, len(bake) - 1)]) if bake else 0.0
        ends += rounds * (sum(waits) + SWITCH + watched)
    short = _short_limits(plan, ends - first, last, any(float(each) for each in bake), limits)
    found = [*(_short_timeouts(balancer, limits) if leaves else []), *short]
    if not leaves:
        line = f"no host leaves the {balancer.name}"
    else:
        line = (
            f"the {balancer.name} drains a host in {balancer.drain:g} s and calls it healthy in "
            f"{balancer.verdict:g} s at most ({balancer.checks})"
        )
    batches = f"{len(plan)} batch{'es' if len(plan) != 1 else ''}"
    return Budget(f"Time: {line}; {batches} may take {spell(ends)}.", found)


def _short_timeouts(balancer: Balancer, limits: Limits) -> list[str]:
    found = []
    if limits.timeout < balancer.drain + MARGIN:
        found.append(
            f"no host would be drained in time: the {balancer.name} takes {balancer.drain:g} s "
            f"({balancer.drain_setting}), and alb_target_timeout is {limits.timeout:g} s. What to do: set "
            f"alb_target_timeout to {_rounded(balancer.drain + MARGIN)}, or make the delay shorter (it only has to "
            "outlast the longest request)"
        )
    if limits.timeout < balancer.verdict + MARGIN:
        found.append(
            f"no host would be called healthy in time: the {balancer.name} takes up to {balancer.verdict:g} s "
            f"({balancer.checks}), and alb_target_timeout is {limits.timeout:g} s. What to do: set alb_target_timeout "
            f"to {_rounded(balancer.verdict + MARGIN)}, or let it check more often"
        )
    return found


def _short_limits(
    plan: Sequence[Sequence[str]], confirmed: float, turn: float, watches: bool, limits: Limits
) -> list[str]:
    short, needed = {}, 0.0
    if 0 < limits.confirm_within < confirmed:
        needed = confirmed
        short["app_release_confirm_within"] = (
            f"hosts that are switched first would return by themselves before the deployment ends: "
            f"that takes {spell(confirmed)}, and they wait {limits.confirm_within:g} s (app_release_confirm_within)"
        )
    if 0 < limits.lease < turn:
        needed = max(needed, turn)
        short["app_release_lease"] = (
            f"hosts that are switched last could lose their lock before it is their turn: "
            f"that takes {spell(turn)}, and it holds for {limits.lease:g} s (app_release_lease)"
        )
    if not short:
        return []
    wanted = _rounded(needed + MARGIN)
    ways = ["larger batches (deploy_batches)"] if len(plan) > 1 else []
    ways += ["a shorter time to watch them (deploy_bake)"] if watches else []
    if max(len(batch) for batch in plan) > limits.forks:
        ways.append(f"more hosts at a time (forks in ansible.cfg, which is {limits.forks})")
    return [
        f"{'; '.join(short.values())}. What to do: set {' and '.join(short)} to {wanted}"
        + (f", or have {' or '.join(ways)}" if ways else "")
    ]


def _rounded(seconds: float) -> int:
    """The next half minute: what people like to write into a file."""
    return math.ceil(seconds / 30) * 30


def spell(seconds: float) -> str:
    """Seconds for people: 1830 as ``30 min 30 s``."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return " ".join(filter(None, [f"{minutes} min" if minutes else "", f"{rest} s" if rest or not minutes else ""]))


def remark(host: str, target: Target) -> str | None:
    """What people have to know of a host in the status of a fleet, or None.

    Args:
        host: its name.
        target: how its load balancer sees it.
    """
    if target.state in (OUT, LEAVING):
        return (
            f"{host} is out of the load balancer and gets no requests{_because(target)}; the next deployment puts it "
            "back, or, unless one is at work, the doctor: playbooks/doctor.yml -e doctor_repair=true"
        )
    if target.state == UNUSED:
        return (
            f"{host} is registered in the load balancer, which does not use it: it gets no requests{_because(target)}. "
            f"What to do: {_unused_remedy(target)}"
        )
    if target.state == ILL:
        return f"{host}: the load balancer does not call it healthy{_because(target)}"
    if target.state == UNKNOWN:
        return f"{host}: whether it is in the load balancer is not known{_because(target)}"
    return None


def finding(target: Target, healthy: bool) -> dict[str, Any] | None:
    """What a doctor says of a host, or None if all is well; as those of `doctor.Finding`.

    Args:
        target: how its load balancer sees it.
        healthy: whether the host itself answers well.
    """
    if target.state in (OUT, LEAVING):
        return {
            "what": "this host is out of the load balancer: it gets no requests",
            "remedy": (
                "a deployment is at work, or one that was killed left it so; the next deployment puts it back, and so "
                "does the repair"
                if healthy
                else "mend the release first (see above): the load balancer would not call it healthy"
            ),
            "repairable": healthy,
            "evidence": [target.reason] if target.reason else [],
        }
    if target.state == UNUSED:
        return {
            "what": "this host is registered in the load balancer, which does not use it: it gets no requests",
            "remedy": _unused_remedy(target),
            "repairable": False,
            "evidence": [target.reason] if target.reason else [],
        }
    if target.state == ILL and healthy:
        return {
            "what": "the load balancer does not call this host healthy, which answers well itself",
            "remedy": "see that it asks at the right port and path, and that it may connect (security groups)",
            "repairable": False,
            "evidence": [target.reason] if target.reason else [],
        }
    if target.state == UNKNOWN:
        return {
            "what": "whether this host is in the load balancer is not known",
            "remedy": "see why the load balancer could not be asked",
            "repairable": False,
            "evidence": [target.reason] if target.reason else [],
        }
    return None


def _unused_remedy(target: Target) -> str:
    return _UNUSED_REMEDIES.get(target.reason.split(" ")[0], "see what AWS says of that reason")


def _because(target: Target) -> str:
    return f" ({target.reason})" if target.reason else ""

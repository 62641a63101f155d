"""The parts of the load generator that need no network: parser, checks, limits, arithmetic."""

from __future__ import annotations

import argparse
import asyncio
import resource
from collections import Counter

import pytest
import traffic
from hypothesis import given
from hypothesis import strategies as st
from traffic import Client, MalformedResponse, Response, Target, TrafficError

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Release: 1.0.0\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
    b"5\r\nhello\r\n6;note=x\r\n world\r\n0\r\n\r\n"
)
UNSIZED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end"


@pytest.mark.parametrize(
    ("message", "status", "body", "closes"),
    [
        (PLAIN, 200, b"hello", False),
        (CHUNKED, 201, b"hello world", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, 200, b"hello", False),
        (b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 503, b"", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
    ],
)
def test_whole_responses_are_read(message: bytes, status: int, body: bytes, closes: bool) -> None:
    response = Response("GET")
    assert response.feed(message)
    assert (response.status, response.body, response.closes) == (status, body, closes)


@given(message=st.sampled_from([PLAIN, CHUNKED]), data=st.data())
def test_responses_may_arrive_in_any_pieces(message: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(message) - 1), max_size=8)))
    pieces = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)])]
    response = Response("GET")
    assert [response.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert response.body in (b"hello", b"hello world")


@given(message=st.sampled_from([PLAIN, CHUNKED]), data=st.data())
def test_a_cut_response_is_never_complete(message: bytes, data: st.DataObject) -> None:
    response = Response("GET")
    assert not response.feed(message[: data.draw(st.integers(1, len(message) - 1))])
    assert not response.end()


def test_a_body_without_length_ends_with_the_connection() -> None:
    response = Response("GET")
    assert not response.feed(UNSIZED)
    assert response.end()
    assert response.body == b"until the end"


@pytest.mark.parametrize(
    "message",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        PLAIN + b"surplus",
        CHUNKED + b"surplus",
        b"x" * (traffic.MAX_HEAD + 1),
    ],
)
def test_nonsense_is_refused(message: bytes) -> None:
    with pytest.raises(MalformedResponse):
        Response("GET").feed(message)


HEALTH = Target("GET", "/health", expects="health")
PAGE = Target("GET", "/", expects="html")
LIST = Target("GET", "/api/roasts", expects="json")


@pytest.mark.parametrize(
    ("target", "status", "body", "problem"),
    [
        (HEALTH, 200, b'{"status": "healthy", "version": "1.0.0"}', None),
        (HEALTH, 200, b'{"status": "degraded", "version": "1.0.0"}', None),
        (HEALTH, 200, b'{"status": "unhealthy", "version": "1.0.0"}', "wrong body"),
        (HEALTH, 200, b'{"status": "healthy"}', "wrong body"),
        (HEALTH, 200, b"[]", "wrong body"),
        (HEALTH, 503, b'{"status": "unhealthy", "version": "1.0.0"}', "status 503"),
        (PAGE, 200, b"<!DOCTYPE html><html></html>\n", None),
        (PAGE, 200, b"<!DOCTYPE html><html><body>", "wrong body"),
        (PAGE, 200, b"nginx", "wrong body"),
        (PAGE, 304, b"", "status 304"),
        (LIST, 200, b"[]", None),
        (LIST, 200, b'[{"id": 1', "wrong body"),
        (LIST, 429, b"slow down", "status 429"),
        (Target("POST", "/", status=201), 200, b"", "status 200"),
    ],
)
def test_answers_are_judged(target: Target, status: int, body: bytes, problem: str | None) -> None:
    found = target.problem(status, body)
    assert (found or "").partition(":")[0] == (problem or "")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "10.88.0.4", "172.20.0.2", "192.168.7.1"])
def test_loopback_and_private_addresses_are_allowed(address: str) -> None:
    assert traffic.is_allowed(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "169.254.169.254", "2606:4700::1", "0.0.0.0", "x"])
def test_other_addresses_are_refused(address: str) -> None:
    assert not traffic.is_allowed(address)


@pytest.mark.parametrize(
    "url",
    ["http://8.8.8.8/", "http://169.254.169.254", "https://127.0.0.1", "127.0.0.1", "http://127.0.0.1/x"],
)
def test_urls_elsewhere_are_refused(url: str) -> None:
    with pytest.raises(TrafficError):
        traffic.resolve(url)


@pytest.mark.parametrize(
    "options",
    [{"rate": 0}, {"rate": 2001}, {"seconds": 7201}, {"seconds": 0}, {"connections": 3001}],
)
def test_limits_are_enforced(options: dict[str, float]) -> None:
    async def make() -> None:
        traffic.Traffic("http://127.0.0.1:9", **options)  # type: ignore[arg-type]

    with pytest.raises(TrafficError, match=next(iter(options))):
        asyncio.run(make())


def test_as_many_files_may_be_open_as_connections_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])

    def change(_: int, new: tuple[int, int]) -> None:
        if new[0] > new[1]:
            raise ValueError("current limit exceeds maximum limit")
        limits.append(new)

    monkeypatch.setattr(resource, "setrlimit", change)
    traffic.allow_open_files(1000)
    assert limits == [(1024, 4096)]
    traffic.allow_open_files(2200)
    assert limits[-1] == (2200, 4096)
    with pytest.raises(traffic.TrafficError, match="at most 4096 are allowed: ask for fewer connections"):
        traffic.allow_open_files(5000)


def test_the_number_of_requests_is_limited() -> None:
    async def make() -> traffic.Traffic:
        return traffic.Traffic("http://127.0.0.1:9", rate=traffic.MAX_RATE)

    longest = asyncio.run(make())
    assert longest.seconds * longest.rate == traffic.MAX_REQUESTS


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0.01, 1.0))
def test_percentile_is_the_smallest_value_that_covers_the_share(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = traffic.percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-6
    assert sum(value < found for value in ordered) < share * len(ordered) + 1e-6


def test_latency_of_nothing_is_zero() -> None:
    assert traffic.latency_summary([]) == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_cookies_are_kept_replaced_and_dropped() -> None:
    client = Client("sticky")
    client.learn([b"AWSALB=one; path=/", b"theme=dark"])
    client.learn([b"AWSALB=two; HttpOnly"])
    assert client.cookies == {b"AWSALB": b"two", b"theme": b"dark"}
    client.learn([b"theme=x; Max-Age=0", b"AWSALB=; expires=Thu, 01-Jan-1970 00:00:01 GMT"])
    assert client.cookies == {}


def test_counters_are_copied_deeply() -> None:
    counters = traffic.Counters(failures=Counter(reset=1))
    copy = counters.copy()
    counters.failures["reset"] += 1
    assert copy.failures == {"reset": 1}


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/x", Target("GET", "/x")),
        ("get /x", Target("GET", "/x")),
        ("GET /x 404", Target("GET", "/x", status=404)),
        ('POST /x 201 {"a": 1}', Target("POST", "/x", status=201, body=b'{"a": 1}')),
    ],
)
def test_targets_of_the_command_line(text: str, target: Target) -> None:
    assert traffic.parse_target(text) == target


@pytest.mark.parametrize("text", ["", "GET", "GET x", "GET /x good"])
def test_wrong_targets_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        traffic.parse_target(text)

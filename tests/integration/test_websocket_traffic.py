"""Visitors with WebSockets count everything that goes wrong: small servers that do it, and the library `ws`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import socket
import struct
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import traffic
import websocket_traffic
from loopback_server import LoopbackServer
from npm_packages import brought_node
from pm2_host import pm2_packages
from websocket_traffic import CLOSE, PING, PONG, TEXT, Frame, Report, WebSocketTraffic, accept_of, read_frame

#: Seconds that a visitor waits for anything, where nothing comes.
TIMEOUT = 0.6
VERSION = "1.0.0"


@dataclasses.dataclass
class Peer:
    """The server's end of one connection, behind the handshake."""

    server: Server
    number: int  # of the connection, from 1
    head: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, opcode: int, payload: bytes = b"") -> None:
        self.writer.write(Frame(opcode, payload).encode())

    def close(self, code: int = 1001, reason: str = "") -> None:
        self.send(CLOSE, code.to_bytes(2, "big") + reason.encode())

    def echo(self, payload: bytes, version: str = VERSION) -> None:
        self.send(TEXT, json.dumps({"echo": payload.decode(), "version": version}).encode())

    async def receive(self) -> Frame:
        """The next frame of the visitor, masked as all of them."""
        frame = await read_frame(self.reader)
        if frame is None:
            raise ConnectionError("the visitor has gone")
        assert frame.masked
        return frame

    async def message(self) -> bytes:
        """The next message; a visitor who takes leave gets its answer, and the end."""
        frame = await self.receive()
        if frame.opcode == CLOSE:
            self.server.left.append(int.from_bytes(frame.payload, "big"))
            self.send(CLOSE, frame.payload)
            raise ConnectionError("the visitor leaves")
        assert frame.opcode == TEXT
        self.server.messages.append(frame.payload.decode())
        return frame.payload

    async def answered(self) -> Frame:
        """The visitor's close frame, and what it had sent before it is left."""
        while (frame := await self.receive()).opcode != CLOSE:
            pass
        return frame

    def reset(self) -> None:
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Peer], Awaitable[None]]
Handshake = Callable[["Server", str], bytes]


def welcome(_server: Server, head: str, *lines: str) -> bytes:
    """The answer to a good handshake."""
    found = re.search(r"^Sec-WebSocket-Key: (\S+)\r$", head, re.MULTILINE)
    assert found and "\r\nUpgrade: websocket\r\n" in head and "\r\nSec-WebSocket-Version: 13\r\n" in head
    own = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    return "\r\n".join([*own, f"Sec-WebSocket-Accept: {accept_of(found[1])}", *lines, "", ""]).encode()


class Server(LoopbackServer):
    """Shakes hands; the behaviour decides how it goes on."""

    def __init__(self, behaviour: Behaviour, handshake: Handshake = welcome) -> None:
        self.behaviour = behaviour
        self.handshake = handshake
        self.heads: list[str] = []
        self.messages: list[str] = []
        self.left: list[int] = []
        self.errors: list[BaseException] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            answer = self.handshake(self, head)
            writer.write(answer)
            if answer.startswith(b"HTTP/1.1 101 "):
                await self.behaviour(Peer(self, len(self.heads), head, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception as error:
            self.errors.append(error)
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()


def drive(
    behaviour: Behaviour,
    handshake: Handshake = welcome,
    *,
    visitors: int = 2,
    seconds: float = 0.5,
    interval: float = 0.02,
    timeout: float = 5.0,
    crossing: float = 0.2,
    pause: float = 0.2,
) -> tuple[Report, Server]:
    """Some visitors for a while; the sums have to be right whatever the server does."""

    async def live() -> tuple[Report, Server]:
        async with Server(behaviour, handshake).running() as server:
            options: dict[str, Any] = {"interval": interval, "timeout": timeout, "crossing": crossing, "pause": pause}
            async with WebSocketTraffic(server.url, visitors, path="/chat", seed=1, **options) as web:
                await asyncio.sleep(seconds)
                assert web.running
            return web.report(), server

    report, server = asyncio.run(live())
    assert server.errors == []
    assert report.under_way == 0
    assert report.sent == report.echoed + report.crossed + report.failures.get("lost", 0)
    assert report.failed == sum(report.failures.values()) == len(report.events)
    assert all(head.startswith("GET /chat HTTP/1.1\r\n") for head in server.heads)
    return report, server


async def well(peer: Peer) -> None:
    while True:
        peer.echo(await peer.message())


async def well_for_ten(peer: Peer, ends: Callable[[Peer], Awaitable[None]]) -> None:
    """Serves ten messages on every connection, and then ends it in some way."""
    for _ in range(10):
        peer.echo(await peer.message())
    await ends(peer)


async def by_the_protocol(peer: Peer) -> None:
    peer.close(reason="received 10")
    frame = await peer.answered()
    assert frame.payload == (1001).to_bytes(2, "big")


class TestGoodServers:
    def test_nothing_is_lost_and_visitors_leave_by_the_protocol(self) -> None:
        report, server = drive(well, visitors=3)
        assert report.failed == 0
        assert report.opened == len(server.heads) == 3
        assert report.echoed == report.sent == len(server.messages) > 30
        assert report.versions == {VERSION: report.echoed}
        assert (report.closed, report.reconnected, report.crossed) == (0, 0, 0)
        assert server.left == [1000, 1000, 1000]
        assert 0 < report.echo_ms["p50"] <= report.echo_ms["p99"] <= report.echo_ms["max"]
        # Everybody's messages, in order, without a gap.
        for visitor in range(3):
            own = [message for message in server.messages if message.startswith(f"{visitor}/")]
            assert own == [f"{visitor}/{number}" for number in range(1, len(own) + 1)]

    @pytest.mark.parametrize("code", [1001, 1012])
    def test_a_clean_close_is_none_and_the_visitor_comes_back_at_once(self, code: int) -> None:
        async def ends(peer: Peer) -> None:
            peer.close(code)
            await peer.answered()

        report, server = drive(lambda peer: well_for_ten(peer, ends), seconds=1)
        assert report.failed == 0
        assert report.closed == report.reconnected > 4
        assert report.opened == len(server.heads) == report.closed + report.visitors
        assert report.codes == {str(code): report.closed, "1000": report.visitors}
        assert 0 < report.away_ms["p50"] < 200

    def test_what_crosses_the_close_frame_is_sent_again(self) -> None:
        async def ends(peer: Peer) -> None:
            await asyncio.sleep(0.1)  # meanwhile messages arrive that it does not read
            await by_the_protocol(peer)

        report, server = drive(lambda peer: well_for_ten(peer, ends), seconds=1)
        assert report.failed == 0
        assert report.crossed > 4
        assert report.sent == report.echoed + report.crossed
        # Those that the server had read: none is missing, and none came twice.
        for visitor in range(2):
            own = [message for message in server.messages if message.startswith(f"{visitor}/")]
            assert own == [f"{visitor}/{number}" for number in range(1, len(own) + 1)]

    def test_answers_behind_the_close_frame_are_discarded(self) -> None:
        async def ends(peer: Peer) -> None:
            peer.close()
            while (frame := await peer.receive()).opcode != CLOSE:
                peer.echo(frame.payload)
            peer.echo(b"0/1")

        report, _ = drive(lambda peer: well_for_ten(peer, ends))
        assert report.failed == 0
        assert report.closed > 1

    def test_pings_are_answered(self) -> None:
        pongs = []

        async def curious(peer: Peer) -> None:
            peer.send(PING, b"are you there")
            peer.send(PONG, b"unasked")
            while (frame := await peer.receive()).opcode != CLOSE:
                if frame.opcode == PONG:
                    pongs.append(frame.payload)
                else:
                    peer.echo(frame.payload)
            peer.send(CLOSE, frame.payload)

        report, _ = drive(curious)
        assert report.failed == 0
        assert pongs == [b"are you there"] * 2

    def test_every_second_visitor_keeps_its_cookies(self) -> None:
        def sticky(server: Server, head: str) -> bytes:
            return welcome(server, head, "Set-Cookie: AWSALB=node1; path=/; HttpOnly", "Set-Cookie: b=2")

        report, server = drive(lambda peer: well_for_ten(peer, by_the_protocol), sticky, seconds=1)
        assert report.failed == 0
        with_cookies = sum("\r\nCookie: AWSALB=node1; b=2\r\n" in head for head in server.heads)
        assert 2 < with_cookies < len(server.heads) - 2

    def test_who_was_sent_away_comes_back_before_the_end(self) -> None:
        async def slow_to_end(peer: Peer) -> None:
            if peer.number > 1:
                await well(peer)
            peer.echo(await peer.message())
            peer.close()
            await asyncio.sleep(0.3)

        report, server = drive(slow_to_end, visitors=1, seconds=0.1)
        assert report.failed == 0
        assert report.closed == report.reconnected == 1
        assert len(server.heads) == 2

    def test_a_server_that_closes_while_the_visitor_leaves(self) -> None:
        async def hasty(peer: Peer) -> None:
            while (frame := await peer.receive()).opcode != CLOSE:
                peer.echo(frame.payload)
            peer.close()

        report, _ = drive(hasty)
        assert report.failed == 0
        assert report.closed == 0


async def cut(peer: Peer) -> None:
    pass


async def cut_inside(peer: Peer) -> None:
    peer.writer.write(Frame(TEXT, b"never whole").encode()[:5])


async def reset(peer: Peer) -> None:
    peer.reset()


async def reset_behind_the_close_frame(peer: Peer) -> None:
    peer.close()
    await peer.answered()
    peer.reset()


async def never_hang_up(peer: Peer) -> None:
    peer.close()
    await peer.answered()
    await asyncio.sleep(2 * TIMEOUT)


async def fail(peer: Peer) -> None:
    peer.close(1011, "out of coffee")
    await peer.answered()


async def leave_normally(peer: Peer) -> None:
    peer.close(1000)
    await peer.answered()


async def without_a_code(peer: Peer) -> None:
    peer.send(CLOSE)
    await peer.answered()


async def masked(peer: Peer) -> None:
    peer.writer.write(Frame(TEXT, b"x", masked=True).encode())
    await peer.answered()


async def compressed(peer: Peer) -> None:
    peer.writer.write(b"\xc1\x01x")
    await peer.answered()


async def huge(peer: Peer) -> None:
    peer.writer.write(b"\x81\x7f" + (1 << 40).to_bytes(8, "big"))
    await peer.answered()


async def nonsense(peer: Peer) -> None:
    await peer.message()
    peer.send(TEXT, b"hello")
    await peer.answered()


async def twice(peer: Peer) -> None:
    message = await peer.message()
    peer.echo(message)
    peer.echo(message)
    await peer.answered()


async def silent(peer: Peer) -> None:
    await asyncio.sleep(2 * TIMEOUT)


class TestFaults:
    @pytest.mark.parametrize(
        ("ends", "kind"),
        [
            (cut, "closed without a close frame"),
            (cut_inside, "cut inside a frame"),
            (reset, "reset"),
            (reset_behind_the_close_frame, "reset behind the close frame"),
            (never_hang_up, "time-out"),
            (fail, "closed with code 1011"),
            (leave_normally, "closed with code 1000"),
            (without_a_code, "closed with code 1005"),
            (masked, "malformed"),
            (compressed, "malformed"),
            (huge, "malformed"),
            (nonsense, "wrong echo"),
            (twice, "wrong echo"),
            (silent, "time-out"),
        ],
    )
    def test_every_one_is_counted_and_named(self, ends: Behaviour, kind: str) -> None:
        timeout = TIMEOUT if kind == "time-out" else 5.0
        report, server = drive(lambda peer: well_for_ten(peer, ends), visitors=1, seconds=1.2, timeout=timeout)
        failures = {name: number for name, number in report.failures.items() if name != "lost"}
        assert failures == {kind: len(server.heads) - (1 if server.left else 0)}
        assert report.closed == 0
        # It went on, with another WebSocket.
        assert len(server.heads) > 1
        assert report.events[0]["kind"] == kind

    def test_messages_on_a_connection_that_fails_are_lost(self) -> None:
        async def unread(peer: Peer) -> None:
            await asyncio.sleep(0.2)
            peer.reset()

        report, _ = drive(lambda peer: well_for_ten(peer, unread), visitors=1)
        assert report.failures["lost"] > 3
        assert "its WebSocket failed: reset" in report.events[-1]["detail"]

    def test_one_that_is_left_out_is_lost(self) -> None:
        async def forgetful(peer: Peer) -> None:
            for number in range(1_000_000):
                message = await peer.message()
                if number != 3:
                    peer.echo(message)

        report, _ = drive(forgetful)
        assert report.failures == {"lost": 2}
        assert report.events[0]["detail"] in [
            f"message {visitor}/4: message {visitor}/5 was answered before it" for visitor in (0, 1)
        ]

    def test_a_server_that_had_messages_and_closes_without_answers(self) -> None:
        async def swallow(peer: Peer) -> None:
            for _ in range(3):
                await peer.message()
            peer.close(reason="received 13")
            await peer.answered()

        report, _ = drive(lambda peer: well_for_ten(peer, swallow), visitors=1, timeout=TIMEOUT, crossing=10)
        assert report.failures["lost"] >= 3 * report.closed > 0

    def test_a_server_that_does_not_say_what_it_had(self) -> None:
        async def swallow(peer: Peer) -> None:
            await peer.message()
            await asyncio.sleep(0.3)  # longer than anything is on its way
            peer.close()
            await peer.answered()

        report, _ = drive(lambda peer: well_for_ten(peer, swallow), visitors=1)
        assert report.failures["lost"] >= report.closed > 0
        # The last ones may have crossed.
        assert report.crossed > 0

    def test_a_time_out_of_a_single_message(self) -> None:
        async def stops(peer: Peer) -> None:
            while True:
                await peer.message()

        report, _ = drive(lambda peer: well_for_ten(peer, stops), visitors=1, seconds=1.2, timeout=TIMEOUT)
        assert report.failures["time-out"] >= 1
        assert re.search(r"no echo of message 0/11 within 0\.6 s", report.events[0]["detail"])

    def test_a_visitor_who_leaves_and_gets_no_answer(self) -> None:
        async def rude(peer: Peer) -> None:
            while (frame := await peer.receive()).opcode != CLOSE:
                peer.echo(frame.payload)
            await asyncio.sleep(2 * TIMEOUT)

        report, _ = drive(rude, timeout=TIMEOUT)
        assert report.failures == {"time-out": 2}


def refuse(_server: Server, _head: str) -> bytes:
    return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def wrong_key(server: Server, head: str) -> bytes:
    return re.sub(rb"Accept: \S+", b"Accept: " + accept_of("another").encode(), welcome(server, head))


def no_web_socket(server: Server, head: str) -> bytes:
    return welcome(server, head).replace(b"Upgrade: websocket", b"Upgrade: h2c")


def half_a_head(_server: Server, _head: str) -> bytes:
    return b"HTTP/1.1 10"


class TestHandshakes:
    @pytest.mark.parametrize(
        ("handshake", "kind"),
        [
            (refuse, "handshake refused"),
            (wrong_key, "malformed"),
            (no_web_socket, "malformed"),
            (half_a_head, "closed in the handshake"),
        ],
    )
    def test_a_bad_one_fails(self, handshake: Handshake, kind: str) -> None:
        report, server = drive(well, handshake, seconds=0.3)
        assert report.failures == {kind: len(server.heads)}
        assert report.opened == report.sent == 0
        # Each visitor tried again, and not without end.
        assert len(server.heads) == 4

    def test_a_closed_port(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take it

            async def live() -> Report:
                async with WebSocketTraffic(f"http://127.0.0.1:{unused.getsockname()[1]}", 2) as web:
                    await asyncio.sleep(0.2)
                return web.report()

            report = asyncio.run(live())
        assert report.failures == {"refused": 2}

    def test_one_that_takes_too_long(self) -> None:
        async def live() -> Report:
            # The kernel accepts, and nobody else.
            with socket.create_server(("127.0.0.1", 0)) as sock:
                url = f"http://127.0.0.1:{sock.getsockname()[1]}"
                async with WebSocketTraffic(url, 1, timeout=0.3) as web:
                    await asyncio.sleep(0.5)
                return web.report()

        report = asyncio.run(live())
        assert report.failures == {"time-out": 1}
        assert report.events[0]["detail"] == "no handshake within 0.3 s"

    def test_a_refused_return_is_a_failure(self) -> None:
        def once(server: Server, head: str) -> bytes:
            return welcome(server, head) if len(server.heads) == 1 else refuse(server, head)

        report, _ = drive(lambda peer: well_for_ten(peer, by_the_protocol), once, visitors=1, pause=10)
        assert (report.closed, report.reconnected) == (1, 0)
        assert report.failures == {"handshake refused": 1}

    def test_whoever_is_sent_away_again_and_again_was_not_served(self) -> None:
        async def nothing(peer: Peer) -> None:
            peer.close(reason="received 0")
            await peer.answered()

        async def behaviour(peer: Peer) -> None:
            await (well_for_ten(peer, by_the_protocol) if peer.number == 1 else nothing(peer))

        report, server = drive(behaviour, visitors=1, seconds=1.3, timeout=TIMEOUT)
        assert report.failures.keys() == {"time-out"}
        assert report.reconnected == 0
        # On a busy machine the time may be over in the middle of the last handshake.
        assert re.search(r"not served again within 0\.6 s|no handshake within", report.events[0]["detail"])
        # With a pause in between.
        assert len(server.heads) < 50


class TestInBackground:
    def test_lap_by_lap(self) -> None:
        with Server(lambda peer: well_for_ten(peer, by_the_protocol)).in_a_thread() as url:
            with websocket_traffic.in_background(url, 3, interval=0.02, seed=1) as web:
                assert websocket_traffic.wait_served(web)
                laps = []
                for _ in range(3):
                    time.sleep(0.3)
                    laps.append(web.lap())
                assert web.running
                total = web.stop()
                laps.append(web.lap())
            assert not web.running
        assert total.failed == 0
        for field in ("opened", "sent", "echoed", "closed", "reconnected"):
            assert sum(getattr(lap, field) for lap in laps) == getattr(total, field) > 0
        assert sum(lap.seconds for lap in laps) == pytest.approx(total.seconds, abs=0.02)

    def test_nobody_is_served_by_a_silent_server(self) -> None:
        with Server(silent).in_a_thread() as url, websocket_traffic.in_background(url, 1, timeout=TIMEOUT) as web:
            assert not websocket_traffic.wait_served(web, 0.3)

    @pytest.mark.parametrize(
        ("url", "options", "said"),
        [
            ("http://192.0.2.1/", {}, "loopback and private"),
            ("http://127.0.0.1/", {"visitors": 0}, "visitors is 0"),
            ("http://127.0.0.1/", {"visitors": 101}, "visitors is 101"),
            ("http://127.0.0.1/", {"interval": 0.001}, "interval is 0.001"),
        ],
    )
    def test_wrong_use_is_refused(self, url: str, options: dict[str, Any], said: str) -> None:
        with pytest.raises(traffic.TrafficError, match=re.escape(said)):
            websocket_traffic.in_background(url, **options).start()


def test_the_library_ws_is_understood() -> None:
    """A server that nobody here has written, which closes all WebSockets twice a second as it does by itself."""
    script = f"""
      const {{ WebSocketServer }} = require({json.dumps(str(pm2_packages() / "ws"))});
      const server = new WebSocketServer({{ host: '127.0.0.1', port: 0 }}, () => console.log(server.address().port));
      server.on('connection', (peer) => {{
        peer.ping('are you there');
        peer.on('message', (text) => peer.send(JSON.stringify({{ echo: String(text), version: '1.0.0' }})));
        peer.on('close', (code) => console.log(code));
      }});
      const timer = setInterval(() => server.clients.forEach((peer) => peer.close(1001)), 500);
      // It ends with the last connection, and not before that one's end was seen.
      process.stdin.on('end', () => {{ clearInterval(timer); server.close(); }}).resume();
    """
    with subprocess.Popen(
        [brought_node(), "-e", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        with websocket_traffic.in_background(url, 4, interval=0.02, seed=1) as web:
            time.sleep(1.7)
            report = web.stop()
        server.stdin.close()
        codes = server.stdout.read().split()
    assert report.failed == 0, report.events
    assert report.closed == report.reconnected >= 4
    assert report.echoed > 20
    assert codes == ["1001"] * report.closed + ["1000"] * 4

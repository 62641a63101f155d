"""A server on loopback whose connections a test answers by hand."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

Self = TypeVar("Self", bound="LoopbackServer")


class LoopbackServer:
    """Listens; what it does with a connection is up to its kind."""

    url = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def running(self: Self) -> AsyncIterator[Self]:
        """In the loop of the test."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    @contextlib.contextmanager
    def in_a_thread(self) -> Iterator[str]:
        """In a loop of its own, which nothing holds up; gives its address."""
        ready, leave = threading.Event(), threading.Event()

        async def live() -> None:
            async with self.running():
                ready.set()
                await asyncio.to_thread(leave.wait)

        thread = threading.Thread(target=asyncio.run, args=(live(),))
        thread.start()
        try:
            assert ready.wait(5)
            yield self.url
        finally:
            leave.set()
            thread.join()

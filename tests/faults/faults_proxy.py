"""A user-space TCP proxy on every link between the nodes of a consortium: cuts, stalls, delays and resets links."""

import asyncio
import contextlib
import os
import random
import re
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec
from faults_consortium import Consortium

from gridpool.engines.network import node_file_at, write_document

CHUNK = 1 << 16
PATIENCE_S = 10.0


class Link:
    """The way from a node that dials to the one that listens. Its state is read by the proxy's event loop."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay_s = 0.0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.open = True
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side or a fault ends it."""
        far_writer = None
        try:
            if not self.open:
                return
            await self.flowing.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            self.writers |= {writer, far_writer}
            there = asyncio.create_task(self._pump(reader, far_writer))
            back = asyncio.create_task(self._pump(far_reader, writer))
            _, pending = await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
        except OSError:
            pass
        finally:
            for end in (writer, far_writer):
                if end is not None:
                    self.writers.discard(end)
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on in order, each ``delay_s`` after it came; while the link is stalled, hold them."""
        loop = asyncio.get_running_loop()
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1_000)

        async def take() -> None:
            while data := await reader.read(CHUNK):
                await held.put((loop.time() + self.delay_s, data))
            await held.put((0.0, b""))

        taking = asyncio.create_task(take())
        try:
            while True:
                due, data = await held.get()
                if not data:
                    return
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self.flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            taking.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await taking

    def reset(self) -> None:
        """End the connections that pass here, as a reset does."""
        for writer in list(self.writers):
            writer.transport.abort()


class Proxies:
    """A link for every ordered pair of nodes. Lay it before the nodes start; close it when done."""

    def __init__(self, homes: list[Path]) -> None:
        """Start the proxies and point the nodes' configuration at them; the peers' identifiers stay."""
        self._homes = homes
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        self._links = self._wait(self._lay())
        for number, home in enumerate(homes):
            self._rewrite(number, home / "cometbft" / "config" / "config.toml")

    def stall(self, *groups: Iterable[int]) -> None:
        """Hold every byte between nodes of different groups; connections stay, as when a network drops packets."""
        self._do(lambda: [link.flowing.clear() for link in self._between(groups)])

    def cut(self, *groups: Iterable[int]) -> None:
        """End the connections between nodes of different groups and refuse new ones."""

        def now() -> None:
            for link in self._between(groups):
                link.open = False
                link.reset()

        self._do(now)

    def heal(self) -> None:
        """Let everything through again."""

        def now() -> None:
            for link in self._links.values():
                link.open = True
                link.flowing.set()
                link.delay_s = 0.0

        self._do(now)

    def delay(self, seconds: float) -> None:
        """Deliver every byte so much later, each way."""

        def now() -> None:
            for link in self._links.values():
                link.delay_s = seconds

        self._do(now)

    def reset_one(self, choice: random.Random) -> None:
        """End the connections of one link, drawn from those in use."""

        def now() -> None:
            used = [link for _, link in sorted(self._links.items()) if link.writers]
            if used:
                choice.choice(used).reset()

        self._do(now)

    def close(self) -> None:
        """End all connections and the proxies."""

        async def end() -> None:
            for link in self._links.values():
                link.reset()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._wait(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    async def _lay(self) -> dict[tuple[int, int], Link]:
        links = {}
        self._servers = []
        for dialer in range(len(self._homes)):
            for listener, home in enumerate(self._homes):
                node = node_file_at(home)
                assert node is not None
                if dialer != listener:
                    link = Link(node.ports.p2p)
                    server = await asyncio.start_server(link.serve, "127.0.0.1", 0)
                    link.port = server.sockets[0].getsockname()[1]
                    self._servers.append(server)
                    links[dialer, listener] = link
        return links

    def _rewrite(self, number: int, config: Path) -> None:
        ports = {link.target: link.port for (dialer, _), link in self._links.items() if dialer == number}
        text = config.read_text()
        line = re.search(r'^persistent_peers = "(.*)"$', text, re.MULTILINE)
        assert line is not None
        peers = []
        for peer in line[1].split(","):
            address, _, port = peer.rpartition(":")
            peers.append(f"{address}:{ports[int(port)]}")
        config.write_text(text.replace(line[0], f'persistent_peers = "{",".join(peers)}"'))

    def _between(self, groups: tuple[Iterable[int], ...]) -> list[Link]:
        of = {node: number for number, group in enumerate(groups) for node in group}
        return [link for (dialer, listener), link in self._links.items() if of[dialer] != of[listener]]

    def _do(self, what: object) -> None:
        async def run() -> None:
            assert callable(what)
            what()

        self._wait(run())

    def _wait(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)


class MemberProxies(Proxies):
    """The same for an etcd domain, whose members must all know a member by one address: one proxy before each.

    Who dials is told from the process that holds the other end. Each application asks its own member alone, as where
    the network between hosts is cut.
    """

    def __init__(self, net: Consortium) -> None:
        """Start the proxies and point the members at them."""
        self._net = net
        self._addresses: list[str] = []
        self._pids: dict[int, int] = {}
        super().__init__([net.home(number) for number in range(3)])

    async def _lay(self) -> dict[tuple[int, int], Link]:
        links = {}
        self._servers = []
        for listener, home in enumerate(self._homes):
            node = node_file_at(home)
            assert node is not None
            for dialer in range(len(self._homes)):
                links[dialer, listener] = Link(node.ports.p2p)

            async def pass_on(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener: int = listener
            ) -> None:
                dialer = self._holder(writer.get_extra_info("peername")[1])
                if dialer is None:
                    writer.transport.abort()
                    return
                await links[dialer, listener].serve(reader, writer)

            server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
            self._servers.append(server)
            self._addresses.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        return links

    def _rewrite(self, number: int, config: Path) -> None:
        node = node_file_at(self._homes[number])
        assert node is not None
        cluster = tuple((name, self._addresses[i]) for i, (name, _) in enumerate(node.cluster))
        write_document(
            self._homes[number] / "node.json", msgspec.structs.replace(node, cluster=cluster, peers=node.peers[:1])
        )

    def _holder(self, port: int) -> int | None:
        """Return the member whose engine has a socket with this local port."""
        mark = f":{port:04X} "
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines() if mark in row]
        inodes = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(mark.strip())}
        for number in range(len(self._homes)):
            if inodes & self._sockets(number):
                return number
        return None

    def _sockets(self, number: int) -> set[str]:
        """Return the open files of a member's engine; looks its process up anew where it has gone."""
        for _ in range(2):
            pid = self._pids.get(number)
            if pid is not None:
                with contextlib.suppress(OSError):
                    return {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
            self._pids[number] = next(iter(self._net.pids(number, "engine")), 0)
        return set()

"""Processes that notice each other's end, and tell what they die of.

A process that dies leaves the others inside an operation that never ends, or
ends in a page of the library's about a connection. So each keeps a connection
to process 0, which the kernel closes with the process, however it ends:

    a process -> 0    {"rank": 1, "key": ...}     here I am
                      {"cause": ..., "code": 1}   I end, this is why
                      {"done": true}              I am done
    0 -> a process    {"come": true}              I have come where you wait
                      {"end": 1}                  end, with this exit code
                      {"done": true}              I am done

Process 0 prints the cause, once; the others end without a word. A thread does
this, since the main one may never come back from where it waits.
"""

import collections
import contextlib
import json
import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import torch.distributed as dist

from san.jobs import entry

# That a process waits for process 0's verdict before it speaks for itself.
_VERDICT_SECONDS = 10.0

# That process 0 has to find what another one found, such as a wrong setting.
_LIKEWISE_SECONDS = 2.0

_HELLO_SECONDS = 5.0

# Until a machine that fell off the network is given up: 20 + 4 * 5 seconds.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 20,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
}


class Store(Protocol):
    """What is used of torch's TCPStore."""

    def set(self, key: str, value: str) -> None:
        """Sets a value."""

    def get(self, key: str) -> bytes:
        """Waits for a value."""


@contextlib.contextmanager
def watched(
    store: Store, rank: int, world_size: int, host: str, remedy: str
) -> Iterator["Watch"]:
    """Watches the other processes, and tells them if this one fails.

    When one ends before all are done, process 0 prints why, and all end.

    Args:
      store: that the processes share.
      rank: of this process.
      world_size: the number of processes.
      host: the machine of process 0.
      remedy: what to do about a process that was killed.

    Yields:
      What the processes can wait by.
    """
    if rank == 0:
        watch: Watch = _First(store, world_size, remedy)
    else:
        watch = _Other(store, rank, host, remedy)
    threading.Thread(target=watch.run, daemon=True).start()
    try:
        yield watch
    except BaseException as error:
        watch.fail(error)
        raise
    watch.finish()


class Watch:
    """This process's part in it; one kind is process 0's."""

    def __init__(self, remedy: str) -> None:
        """Keeps what to do about a process that was killed."""
        self._remedy = remedy

    def gone(self, rank: int) -> str:
        """What to print about a process that was killed."""
        return (
            f"error: process {rank} is gone without a word, as by kill -9 or"
            f" for want of memory; {self._remedy}"
        )

    def run(self) -> None:
        """Listens until all is over."""
        raise NotImplementedError

    def wait_for_first(self) -> None:
        """Waits until process 0 comes here too, however long that takes.

        In no operation of torch's, which would have a time-out and not let
        Python handle signals.
        """
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Tells that this process ends, and why."""
        raise NotImplementedError

    def finish(self) -> None:
        """Tells that this process is done."""
        raise NotImplementedError


class _First(Watch):
    """Process 0: hears the others and decides."""

    def __init__(self, store: Store, world_size: int, remedy: str) -> None:
        super().__init__(remedy)
        self._key = secrets.token_hex()
        self._lock = threading.Lock()
        self._decided = False
        self._failing = threading.Event()
        self._others: dict[int, _Connection] = {}
        self._everyone = threading.Event()
        self._missing = world_size - 1
        self._server = _listen()
        port = self._server.getsockname()[1]
        store.set("peers", json.dumps({"port": port, "key": self._key}))

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            while True:
                for event, _ in selector.select():
                    if event.data is None:
                        self._accept(selector)
                    elif not self._hear(event.data):
                        selector.unregister(event.fileobj)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        connection = _Connection(self._server.accept()[0])
        hello = connection.wait(_HELLO_SECONDS)
        if hello.get("key") != self._key:
            connection.socket.close()  # Somebody else, who tries ports.
            return
        connection.rank = hello["rank"]
        self._others[connection.rank] = connection
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        if len(self._others) == self._missing:
            self._everyone.set()
        self._obey(connection)

    def _hear(self, connection: "_Connection") -> bool:
        """Acts on what a process says or its end; whether it may say more."""
        connection.receive()
        self._obey(connection)
        if not connection.is_open and not connection.is_done:
            self._decide(self.gone(connection.rank), entry.FAILED)
        return connection.is_open

    def _obey(self, connection: "_Connection") -> None:
        while connection.messages:
            message = connection.messages.popleft()
            connection.is_done = True
            if "cause" in message:
                self._failing.wait(_LIKEWISE_SECONDS)
                self._decide(message["cause"], message["code"])

    def _decide(self, cause: str, code: int) -> None:
        """Ends all processes, unless that is under way."""
        if self._claim():
            print(cause, file=sys.stderr, flush=True)
            self._tell({"end": code})
            os._exit(code)

    def wait_for_first(self) -> None:
        self._everyone.wait()
        self._tell({"come": True})

    def fail(self, error: BaseException) -> None:
        if is_about_peers(error):
            # Somebody else's end: the other thread is about to say whose.
            threading.Event().wait(_VERDICT_SECONDS)
        self._failing.set()
        if self._claim():
            self._everyone.wait(_VERDICT_SECONDS)
            self._tell({"end": entry.describe(error)[1]})

    def finish(self) -> None:
        self._failing.set()
        self._claim()
        self._tell({"done": True})

    def _claim(self) -> bool:
        """Whether nobody has decided so far; then it is the caller."""
        with self._lock:
            first, self._decided = not self._decided, True
        return first

    def _tell(self, message: dict[str, Any]) -> None:
        for connection in self._others.values():
            connection.send(message)


class _Other(Watch):
    """Any other process: tells process 0, and does as it says."""

    def __init__(self, store: Store, rank: int, host: str, remedy: str) -> None:
        super().__init__(remedy)
        self._rank = rank
        self._arrivals = threading.Semaphore(0)
        first = json.loads(store.get("peers"))
        self._first = _Connection(
            socket.create_connection((host, first["port"]))
        )
        self._first.send({"rank": rank, "key": first["key"]})

    def run(self) -> None:
        while "come" in (message := self._first.wait()):
            self._arrivals.release()
        if "end" in message:
            os._exit(message["end"])
        if "done" in message or self._first.is_done:
            return
        # One of those that are left says so.
        if self._rank == 1 or os.environ.get("LOCAL_RANK") == "0":
            print(self.gone(0), file=sys.stderr, flush=True)
        os._exit(entry.FAILED)

    def wait_for_first(self) -> None:
        self._arrivals.acquire()

    def fail(self, error: BaseException) -> None:
        if not is_about_peers(error):
            cause, code = entry.describe(error)
            self._first.send({"cause": cause, "code": code})
        threading.Event().wait(_VERDICT_SECONDS)

    def finish(self) -> None:
        self._first.is_done = True
        self._first.send({"done": True})


class _Connection:
    """JSON, one object a line, over a socket."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.messages: collections.deque[dict[str, Any]] = collections.deque()
        self.rank = -1
        self.is_open = True
        self.is_done = False
        self._received = b""
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            connected.setsockopt(socket.IPPROTO_TCP, option, value)

    def send(self, message: dict[str, Any]) -> None:
        """Sends; a peer that is gone is noticed where it is heard."""
        with contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> None:
        """Waits for something to come; is_open says if more may."""
        try:
            data = self.socket.recv(65536)
            *lines, self._received = (self._received + data).split(b"\n")
            self.messages.extend(json.loads(line) for line in lines)
        except (OSError, ValueError):
            data = b""
        self.is_open = bool(data)

    def wait(self, seconds: float | None = None) -> dict[str, Any]:
        """The next message; an empty one if the peer is gone."""
        self.socket.settimeout(seconds)
        while self.is_open and not self.messages:
            self.receive()
        self.socket.settimeout(None)
        return self.messages.popleft() if self.messages else {}


def is_about_peers(error: BaseException) -> bool:
    """Whether an error is that of an operation that others have left."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


def _listen() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
        )
    return socket.create_server(("", 0), backlog=1024)

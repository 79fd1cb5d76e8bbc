"""What a process of the engine needs of its operating system."""

import ctypes
import os
import select
import signal
import socket
import sys
from contextlib import suppress

from setproctitle import setproctitle

from tasks_app.engine.logs import one_line

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

FILES_CLOSED = 77
"""The exit code of a worker whose task closed the files that it lives by."""


def title(cluster: str, role: str) -> None:
    """`qcluster default worker idle`: what ps and top show of this process."""
    setproctitle(f"qcluster {one_line(cluster, 60)} {one_line(role, 120)}")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however that happens.

    Linux only; elsewhere the end of the channel to the parent is noticed at the next look. Ends the process when the
    parent died before this call.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Have the kernel give orphaned descendants to this process, so that it can end and reap them (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_group(pid: int) -> None:
    """SIGKILL a process that leads its group, and whatever it forked into that group."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def exit_code(status: int) -> str:
    """How a process ended, from what waitpid says: `killed by SIGKILL` or `exit code 1`."""
    code = os.waitstatus_to_exitcode(status)
    if code == FILES_CLOSED:
        return "its task closed files that were not its own"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class SignalPipe:
    """Turns signals into bytes of a pipe that a select loop reads, so that no handler runs in the middle of work."""

    def __init__(self, *signals: signal.Signals) -> None:
        self.reader, self.writer = os.pipe()
        for end in (self.reader, self.writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: None)

    def fileno(self) -> int:
        return self.reader

    def read(self) -> list[int]:
        """The numbers of the signals that came since the last call."""
        with suppress(BlockingIOError):
            return list(os.read(self.reader, 512))
        return []

    def close(self) -> None:
        """For a forked child, which has signals of its own."""
        signal.set_wakeup_fd(-1)
        os.close(self.reader)
        os.close(self.writer)


class Channel:
    """Single bytes both ways between a parent and its child. Nothing is shared, so a death on one side locks nobody."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        end.setblocking(False)

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        one, other = socket.socketpair()
        return cls(one), cls(other)

    def fileno(self) -> int:
        return self.end.fileno()

    def say(self, byte: bytes) -> None:
        """Send a byte; a full channel or a dead other side is not an error, the reader would learn nothing new."""
        with suppress(OSError):
            self.end.send(byte)

    def heard(self, wait: float | None = 0) -> bytes | None:
        """The bytes that came, waiting up to `wait` seconds (None: for ever); None when the other side is gone."""
        try:
            ready, _, _ = select.select([self.end], [], [], wait)
            if not ready:
                return b""
            return self.end.recv(512) or None
        except OSError:
            return None

    def close(self) -> None:
        self.end.close()

"""One life of a child process, seen by its parent: its start, its pipes and memory, its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from servable.core.errors import Code, ServingError
from servable.core.tensors import Array
from servable.engines.base import LOADER_NICENESS, Caller
from servable.engines.child_calls import Conversation
from servable.engines.child_memory import Arena, new_memory
from servable.engines.child_messages import (
    Answer,
    End,
    Failure,
    FromChild,
    Profile,
    Profiled,
    Run,
    Step,
    parent_channel,
)

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_END_TIMEOUT_S = 10.0


class ProcessEnded(Exception):  # noqa: N818  # it is an event in a life, and never leaves this ring
    """The process ended before it answered; ``computing`` tells whether it had been given the call."""

    def __init__(self, *, computing: bool) -> None:
        super().__init__()
        self.computing = computing


class ChildProcess:
    """A process and what is shared with it. Starts on construction; ``OSError`` if the machine refuses."""

    def __init__(self, label: str, threads: int) -> None:
        with contextlib.ExitStack() as undo:
            requests, answers = (_closing(undo, new_memory(f"servable-{name}")) for name in ("requests", "answers"))
            child_reads, writes = (_closing(undo, fd) for fd in os.pipe())
            reads, child_writes = (_closing(undo, fd) for fd in os.pipe())
            self.log_fd, log_writes = (_closing(undo, fd) for fd in os.pipe())
            lifeline, self._lifeline = (_closing(undo, fd) for fd in os.pipe())
            fds = (lifeline, child_reads, child_writes, requests, answers)
            # -P: a numpy.py in the directory where the server was started is not for the child to import.
            command = [sys.executable, "-P", "-m", "servable.engines.child", label, str(os.getpid()), *map(str, fds)]
            self._popen = subprocess.Popen(  # noqa: S603  # our own module, by our own interpreter
                command,
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=log_writes,
                stderr=log_writes,
                env={**os.environ, **(dict.fromkeys(_THREAD_VARIABLES, str(threads)) if threads else {})},
                process_group=0,
            )
            undo.callback(self._popen.wait)
            undo.callback(self._popen.kill)
            self.pid_fd = _closing(undo, os.pidfd_open(self._popen.pid))
            undo.pop_all()
        for fd in (lifeline, child_reads, child_writes, log_writes):
            os.close(fd)
        self.channel = parent_channel(reads, writes)
        self.requests = Arena(requests)
        self.answers = Arena(answers)
        self._reaping = threading.Lock()
        self._ended = threading.Event()
        self._end = ""
        self._why = ""

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._popen.pid

    @property
    def memory(self) -> int:
        """Return the bytes of memory that are this process's, files it has mapped not counted; 0 once it has ended."""
        try:
            lines = Path(f"/proc/{self._popen.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:")))

    def renice(self, niceness: int) -> bool:
        """Give all its threads this niceness; false if the system does not let us lower it."""
        try:
            for task in Path(f"/proc/{self._popen.pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    policy = os.SCHED_IDLE if niceness == LOADER_NICENESS else os.SCHED_OTHER
                    os.sched_setscheduler(int(task.name), policy, os.sched_param(0))
                    os.setpriority(os.PRIO_PROCESS, int(task.name), niceness)
        except (FileNotFoundError, PermissionError):
            return False
        return True

    def call(
        self,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        timeout_s: float = 0.0,
        caller: Caller | None = None,
        stream: int = 0,
    ) -> dict[str, Array] | None:
        """Compute there. ``ProcessEnded`` if it did not live to answer; 0 lets it take any time for that.

        With a number of a ``stream`` return its first part, ``None`` if it has none.
        """
        try:
            places = self.requests.put(inputs.items())
        except TypeError as error:
            raise ServingError(Code.INVALID_ARGUMENT, str(error)) from error
        except OSError as error:
            raise _no_memory(error) from error
        return self._exchange(Run(signature, tuple(outputs), places, self.requests.size, stream), timeout_s, caller)

    def step(
        self, stream: int, *, last: bool, timeout_s: float = 0.0, caller: Caller | None = None
    ) -> dict[str, Array] | None:
        """Return the next part of a stream, ``None`` if there is no more. ``last`` ends it."""
        return self._exchange(Step(stream, last), timeout_s, caller)

    def profile(self, *, begin: bool) -> Profiled:
        """Begin to note what the framework does there, or return what it was. ``ProcessEnded`` if it has ended."""
        try:
            self.channel.send(Profile(begin))
            reply = self.channel.receive()
        except BrokenPipeError:
            raise ProcessEnded(computing=False) from None
        if not isinstance(reply, Profiled):
            self.kill()
            raise ProcessEnded(computing=False)
        return reply

    def _exchange(self, message: Run | Step, timeout_s: float, caller: Caller | None) -> dict[str, Array] | None:
        def expire() -> None:
            self.kill(f"was killed because a call took longer than {timeout_s:g} s (--child_timeout_s)")

        given = False
        try:
            self.channel.send(message)
            given = True
            if timeout_s and not wait_readable(self.channel.read_fd, timeout_s):
                expire()
            reply = self.channel.receive()
            if not isinstance(reply, Answer):
                reply = self._converse(reply, timeout_s, caller, expire)
            self.requests.shrink()
        except BrokenPipeError:
            raise ProcessEnded(computing=given) from None
        except BaseException:
            self.kill()  # it will answer a question that nobody asks any more
            raise
        if isinstance(reply, Answer):
            try:
                return self.answers.take(reply.outputs, reply.memory)
            except OSError as error:
                raise _no_memory(error) from error
        if isinstance(reply, Failure):
            raise ServingError(Code(reply.code), reply.message)
        if isinstance(reply, End):
            return None
        self.kill()
        raise ProcessEnded(computing=True)

    def _converse(
        self, message: FromChild | None, timeout_s: float, caller: Caller | None, expire: Callable[[], None]
    ) -> FromChild | None:
        conversation = Conversation(self.channel, self.requests, self.answers, caller, timeout_s, expire)
        return conversation.follow(message)

    def kill(self, why: str = "") -> None:
        """End it at once, and what it started. ``why`` is what people are told of its end."""
        with self._reaping, contextlib.suppress(ProcessLookupError):
            if self._popen.returncode is None:  # else the number may already be somebody else's
                self._why = self._why or why
                os.killpg(self._popen.pid, signal.SIGKILL)

    def bury(self) -> None:
        """Make sure of the end, wait for it and note it. For the thread that watches."""
        self.kill()
        wait_readable(self.pid_fd, None)
        with self._reaping:
            code = self._popen.wait()
        ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._end = self._why or ended
        self._ended.set()

    def end(self) -> str:
        """Return how it ended ("ended by SIGKILL"); waits for that."""
        return self._end if self._ended.wait(_END_TIMEOUT_S) else "is ending"

    def release(self) -> None:
        """Close pipes and memory. Nobody may be in a call."""
        self.channel.close()
        self.requests.close()
        self.answers.close()
        for fd in (self.log_fd, self.pid_fd, self._lifeline):
            os.close(fd)


def _no_memory(error: OSError) -> ServingError:
    return ServingError(Code.RESOURCE_EXHAUSTED, f"the tensors cannot be shared with the model's process: {error}")


def wait_readable(fd: int, timeout_s: float | None) -> bool:
    """Wait until something can be read. Not ``select``, which knows no descriptor above 1023."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else 1000 * timeout_s))


def _closing(undo: contextlib.ExitStack, fd: int) -> int:
    undo.callback(os.close, fd)
    return fd

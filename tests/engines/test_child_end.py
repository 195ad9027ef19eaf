"""How children end, and what their end costs: nothing stays behind, nobody else suffers. Real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.engines import base
from servable.engines.base import Artifact, EngineOptions
from servable.engines.child import load_in_child
from servable.engines.child_memory import new_memory
from servable.engines.child_model import ChildModel
from servable.engines.child_process import wait_readable

SEVEN = {"x": np.array([7])}
EIGHT = {"x": np.array([8])}
BOTH = {"x": np.array([7, 8])}


@pytest.fixture(autouse=True)
def echo_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base.ENGINES, "echo", "child_engines:EchoEngine")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture
def model() -> Iterator[ChildModel]:
    loaded = load("m/1")
    yield loaded
    loaded.close()


def load(path: str | Path) -> ChildModel:
    loaded = load_in_child("echo", Artifact("echo", Path(path)), EngineOptions())
    assert isinstance(loaded, ChildModel)
    return loaded


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        tick.wait(0.005)


def answers(model: ChildModel) -> bool:
    code = code_of(model, EIGHT, "any")
    assert code in {Code.OK, Code.UNAVAILABLE}
    return code is Code.OK


def code_of(model: ChildModel, inputs: dict[str, np.ndarray], signature: str = "die_on_seven") -> Code:
    try:
        results = model.run(signature, inputs, ["x"])
    except ServingError as error:
        return error.code
    assert results["x"].tolist() == inputs["x"].tolist()
    return Code.OK


def ended(pid_fd: int, timeout_s: float = 10.0) -> bool:
    try:
        return wait_readable(pid_fd, timeout_s)
    finally:
        os.close(pid_fd)


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def shared_memory() -> list[str]:
    return sorted(path.name for path in Path("/dev/shm").iterdir())


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("m/refused", Code.INVALID_ARGUMENT, "this artifact is bad"),
        ("m/raises", Code.INTERNAL, "KeyError: 'missing'"),
        ("m/killed", Code.INTERNAL, "ended by SIGKILL while it loaded; its last lines were:\nthese are the last words"),
        ("m/crashes", Code.INTERNAL, "ended by SIGABRT while it loaded; its last lines were:\nFatal Python error: Abo"),
    ],
)
def test_a_load_that_fails_says_why_and_leaves_nothing(path: str, code: Code, message: str) -> None:
    fds, threads = open_fds(), threading.active_count()
    with pytest.raises(ServingError) as caught:
        load(path)
    assert caught.value.code is code
    assert message in caught.value.message
    assert (open_fds(), threading.active_count()) == (fds, threads)


def test_an_engine_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base.ENGINES, "echo", "no_such_module_here:Engine")
    with pytest.raises(ServingError) as caught:
        load("m/1")
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert "no_such_module_here" in caught.value.message


def test_a_listener_to_progress_that_raises_ends_the_load() -> None:
    def fail(_line: str) -> None:
        raise RuntimeError("enough")

    fds = open_fds()
    with pytest.raises(RuntimeError, match="enough"):
        load_in_child("echo", Artifact("echo", Path("m/1")), EngineOptions(report=fail))
    assert open_fds() == fds


def test_closing_leaves_nothing_and_may_be_done_twice() -> None:
    fds, threads, memory = open_fds(), threading.active_count(), shared_memory()
    for _ in range(3):
        model = load("m/1")
        pid_fd = os.pidfd_open(model.pid)
        model.run("any", EIGHT, ["x"])
        model.close()
        model.close()
        assert ended(pid_fd, 0)
    assert (open_fds(), threading.active_count(), shared_memory()) == (fds, threads, memory)
    with pytest.raises(ServingError) as caught:
        model.run("any", EIGHT, ["x"])
    assert caught.value.code is Code.UNAVAILABLE
    assert "closed" in caught.value.message


def test_a_child_that_does_not_end_when_asked_is_killed() -> None:
    model = load("m/1")
    os.kill(model.pid, signal.SIGSTOP)
    pid_fd = os.pidfd_open(model.pid)
    model.close()
    assert ended(pid_fd, 0)


def test_a_call_that_hangs_ends_when_the_model_is_closed() -> None:
    model = load("m/1")
    codes: list[Code] = []
    caller = threading.Thread(target=lambda: codes.append(code_of(model, EIGHT, "hang")))
    caller.start()
    wait_until(model._keeper.turn.locked)
    model.close()
    caller.join(10)
    assert codes == [Code.UNAVAILABLE]


def test_an_interrupted_call_does_not_leave_its_answer_to_the_next(model: ChildModel) -> None:
    class InterruptError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptError

    def when_it_computes() -> None:
        wait_until(model._keeper.turn.locked)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        sender = threading.Thread(target=when_it_computes)
        sender.start()
        with pytest.raises(InterruptError):
            model.run("hang", SEVEN, ["x"])
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    wait_until(lambda: answers(model))


def test_a_process_with_many_open_files_can_have_children() -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(Path("/dev/null").open())
        model = load("m/1")
        os.kill(model.pid, signal.SIGKILL)
        wait_until(lambda: answers(model))
        model.close()


def test_processes_that_the_model_started_end_with_it() -> None:
    model = load("m/1")
    pid_fd = os.pidfd_open(int(model.run("fork", {}, [])["pid"]))
    os.kill(model.pid, signal.SIGKILL)
    assert ended(pid_fd)
    model.close()


def test_a_killed_child_comes_back_and_forgets_nothing_it_should_know(model: ChildModel) -> None:
    memory = shared_memory()
    first, fds = model.pid, open_fds()
    with pytest.raises(ServingError) as caught:
        model.run("die_on_seven", SEVEN, ["x"])
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.message == "the process of model m/1 ended by SIGKILL; it is being restarted"
    with pytest.raises(ServingError) as again:
        model.run("any", EIGHT, ["x"])
    assert again.value.code is Code.UNAVAILABLE
    wait_until(lambda: answers(model))
    assert model.pid != first
    assert open_fds() == fds
    assert shared_memory() == memory


def test_a_child_that_ends_while_idle_comes_back(model: ChildModel) -> None:
    first = model.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: answers(model) and model.pid != first)


def test_a_child_that_exits_by_itself_is_started_again(model: ChildModel) -> None:
    with pytest.raises(ServingError) as caught:
        model.run("exit", {}, [])
    assert "ended with exit code 3" in caught.value.message
    wait_until(lambda: answers(model))


def test_a_model_that_cannot_be_loaded_again_says_why(tmp_path: Path) -> None:
    model = load(tmp_path / "once")
    os.kill(model.pid, signal.SIGKILL)

    def reason() -> str:
        try:
            model.run("any", EIGHT, ["x"])
        except ServingError as error:
            return error.message
        return ""

    wait_until(lambda: "not a second time" in reason())
    (tmp_path / "once").unlink()
    wait_until(lambda: answers(model))
    model.close()


def test_a_call_that_killed_twice_is_refused(model: ChildModel) -> None:
    for _ in range(2):
        assert code_of(model, SEVEN) is Code.UNAVAILABLE
        wait_until(lambda: answers(model))
    pid = model.pid
    with pytest.raises(ServingError) as caught:
        model.run("die_on_seven", SEVEN, ["x"])
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "twice" in caught.value.message
    assert model.pid == pid
    assert code_of(model, EIGHT) is Code.OK


def test_a_bad_row_is_found_among_good_ones(model: ChildModel) -> None:
    assert code_of(model, BOTH) is Code.UNAVAILABLE
    wait_until(lambda: answers(model))
    assert code_of(model, BOTH) is Code.UNAVAILABLE  # sent back, to be tried row by row
    assert code_of(model, EIGHT) is Code.OK
    assert code_of(model, SEVEN) is Code.UNAVAILABLE
    wait_until(lambda: answers(model))
    pid = model.pid
    assert code_of(model, SEVEN) is Code.INVALID_ARGUMENT
    assert code_of(model, BOTH) is Code.INVALID_ARGUMENT
    assert code_of(model, EIGHT) is Code.OK
    assert model.pid == pid


PARENT = """
    import sys, threading
    from pathlib import Path
    import numpy as np
    from servable.engines import base
    from servable.engines.child import load_in_child

    base.ENGINES["echo"] = "child_engines:EchoEngine"
    found = []
    loader = threading.Thread(  # a loader thread that ends must not end the child
        target=lambda: found.append(load_in_child("echo", base.Artifact("echo", Path("m/1")), base.EngineOptions()))
    )
    loader.start()
    loader.join()
    [model] = found
    assert model.run("any", {"x": np.array([8])}, ["x"])["x"].tolist() == [8]
    print(model.pid, int(model.run("fork", {}, [])["pid"]), flush=True)
    if sys.argv[1] == "computing":
        threading.Thread(target=lambda: model.run("hang", {}, []), daemon=True).start()
    if sys.argv[1] != "exits":
        sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["idle", "computing", "exits"])
def test_no_child_outlives_its_parent(how: str) -> None:
    memory = shared_memory()
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid_fds = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]  # the child, and its own
        assert len(pid_fds) == 2
        if how != "exits":
            parent.kill()
        for pid_fd in pid_fds:
            assert ended(pid_fd)
    assert shared_memory() == memory


def test_a_child_whose_parent_is_gone_before_it_looks_ends_at_once() -> None:
    reads, writes = os.pipe()
    somebody_else = os.getppid()
    lifeline, other_end = os.pipe()
    memory = [new_memory("test"), new_memory("test")]
    command = [sys.executable, "-P", "-m", "servable.engines.child", "m/1", str(somebody_else)]
    fds = (lifeline, reads, writes, *memory)
    command += map(str, fds)
    try:
        ended = subprocess.run(command, pass_fds=fds, check=False, timeout=15, process_group=0)
    finally:
        for fd in (other_end, *fds):
            os.close(fd)
    assert ended.returncode == 1


def may_lower_niceness() -> bool:
    allowed: list[bool] = []

    def try_it() -> None:
        thread = threading.get_native_id()
        before = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, before + 1)
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, thread, before)
            allowed.append(True)

    trying = threading.Thread(target=try_it)
    trying.start()
    trying.join()
    return bool(allowed)


def test_a_child_loads_in_the_background_and_serves_in_the_foreground() -> None:
    models: list[ChildModel] = []
    nicenesses: list[int] = []

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, models[0].pid)

    def load_nicely() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 11)
        models.append(load("m/1"))
        nicenesses.append(niceness())

    loader = threading.Thread(target=load_nicely)
    loader.start()
    loader.join()
    model = models[0]
    try:
        model.begin_serving()
        serving = os.getpriority(os.PRIO_PROCESS, os.getpid())
        assert nicenesses == [11]
        if not may_lower_niceness():
            pytest.skip("this account may not lower a niceness")
        assert niceness() == serving
        os.kill(model.pid, signal.SIGKILL)
        wait_until(lambda: answers(model))
        assert niceness() == serving
    finally:
        model.close()

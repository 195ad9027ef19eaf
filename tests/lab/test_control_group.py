"""Control groups of both versions: found and made among files that look like them, and by the kernel if allowed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servable.core.errors import ServingError
from servable.lab.control_group import ControlGroup, Place, own_places, require_share
from servable.lab.limits import Limits
from servable.lab.processes import ProcessGroup

LIMITS = Limits((0,), 2**20, 0.5)
MOUNTINFO = """
25 30 0:23 / /proc rw - proc proc rw
36 25 0:31 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
37 25 0:32 /docker/1 /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
38 25 0:33 /other /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
39 25 0:34 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
""".lstrip()
MEMBERSHIP = """
5:pids:/docker/1
4:memory:/user/ours
3:cpu,cpuacct:/docker/1
2:freezer:/
1:name=systemd:/
0::/user.slice/run-1.scope
""".lstrip()


def test_where_a_process_may_make_groups(tmp_path: Path) -> None:
    mounts, membership = tmp_path / "mountinfo", tmp_path / "cgroup"
    mounts.write_text(MOUNTINFO)
    membership.write_text(MEMBERSHIP)
    at = Path("/sys/fs/cgroup")
    assert own_places(mounts, membership) == [
        Place({"": at / "unified/user.slice/run-1.scope"}),
        Place({"": at / "unified/user.slice"}),
        Place({"memory": at / "memory/user/ours", "cpu": at / "cpu,cpuacct", "cpuacct": at / "cpu,cpuacct"}),
    ]
    membership.write_text("0::/\n")
    assert own_places(mounts, membership) == [Place({"": at / "unified"})]
    mounts.write_text(MOUNTINFO.splitlines()[0])
    assert own_places(mounts, membership) == []
    assert own_places(tmp_path / "none", tmp_path / "none") == []


def test_a_group_of_version_2_is_made_where_its_controllers_are_given_on(tmp_path: Path) -> None:
    closed, delegated = tmp_path / "closed", tmp_path / "delegated"
    for folder, controllers in ((closed, "cpu pids"), (delegated, "cpu memory")):
        folder.mkdir()
        (folder / "cgroup.subtree_control").write_text(f"{controllers}\n")
    refused = [Place({"": tmp_path / "none"}), Place({"": closed}), Place({"memory": closed})]
    assert ControlGroup.create(LIMITS, refused) is None
    control = ControlGroup.create(LIMITS, [*refused, Place({"": delegated})])
    assert control is not None
    (group,) = (found for found in delegated.iterdir() if found.is_dir())
    assert (group / "memory.max").read_text() == str(2**20)
    assert (group / "cpu.max").read_text() == "50000 100000"
    assert not control.killed()
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    assert not control.killed()
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert control.killed()


def test_a_command_starts_inside_all_groups_or_not_at_all(tmp_path: Path) -> None:
    folders = {"memory": tmp_path / "a b", "cpu": tmp_path / "cpu"}
    for folder in folders.values():
        folder.mkdir()
    words = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "--", "it's"]
    code, said, pid = run(ControlGroup(folders).wrap(words), tmp_path / "log")
    assert (code, said) == (0, "['--', \"it's\"]")
    for folder in folders.values():
        assert (folder / "cgroup.procs").read_text() == f"{pid}\n"
    folders["cpu"] = tmp_path / "none"
    assert run(ControlGroup(folders).wrap(words), tmp_path / "log")[0] == 126


def test_a_share_of_a_core_needs_a_control_group() -> None:
    require_share(Limits((0,), None, 1))
    with pytest.raises(ServingError, match="systemd-run"):
        require_share(Limits((0,), None, 0.5))


@pytest.fixture
def allowed() -> Iterator[ControlGroup]:
    """Give a group of the kernel's own with 64 MiB and a tenth of a core; some machines let nobody make one."""
    control = ControlGroup.create(Limits((0,), 64 << 20, 0.1))
    if control is None:
        pytest.skip("this process may not make control groups: no controller is writable for it")
    try:
        yield control
    finally:
        control.remove()


GREEDY = """
held = []
while len(held) < 64:
    held.append(b"x" * (4 << 20))
"""
BUSY = """
import time
end = time.monotonic() + 1
while time.monotonic() < end:
    pass
print(time.process_time())
"""


def test_the_kernel_ends_who_takes_more_memory_than_its_group_has(allowed: ControlGroup, tmp_path: Path) -> None:
    code, _, _ = run(allowed.wrap([sys.executable, "-c", "print(1)"]), tmp_path / "log")
    assert code == 0
    assert not allowed.killed()
    code, _, _ = run(allowed.wrap([sys.executable, "-c", GREEDY]), tmp_path / "log")
    assert code == -9
    assert allowed.killed()
    folders = list(allowed._folders.values())
    assert all(folder.is_dir() for folder in folders)
    allowed.remove()
    assert not any(folder.exists() for folder in folders)


def test_the_kernel_gives_a_group_no_more_than_its_share_of_a_core(allowed: ControlGroup, tmp_path: Path) -> None:
    code, said, _ = run(allowed.wrap([sys.executable, "-c", BUSY]), tmp_path / "log")
    assert code == 0
    assert float(said) < 0.5, "a tenth of 1 s, and what Python took to start"


def run(words: list[str], log: Path) -> tuple[int | None, str, int]:
    with ProcessGroup(words, log=log) as running:
        while running.exit_code() is None:
            pass
        return running.exit_code(), running.tail(), running.pid

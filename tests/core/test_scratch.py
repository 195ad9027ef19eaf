"""A folder to work in does not stay: not after its end, not after a signal, and not long after a kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from servable.core.errors import Code, ServingError, internal
from servable.core.scratch import EndedError, explained, orderly_end, scratch

WORKS = """
import sys, time
from pathlib import Path
from servable.core.scratch import orderly_end, scratch
with orderly_end(), scratch(Path(sys.argv[1]), ".work-") as folder:
    (folder / "half").write_text("half")
    print("works", flush=True)
    time.sleep(600)
"""


def left(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


def test_it_goes_in_the_end_whatever_the_end_was(tmp_path: Path) -> None:
    with scratch(tmp_path) as folder:
        (folder / "a").mkdir()
        assert left(tmp_path) == [folder.name]
    assert left(tmp_path) == []
    with pytest.raises(ValueError, match="wrong"), scratch(tmp_path):
        raise ValueError("wrong")
    assert left(tmp_path) == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_who_is_ended_leaves_nothing_or_what_the_next_removes(tmp_path: Path, ending: signal.Signals) -> None:
    words = [sys.executable, "-c", WORKS, str(tmp_path)]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with running, contextlib.ExitStack() as whatever:
        whatever.callback(running.kill)
        assert running.stdout is not None
        assert running.stdout.readline() == "works\n"
        with scratch(tmp_path, ".work-") as mine:
            assert len(left(tmp_path)) == 2, "who lives keeps its folder"
            running.send_signal(ending)
            running.wait()
            assert (len(left(tmp_path)) == 2) == (ending is signal.SIGKILL)
            with scratch(tmp_path, ".work-"):
                assert len(left(tmp_path)) == 2, "what was left is gone, mine is there"
            assert mine.is_dir()
    assert left(tmp_path) == []


def test_only_folders_of_ours_are_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / ".work-link").symlink_to(precious)
    (tmp_path / ".work-file").write_text("a file")
    (tmp_path / "work-1").mkdir()
    (tmp_path / ".work-1").mkdir()
    with scratch(tmp_path, ".work-"):
        pass
    assert left(tmp_path) == [".work-file", ".work-link", "precious", "work-1"]


def test_a_signal_unwinds_once_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleared = False

    def work() -> None:
        nonlocal cleared
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # impatience does not disturb the clearing up
            cleared = True

    with pytest.raises(EndedError) as caught, orderly_end():
        work()
    assert caught.value.number == signal.SIGTERM
    assert cleared
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with orderly_end():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_place_that_takes_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(ServingError, match=f"cannot work in {place}: ") as caught, scratch(place):
            pass
        assert caught.value.code is Code.FAILED_PRECONDITION


def test_a_full_disk_is_named_whatever_a_framework_says(tmp_path: Path) -> None:
    theirs = internal("RuntimeError: basic_ios::clear: iostream error")
    full = explained(theirs, tmp_path, 4096)
    assert isinstance(full, ServingError)
    assert full.code is Code.RESOURCE_EXHAUSTED
    assert full.message == f"{tmp_path} has 4,096 bytes left on its disk: {theirs.message}"
    assert explained(theirs, tmp_path, 1 << 30) is theirs
    judged = ServingError(Code.DATA_LOSS, "the result does not answer as its source does")
    assert explained(judged, tmp_path, 0) is judged
    several = shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'"), ("c", "d", "the same")])
    assert str(explained(several, tmp_path, 0)).endswith("on its disk: [Errno 28] No space left on device: 'b'")

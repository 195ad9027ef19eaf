from __future__ import annotations

import shutil

import pytest

from servable.core.errors import Code, ServingError
from servable.lifecycle.config import All, Latest, ModelConfig, Specific
from servable.lifecycle.intake import PATIENCE_S
from servable.lifecycle.manifest import write_manifest
from servable.lifecycle.watch import Watch

LATEST = Latest()


class Disk:
    """A model directory and a watch of it, with a clock that is moved by hand: a second for each look."""

    def __init__(self, base_path) -> None:
        self.base_path = base_path
        self.proofs: list[int] = []
        self.now = 1000.0
        self.failed: set[int] = set()
        self.watch = self.watched()

    def watched(self, *, policy=LATEST, proof_alone=False, once=False, fixed=None, wished=None, engine=None) -> Watch:
        config = ModelConfig("m", self.base_path, policy, engine=engine, fixed_versions=fixed)
        self.watch = Watch(config, self.prove, wished or {}, proof_alone=proof_alone, once=once)
        return self.watch

    def prove(self, path, engine) -> str | None:
        self.proofs.append(int(path.name))
        data = (path / "model.onnx").read_bytes()
        return None if data.endswith(b"end") else "the end is missing"

    def put(self, version, data: bytes = b"end") -> None:
        folder = self.base_path / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(data)

    def remove(self, version) -> None:
        shutil.rmtree(self.base_path / str(version))

    def look(self, after_s: float = 1.0):
        self.now += after_s
        return self.watch.look(self.now, self.failed)

    def wish(self, looks: int = 1) -> list[int]:
        for _ in range(looks):
            scan = self.look()
        return sorted(scan.versions)


@pytest.fixture
def disk(tmp_path) -> Disk:
    (tmp_path / "m").mkdir()
    return Disk(tmp_path / "m")


def test_a_new_version_is_wished_for_at_the_second_look(disk) -> None:
    disk.put(1)
    scan = disk.look()
    assert not scan.versions
    assert scan.waiting == {1: "waits for a second scan that finds the same files"}
    scan = disk.look()
    assert scan.versions[1].path == disk.base_path / "1"
    assert not scan.waiting


def test_at_start_up_one_look_is_enough(disk) -> None:
    disk.put(1)
    disk.watched(proof_alone=True)
    assert disk.wish() == [1]
    disk.put(2)
    assert disk.wish() == [1]
    assert disk.wish() == [2]


def test_a_growing_file_keeps_the_old_version(disk) -> None:
    disk.put(1)
    assert disk.wish(2) == [1]
    for size in range(1, 30):
        disk.put(2, b"x" * size)
        assert disk.wish() == [1]
    disk.put(2, b"x" * 29 + b"end")
    assert disk.wish() == [1]
    assert disk.wish() == [2]


def test_a_stalled_copy_is_not_mistaken_for_a_complete_one(disk) -> None:
    disk.put(1)
    disk.wish(2)
    disk.put(2, b"half")
    scan = disk.look()
    scan = disk.look()
    assert (sorted(scan.versions), scan.waiting) == ([1], {2: "the end is missing"})
    scan = disk.look(PATIENCE_S)
    assert sorted(scan.versions) == [2]
    assert scan.versions[2].doubt == "the end is missing"


def test_what_failed_is_wished_for_beside_the_newest_that_works(disk) -> None:
    disk.put(1)
    disk.put(2)
    assert disk.wish(2) == [2]
    disk.failed = {2}
    assert disk.wish() == [1, 2]
    disk.failed = set()
    assert disk.wish() == [2]


def test_what_failed_comes_anew_when_its_files_change(disk) -> None:
    disk.put(1)
    before = disk.look() and disk.look().versions[1]
    disk.failed = {1}
    assert disk.look().versions[1] == before
    disk.put(1, b"better end")
    assert 1 in disk.look().waiting
    after = disk.look().versions[1]
    assert after != before
    assert disk.look().versions[1] == after


def test_a_loaded_version_is_not_looked_at_again(disk) -> None:
    disk.put(1)
    disk.wish(2)
    proofs = len(disk.proofs)
    disk.put(1, b"overwritten")
    assert disk.wish(3) == [1]
    assert len(disk.proofs) == proofs


def test_a_version_that_goes_is_wished_for_no_more_and_the_one_before_is(disk) -> None:
    disk.put(1)
    disk.put(2)
    disk.watched(proof_alone=True)
    assert disk.wish() == [2]
    disk.remove(2)
    # Version 1 was never looked at: until it is known to be complete the wish stays.
    assert disk.wish() == [2]
    assert disk.wish() == [1]


@pytest.mark.rule("poll-3")
def test_one_empty_listing_is_not_believed(disk) -> None:
    disk.put(1)
    disk.wish(2)
    disk.remove(1)
    scan = disk.look()
    assert sorted(scan.versions) == [1]
    assert "No versions of servable m found under base path" in scan.warnings[0]
    assert disk.wish() == []


def test_an_empty_listing_between_two_good_ones_is_forgotten(disk) -> None:
    disk.put(1)
    disk.wish(2)
    for _ in range(3):
        (disk.base_path / "1").rename(disk.base_path / "away")
        assert disk.wish() == [1]
        (disk.base_path / "away").rename(disk.base_path / "1")
        assert disk.wish() == [1]


def test_a_missing_base_path_is_an_error_however_often(disk) -> None:
    disk.put(1)
    disk.wish(2)
    disk.base_path.rename(disk.base_path.with_name("away"))
    for _ in range(5):
        with pytest.raises(ServingError, match=r"Could not find base path .* for servable m with error") as caught:
            disk.look()
        assert caught.value.code is Code.NOT_FOUND
    disk.base_path.with_name("away").rename(disk.base_path)
    assert disk.wish() == [1]


def test_policies(disk) -> None:
    for version in (1, 2, 3):
        disk.put(version)
    for policy, expected in ((Latest(2), [2, 3]), (All(), [1, 2, 3]), (Specific((1, 3)), [1, 3]), (Specific(()), [])):
        disk.watched(policy=policy)
        assert disk.wish(2) == expected
    disk.watched(policy=Specific((2, 9)))
    scan = disk.look() and disk.look()
    assert sorted(scan.versions) == [2]
    assert "Version 9 of servable m is not found under base path" in scan.warnings[0]


def test_an_incomplete_version_does_not_displace_a_complete_one_at_start_up(disk) -> None:
    disk.put(1)
    disk.put(2, b"half")
    disk.watched(proof_alone=True)
    assert disk.wish() == [1]


def test_with_a_single_look_what_is_unproven_gets_its_attempt(disk) -> None:
    disk.put(1, b"half")
    disk.watched(proof_alone=True, once=True)
    assert disk.look().versions[1].doubt == "the end is missing"


def test_a_manifest_that_agrees_needs_one_look_and_no_proof(disk) -> None:
    disk.put(1, b"odd format")
    write_manifest(disk.base_path / "1")
    assert disk.wish() == [1]
    assert disk.proofs == []


def test_a_manifest_that_disagrees_ends_in_a_refusal(disk) -> None:
    disk.put(1)
    write_manifest(disk.base_path / "1")
    disk.put(1, b"END")
    disk.look()
    assert "checksum of model.onnx" in disk.look().waiting[1]
    refusal = disk.look(PATIENCE_S).versions[1].refusal
    assert refusal is not None
    assert refusal.code is Code.DATA_LOSS


def test_a_new_configuration_inherits_the_wish(disk) -> None:
    disk.put(1)
    disk.put(2)
    before = disk.look() and disk.look().versions
    disk.watched(policy=All(), wished=before, engine="other")
    spec = disk.look().versions[2]
    assert spec.engine == "other"
    assert disk.wish() == [1, 2]


def test_fixed_versions_are_not_scanned_for(disk) -> None:
    disk.put(3)
    disk.put(4)
    path = disk.base_path / "3"
    disk.watched(fixed={3: path}, proof_alone=True)
    assert disk.wish() == [3]
    disk.remove(3)
    with pytest.raises(ServingError, match="Could not find base path"):
        disk.look()

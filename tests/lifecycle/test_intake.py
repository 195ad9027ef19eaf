from __future__ import annotations

import json
import os

import pytest

from servable.core.errors import Code, ServingError
from servable.lifecycle.intake import PATIENCE_S, Evidence, Intake, Taken, Waiting, fingerprint, publish
from servable.lifecycle.manifest import MANIFEST, disagreement, write_manifest

FIRST = (("model.onnx", 10, 1, 7),)
GROWN = (("model.onnx", 20, 2, 7),)


def judge(intake: Intake, seen, now: float, lacking: str = "", *, manifest=False, alone=False, once=False):
    stable = intake.look(seen, now) or alone
    return intake.judge(Evidence(lacking, manifest), now, stable=stable, once=once)


def test_proof_and_two_equal_scans() -> None:
    intake = Intake()
    assert isinstance(judge(intake, FIRST, 0), Waiting)
    assert isinstance(judge(intake, GROWN, 1), Waiting)
    assert judge(intake, GROWN, 2) == Taken()


def test_at_start_up_the_proof_is_enough() -> None:
    assert judge(Intake(), FIRST, 0, alone=True) == Taken()
    assert judge(Intake(), FIRST, 0, "a shard", alone=True) == Waiting("a shard")


def test_without_proof_patience_ends_in_one_attempt() -> None:
    intake = Intake()
    judge(intake, FIRST, 100, "a shard")
    assert judge(intake, FIRST, 100 + PATIENCE_S - 0.1, "a shard") == Waiting("a shard")
    assert judge(intake, FIRST, 100 + PATIENCE_S, "a shard") == Taken("a shard")


def test_patience_begins_anew_with_every_change() -> None:
    intake = Intake()
    for now in range(60):
        assert judge(intake, (("model.onnx", now, now, 7),), now, "a shard") == Waiting("a shard")
    assert judge(intake, (("model.onnx", 59, 59, 7),), 68, "a shard") == Waiting("a shard")
    assert judge(intake, (("model.onnx", 59, 59, 7),), 69, "a shard") == Taken("a shard")


def test_a_manifest_has_the_last_word() -> None:
    assert judge(Intake(), FIRST, 0, manifest=True) == Taken()
    intake = Intake()
    judge(intake, FIRST, 0, "wrong checksum", manifest=True)
    assert judge(intake, FIRST, 1, "wrong checksum", manifest=True) == Waiting("wrong checksum")
    assert judge(intake, FIRST, PATIENCE_S, "wrong checksum", manifest=True) == Taken("wrong checksum", refused=True)


def test_with_a_single_scan_there_is_no_patience() -> None:
    assert judge(Intake(), FIRST, 0, alone=True, once=True) == Taken()
    assert judge(Intake(), FIRST, 0, "a shard", alone=True, once=True) == Taken("a shard")


def test_a_fingerprint_sees_every_way_to_change(tmp_path) -> None:
    version = tmp_path / "1"
    (version / "variables").mkdir(parents=True)
    (version / "variables" / "data").write_bytes(b"1234")
    (version / "link").symlink_to(version / "variables" / "data")
    seen = {fingerprint(version)}

    def changed() -> bool:
        before = len(seen)
        seen.add(fingerprint(version))
        return len(seen) > before

    assert not changed()
    with (version / "variables" / "data").open("ab") as file:
        file.write(b"5")
    assert changed()
    os.utime(version / "variables" / "data", ns=(1, 1))
    assert changed()
    (version / "new").write_bytes(b"12345")
    os.utime(version / "new", ns=(1, 1))
    assert changed()
    (version / "new").replace(version / "variables" / "data")
    assert changed()
    assert [name for name, *_ in fingerprint(version)] == ["link", "variables/data"]
    assert fingerprint(version / "variables" / "data")[0][0] == "data"


def test_a_fingerprint_ends_in_a_folder_that_links_to_itself(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "again").symlink_to(tmp_path)
    assert [name for name, *_ in fingerprint(tmp_path)] == ["file"]


def test_a_manifest_agrees_until_something_changes(tmp_path) -> None:
    version = tmp_path / "1"
    (version / "assets").mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"weights")
    (version / "assets" / "labels.txt").write_text("cat")
    assert disagreement(version) is None
    write_manifest(version)
    assert disagreement(version) == ""
    (version / "extra").write_text("not named, so free")
    assert disagreement(version) == ""
    (version / "model.onnx").write_bytes(b"Weights")
    assert disagreement(version) == f"the checksum of model.onnx is not the one that {MANIFEST} states"
    (version / "model.onnx").write_bytes(b"wei")
    assert disagreement(version) == f"model.onnx has 3 of the 7 bytes that {MANIFEST} states"
    (version / "assets" / "labels.txt").unlink()
    assert disagreement(version) == f"assets/labels.txt is missing, which {MANIFEST} names"


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", '{"files": {}}', '{"files": {"../x": {"size": 1, "sha256": "0"}}}',
        '{"files": {"/etc/passwd": {"size": 1, "sha256": "0"}}}', '{"files": {"x": {"size": "1", "sha256": "0"}}}',
        '{"files": {"x": []}}', "\xff",
    ],
)  # fmt: skip
def test_a_broken_manifest_is_a_disagreement(tmp_path, text) -> None:
    (tmp_path / MANIFEST).write_text(text, encoding="latin-1")
    assert (disagreement(tmp_path) or "").startswith(f"{MANIFEST} is not a manifest: ")


def test_publish_writes_a_version_that_is_complete_at_once(tmp_path) -> None:
    source, base = tmp_path / "made", tmp_path / "models" / "m"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables" / "data").write_bytes(b"weights")
    assert publish(source, base) == base / "1"
    assert publish(source, base, 7) == base / "7"
    assert publish(source, base) == base / "8"
    assert sorted(path.name for path in base.iterdir()) == ["1", "7", "8"]
    assert (base / "7" / "variables" / "data").read_bytes() == b"weights"
    assert disagreement(base / "7") == ""
    assert set(json.loads((base / "7" / MANIFEST).read_text())["files"]) == {"saved_model.pb", "variables/data"}
    assert (base / "7").stat().st_mode & 0o777 == 0o755


def test_publish_takes_one_file(tmp_path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    target = publish(tmp_path / "model.onnx", tmp_path / "m", 3)
    assert (target / "model.onnx").read_bytes() == b"onnx"


def test_publish_never_overwrites_and_leaves_nothing_behind(tmp_path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "model.onnx").write_bytes(b"onnx")
    (tmp_path / "m" / "003").mkdir(parents=True)
    with pytest.raises(ServingError, match="a version is never overwritten") as caught:
        publish(tmp_path / "made", tmp_path / "m", 3)
    assert caught.value.code is Code.ALREADY_EXISTS
    with pytest.raises(ServingError, match="versions are 0 and more"):
        publish(tmp_path / "made", tmp_path / "m", -1)
    with pytest.raises(ServingError, match="absent does not exist"):
        publish(tmp_path / "absent", tmp_path / "m")
    (tmp_path / "m" / "4").write_text("in the way")
    with pytest.raises(ServingError) as caught:
        publish(tmp_path / "made", tmp_path / "m")
    assert caught.value.code is Code.ALREADY_EXISTS
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["003", "4"]


def test_what_cannot_be_copied_leaves_not_even_a_folder(tmp_path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "model.onnx").symlink_to(tmp_path / "gone.onnx")
    with pytest.raises(ServingError) as caught:
        publish(made, tmp_path / "m")
    assert caught.value.code is Code.UNAVAILABLE
    assert "No such file or directory" in caught.value.message
    assert "[(" not in caught.value.message, "words, not a list of tuples"
    assert not (tmp_path / "m").exists()


def test_publish_sweeps_what_a_killed_one_left_and_its_own_place_stays_hidden(tmp_path) -> None:
    source, base = tmp_path / "model.onnx", tmp_path / "m"
    source.write_bytes(b"m")
    (base / ".incoming-x" / "1").mkdir(parents=True)
    publish(source, base)
    assert [found.name for found in base.iterdir()] == ["1"]


def test_publish_refuses_a_damaged_source(tmp_path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "model.onnx").write_bytes(b"onnx")
    write_manifest(tmp_path / "made")
    (tmp_path / "made" / "model.onnx").write_bytes(b"0nnx")
    with pytest.raises(ServingError, match=r"damaged: the checksum of model\.onnx") as caught:
        publish(tmp_path / "made", tmp_path / "m")
    assert caught.value.code is Code.DATA_LOSS
    assert not (tmp_path / "m").exists()

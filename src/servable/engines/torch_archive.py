"""What PyTorch's files are, told from their tables of contents: nothing in them is unpickled or run.

Needs no PyTorch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from servable.core.errors import Code, ServingError, failed_precondition
from servable.core.reading import reading

_PICKLE: Final = b"\x80"
"""How a pickle begins that is no archive: files of torch.save before PyTorch 1.6."""
_NAMES: Final = {"torch_export": "torch.export", "torchscript": "TorchScript"}
_FILES: Final = {"torch_export": ".pt2", "torchscript": ".pt"}
_WAY_ON: Final = (
    "save the module with its graph instead: torch.export.save(torch.export.export(module, inputs), 'model.pt2'), or "
    "torch.jit.save(torch.jit.trace(module, inputs), 'model.pt')"
)


def missing(path: Path) -> str | None:
    """Return what an archive lacks, or ``None`` if its contents are all there. What is no archive is not judged."""
    try:
        _contents(path)
    except ServingError as error:
        return None if error.code is Code.FAILED_PRECONDITION else error.message
    return None


def check(path: Path, kind: str) -> None:
    """Raise FAILED_PRECONDITION if a file is not of that kind; what it is, and what to do, is in the message."""
    found = _kind(_contents(path))
    if found == kind:
        return
    if found in _FILES:
        raise failed_precondition(f"{path} is an archive of {_NAMES[found]}: its name should end in {_FILES[found]}")
    raise failed_precondition(found.format(path=path, way=_WAY_ON))


def _contents(path: Path) -> Sequence[str]:
    """Return the names in an archive, without the folder around them all."""
    try:
        with reading(path):
            size = path.stat().st_size
            with path.open("rb") as file:
                start = file.read(1)
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        if start == _PICKLE:
            return ["data.pkl"]
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {error}") from None
    if not entries or min(entry.header_offset for entry in entries):  # it is the end of an archive inside this one
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: its table of contents is not there")
    for entry in entries:
        if entry.header_offset + entry.compress_size > size:
            raise ServingError(Code.DATA_LOSS, f"{path} is damaged or not complete: {entry.filename} ends beyond it")
    return [entry.filename.partition("/")[2] or entry.filename for entry in entries]


def _kind(contents: Sequence[str]) -> str:
    """Return a kind of artifact, or else a form of what is wrong."""
    if any(name.startswith("models/") for name in contents) or "serialized_exported_program.json" in contents:
        return "torch_export"
    if "constants.pkl" in contents:
        return "torchscript"
    if any(name.startswith("data/aotinductor/") for name in contents):
        return "{path} holds code that AOTInductor compiled for one machine, and no program: {way}"
    if "data.pkl" in contents:
        return (
            "{path} is a pickle (torch.save): weights, or objects whose Python is not in it and which could run "
            "anything when they are loaded; {way}"
        )
    return "{path} is an archive, but not one of PyTorch: {way}"

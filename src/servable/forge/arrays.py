"""Named arrays in a file, every dtype and strings included, for a step that runs in another process. No pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from servable.core.tensors import Array, dtype_named, dtype_of

Tensors: TypeAlias = Mapping[str, Array]
_STRING = "string"


def save(path: Path, batches: Sequence[Tensors]) -> None:
    """Write a list of named arrays to an ``.npz``."""
    entries: dict[str, Array] = {"count": np.array(len(batches))}
    for number, batch in enumerate(batches):
        for name, array in batch.items():
            dtype = dtype_of(array).name
            key = f"{number}|{dtype}|{name}"
            if dtype == _STRING:
                items = [item.encode() if isinstance(item, str) else bytes(item) for item in array.reshape(-1)]
                entries[key] = np.frombuffer(b"".join(items), np.uint8)
                entries[f"lengths|{key}"] = np.array([len(item) for item in items], np.int64)
            else:
                entries[key] = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            entries[f"shape|{key}"] = np.array(array.shape, np.int64)
    with path.open("wb") as file:
        np.savez(file, **entries)  # type: ignore[arg-type]  # the stub knows no arrays by name


def load(path: Path) -> list[dict[str, Array]]:
    """Return what ``save`` wrote."""
    with np.load(path, allow_pickle=False) as entries:
        batches: list[dict[str, Array]] = [{} for _ in range(int(entries["count"]))]
        for key in entries.files:
            if key.startswith(("shape|", "lengths|")) or key == "count":
                continue
            number, dtype, name = key.split("|", 2)
            shape = tuple(entries[f"shape|{key}"])
            if dtype == _STRING:
                flat = np.empty(int(np.prod(shape)), dtype=object)
                ends = np.cumsum(entries[f"lengths|{key}"])
                blob = entries[key].tobytes()
                flat[:] = (
                    [blob[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)] if len(ends) else []
                )
                batches[int(number)][name] = flat.reshape(shape)
            else:
                flat = np.frombuffer(entries[key].tobytes(), dtype_named(dtype).numpy)
                batches[int(number)][name] = flat.reshape(shape)
    return batches

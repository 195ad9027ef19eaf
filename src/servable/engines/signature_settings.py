"""``[signatures]`` in the ``servable.toml`` of a version: what the format of its artifact cannot say itself.

A table for each tensor::

    [signatures.serving_default.inputs.tokens]
    dtype = "int32"
    shape = [-1, 50]     # -1 is a free dimension; without a shape the rank is free too
    node = "tokens:0"    # the artifact's own name of the tensor, where that is another

    [signatures.serving_default.outputs.probs]
    dtype = "float32"
    shape = [-1, 2]
    node = "Identity:0"

Read for TFLite, TorchScript, torch.export and frozen graphs. Other artifacts say all of this themselves; beside them
the table is passed over.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from servable.core.errors import failed_precondition
from servable.core.signatures import DEFAULT_SIGNATURE, PREDICT_METHOD, Shape, Signature, TensorSpec
from servable.core.tensors import DTYPES_BY_NAME
from servable.engines.artifact import FILES, SETTINGS_FILE
from servable.engines.version_settings import SIGNATURES, check_keys, read_version_settings, table, text, wrong

_SIGNATURE_KEYS: Final = frozenset({"inputs", "outputs", "method_name"})
_TENSOR_KEYS: Final = frozenset({"dtype", "shape", "node"})
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"\s*\[")
_OURS = re.compile(r"""\s*\[\s*(signatures|"signatures"|'signatures')\s*[.\]]""")


def read_signature_settings(path: Path) -> dict[str, Signature]:
    """Return the signatures in a version's ``servable.toml``, by name; none if it has no such table.

    FAILED_PRECONDITION names the file and the key that is wrong.
    """
    signatures = table(read_version_settings(path).get(SIGNATURES, {}), f"{path}: {SIGNATURES}")
    return {name: _signature(name, found, f"{path}: {SIGNATURES}.{name}") for name, found in signatures.items()}


def write_signature_settings(path: Path, signatures: Mapping[str, Signature]) -> None:
    """Write the signatures into a version's ``servable.toml``, in place of those there; the rest of the file stays.

    A new file replaces the old one in one step; what would hold nothing is not written. FAILED_PRECONDITION if the old
    one cannot be read, or holds its signatures in a form that cannot be taken out of the text.
    """
    old = read_version_settings(path) if path.exists() else {}
    kept = _without_signatures(path.read_text("utf-8")) if old else ""
    added = "\n".join(as_toml(signatures))
    new = "\n\n".join(part for part in (kept, added) if part) + "\n"
    rest = tomllib.loads(kept) if _parses(kept) else None
    if rest != {key: value for key, value in old.items() if key != SIGNATURES} or not _parses(new):
        raise failed_precondition(f"{path}: its signatures cannot be replaced: write each as [signatures.NAME...]")
    if not new.strip():
        path.unlink(missing_ok=True)
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(new, "utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def as_toml(signatures: Mapping[str, Signature]) -> Iterator[str]:
    """Yield the lines of the tables for these signatures."""
    first = True
    for signature in signatures.values():
        if signature.method_name != PREDICT_METHOD:
            yield from ([] if first else [""])
            yield f"[{SIGNATURES}.{_key(signature.name)}]"
            yield f"method_name = {_quoted(signature.method_name)}"
            first = False
        for role, specs in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            for name, spec in specs.items():
                yield from ([] if first else [""])
                yield f"[{SIGNATURES}.{_key(signature.name)}.{role}.{_key(name)}]"
                yield from _tensor_lines(spec)
                first = False


def to_write(artifact: Path, names: Mapping[str, list[str]]) -> str:
    """Return what a person is to write beside an artifact that tells no more of its tensors than names.

    ``names`` has the keys ``inputs`` and ``outputs``.
    """
    lines = "; ".join(
        f'{SIGNATURES}.{DEFAULT_SIGNATURE}.{role}.{_key(name)} = {{ dtype = "float32", shape = [-1, 8] }}'
        for role in ("inputs", "outputs")
        for name in names[role]
    )
    suffix = artifact.suffix
    called = "" if artifact.name in FILES else f"call it {next(name for name in FILES if name.endswith(suffix))} and "
    place = artifact.with_name(SETTINGS_FILE)
    return f"{called}say so in {place}, a line each: {lines} (with the types and shapes that it has; -1 is free)"


def _signature(name: str, found: Any, where: str) -> Signature:
    check_keys(found, _SIGNATURE_KEYS, where)
    inputs = _tensors(found.get("inputs", {}), f"{where}.inputs")
    outputs = _tensors(found.get("outputs", {}), f"{where}.outputs")
    if not outputs:
        raise failed_precondition(f"{where}: outputs is missing: a signature gives at least one tensor")
    return Signature(name, inputs, outputs, text(found.get("method_name", PREDICT_METHOD), f"{where}.method_name"))


def _tensors(found: Any, where: str) -> dict[str, TensorSpec]:
    return {name: _tensor(name, each, f"{where}.{name}") for name, each in table(found, where).items()}


def _tensor(name: str, found: Any, where: str) -> TensorSpec:
    check_keys(found, _TENSOR_KEYS, where)
    if "dtype" not in found:
        raise failed_precondition(f"{where}: dtype is missing: one of {', '.join(DTYPES_BY_NAME)}")
    dtype = DTYPES_BY_NAME.get(text(found["dtype"], f"{where}.dtype"))
    if dtype is None:
        raise wrong(f"{where}.dtype", f"one of {', '.join(DTYPES_BY_NAME)}", found["dtype"])
    return TensorSpec(name, dtype, _shape(found.get("shape"), f"{where}.shape"), _node(found, name, where))


def _shape(found: Any, where: str) -> Shape | None:
    if found is None:
        return None
    if type(found) is not list or not all(type(size) is int and size >= -1 for size in found):
        raise wrong(where, "a list of sizes, -1 for a free one", found)
    return tuple(None if size < 0 else size for size in found)


def _node(found: Mapping[str, Any], name: str, where: str) -> str:
    node = text(found.get("node", name), f"{where}.node")
    if not node:
        raise failed_precondition(f"{where}.node: a tensor's own name is not empty; leave it out where it is {name!r}")
    return node


def _tensor_lines(spec: TensorSpec) -> Iterator[str]:
    yield f"dtype = {_quoted(spec.dtype.name)}"
    if spec.shape is not None:
        yield f"shape = [{', '.join('-1' if size is None else str(size) for size in spec.shape)}]"
    if spec.node and spec.node != spec.name:
        yield f"node = {_quoted(spec.node)}"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _quoted(name)


def _quoted(value: str) -> str:
    """Return a string as TOML writes it: as JSON does, and a control character more."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _without_signatures(document: str) -> str:
    kept: list[str] = []
    remarks: list[str] = []
    ours = False
    for line in document.split("\n"):  # TOML knows no other ends of lines
        if _HEADER.match(line):
            ours = _OURS.match(line) is not None
            kept += [] if ours else remarks  # what was said before a table that stays
        if not ours:
            kept.append(line)
        remarks = [*remarks, line] if ours and line.startswith("#") else []
    return "\n".join(kept).strip()


def _parses(document: str) -> bool:
    try:
        tomllib.loads(document)
    except tomllib.TOMLDecodeError:
        return False
    return True

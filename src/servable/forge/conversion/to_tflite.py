"""TensorFlow graphs to TFLite by TensorFlow's converter, with the two gates that its silent failures need.

Only TFLite's own operations are allowed: the LiteRT runtime here cannot run TensorFlow's.
"""

from __future__ import annotations

import importlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from servable.core.errors import ServingError, failed_precondition
from servable.core.signatures import Signature
from servable.engines.artifact import SETTINGS_FILE
from servable.engines.signature_settings import write_signature_settings
from servable.forge.conversion.tensorflow_graphs import Frozen, constant_bytes, one_line, save_frozen, unsupported
from servable.forge.steps import Facts

LEAST_SHARE: Final = 0.4
"""A file with less than that of the constants' bytes has lost some: the converter drops them in silence."""
_FLEX: Final = re.compile(r"(?:tf|TF)\.(\w+)'? op is neither a custom op nor a flex op|'tf\.(\w+)' op")
_NEEDED: Final = re.compile(r"(?:Flex|Custom) ops: ([\w, ]+)")
_STATIC: Final = "requires element_shape to be static"


Configure: TypeAlias = Callable[[Any, Any], None]
"""Called with TensorFlow and its converter before that converts."""


def as_it_is(_tensorflow: Any, _converter: Any) -> None:
    """Leave the converter as it is: numbers keep their types."""


def from_frozen(
    parts: Sequence[Frozen],
    source: Path,
    target: Path,
    served: Mapping[str, Signature] | None = None,
    configure: Configure = as_it_is,
    least_share: float = LEAST_SHARE,
) -> Facts:
    """Write ``model.tflite`` with all these signatures by name.

    ``served`` are signatures to state beside it, where one takes any number of rows in blocks of the fixed one.
    ``least_share`` of the constants' bytes must be in the file. UNIMPLEMENTED names the operations that TFLite lacks;
    FAILED_PRECONDITION says that weights were lost.
    """
    tf: Any = importlib.import_module("tensorflow")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        save_frozen(parts, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[part.signature.name for part in parts]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        configure(tf, converter)
        try:
            blob = converter.convert()
        except Exception as error:
            raise _refusal(parts, source, error) from error
    expected = max(constant_bytes(part.graph) for part in parts)
    check_size(len(blob), expected, source, least_share)
    (target / "model.tflite").write_bytes(blob)
    _check_numbers(blob, parts, source)
    if served:
        write_signature_settings(target / SETTINGS_FILE, {name: _plain(one) for name, one in served.items()})
    return {"constants": expected, "bytes": len(blob)}


def check_size(written: int, constants: int, source: Path, least_share: float = LEAST_SHARE) -> None:
    """Refuse a file that cannot hold the model's constants."""
    if written < least_share * constants:
        raise failed_precondition(
            f"{source}: TensorFlow's converter wrote {written:,} bytes of TFLite for {constants:,} of weights: it "
            "has lost some; convert to onnx or openvino instead"
        )


def _check_numbers(blob: bytes, parts: Sequence[Frozen], source: Path) -> None:
    """Run each signature once where LiteRT is installed; NaN for harmless inputs is the other silent failure."""
    try:
        runtime: Any = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        return
    interpreter = runtime.Interpreter(model_content=blob)
    for part in parts:
        runner = interpreter.get_signature_runner(part.signature.name)
        taken = runner.get_input_details()
        inputs = {
            name: np.ones([1 if size is None else size for size in spec.shape or ()], taken[name]["dtype"])
            for name, spec in part.signature.inputs.items()
        }
        for name, value in runner(**inputs).items():
            if value.dtype.kind == "f" and np.isnan(value).any():
                raise failed_precondition(
                    f"{source}: the TFLite model answers NaN in {name} of {part.signature.name} to inputs of ones"
                )


def _plain(signature: Signature) -> Signature:
    """Return the signature without the graph's names, which are gone."""
    inputs = {name: replace(spec, node="") for name, spec in signature.inputs.items()}
    outputs = {name: replace(spec, node="") for name, spec in signature.outputs.items()}
    return replace(signature, inputs=inputs, outputs=outputs)


def _refusal(parts: Sequence[Frozen], source: Path, error: Exception) -> ServingError:
    said = str(error)
    names = ", ".join(part.signature.name for part in parts)
    if _STATIC in said or "TensorListReserve" in said:
        return failed_precondition(
            f"{source}: signature {names} repeats over sizes that are free, which TFLite cannot: export it with fixed "
            "ones (--batch N; of a Keras file also --inputs NAME=TYPE[SHAPE])"
        )
    found = [first or second for first, second in _FLEX.findall(said)]
    found += [name.strip().removeprefix("Flex") for names_ in _NEEDED.findall(said) for name in names_.split(",")]
    if found:
        return unsupported(source, names, found, "TFLite")
    return failed_precondition(f"{source}: TFLite's converter fails on signature {names}: {one_line(error)}")

"""Models that are not files: built by code, or restored by Keras, with a checkpoint for their weights. For workers.

Code is named ``file.py:function`` or ``module:function``. The function takes nothing and returns a Keras model, a
``tf.Module``, or a torch module with an example of its inputs: ``(module, inputs)``.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import Code, ServingError, failed_precondition, invalid_argument, not_found
from servable.core.signatures import DEFAULT_SIGNATURE
from servable.engines.base import Artifact
from servable.forge.artifacts import CODE
from servable.forge.conversion.live import LiveModel, Naming, live_model

_SEED: Final = 1
_FRAMEWORKS: Final = ("torch", "tensorflow", "keras")
_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_MOST_KEYS: Final = 4


def restore(source: Artifact, options: Mapping[str, Any]) -> LiveModel:
    """Return the live model of a ``keras`` or ``checkpoint`` artifact.

    Options: ``code``, ``checkpoint``, and how it is to be called: ``signature``, ``inputs``, ``outputs``, ``batch``.
    """
    naming = Naming(
        options.get("signature") or DEFAULT_SIGNATURE,
        options.get("inputs"),
        options.get("outputs"),
        options.get("batch"),
    )
    if source.kind == "keras":
        live = live_model(load_keras(source.path, options.get("code")), naming)
        live.origin = str(source.path)
    else:
        built, example = build(str(options["code"]), options.get("checkpoint"))
        live = live_model(built, naming, example)
        live.origin = str(options["code"])
    return live


def load_keras(path: Path, code: str | None = None) -> Any:
    """Load a ``.keras`` or ``.h5`` file; ``code`` is a file or module to import first, for layers of one's own."""
    _existing(path)
    if not zipfile.is_zipfile(path) and not path.read_bytes()[:8] == _HDF5:
        raise ServingError(Code.DATA_LOSS, f"{path} is damaged or no Keras file (.keras, .h5)")
    _tensorflow_backend()
    keras: Any = importlib.import_module("keras")
    if code:
        _import(code)
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise _keras_refusal(path, error) from error


def build(code: str, checkpoint: str | None = None) -> tuple[Any, Any]:
    """Call the code; return the model with the checkpoint's weights, and the example of its inputs if it has one."""
    match = CODE.fullmatch(code)
    if match is None:
        raise invalid_argument(f"{code!r} names no code: expected FILE.py:FUNCTION or MODULE:FUNCTION")
    module = _import(match["place"])
    function = getattr(module, match["function"], None)
    if not callable(function):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        there = ", ".join(name for name in own if not name.startswith("_"))
        raise not_found(f"{match['place']} has no function {match['function']!r}; there are {there or 'none'}")
    seeded = _seed()
    try:
        built = function()
        if checkpoint is None and _seed() != seeded:  # it imported its framework only now, and drew unseeded weights
            built = function()
    except ServingError:
        raise
    except Exception as error:
        raise failed_precondition(f"{code} raised {type(error).__name__}: {_line(error)}") from error
    example = None
    if isinstance(built, tuple):
        if len(built) != 2:
            raise failed_precondition(f"{code} returned {len(built)} things; expected a model, or (model, inputs)")
        built, example = built
    if checkpoint:
        load_weights(built, Path(checkpoint))
    return built, example


def load_weights(model: Any, checkpoint: Path) -> None:
    """Give a model the weights of a checkpoint: Keras's ``.weights.h5``, TensorFlow's, or torch's state dict."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        _load_torch(torch, model, checkpoint)
        return
    if checkpoint.suffix in {".h5", ".keras"}:
        _existing(checkpoint)
        try:
            model.load_weights(checkpoint)
        except Exception as error:
            raise failed_precondition(f"{checkpoint} does not fit the code: {_line(error)}") from error
        return
    _load_tensorflow(model, checkpoint)


def _load_torch(torch: Any, model: Any, checkpoint: Path) -> None:
    _existing(checkpoint)
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        raise failed_precondition(
            f"{checkpoint} is damaged, or holds more than weights, which is not loaded: save module.state_dict() "
            f"({type(error).__name__})"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise failed_precondition(f"{checkpoint} holds a {type(state).__name__}, no state dict")
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise failed_precondition(f"{checkpoint} does not fit the code: {_line(error)}") from error


def _load_tensorflow(model: Any, checkpoint: Path) -> None:
    """Restore a checkpoint that was written of the model itself, or under the name ``model``."""
    tf: Any = importlib.import_module("tensorflow")
    prefix = tf.train.latest_checkpoint(str(checkpoint)) if checkpoint.is_dir() else str(checkpoint)
    prefix = prefix.removesuffix(".index") if prefix else prefix
    if prefix is None or not Path(f"{prefix}.index").exists():
        found = sorted(checkpoint.glob("*.weights.h5")) if checkpoint.is_dir() else []
        if len(found) == 1:
            load_weights(model, found[0])
            return
        raise not_found(f"there is no checkpoint {checkpoint}: expected NAME.weights.h5, or NAME.index with its shards")
    failed: list[Exception] = []
    for root in (tf.train.Checkpoint(model=model), tf.train.Checkpoint(root=model)):
        try:
            root.read(prefix).assert_existing_objects_matched().expect_partial()
        except Exception as error:  # noqa: BLE001  # TensorFlow raises several kinds
            failed.append(error)
        else:
            return
    names = [name for name, _ in tf.train.list_variables(prefix)][:_MOST_KEYS]
    raise failed_precondition(f"{prefix} does not fit the code ({_line(failed[0])}); it has {', '.join(names)}, ...")


def _import(place: str) -> Any:
    """Import a file or a module; a file's own folder is on the path, as if it were run."""
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place).resolve()
        _existing(path)
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
    except ServingError:
        raise
    except Exception as error:
        raise failed_precondition(f"{place} cannot be imported: {type(error).__name__}: {_line(error)}") from error
    return module


def _seed() -> list[str]:
    """Have code without a checkpoint draw the same weights when it is called again, to compare with.

    Returns the frameworks that are there to be seeded.
    """
    random.seed(_SEED)
    np.random.seed(_SEED)  # what other people's code draws from
    torch, tensorflow, keras = (sys.modules.get(name) for name in _FRAMEWORKS)
    if torch is not None:
        torch.manual_seed(_SEED)
    if tensorflow is not None:
        tensorflow.random.set_seed(_SEED)
    if keras is not None:
        keras.utils.set_random_seed(_SEED)
    return [name for name in _FRAMEWORKS if name in sys.modules]


def _tensorflow_backend() -> None:
    import os

    os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def _existing(path: Path) -> None:
    if not path.exists():
        raise not_found(f"there is no file {path}")


def _keras_refusal(path: Path, error: Exception) -> ServingError:
    said = _line(error)
    if "Lambda" in said and ("unsafe" in said or "safe_mode" in said):
        return failed_precondition(
            f"{path} holds Python code in a Lambda layer, which is not run: write the layer as a class, and name its "
            "file with --code"
        )
    if "Could not locate class" in said or "Unknown layer" in said:
        return failed_precondition(f"{path} has a layer of a class of its own: name its file with --code ({said})")
    return failed_precondition(f"Keras cannot load {path}: {said}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]

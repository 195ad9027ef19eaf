"""Requests from files: arrays, JSON, folders of images, logs of requests that a server has recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from servable.client.inputs import as_inputs
from servable.core.errors import ServingError, failed_precondition, invalid_argument, not_found
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import STRING, Array, as_tensor
from servable.lab.exchange import Sample, Tensors
from servable.protos.tfrecord import DamagedRecordsError, read_records
from servable.wire.prediction_log import decode_prediction_log
from servable.wire.tfserving_grpc import decode_predict_request, decode_predict_response

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif"})
_LOGS = frozenset({".tfrecord", ".tfrecords", ".log"})
_NHWC_CHANNELS = (1, 3)


def read_samples(path: Path, signature: Signature | None, batch: int, most: int) -> list[Sample]:
    """Return at most ``most`` requests from a file or folder; INVALID_ARGUMENT says what is wrong in which.

    Arrays (``.npz``, ``.npy``) are cut into requests of ``batch`` rows. A JSON file holds one request, a list of them,
    or one a line, each as an object of inputs or in TensorFlow Serving's form. A folder's images are grouped by
    ``batch``. A TFRecord file of PredictionLog brings the answers that were logged as the expected ones.
    """
    if path.is_dir():
        found = list(_images(path, signature, batch, most))
    elif path.suffix in {".npz", ".npy"}:
        found = cut(_typed(read_arrays(path, signature), signature), batch, most)
    elif path.suffix in {".json", ".jsonl"}:
        found = [Sample(as_inputs(one, signature)) for one in _documents(path, signature)[:most]]
    elif path.suffix in _LOGS or path.name.startswith("tf_serving_warmup"):
        found = list(_logged(path, most))
    else:
        raise invalid_argument(
            f"{path} is no data that can be read: there are .npz, .npy, .json, .jsonl, .tfrecord and folders of images"
        )
    if not found:
        raise invalid_argument(f"{path} holds no requests")
    return found


def cut(arrays: Tensors, batch: int, most: int) -> list[Sample]:
    """Return requests of ``batch`` rows; arrays that share no number of rows are one request."""
    rows = {array.shape[0] if array.ndim else -1 for array in arrays.values()}
    if len(rows) != 1 or -1 in rows:
        return [Sample(arrays)]
    (count,) = rows
    if count < batch:
        raise invalid_argument(f"the data has {count} rows: too few for one request of {batch}")
    begins = range(0, count - batch + 1, batch)[:most]
    return [Sample({name: array[at : at + batch] for name, array in arrays.items()}) for at in begins]


def read_arrays(path: Path, signature: Signature | None = None) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` by name; the one of an ``.npy`` is the signature's only input."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as error:
        raise not_found(f"cannot read {path}: {error}") from None
    except ValueError as error:
        raise invalid_argument(f"{path} is no array file: {error}") from None
    if not isinstance(loaded, np.ndarray):
        with loaded:
            return dict(loaded)
    return {_only_input(path, signature).name: loaded}


def read_json(path: Path) -> Any:
    """Return a JSON document."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise invalid_argument(f"{path} is no JSON: {error}") from None


def _typed(arrays: Mapping[str, Array], signature: Signature | None) -> dict[str, Array]:
    found = {}
    for name, array in arrays.items():
        spec = None if signature is None else signature.inputs.get(name)
        if signature is not None and spec is None:
            raise invalid_argument(
                f"the data has {name!r}, which is no input: there are {', '.join(map(repr, signature.inputs))}"
            )
        found[name] = as_tensor(array, spec.dtype if spec is not None and spec.dtype is STRING else None)
    return found


def _documents(path: Path, signature: Signature | None) -> list[Mapping[str, Any]]:
    if path.suffix == ".jsonl":
        lines = [line for line in _text(path).splitlines() if line.strip()]
        documents = [_line(line, path, number) for number, line in enumerate(lines, 1)]
    else:
        document = read_json(path)
        documents = document if isinstance(document, list) else [document]
    return [_inputs(one, path, signature) for one in documents]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None


def _line(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise invalid_argument(f"{path} line {number} is no JSON: {error}") from None


def _inputs(document: Any, path: Path, signature: Signature | None) -> Mapping[str, Any]:
    """Take a request apart: ``{"instances": rows}``, ``{"inputs": columns}``, or the inputs themselves."""
    if isinstance(document, dict):
        if isinstance(document.get("instances"), list):
            return _rows(document["instances"], path, signature)
        inputs = document.get("inputs", document)
        if isinstance(inputs, dict):
            return inputs
        return {_only_input(path, signature).name: inputs}
    raise invalid_argument(f"{path}: a request is an object of inputs by name, not {type(document).__name__}")


def _rows(rows: list[Any], path: Path, signature: Signature | None) -> Mapping[str, Any]:
    if rows and all(isinstance(row, dict) and "b64" not in row for row in rows):
        return {name: [row.get(name) for row in rows] for name in rows[0]}
    return {_only_input(path, signature).name: rows}


def _only_input(path: Path, signature: Signature | None) -> TensorSpec:
    if signature is None or len(signature.inputs) != 1:
        raise invalid_argument(f"{path} does not name its input, and the model's signature has not exactly one")
    return next(iter(signature.inputs.values()))


def _images(folder: Path, signature: Signature | None, batch: int, most: int) -> Iterator[Sample]:
    spec = _only_input(folder, signature)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
    if len(paths) < batch:
        raise invalid_argument(f"{folder} holds {len(paths)} images: too few for one request of {batch}")
    for at in range(0, min(len(paths) - batch + 1, most * batch), batch):
        yield Sample({spec.name: _picture_batch(paths[at : at + batch], spec)})


def _picture_batch(paths: Sequence[Path], spec: TensorSpec) -> Array:
    if spec.dtype is STRING:
        return as_tensor([path.read_bytes() for path in paths], STRING)
    return np.stack([_pixels(path, spec) for path in paths])


def _pixels(path: Path, spec: TensorSpec) -> Array:
    """Decode and resize: [height, width, channels] or [channels, height, width]; floats are from 0 to 1."""
    shape = (spec.shape or ())[1:]
    if len(shape) != 3:
        raise invalid_argument(f"input {spec.name!r} is {spec}: images go into inputs of rank 4, or of strings")
    channels_last = shape[2] in _NHWC_CHANNELS
    height, width, channels = shape if channels_last else (shape[1], shape[2], shape[0])
    try:
        from PIL import Image
    except ImportError:
        raise failed_precondition("images are decoded by pillow: pip install 'servable[preprocess]'") from None
    try:
        with Image.open(path) as opened:
            picture = opened.convert("L" if channels == 1 else "RGB")
    except OSError as error:
        raise invalid_argument(f"{path} is no image: {error}") from None
    if height is not None and width is not None:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, np.uint8)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels if channels_last else np.moveaxis(pixels, -1, 0)
    if spec.dtype.numpy.kind == "f":
        return (pixels / np.float32(255)).astype(spec.dtype.numpy)
    return np.ascontiguousarray(pixels.astype(spec.dtype.numpy))


def _logged(path: Path, most: int) -> Iterator[Sample]:
    taken = 0
    try:
        for record in read_records(path):
            call = decode_prediction_log(record)
            if call is None or call.kind != "predict_log":
                continue
            answer = decode_predict_response(call.response).outputs if call.response else None
            yield Sample(decode_predict_request(call.request).inputs, answer)
            taken += 1
            if taken == most:
                return
    except OSError as error:
        raise not_found(f"cannot read {path}: {error.strerror}") from None
    except DamagedRecordsError as error:
        raise invalid_argument(f"{path}: {error}") from None
    except ServingError as error:
        raise ServingError(error.code, f"{path}: {error.message}") from None

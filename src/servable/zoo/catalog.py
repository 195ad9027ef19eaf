"""The example models: what there is, how to build it on disk, what to send it and what it must answer.

Every artifact of a model is built from the same seeded weights, by builders that share nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from servable.core.errors import Code, ServingError, failed_precondition, invalid_argument, not_found
from servable.core.progress import Progress, unheard
from servable.core.scratch import scratch
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import FLOAT32, INT32, INT64, STRING, Array, DType
from servable.zoo import corpus, fitted
from servable.zoo import image_plans as plans
from servable.zoo import weights as w
from servable.zoo.labelled_pictures import CLASSES as PATTERNS
from servable.zoo.onnx_builders import write_onnx
from servable.zoo.pictures import jpegs, pictures
from servable.zoo.reference import forward

DEFAULT_SEED = 1
KINDS = ("onnx", "saved_model")
"""The artifacts that every example model can be built as."""


@dataclass(frozen=True, slots=True)
class ExampleModel:
    """One entry of the catalog. ``limits`` are the [low, high) bounds that valid samples are drawn from.

    ``saved_model`` is how the SavedModel is called where that differs: it can take encoded files. ``labels`` are
    written beside the artifact, one a line. A model that is not ``quick`` takes seconds to build or to compute.
    ``labelled`` has a data set to be right or wrong about.
    """

    name: str
    summary: str
    signature: Signature
    limits: Mapping[str, tuple[float, float]]
    saved_model: Signature | None = None
    labels: tuple[str, ...] = ()
    quick: bool = True
    labelled: bool = False

    def signature_of(self, kind: str) -> Signature:
        """Return how an artifact of that kind is called."""
        return self.saved_model if kind == "saved_model" and self.saved_model is not None else self.signature


def _specs(*tensors: tuple[str, DType, tuple[int | None, ...]]) -> Mapping[str, TensorSpec]:
    return MappingProxyType({name: TensorSpec(name, dtype, shape) for name, dtype, shape in tensors})


def _example(
    name: str,
    summary: str,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    **limits: tuple[float, float],
) -> ExampleModel:
    return ExampleModel(name, summary, Signature(DEFAULT_SIGNATURE, inputs, outputs), MappingProxyType(limits))


def _fitted(name: str, summary: str, output: str) -> ExampleModel:
    course = fitted.COURSES[name]
    return ExampleModel(
        name,
        summary,
        Signature(
            DEFAULT_SIGNATURE,
            _specs((course.input, FLOAT32, (None, course.size, course.size, plans.CHANNELS))),
            _specs((output, FLOAT32, (None, course.classes))),
        ),
        MappingProxyType({course.input: (0, course.brightest)}),
        labels=PATTERNS[: course.classes],
        quick=False,
        labelled=True,
    )


_TOKENS = _specs(("tokens", INT32, (None, w.TOKENS)))
_PROBS = _specs(("probs", FLOAT32, (None, w.CLASSES)))
_RELATION = (None, w.RELATION_TOKENS)
_SCORES = ("scores", FLOAT32, (None, 1))

CATALOG: Mapping[str, ExampleModel] = MappingProxyType(
    {
        model.name: model
        for model in (
            _example(
                "half_plus_two",
                "y = 0.5 x + 2: the model that first tries of TensorFlow Serving use",
                _specs(("x", FLOAT32, (None, 1))),
                _specs(("y", FLOAT32, (None, 1))),
                x=(-10, 10),
            ),
            _example(
                "lstm_tokens",
                "three LSTM layers of 128 over 50 tokens, two classes",
                _TOKENS,
                _PROBS,
                tokens=(0, w.VOCABULARY),
            ),
            _example(
                "noop",
                "one small matrix product: what is left to measure is the server",
                _TOKENS,
                _specs(("scores", FLOAT32, (None, w.CLASSES))),
                tokens=(0, w.VOCABULARY),
            ),
            ExampleModel(
                "resnet50",
                "ResNet-50 that looks for a person: JPEG files in as a SavedModel, pixels [256, 256, 3] as ONNX",
                Signature(
                    DEFAULT_SIGNATURE,
                    _specs(("images", FLOAT32, (None, plans.RESNET_SIZE, plans.RESNET_SIZE, plans.CHANNELS))),
                    _specs(_SCORES),
                ),
                MappingProxyType({"images": (0, 255)}),
                saved_model=Signature(
                    "predict_images",
                    _specs(("images", STRING, (None,))),
                    _specs(("classes", STRING, (None, 1)), _SCORES),
                ),
                labels=(plans.PERSON,),
                quick=False,
            ),
            _fitted(
                "resnet50_fitted",
                "ResNet-50 whose last layer is fitted to tell four patterns apart: pixels [256, 256, 3] in either form",
                "scores",
            ),
            ExampleModel(
                "sentiment",
                "three LSTM layers of 256 over word vectors, trained here to tell good film reviews from bad ones",
                Signature(
                    DEFAULT_SIGNATURE,
                    _specs(("vectors", FLOAT32, (None, None, corpus.VECTOR))),
                    _specs(("logits", FLOAT32, (None, w.CLASSES)), ("probs", FLOAT32, (None, w.CLASSES))),
                ),
                MappingProxyType({"vectors": (-2, 2)}),
                labels=corpus.LABELS,
                quick=False,
            ),
            _example(
                "simple_cnn",
                "eight small convolutions over pictures of 224 x 224, sigmoids of 100 classes",
                _specs(("input", FLOAT32, (None, plans.SIMPLE_SIZE, plans.SIMPLE_SIZE, plans.CHANNELS))),
                _specs(("output", FLOAT32, (None, plans.SIMPLE_CLASSES))),
                input=(0, 1),
            ),
            _fitted(
                "simple_cnn_fitted",
                "simple_cnn whose last layer is fitted to tell five patterns apart in pictures of 224 x 224",
                "output",
            ),
            _example(
                "text_cnn",
                "relation classification: 500 tokens and two entity masks, convolutions 2, 3, 4 x 128, three classes",
                _specs(("e1_mas", INT64, _RELATION), ("e2_mas", INT64, _RELATION), ("input_ids", INT64, _RELATION)),
                _specs(("labels", INT64, (None,)), ("probs", FLOAT32, (None, w.RELATION_CLASSES))),
                input_ids=(1, 200),
                e1_mas=(0, 2),
                e2_mas=(0, 2),
            ),
            _example(
                "text_cnn_small",
                "text classification: 50 tokens, convolutions 3, 4, 5 x 128, two classes",
                _TOKENS,
                _PROBS,
                tokens=(0, w.VOCABULARY),
            ),
        )
    }
)


def names(*, quick: bool = False) -> tuple[str, ...]:
    """Return the names of all example models, sorted; with ``quick`` of those that build and compute in seconds."""
    return tuple(name for name, model in CATALOG.items() if model.quick or not quick)


def describe(name: str) -> ExampleModel:
    """Return one entry; NOT_FOUND names those that exist."""
    model = CATALOG.get(name)
    if model is None:
        raise not_found(f"no example model is called {name!r}; there are {', '.join(CATALOG)}")
    return model


def build(
    name: str,
    directory: Path,
    *,
    kind: str = "onnx",
    version: int = 1,
    model_name: str | None = None,
    seed: int = DEFAULT_SEED,
    overwrite: bool = False,
    report: Progress = unheard,
) -> Path:
    """Build ``<directory>/<model name>/<version>`` and return it. It appears there complete, by a rename.

    ALREADY_EXISTS if that version is there and ``overwrite`` was not asked for; FAILED_PRECONDITION names the extra
    to install when the builder's library is missing. ``report`` takes lines about a training, which takes a minute.
    """
    example = describe(name)
    model_name = name if model_name is None else model_name
    _check_target(kind, version, model_name)
    final = directory / model_name / str(version)
    if final.exists() and not overwrite:
        raise ServingError(
            Code.ALREADY_EXISTS, f"{final} is there already; choose another version, or ask to overwrite it"
        )
    is_new = not final.parent.exists()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, so that the rename cannot cross file systems; hidden, so that no server scans it.
        with scratch(final.parent, ".example-") as folder:
            fresh = folder / "fresh"
            fresh.mkdir()
            _write(example, kind, w.weights_of(name, seed, report), fresh)
            _publish(fresh, final, folder / "old")
    except OSError as error:
        raise failed_precondition(f"cannot write {final}: {error}") from error
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                final.parent.rmdir()  # stays if something came into it
    return final


def sample_inputs(name: str, rows: int, seed: int, *, kind: str = "onnx") -> dict[str, Array]:
    """Return random valid inputs of that many rows. The same seed gives the same inputs.

    ``kind`` matters to the model whose SavedModel takes files: they are JPEGs of several sizes.
    """
    example = describe(name)
    if rows < 0:
        raise invalid_argument(f"a batch has 0 rows or more, not {rows}")
    if example.labelled:
        return labelled(name, rows, seed)[0]
    signature = example.signature_of(kind)
    if any(spec.dtype is STRING for spec in signature.inputs.values()):
        return {key: jpegs(rows, seed) for key in signature.inputs}
    rng = np.random.default_rng(seed)
    return {key: _draw(rng, spec, rows, example.limits[key]) for key, spec in signature.inputs.items()}


def labelled(name: str, rows: int, seed: int) -> tuple[dict[str, Array], Array]:
    """Return inputs and their right classes, int64 [rows], that the model's fit has not seen.

    INVALID_ARGUMENT names the models that have labels.
    """
    if not describe(name).labelled:
        able = ", ".join(key for key, model in CATALOG.items() if model.labelled)
        raise invalid_argument(f"there is no labelled data for {name}; there is for {able}")
    if rows < 0 or seed < 0:
        raise invalid_argument(f"rows and seed are 0 or more, not {rows} and {seed}")
    course = fitted.COURSES[name]
    pixels, labels = fitted.labelled(course, rows, seed)
    return {course.input: fitted.as_input(course, pixels)}, labels


def reference(name: str, inputs: Mapping[str, Array], *, seed: int = DEFAULT_SEED) -> dict[str, Array]:
    """Return what a model built with ``seed`` must answer, computed in float64 by numpy alone.

    A model whose SavedModel takes files answers here, as its ONNX form does, to the pixels in them. ``sentiment`` is
    trained first, unless this process did.

    INVALID_ARGUMENT says which input is missing, unknown, of another type or shape, or out of the model's vocabulary.
    """
    example = describe(name)
    _check_inputs(example, inputs)
    try:
        return forward(name, w.weights_of(name, seed), inputs)
    except IndexError as error:
        raise invalid_argument(f"a token of the input is outside of the vocabulary of {name}: {error}") from error


def _draw(rng: np.random.Generator, spec: TensorSpec, rows: int, limits: tuple[float, float]) -> Array:
    # What is free beside the rows is the length of a text.
    shape = (rows, *(w.TOKENS if size is None else size for size in (spec.shape or ())[1:]))
    low, high = limits
    if len(shape) == 4:
        # Noise will not do for pictures: any two would have the same mean everywhere.
        drawn: Array = pictures(rows, shape[1], shape[2], rng).astype(spec.dtype.numpy)
        drawn *= (high - low) / 255
        drawn += low
        return drawn
    if spec.dtype.numpy.kind == "f":
        return rng.uniform(low, high, shape).astype(spec.dtype.numpy)
    return rng.integers(int(low), int(high), shape, dtype=spec.dtype.numpy)


def _check_target(kind: str, version: int, model_name: str) -> None:
    if kind not in KINDS:
        raise invalid_argument(f"an example model is built as {' or '.join(KINDS)}, not as {kind!r}")
    if version < 0:
        raise invalid_argument(f"a version is a number from 0 up, not {version}")
    if not model_name or model_name.startswith(".") or "/" in model_name or "\0" in model_name:
        raise invalid_argument(f"{model_name!r} cannot name a model: it must be a plain directory name")


def _check_inputs(example: ExampleModel, inputs: Mapping[str, Array]) -> None:
    expected = example.signature.inputs
    if set(inputs) != set(expected):
        raise invalid_argument(
            f"{example.name} takes the inputs {', '.join(expected)}, not {', '.join(sorted(inputs)) or 'none'}"
        )
    rows = next(iter(inputs.values())).shape[:1]
    for key, spec in expected.items():
        array = inputs[key]
        if array.dtype != spec.dtype.numpy or array.shape[:1] != rows or not _fits(array.shape, spec.shape or ()):
            raise invalid_argument(
                f"input {key} is {array.dtype}{list(array.shape)}, expected {spec} with as many rows as the others"
            )


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(shape) == len(declared) and all(want in (None, size) for size, want in zip(shape, declared, strict=True))


def _write(example: ExampleModel, kind: str, weights: w.Weights, directory: Path) -> None:
    signature = example.signature_of(kind)
    if kind == "onnx":
        write_onnx(example.name, signature, weights, directory)
    else:
        from servable.zoo.tf_builders import write_saved_model

        write_saved_model(example.name, signature, weights, directory)
    if "word_vectors" in weights:
        np.savez(directory / "vectors.npz", words=np.array(corpus.words()), vectors=weights["word_vectors"])
    if example.labels:
        (directory / "labels.txt").write_text("".join(f"{label}\n" for label in example.labels), encoding="utf-8")


def _publish(fresh: Path, final: Path, old: Path) -> None:
    """Move a finished version into its place; one that is there moves out first, and back if that fails."""
    if not final.exists():
        fresh.rename(final)
        return
    final.rename(old)
    try:
        fresh.rename(final)
    except OSError:
        old.rename(final)
        raise

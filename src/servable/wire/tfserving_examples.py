"""Classify and Regress as TensorFlow Serving defines them on top of a signature: which signatures can, what they give.

Requests are serialized ``tf.Example``s, one a row, which the signature's input ``inputs`` takes as strings. Both wires
share this; the checks, their order and their texts are TensorFlow Serving's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from servable import protos
from servable.core import tensors
from servable.core.errors import ServingError, failed_precondition, internal, invalid_argument
from servable.core.messages import ModelRef
from servable.core.signatures import DEFAULT_SIGNATURE, PREDICT_METHOD, Signature
from servable.core.tensors import Array, dtype_of
from servable.protos.text_format import to_text
from servable.wire.tensor_proto import number_of
from servable.wire.tfserving_grpc_models import encode_signatures

INPUT: Final = "inputs"
"""The input that takes serialized Examples."""


@dataclass(frozen=True, slots=True)
class ExampleRequest:
    """A request of Classify or Regress. ``examples`` are the serialized rows; ``signature`` "" is the default one."""

    model: ModelRef
    signature: str
    examples: list[bytes]

    def inputs(self) -> dict[str, Array]:
        """Return what the signature is fed. INVALID_ARGUMENT without Examples."""
        return example_inputs(self.examples)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.examples)


@dataclass(frozen=True, slots=True)
class Classification:
    """Labels and scores, ``[rows, classes]`` each; one of them may be missing."""

    classes: Array | None
    scores: Array | None

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self._given)

    @property
    def width(self) -> int:
        """Return the number of classes."""
        return int(self._given.shape[1])

    def label_values(self) -> list[bytes]:
        """Return the labels, row after row, "" where there are none."""
        if self.classes is not None:
            return list(self.classes.reshape(-1))
        return [b""] * (self.rows * self.width)

    def score_values(self) -> Array:
        """Return the scores, row after row, float32, 0 where there are none."""
        if self.scores is not None:
            return self.scores.reshape(-1)
        return np.zeros(self.rows * self.width, np.float32)

    @property
    def _given(self) -> Array:
        given = self.classes if self.classes is not None else self.scores
        assert given is not None, "a signature for Classify has one of them"
        return given


class ExampleMethod(ABC):
    """What one of the two methods wants of a signature, and makes of its outputs."""

    name: ClassVar[str]
    """The ``method_name`` of a signature that was made for it."""
    word: ClassVar[str]
    """What TensorFlow Serving calls it in messages."""
    api: ClassVar[str]
    """What it is called where requests are counted and logged."""

    def outputs(self, signature: Signature, *, check_method: bool) -> tuple[str, ...]:
        """Return the outputs to compute; INVALID_ARGUMENT if a signature does not look right."""
        if check_method and signature.method_name != self.name:
            raise invalid_argument(
                f"Expected {self.word} signature method_name to be {self.name}. Was: {signature.method_name}"
            )
        if len(signature.inputs) != 1:
            raise invalid_argument("Expected one input Tensor.")
        self._count_outputs(signature)
        if INPUT not in signature.inputs:
            raise invalid_argument(f"No {self.word} inputs found in SignatureDef: {_text(signature)}")
        return self._choose(signature)

    @abstractmethod
    def _count_outputs(self, signature: Signature) -> None: ...

    @abstractmethod
    def _choose(self, signature: Signature) -> tuple[str, ...]: ...


class Classify(ExampleMethod):
    """Labels and scores by row."""

    name = "tensorflow/serving/classify"
    word = "classification"
    api = "Classify"

    def _count_outputs(self, signature: Signature) -> None:
        if len(signature.outputs) not in (1, 2):
            raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")

    def _choose(self, signature: Signature) -> tuple[str, ...]:
        found = tuple([name for name in ("classes", "scores") if name in signature.outputs])
        if not found:
            raise invalid_argument(
                'Expected classification signature outputs to contain at least one of "classes" or "scores". '
                f"Signature was: {_text(signature)}"
            )
        return found

    @staticmethod
    def read(outputs: Mapping[str, Array], rows: int) -> Classification:
        """Return what a model gave for so many rows; INVALID_ARGUMENT if that is no classification of them."""
        classes, scores = outputs.get("classes"), outputs.get("scores")
        for name, array, dtype in (("classes", classes, tensors.STRING), ("scores", scores, tensors.FLOAT32)):
            if array is None:
                continue
            if array.ndim != 2:
                raise invalid_argument(
                    f"Expected Tensor shape: [batch_size num_classes] but got {bracketed(array.shape)}"
                )
            if dtype_of(array) is not dtype:
                raise invalid_argument(f"Expected {name} Tensor of {_dt(dtype)}. Got: {_dt(dtype_of(array))}")
            if array.shape[0] != rows:
                raise invalid_argument(f"Expected {name} output batch size of {rows}. Got: {array.shape[0]}")
        if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
            raise invalid_argument(
                f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
            )
        return Classification(classes, scores)


class Regress(ExampleMethod):
    """One number by row."""

    name = "tensorflow/serving/regress"
    word = "regression"
    api = "Regress"

    def _count_outputs(self, signature: Signature) -> None:
        if len(signature.outputs) != 1:
            raise invalid_argument("Expected one output Tensor.")

    def _choose(self, signature: Signature) -> tuple[str, ...]:
        if "outputs" not in signature.outputs:
            raise invalid_argument(f"No regression outputs found in SignatureDef: {_text(signature)}")
        return ("outputs",)

    @staticmethod
    def read(outputs: Mapping[str, Array], rows: int) -> Array:
        """Return a number for each of so many rows; INVALID_ARGUMENT if the model did not give that."""
        array = outputs["outputs"]
        if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1):
            raise invalid_argument(
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
                f"{bracketed(array.shape)}"
            )
        if array.shape[0] != rows:
            raise invalid_argument(f"Input batch size did not match output batch size: {rows} vs. {array.shape[0]}")
        if dtype_of(array) is not tensors.FLOAT32:
            raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {_dt(dtype_of(array))}")
        return array.reshape(-1)


CLASSIFY: Final = Classify()
REGRESS: Final = Regress()
EXAMPLE_METHODS: Final[Mapping[str, Classify | Regress]] = {method.name: method for method in (CLASSIFY, REGRESS)}


def example_outputs(
    method: ExampleMethod, signature: Signature, model: ModelRef, engine: str, *, check_method: bool
) -> tuple[str, ...]:
    """Return the outputs to compute for Examples.

    INVALID_ARGUMENT if a signature does not look right; FAILED_PRECONDITION if, besides, it is not TensorFlow that runs
    it: nothing that the client could change would help.
    """
    try:
        found = method.outputs(signature, check_method=check_method)
        problem = "" if signature.inputs[INPUT].dtype is tensors.STRING else f"its input is {signature.inputs[INPUT]}"
    except ServingError as error:
        if engine == "tensorflow":
            raise
        found, problem = (), error.message.partition(": ")[0]
    if problem and engine != "tensorflow":
        raise failed_precondition(
            f"signature {signature.name!r} of model {model.name} version {model.version} takes no tf.Examples "
            f"({problem}). It runs on {engine}, which does not parse them; [examples] in the servable.toml of the "
            "version says how the server is to do so"
        )
    return found


def check_predict_method(signature: Signature) -> None:
    """Refuse a signature for Predict that was made for no method of TensorFlow Serving, INTERNAL as there."""
    if signature.method_name not in (PREDICT_METHOD, *EXAMPLE_METHODS):
        names = ", ".join((PREDICT_METHOD, *EXAMPLE_METHODS))
        raise internal(
            f"Expected prediction signature method_name to be one of {{{names}}}. Was: {signature.method_name}"
        )


def missing_signature(name: str) -> ServingError:
    """Return the error of Classify and Regress for a signature that the model does not have."""
    return invalid_argument(f"No signature was found with the name: {name or DEFAULT_SIGNATURE}")


def example_inputs(examples: Sequence[bytes]) -> dict[str, Array]:
    """Return what a signature is fed: one string a row. INVALID_ARGUMENT if there are none."""
    if not examples:
        raise invalid_argument("Input is empty.")
    rows: Array = np.empty(len(examples), dtype=object)
    rows[:] = examples
    return {INPUT: rows}


def bracketed(shape: Sequence[int]) -> str:
    """Return a shape as TensorFlow prints it: ``[2,3]``."""
    return f"[{','.join(map(str, shape))}]"


def _text(signature: Signature) -> str:
    message: Any = encode_signatures({"": signature}).signature_def[""]
    return to_text(message)


def _dt(dtype: tensors.DType) -> str:
    return str(protos.tensorflow.DataType.Name(number_of(dtype)))

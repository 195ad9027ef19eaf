"""TensorFlow and Keras, imported when they are first needed."""

from __future__ import annotations

import importlib
import os
from typing import Any

from servable.core.errors import failed_precondition


def tensorflow_and_keras(purpose: str) -> tuple[Any, Any]:
    """Import both: seconds, 600 MB. FAILED_PRECONDITION names the extra to install."""
    # The first import of TensorFlow reads it; without it a build prints a page about CPU features.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return importlib.import_module("tensorflow"), importlib.import_module("keras")
    except ImportError as error:
        raise failed_precondition(
            f"{purpose} needs TensorFlow: pip install 'servable[tensorflow]' ({error})"
        ) from error


def check_backend(keras: Any, purpose: str) -> None:
    """Refuse a Keras that computes with another framework."""
    if keras.backend.backend() != "tensorflow":
        raise failed_precondition(
            f"{purpose} needs Keras on TensorFlow, and KERAS_BACKEND chose {keras.backend.backend()!r}"
        )

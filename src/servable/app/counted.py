"""Loads and warm-ups that are counted under TensorFlow Serving's names."""

from __future__ import annotations

import time
from collections.abc import Callable

from servable.app.recorded import replay_warmup
from servable.core.errors import ServingError
from servable.core.messages import InferRequest
from servable.lifecycle.config import VersionSpec
from servable.lifecycle.loading import LoadedModel, LoadedVersion, load_artifact
from servable.observe.tfserving_metrics import Loads


def load_counted(loads: Loads, spec: VersionSpec) -> LoadedModel:
    """Load a version, in a loader thread."""
    began = time.monotonic()
    succeeded = False
    try:
        loaded = load_artifact(spec)
        succeeded = True
        return loaded
    finally:
        loads.loaded(str(spec.path), time.monotonic() - began, succeeded=succeeded)


def warm_up_counted(loads: Loads, loaded: LoadedVersion, run: Callable[[InferRequest], None], iterations: int) -> None:
    """Run the requests that a version brings for its warm-up, in a loader thread."""
    began = time.monotonic()
    count, failure = 0, None
    try:
        count = replay_warmup(loaded, run, iterations)
    except ServingError as error:
        failure = error
        raise
    finally:
        if count or failure is not None:
            loads.warmed(str(loaded.path), failure, time.monotonic() - began, count)

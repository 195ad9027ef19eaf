from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from servable.core.errors import Code, ServingError
from servable.engines.base import EngineOptions, Model
from servable.engines.plan import artifact_of_file, choose, load
from servable.zoo import catalog


def loaded(name: str, folder: Path) -> Model:
    artifact = artifact_of_file(catalog.build(name, folder))
    return load(choose(artifact), artifact, EngineOptions())


def test_a_recurrent_model_refuses_an_empty_batch_and_lives(tmp_path: Path) -> None:
    model = loaded("lstm_tokens", tmp_path)
    with pytest.raises(ServingError, match="LSTM of this model needs at least one row") as raised:
        model.run("serving_default", {"tokens": np.zeros((0, 50), np.int32)}, ("probs",))
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert model.run("serving_default", {"tokens": np.zeros((1, 50), np.int32)}, ("probs",))["probs"].shape == (1, 2)


def test_other_models_answer_an_empty_batch(tmp_path: Path) -> None:
    model = loaded("noop", tmp_path)
    outputs = model.run("serving_default", {"tokens": np.zeros((0, 50), np.int32)}, ("scores",))
    assert outputs["scores"].shape == (0, 2)

"""The example models as torch modules, with the weights that every other builder reads.

A function without arguments (``servable.zoo.torch_builders:lstm_tokens``) returns one module and an example of its
inputs; its weights are those of the catalog's first seed. Inputs and outputs have the names, types and layouts of the
other forms: pictures come with their channels last.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from servable.core.errors import failed_precondition, not_found
from servable.core.tensors import Array
from servable.zoo import image_plans as plans
from servable.zoo import weights as w

_SEED = 1


def build(name: str, weights: w.Weights) -> Any:
    """Return a ``torch.nn.Module`` in evaluation mode, float32; NOT_FOUND names those that there are. Imports torch."""
    if name not in _BUILD:
        raise not_found(f"no example model {name!r} is written in torch; there are {', '.join(sorted(_BUILD))}")
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise failed_precondition(
            f"building {name} in torch needs it: pip install 'servable[torch]' ({error})"
        ) from error
    module, values = _BUILD[name](torch, weights)
    copies = {key: torch.from_numpy(np.array(value, order="C")) for key, value in values.items()}
    # What counts the batches of a training is no weight of ours.
    missing, unexpected = module.load_state_dict(copies, strict=False)
    odd = [key for key in missing if not key.endswith("num_batches_tracked")] + list(unexpected)
    if odd:
        raise RuntimeError(f"weights that do not fit {name}: {', '.join(odd)}")
    return module.eval()


def half_plus_two() -> tuple[Any, dict[str, Any]]:
    """Return ``half_plus_two`` and an example."""
    return _seeded("half_plus_two", lambda rng: {"x": rng.uniform(-10, 10, (2, 1)).astype(np.float32)})


def text_cnn_small() -> tuple[Any, dict[str, Any]]:
    """Return ``text_cnn_small`` and an example."""
    return _seeded("text_cnn_small", _tokens)


def lstm_tokens() -> tuple[Any, dict[str, Any]]:
    """Return ``lstm_tokens`` and an example."""
    return _seeded("lstm_tokens", _tokens)


def simple_cnn() -> tuple[Any, dict[str, Any]]:
    """Return ``simple_cnn`` and an example."""
    shape = (2, plans.SIMPLE_SIZE, plans.SIMPLE_SIZE, plans.CHANNELS)
    return _seeded("simple_cnn", lambda rng: {"input": rng.random(shape, dtype=np.float32)})


def _tokens(rng: np.random.Generator) -> dict[str, Array]:
    return {"tokens": rng.integers(0, w.VOCABULARY, (2, w.TOKENS), dtype=np.int32)}


def _seeded(name: str, draw: Callable[[np.random.Generator], Mapping[str, Array]]) -> tuple[Any, dict[str, Any]]:
    module = build(name, w.weights_of(name, _SEED))
    torch: Any = importlib.import_module("torch")
    return module, {key: torch.from_numpy(value) for key, value in draw(np.random.default_rng(0)).items()}


def _half_plus_two(torch: Any, weights: w.Weights) -> tuple[Any, dict[str, Array]]:
    class HalfPlusTwo(torch.nn.Module):  # type: ignore[misc]  # torch is imported late
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.zeros(()))
            self.b = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x: Any) -> dict[str, Any]:
            return {"y": self.a * x + self.b}

    return HalfPlusTwo(), dict(weights)


def _text_cnn_small(torch: Any, weights: w.Weights) -> tuple[Any, dict[str, Array]]:
    nn = torch.nn

    class TextCnnSmall(nn.Module):  # type: ignore[misc,name-defined]  # torch is imported late
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(w.VOCABULARY, w.EMBEDDING)
            self.convolutions = nn.ModuleList(nn.Conv1d(w.EMBEDDING, w.MAPS, width) for width in w.SMALL_WIDTHS)
            self.head = nn.Linear(len(w.SMALL_WIDTHS) * w.MAPS, w.CLASSES)

        def forward(self, tokens: Any) -> dict[str, Any]:
            embedded = self.embedding(tokens).transpose(1, 2)
            pooled = [torch.relu(convolution(embedded)).amax(dim=2) for convolution in self.convolutions]
            return {"probs": torch.softmax(self.head(torch.cat(pooled, dim=1)), dim=1)}

    values = {"embedding.weight": weights["embedding"]} | _dense(weights, "head", "head")
    for place, width in enumerate(w.SMALL_WIDTHS):
        values[f"convolutions.{place}.weight"] = weights[f"conv{width}_kernel"].transpose(2, 1, 0)
        values[f"convolutions.{place}.bias"] = weights[f"conv{width}_bias"]
    return TextCnnSmall(), values


def _lstm_tokens(torch: Any, weights: w.Weights) -> tuple[Any, dict[str, Array]]:
    nn = torch.nn

    class LstmTokens(nn.Module):  # type: ignore[misc,name-defined]  # torch is imported late
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(w.VOCABULARY, w.EMBEDDING)
            self.lstm = nn.LSTM(w.EMBEDDING, w.LSTM_UNITS, num_layers=w.LSTM_LAYERS, batch_first=True)
            self.head = nn.Linear(w.LSTM_UNITS, w.CLASSES)

        def forward(self, tokens: Any) -> dict[str, Any]:
            states, _ = self.lstm(self.embedding(tokens))
            return {"probs": torch.softmax(self.head(states[:, -1]), dim=1)}

    values = {"embedding.weight": weights["embedding"]} | _dense(weights, "head", "head")
    for layer in range(w.LSTM_LAYERS):
        # The gates are in the same order; torch adds one bias for the input and one for the state.
        bias = weights[f"lstm{layer}_bias"]
        values[f"lstm.weight_ih_l{layer}"] = weights[f"lstm{layer}_kernel"].T
        values[f"lstm.weight_hh_l{layer}"] = weights[f"lstm{layer}_recurrent"].T
        values[f"lstm.bias_ih_l{layer}"] = bias
        values[f"lstm.bias_hh_l{layer}"] = np.zeros_like(bias)
    return LstmTokens(), values


def _simple_cnn(torch: Any, weights: w.Weights) -> tuple[Any, dict[str, Array]]:
    nn = torch.nn

    class SimpleCnn(nn.Module):  # type: ignore[misc,name-defined]  # torch is imported late
        def __init__(self) -> None:
            super().__init__()
            names = plans.simple_layers()
            self.convolutions = nn.ModuleDict({n: nn.Conv2d(i, o, 3, bias=False) for n, i, o in names})
            self.norms = nn.ModuleDict({n: nn.BatchNorm2d(o, eps=plans.NORM_EPSILON) for n, _, o in names})
            self.hidden = nn.Linear(plans.SIMPLE_STAGES[-1][-1], plans.SIMPLE_HIDDEN)
            self.hidden_norm = nn.BatchNorm1d(plans.SIMPLE_HIDDEN, eps=plans.NORM_EPSILON)
            self.head = nn.Linear(plans.SIMPLE_HIDDEN, plans.SIMPLE_CLASSES)

        def forward(self, input: Any) -> dict[str, Any]:  # noqa: A002  # the model's own name for it
            maps = input.permute(0, 3, 1, 2)
            last = len(plans.SIMPLE_STAGES)
            for stage in range(1, last + 1):
                for name in (f"conv{stage}_1", f"conv{stage}_2"):
                    maps = torch.relu(self.norms[name](self.convolutions[name](maps)))
                size, stride = (plans.SIMPLE_LAST, 1) if stage == last else (2, 2)
                maps = nn.functional.avg_pool2d(maps, size, stride)
            hidden = torch.relu(self.hidden_norm(self.hidden(maps.flatten(1))))
            return {"output": torch.sigmoid(self.head(hidden))}

    values = _dense(weights, "hidden", "hidden") | _dense(weights, "head", "head")
    values |= _norm(weights, "hidden", "hidden_norm")
    for name, _, _ in plans.simple_layers():
        values[f"convolutions.{name}.weight"] = weights[f"{name}_kernel"].transpose(3, 2, 0, 1)
        values |= _norm(weights, name, f"norms.{name}")
    return SimpleCnn(), values


def _dense(weights: w.Weights, name: str, own: str) -> dict[str, Array]:
    return {f"{own}.weight": weights[f"{name}_kernel"].T, f"{own}.bias": weights[f"{name}_bias"]}


def _norm(weights: w.Weights, name: str, own: str) -> dict[str, Array]:
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}
    return {f"{own}.{part}": weights[f"{name}_{source}"] for part, source in parts.items()}


_BUILD: dict[str, Callable[[Any, w.Weights], tuple[Any, dict[str, Array]]]] = {
    "half_plus_two": _half_plus_two,
    "lstm_tokens": _lstm_tokens,
    "simple_cnn": _simple_cnn,
    "text_cnn_small": _text_cnn_small,
}

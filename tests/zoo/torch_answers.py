"""What the example models answer as torch modules, as their code builds them. Run by the worker."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from servable.zoo import catalog, torch_builders
from servable.zoo import weights as w


def record(names: list[str], rows: list[int], root: str, report: Callable[[str], None]) -> dict[str, Any]:
    torch: Any = importlib.import_module("torch")
    told: dict[str, Any] = {}
    for name in names:
        module, example = getattr(torch_builders, name)()
        told[name] = {key: [str(value.dtype), list(value.shape)] for key, value in example.items()}
        networks = {1: module}
        if name == "text_cnn_small":
            networks[2] = torch_builders.build(name, w.weights_of(name, 2))
        for count in rows:
            inputs = catalog.sample_inputs(name, count, seed=count)
            given = [torch.from_numpy(value) for value in inputs.values()]
            with torch.inference_mode():
                for seed, network in networks.items():
                    outputs = {key: value.numpy() for key, value in network(*given).items()}
                    np.savez(Path(root, f"{name}-{seed}-{count}.npz"), **outputs)
        report(name)
    return told

"""Builds the contract's models with PyTorch: ``build_torch_models.py FOLDER``. PyTorch stays in this process.

As programs of torch.export, and as one TorchScript module with a signature for each case and type.
"""

# mypy: disable-error-code="misc, no-any-return"

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from tests.contract.cases import BIAS, CASES, TABLE, TORCH_EXPORT_CASES, TORCH_TYPES, WEIGHTS, typed_signature
from torch import Tensor

from servable.core.signatures import Signature
from servable.engines.signature_settings import write_signature_settings


class Perceptron(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(WEIGHTS))
        self.bias = torch.nn.Parameter(torch.tensor(BIAS))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = torch.tanh(x) @ self.weights + self.bias
        return {"probabilities": torch.softmax(logits, -1), "label": torch.argmax(logits, -1)}


class TwoInputs(torch.nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"difference": a - b, "product": a * b}


class Tokens(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.tensor(TABLE))

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mean": torch.nn.functional.embedding(ids, self.table).mean(dim=1)}


class Scalar(torch.nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x * 2 + 1}


class Row(torch.nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x.unsqueeze(0)}


MODULES: Mapping[str, Any] = {"perceptron": Perceptron, "two_inputs": TwoInputs, "tokens": Tokens, "scalar": Scalar}


class Everything(torch.nn.Module):
    """Computes what it is given arguments for, as a TorchScript module can: a signature names those that it needs."""

    def __init__(self) -> None:
        super().__init__()
        self.perceptron = Perceptron()
        self.two_inputs = TwoInputs()
        self.tokens = Tokens()
        self.scalar = Scalar()
        self.row = Row()

    def forward(
        self,
        perceptron_x: Tensor | None = None,
        two_inputs_a: Tensor | None = None,
        two_inputs_b: Tensor | None = None,
        tokens_ids: Tensor | None = None,
        scalar_x: Tensor | None = None,
        row_x: Tensor | None = None,
    ) -> dict[str, Tensor]:
        if perceptron_x is not None:
            return self.perceptron(perceptron_x)
        if two_inputs_a is not None and two_inputs_b is not None:
            return self.two_inputs(two_inputs_a, two_inputs_b)
        if tokens_ids is not None:
            return self.tokens(tokens_ids)
        if scalar_x is not None:
            return self.scalar(scalar_x)
        assert row_x is not None
        return self.row(row_x)


def export(module: Any, signature: Signature, version: Path) -> None:
    batch = torch.export.Dim("batch")
    inputs = {
        name: torch.zeros(
            [2 if size is None else size for size in spec.shape or ()], dtype=getattr(torch, spec.dtype.name)
        )
        for name, spec in signature.inputs.items()
    }
    free = {name: {0: batch} if spec.shape else {} for name, spec in signature.inputs.items()}
    program = torch.export.export(module.eval(), (), inputs, dynamic_shapes=free)
    version.mkdir(parents=True)
    torch.export.save(program, version / "model.pt2")


def nodes(signature: Signature, prefix: str) -> Signature:
    inputs = {name: replace(spec, node=f"{prefix}_{name}") for name, spec in signature.inputs.items()}
    return replace(signature, inputs=inputs)


def main(folder: Path) -> None:
    for name in TORCH_EXPORT_CASES:
        export(MODULES[name](), CASES[name].signature, folder / "torch_export" / name / "1")
    version = folder / "torchscript" / "all" / "1"
    version.mkdir(parents=True)
    torch.jit.save(torch.jit.script(Everything().eval()), version / "model.pt")
    stated = {name: nodes(replace(case.signature, name=name), name) for name, case in CASES.items()}
    stated |= {name: nodes(typed_signature(name), "row") for name in TORCH_TYPES}
    write_signature_settings(version / "servable.toml", stated)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

# mypy: disable-error-code="misc, no-any-return"
"""Saves the models of ``test_torch_engine`` with PyTorch: ``build_torch_cases.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor


class Doubled(torch.nn.Module):
    """Takes a tensor and a number that export makes a constant; gives tensors of all sorts of structures."""

    def forward(self, rows: Tensor, pair: dict[str, Tensor], times: int) -> tuple[Tensor, dict[str, Tensor]]:
        if rows.shape[0] < 4:  # export decides by its example, and its program is for such sizes alone
            times = -times
        return rows * times, {"sum": rows + pair["left"], "product": pair["left"] * pair["right"]}


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 4)
        self.linear.weight.data = torch.linspace(-1, 1, 256).reshape(4, 64)
        self.linear.bias.data = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Two(torch.nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        first.add_(1)
        return first, first + second


def main(folder: Path) -> None:
    rows, free = torch.ones(4, 3), {0: torch.export.Dim.AUTO}
    pair = {"left": rows + 1, "right": rows + 2}  # the same tensor twice would be one input to torch.export
    shapes = {"rows": free, "pair": {"left": free, "right": free}, "times": None}
    torch.export.save(torch.export.export(Doubled(), (rows, pair, 2), dynamic_shapes=shapes), folder / "structures.pt2")
    linear = Linear().eval()
    torch.jit.save(torch.jit.trace(linear, torch.ones(2, 64)), folder / "linear.pt")
    torch.jit.save(torch.jit.script(Two()), folder / "two.pt")
    torch.save(linear, folder / "pickled.pt")
    torch.save(linear.state_dict(), folder / "weights.pt", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

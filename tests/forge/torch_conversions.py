"""Every conversion of torch modules once, all in one process. Run by the worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from servable.core.errors import ServingError
from servable.engines.base import Artifact
from servable.forge import arrays
from servable.forge.conversion import live_sources as convert_live
from servable.forge.conversion.model_code import restore
from servable.forge.steps import Task

Report = Callable[[str], None]
ROWS = (1, 2, 7)


def convert_all(root: str, report: Report) -> dict[str, Any]:
    """Return the facts of each conversion by name; an error is its message."""
    import torch

    folder = Path(root)
    here = str(Path(__file__).resolve())
    module, _ = network()
    torch.save({"state_dict": module.state_dict()}, folder / "network.pth")
    options = {"code": f"{here}:network", "checkpoint": str(folder / "network.pth"), "signature": "predict"}
    source = Artifact("checkpoint", Path(here))
    live = restore(source, options)
    asked = [{"x": torch.randn(rows, 6).numpy(), "ids": torch.randint(0, 5, (rows, 4)).numpy()} for rows in ROWS]
    arrays.save(folder / "network-asked.npz", asked)
    arrays.save(folder / "network-answered.npz", [live.answer(one) for one in asked])
    facts: dict[str, Any] = {}
    for kind in ("torch_export", "torchscript", "onnx", "openvino", "tflite", "saved_model"):
        facts[kind] = _run(folder / kind, getattr(convert_live, f"to_{kind}"), source, options, report)
    renamed = {**options, "outputs": ["scores", "sums"], "batch": 3}
    facts["script-3"] = _run(folder / "script-3", convert_live.to_torchscript, source, renamed, report)
    wrong = {**options, "outputs": ["scores"]}
    facts["wrong-outputs"] = _run(folder / "wrong-outputs", convert_live.to_onnx, source, wrong, report)
    pickled = folder / "whole.pth"
    torch.save(torch.nn.Linear(2, 2), pickled)
    unsafe = {**options, "checkpoint": str(pickled)}
    facts["unsafe"] = _run(folder / "unsafe", convert_live.to_onnx, source, unsafe, report)
    pooled = {"code": f"{here}:pooled", "inputs": {"ids": "int64[?,?]"}}
    facts["pooled"] = _run(folder / "pooled", convert_live.to_torch_export, source, pooled, report)
    facts["branching"] = _run(folder / "branching", convert_live.to_onnx, source, {"code": f"{here}:branching"}, report)
    return facts


def pooled() -> Any:
    """Return a module over any number of rows and of tokens."""
    import torch

    class Pooled(torch.nn.Module):  # type: ignore[misc]
        def forward(self, ids: Any) -> dict[str, Any]:
            return {"mean": ids.float().mean(1)}

    return Pooled().eval()


def network() -> tuple[Any, dict[str, Any]]:
    """Return a module with two inputs of two types, and an example."""
    import torch

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(5, 6)
            self.body = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU())
            self.head = torch.nn.Linear(8, 3)

        def forward(self, x: Any, ids: Any) -> dict[str, Any]:
            hidden = self.body(x + self.embedding(ids).mean(dim=1))
            return {"probs": torch.softmax(self.head(hidden), dim=1), "sums": ids.sum(dim=1)}

    return Network(), {"x": torch.zeros(1, 6), "ids": torch.zeros(1, 4, dtype=torch.int64)}


def branching() -> tuple[Any, Any]:
    """Return a module whose way depends on its input's values, which no trace can hold."""
    import torch

    class Branching(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    return Branching(), torch.ones(2, 3)


def _run(
    target: Path, function: Callable[..., Any], source: Artifact, options: dict[str, Any], report: Report
) -> dict[str, Any]:
    target.mkdir()
    began = time.monotonic()
    try:
        return dict(json.loads(json.dumps(function(source, target, Task(options=options, report=report)))))
    except ServingError as error:
        return {"error": error.message, "code": error.code.name}
    finally:
        report(f"{target.name}: {time.monotonic() - began:.1f} s")

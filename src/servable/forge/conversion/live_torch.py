"""Torch modules as live models. Runs where torch is imported.

Inputs are known by the names of ``forward``'s parameters, outputs by the keys of what it returns. The first axis of
every input is free unless its size is fixed; other axes are free where the naming says so.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from servable.core.errors import failed_precondition, invalid_argument, unimplemented
from servable.core.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec
from servable.core.tensors import STRING, Array, as_tensor
from servable.engines.artifact import SETTINGS_FILE
from servable.engines.base import Artifact
from servable.engines.signature_settings import write_signature_settings
from servable.forge.arrays import Tensors
from servable.forge.conversion import torch_to_tflite as to_tflite
from servable.forge.conversion.live import LiveModel, Naming, check_names, fixed, named_outputs, read_spec
from servable.forge.conversion.stated_names import state_names
from servable.forge.steps import Facts, Task

ONNX_OPSET = 20
_FREE_ROWS = 2
"""An example has two rows where their number is free: torch takes a size of one for a constant."""
_FREE_SIZE = 8


class LiveTorch(LiveModel):
    """A module in evaluation mode."""

    framework = "torch"

    def __init__(self, module: Any, naming: Naming, example: Any = None) -> None:
        self._torch: Any = sys.modules["torch"]
        self._module = module.eval()
        check_names([naming.signature], "a signature")
        self._parameters = _parameters(module)
        examples = _examples(self._torch, self._parameters, naming, example)
        specs = {name: _spec(name, value, naming) for name, value in examples.items()}
        self._has_rows = all(spec.shape and spec.shape[0] is None for spec in specs.values())
        signature = fixed(Signature(naming.signature, specs, {}), naming.rows)
        self._specs = signature.inputs
        self._examples = {name: _sized(self._torch, value, self._specs[name]) for name, value in examples.items()}
        own, values = self._call(self._examples)
        self._places = named_outputs(own, naming.outputs)
        check_names(list(self._places), "an output")
        outputs = {name: self._output_spec(name, values[place]) for name, place in self._places.items()}
        self.signature = Signature(naming.signature, self._specs, outputs)

    def answer(self, inputs: Tensors) -> dict[str, Array]:
        """Compute without gradients."""
        given = {name: self._torch.from_numpy(np.array(as_tensor(value), order="C")) for name, value in inputs.items()}
        _, values = self._call(given)
        return {name: values[place].detach().cpu().numpy() for name, place in self._places.items()}

    def write(self, kind: str, target: Path, task: Task) -> Facts:
        """Write torch.export, TorchScript, ONNX, OpenVINO by way of that ONNX, or TFLite by litert-torch."""
        if kind == "torch_export":
            return self._write_export(target)
        if kind == "torchscript":
            return self._write_script(target)
        if kind == "onnx":
            facts = self._write_onnx(target)
            state_names(self.signature, target, [self.signature.name])
            return facts
        if kind == "openvino":
            from servable.forge.conversion.to_openvino import from_onnx

            with tempfile.TemporaryDirectory(dir=target.parent) as between:
                facts = self._write_onnx(Path(between))
                made = from_onnx(Artifact("onnx", Path(between, "model.onnx")), target, Task())
            state_names(self.signature, target, [self.signature.name])
            return {**facts, **made, "way": "through ONNX"}
        if kind == "tflite":
            return self._write_tflite(target, task)
        raise unimplemented(
            f"a torch module does not become {kind}; there are torch_export, torchscript, onnx, openvino and tflite"
        )

    def _call(self, given: Mapping[str, Any]) -> tuple[list[str], list[Any]]:
        with self._torch.no_grad():
            result = self._module(*[given[name] for name in self._parameters if name in given])
        names, values = _flat(result)
        odd = next((name for name, value in zip(names, values, strict=True) if not self._torch.is_tensor(value)), None)
        if odd is not None:
            raise invalid_argument(f"output {odd} of {type(self._module).__name__} is no tensor")
        return names, values

    def _output_spec(self, name: str, value: Any) -> TensorSpec:
        spec = read_spec(name, value)
        rows = next((one.shape[0] for one in self._specs.values() if one.shape), None)
        if spec.shape and rows is not None:
            return TensorSpec(name, spec.dtype, (int(value.shape[0]), *spec.shape[1:]))
        return spec

    def _chosen(self) -> Any:
        """Return a module that answers with a dict of the outputs that were named, in that order."""
        torch, inner, places = self._torch, self._module, self._places

        class Named(torch.nn.Module):  # type: ignore[misc,name-defined]  # torch is imported late
            def __init__(self) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, *args: Any) -> dict[str, Any]:
                _, values = _flat(self.inner(*args))
                return {name: values[place] for name, place in places.items()}

        # The exporters name inputs by the parameters that they see.
        own = inspect.signature(type(inner).forward)
        Named.forward.__signature__ = own  # type: ignore[attr-defined]
        return Named().eval()

    def _arguments(self) -> tuple[Any, ...]:
        return tuple(self._examples[name] for name in self._parameters if name in self._examples)

    def _dynamic(self) -> tuple[dict[int, Any], ...]:
        """Return which axes are free, for each argument; the first ones are one size."""
        dim = self._torch.export.Dim
        rows = dim("batch")
        return tuple(
            {
                axis: rows if axis == 0 else dim.DYNAMIC
                for axis, size in enumerate(self._specs[name].shape or ())
                if size is None
            }
            for name in self._parameters
            if name in self._examples
        )

    def _exported(self, settled: Mapping[str, Any] | None = None) -> Any:
        """Trace it, with free sizes where they are; or with those of the ``settled`` inputs alone."""
        torch = self._torch
        arguments = tuple(settled.values()) if settled is not None else self._arguments()
        dynamic = None if settled is not None else self._dynamic()
        try:
            with _quiet():
                return torch.export.export(self._chosen(), arguments, dynamic_shapes=dynamic, strict=False)
        except Exception as error:
            free = any(map(len, self._dynamic()))
            fix = "; it may want fixed sizes: --batch N (from Python: batch=N)" if free and _wants_sizes(error) else ""
            raise failed_precondition(f"torch.export cannot trace {self._name()}: {_line(error)}{fix}") from error

    def _write_export(self, target: Path) -> Facts:
        program = self._exported()
        with _quiet():
            self._torch.export.save(program, target / "model.pt2")
        self._write_names(target)
        nodes = [node for node in program.graph.nodes if node.op == "call_function"]
        return {"operations": len(nodes), "parameters": sum(value.numel() for value in program.state_dict.values())}

    def _write_script(self, target: Path) -> Facts:
        torch = self._torch
        try:
            with _quiet(), torch.no_grad():
                traced = torch.jit.trace(self._chosen(), self._arguments(), strict=False, check_trace=False)
                traced = torch.jit.freeze(traced.eval())
        except Exception as error:
            raise failed_precondition(f"TorchScript cannot trace {self._name()}: {_line(error)}") from error
        traced.save(str(target / "model.pt"))
        self._write_names(target)
        return {"operations": sum(1 for _ in traced.inlined_graph.nodes())}

    def _write_names(self, target: Path) -> None:
        # The name of a signature is kept too; that it is the default one as well, as in any other form.
        names = dict.fromkeys((self.signature.name, DEFAULT_SIGNATURE))
        signatures = {name: Signature(name, self.signature.inputs, self.signature.outputs) for name in names}
        write_signature_settings(target / SETTINGS_FILE, signatures)

    def _write_onnx(self, target: Path) -> Facts:
        from servable.forge.conversion.to_onnx import finish, renamed

        torch = self._torch
        names = [name for name in self._parameters if name in self._examples]
        program = self._exported()
        try:
            with _quiet():
                made = torch.onnx.export(
                    program,
                    dynamo=True,
                    input_names=names,
                    output_names=list(self._places),
                    opset_version=ONNX_OPSET,
                    external_data=False,
                    verbose=False,
                )
        except Exception as error:
            raise failed_precondition(f"torch.onnx cannot translate {self._name()}: {_line(error)}") from error
        facts = finish(made.model_proto, self.signature, target)
        return facts | renamed([self.signature.name], [], "the format")

    def _write_tflite(self, target: Path, task: Task) -> Facts:
        to_tflite.check_ready("torch")
        rows = to_tflite.rows_of(task)
        inputs = [name for name in self._parameters if name in self._examples]
        shapes = {name: to_tflite.sizes("torch", self._specs[name], rows) for name in inputs}
        settled = {
            name: _sized(self._torch, self._examples[name], replace(self._specs[name], shape=shapes[name]))
            for name in inputs
        }
        _, values = self._call(settled)
        given = [values[place] for place in self._places.values()]
        free = self._has_rows and all(value.ndim and value.shape[0] == rows for value in given)
        outputs = {
            name: replace(self.signature.outputs[name], shape=tuple(value.shape))
            for name, value in zip(self._places, given, strict=True)
        }
        fixed_inputs = {name: replace(self._specs[name], shape=shapes[name]) for name in inputs}
        served = Signature(self.signature.name, to_tflite.freed(fixed_inputs, free), to_tflite.freed(outputs, free))
        return to_tflite.write(self._exported(settled), inputs, served, rows, target, task)

    def _name(self) -> str:
        return type(self._module).__name__


def _parameters(module: Any) -> list[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        raise invalid_argument(f"{type(module).__name__}.forward takes *{'args'}: its inputs have no names; wrap it")
    return [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]


def _examples(torch: Any, parameters: Sequence[str], naming: Naming, example: Any) -> dict[str, Any]:
    """Return an example tensor for each input by name, in ``forward``'s order."""
    given: dict[str, Any] = {}
    if isinstance(example, Mapping):
        given = dict(example)
    elif example is not None:
        values = example if isinstance(example, list | tuple) else [example]
        given = dict(zip(parameters, values, strict=False))
    for name, said in (naming.inputs or {}).items():
        if name not in given:
            given[name] = _made_up(torch, said, read_spec(name, said), naming.rows)
    unknown = set(given) - set(parameters)
    if unknown:
        raise invalid_argument(f"forward takes {', '.join(parameters)}, not {', '.join(sorted(unknown))}")
    if not given:
        raise invalid_argument(
            f"forward takes {', '.join(parameters)}, and nothing says what that is: give inputs, "
            f"such as {{{parameters[0]!r}: 'float32[?,3]'}}, or an example"
        )
    return {name: torch.as_tensor(given[name]).detach().cpu() for name in parameters if name in given}


def _made_up(torch: Any, said: Any, spec: TensorSpec, rows: int | None) -> Any:
    if torch.is_tensor(said) or isinstance(said, np.ndarray):
        return said
    if spec.dtype is STRING or spec.shape is None:
        raise invalid_argument(f"input {spec.name}: torch takes no {spec}")
    sizes = [
        (rows or _FREE_ROWS) if place == 0 and size is None else _FREE_SIZE if size is None else size
        for place, size in enumerate(spec.shape)
    ]
    return torch.from_numpy(np.zeros(sizes, spec.dtype.numpy))


def _spec(name: str, value: Any, naming: Naming) -> TensorSpec:
    said = (naming.inputs or {}).get(name)
    if isinstance(said, str | TensorSpec):
        return read_spec(name, said)
    return read_spec(name, value)


def _sized(torch: Any, value: Any, spec: TensorSpec) -> Any:
    """Return an example whose first axis has two rows if it is free, and the right number if it is not."""
    if not spec.shape or not value.shape:
        return value
    rows = spec.shape[0] or max(_FREE_ROWS, int(value.shape[0]))
    times = -(-rows // max(1, int(value.shape[0])))
    return torch.cat([value] * times)[:rows]


def _flat(result: Any) -> tuple[list[str], list[Any]]:
    if isinstance(result, Mapping):
        return list(map(str, result)), list(result.values())
    if hasattr(result, "_fields"):
        return list(result._fields), list(result)
    values = list(result) if isinstance(result, list | tuple) else [result]
    return [f"output_{place}" for place in range(len(values))], values


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch prints and warns about on the way to itself."""
    import warnings

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _wants_sizes(error: Exception) -> bool:
    return "Constraints violated" in str(error) or "specializ" in str(error)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]

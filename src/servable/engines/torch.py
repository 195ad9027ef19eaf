"""PyTorch on the CPU, in a child process: programs of torch.export (``.pt2``) and TorchScript (``.pt``).

Precision is f32 unless asked otherwise; bf16 is PyTorch's autocast, and outputs keep the types of the signature.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from servable.core.errors import Code, ServingError, failed_precondition, internal, invalid_argument, unavailable
from servable.core.signatures import Signature
from servable.core.spans import Span
from servable.core.tensors import Array
from servable.engines import torch_archive
from servable.engines.base import Artifact, Engine, EngineOptions, Model
from servable.engines.fitting import Fitted, check_servable
from servable.engines.misfit import check_shapes, misfit, ranges
from servable.engines.plan import cpu_threads
from servable.engines.torch_profile import TorchProfile
from servable.engines.torch_programs import Program, load_exported, load_script
from servable.engines.torch_tensors import dtype_of, holds, to_array, to_tensor

_PRECISIONS: Final = ("f32", "bf16")
_ENVIRONMENT: Final = {
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",  # pickles in an archive may hold tensors, and nothing that runs
    "CUDA_VISIBLE_DEVICES": "-1",
}


class TorchEngine(Engine):
    """Runs what PyTorch saves together with its graph."""

    name = "torch"
    kinds = frozenset({"torch_export", "torchscript"})
    isolated = True

    @classmethod
    def installed(cls) -> bool:
        """Return whether there is a PyTorch to import."""
        return importlib.util.find_spec("torch") is not None

    @classmethod
    def complete(cls, artifact: Artifact) -> str | None:
        """Prove an archive by its table of contents, which is its end."""
        return torch_archive.missing(artifact.path)

    def load(self, artifact: Artifact, options: EngineOptions) -> Model:
        """Load the program. FAILED_PRECONDITION if the file is none, or its signature is nowhere stated."""
        if options.precision not in _PRECISIONS:
            raise failed_precondition(f"torch runs at {' or '.join(_PRECISIONS)}, not at {options.precision}")
        torch_archive.check(artifact.path, artifact.kind)
        os.environ.update(_ENVIRONMENT)
        options.report("importing torch")
        import torch

        torch.set_num_threads(options.intra_op_threads or cpu_threads())
        with contextlib.suppress(RuntimeError):  # it can be said once in a process
            torch.set_num_interop_threads(options.inter_op_threads or 1)
        options.report(f"loading {artifact.path}")
        read = load_exported if artifact.kind == "torch_export" else load_script
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # of forms that will be deprecated: nothing that whoever serves can mend
                program = read(torch, artifact.path, artifact.settings)
        except ServingError:
            raise
        except Exception as error:
            raise failed_precondition(_why_not(error, artifact.path)) from error
        check_servable(program.fits, artifact.path)
        _check_held(program.fits)
        return TorchModel(torch, program, options.precision)


class TorchModel(Model):
    """One program."""

    engine = "torch"

    def __init__(self, torch: Any, program: Program, precision: str) -> None:
        self.signatures = MappingProxyType({name: fit.signature for name, fit in program.fits.items()})
        self.precision = precision
        self._torch = torch
        self._program: Program | None = program
        self._profile: TorchProfile | None = None

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute a signature: all of the program, of which the outputs asked for are returned."""
        if self._program is None:
            raise unavailable("the model has been unloaded")
        fit = self._program.fits.get(signature)
        if fit is None:
            raise invalid_argument(f"there is no signature {signature!r}; there are {', '.join(self.signatures)}")
        check_shapes(fit.signature, inputs)
        torch = self._torch
        tensors = {
            own: to_tensor(torch, inputs[name], fit.signature.inputs[name].dtype) for name, own in fit.inputs.items()
        }
        try:
            with torch.inference_mode(), self._autocast():
                found = self._program.call(tensors)
                return {name: self._output(name, fit, found) for name in outputs}
        except ServingError:
            raise
        except AssertionError as error:  # of what torch.export specialized the program on
            raise misfit(fit.signature, inputs, useful(error)) from error
        except Exception as error:
            raise _translate(error, fit.signature, inputs) from error

    def _autocast(self) -> Any:
        if self.precision == "bf16":
            return self._torch.autocast("cpu", dtype=self._torch.bfloat16)
        return contextlib.nullcontext()

    def _output(self, name: str, fit: Fitted, found: Mapping[str, Any]) -> Array:
        own, spec = fit.outputs[name], fit.signature.outputs[name]
        if own not in found:
            raise failed_precondition(f"the module gives {', '.join(found)}, and no {own!r} for output {name!r}")
        tensor = found[own]
        if not hasattr(tensor, "dtype"):
            raise failed_precondition(f"the module gives {own!r} as {type(tensor).__name__}, not as a tensor")
        given = dtype_of(tensor.dtype)
        if given != spec.dtype:
            if self.precision == "f32" or given.name != "bfloat16":
                raise failed_precondition(f"the module gives {own!r} as {given}; its signature says {spec.dtype}")
            tensor = tensor.to(getattr(self._torch, spec.dtype.name))
        return to_array(self._torch, tensor)

    def begin_profile(self) -> bool:
        """Let PyTorch's profiler look at this thread."""
        if self._profile is not None:
            return False
        self._profile = TorchProfile(self._torch)
        return True

    def end_profile(self) -> list[Span]:
        """Return the operations since."""
        profile, self._profile = self._profile, None
        return [] if profile is None else profile.end()

    def close(self) -> None:
        """Free the program."""
        self._program = None


def _check_held(fits: Mapping[str, Fitted]) -> None:
    for fit in fits.values():
        for spec in (*fit.signature.inputs.values(), *fit.signature.outputs.values()):
            if not holds(spec.dtype):
                raise failed_precondition(f"torch has no tensors of type {spec.dtype} ({spec.name!r})")


def _why_not(error: Exception, path: Path) -> str:
    if "weights only load failed" in str(error).lower():  # PyTorch goes on to say how to load it nevertheless
        return (
            f"{path} holds a pickle of more than tensors, which could run anything when it is loaded; export the "
            "module again, with tensors alone as its example inputs and constants"
        )
    return f"torch cannot load {path}: {useful(error)}"


_MEMORY = re.compile(r"allocate memory|bad_alloc|out of memory|storage size", re.IGNORECASE)
_INDICES = re.compile(r"index|indices|out of (?:range|bounds)", re.IGNORECASE)
_SHAPES = re.compile(
    r"shape|size|dimension|dim\b|broadcast|expand|guard|expected|must match|numel|elements|constraint", re.IGNORECASE
)
_CAUSE = re.compile(r"^(?:\w+\.)*(?:\w*Error|Exception): ")


def _translate(error: Exception, signature: Signature, inputs: Mapping[str, Array]) -> ServingError:
    message = useful(error)
    if _MEMORY.search(message):
        return ServingError(Code.RESOURCE_EXHAUSTED, message)
    if _INDICES.search(message):
        found = ranges(inputs)
        return invalid_argument(f"{message} ({signature}{'; ' + found if found else ''})")
    if _SHAPES.search(message):  # operators find shapes that do not fit each other; the client chose them
        return misfit(signature, inputs, message)
    return internal(message)


def useful(error: Exception) -> str:
    """Return the line of a message that says what is wrong. TorchScript puts the way there before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [_CAUSE.sub("", line) for line in lines if _CAUSE.match(line)]
    return (causes or lines or [type(error).__name__])[-1 if causes else 0][:500]

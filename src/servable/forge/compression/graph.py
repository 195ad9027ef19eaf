"""An ONNX graph to be changed: its kernels by name, who makes and who reads a tensor, nodes put in and taken out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from servable.core.errors import failed_precondition, invalid_argument, not_found
from servable.core.tensors import Array

_KERNEL_AT: Final[Mapping[str, tuple[int, ...]]] = {
    "Conv": (1,), "ConvTranspose": (1,), "GRU": (1, 2), "Gemm": (1,), "LSTM": (1, 2), "MatMul": (0, 1), "RNN": (1, 2),
}  # fmt: skip
"""Operation -> which of its inputs is multiplied with what it is given, if that input is a constant."""
MAIN_FILE: Final = "model.onnx"
BINARIZE: Final = "Binarize"
"""A node of ours that no file has: +1 from zero up, -1 below; its gradient is that of what lies between -1 and 1."""


class Graph:
    """A model in memory. Arrays that were set are written back by ``save``."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._inline_constants()
        self._found: dict[str, Any] = {one.name: one for one in self.graph.initializer}
        self._arrays: dict[str, Array] = {}
        self.kept: frozenset[str] = frozenset()
        """Kernels that stay as they are."""

    @staticmethod
    def read(path: Path) -> Graph:
        """Read a file, external weights too. INVALID_ARGUMENT for what is no ONNX."""
        import onnx

        try:
            return Graph(onnx.load(path))
        except Exception as error:  # noqa: BLE001  # protobuf and onnx raise what they like
            raise invalid_argument(f"{path} is no ONNX file that can be read: {error}") from None

    @property
    def graph(self) -> Any:
        """Return the graph itself."""
        return self.model.graph

    @property
    def nodes(self) -> list[Any]:
        """Return all nodes, in order."""
        return list(self.graph.node)

    @property
    def inputs(self) -> list[str]:
        """Return the names of what a caller gives."""
        return [value.name for value in self.graph.input if value.name not in self._found]

    @property
    def outputs(self) -> list[str]:
        """Return the names of what a caller gets."""
        return [value.name for value in self.graph.output]

    def constants(self) -> list[str]:
        """Return the names of all constants."""
        return list(self._found)

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor is one."""
        return name in self._found

    def array(self, name: str) -> Array:
        """Return a constant. It is read once; change it with ``set``."""
        if name not in self._arrays:
            import onnx.numpy_helper

            self._arrays[name] = onnx.numpy_helper.to_array(self._found[name])
        return self._arrays[name]

    def set(self, name: str, value: Array) -> str:
        """Give a constant another value, or make a new one; return its name."""
        import onnx.numpy_helper

        fresh = onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
        if name in self._found:
            self._found[name].CopyFrom(fresh)
        else:
            self.graph.initializer.append(fresh)
            self._found[name] = self.graph.initializer[-1]
        self._arrays[name] = value
        return name

    def kernels(self) -> dict[str, Array]:
        """Return the float weights that are multiplied and not kept: of convolutions, products and recurrent layers.

        FAILED_PRECONDITION if there are none.
        """
        found = {name: self.array(name) for name in self._layers() if name not in self.kept}
        if not found:
            raise failed_precondition(
                "the graph has no float32 kernels of convolutions, matrix products or recurrent layers to compress"
                + (" beside those that are kept" if self.kept else "")
                + f": its operations are {', '.join(sorted({node.op_type for node in self.graph.node}))}"
            )
        return found

    def keep(self, words: Iterable[str]) -> None:
        """Leave layers as they are, by the name of a kernel or of its node. NOT_FOUND names those that there are."""
        layers = self._layers()
        for word in words:
            named = {kernel for kernel, nodes in layers.items() if word == kernel or word in nodes}
            if not named:
                near = difflib.get_close_matches(word, layers, n=1)
                meant = f"; did you mean {near[0]}?" if near else ""
                raise not_found(f"no layer is called {word!r}{meant} There are {', '.join(layers)}")
            self.kept |= named

    def _layers(self) -> dict[str, list[str]]:
        """Return the kernels and the names of the nodes that multiply with them, in the graph's order."""
        found: dict[str, list[str]] = {}
        for node in self.graph.node:
            for place in _KERNEL_AT.get(node.op_type, ()):
                name = node.input[place]
                if self.is_constant(name) and self.array(name).ndim >= 2 and self.array(name).dtype == np.float32:
                    found.setdefault(name, []).append(node.name)
        return found

    def readers(self, name: str) -> list[Any]:
        """Return the nodes that read a tensor."""
        return [node for node in self.graph.node if name in node.input]

    def maker(self, name: str) -> Any | None:
        """Return the node that makes a tensor, ``None`` for inputs and constants."""
        return next((node for node in self.graph.node if name in node.output), None)

    def replace(self, node: Any, fresh: Iterable[Any]) -> None:
        """Put nodes in the place of one."""
        place = next(index for index, one in enumerate(self.graph.node) if one.output == node.output)
        kept = [*self.nodes[:place], *fresh, *self.nodes[place + 1 :]]
        self._set_nodes(kept)

    def insert_first(self, fresh: Iterable[Any]) -> None:
        """Put nodes before all others."""
        self._set_nodes([*fresh, *self.nodes])

    def drop_unused(self) -> None:
        """Take out the constants that nothing reads."""
        used = {name for node in self.graph.node for name in node.input} | set(self.outputs)
        kept = [one for one in self.graph.initializer if one.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        self._found = {one.name: one for one in self.graph.initializer}
        self._arrays = {name: array for name, array in self._arrays.items() if name in self._found}

    def save(self, folder: Path, name: str = MAIN_FILE) -> Path:
        """Check the graph and write it. Shapes that were inferred before are dropped: they may be wrong now."""
        import onnx.checker

        self.drop_unused()
        del self.graph.value_info[:]
        onnx.checker.check_model(self.model)
        path = folder / name
        path.write_bytes(self.model.SerializeToString(deterministic=True))
        return path

    def _set_nodes(self, nodes: Iterable[Any]) -> None:
        copies = []
        for node in nodes:
            copy = type(node)()
            copy.CopyFrom(node)
            copies.append(copy)
        del self.graph.node[:]
        self.graph.node.extend(copies)

    def _inline_constants(self) -> None:
        """Turn ``Constant`` nodes into initializers, so that a constant is one thing."""
        import onnx.numpy_helper

        kept = []
        for node in self.graph.node:
            value = next((one.t for one in node.attribute if one.name == "value"), None)
            if node.op_type == "Constant" and value is not None:
                array = onnx.numpy_helper.to_array(value)
                self.graph.initializer.append(onnx.numpy_helper.from_array(array, node.output[0]))
            else:
                kept.append(node)
        if len(kept) != len(self.graph.node):
            self._set_nodes(kept)


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """Return one attribute of a node."""
    import onnx.helper

    return next((onnx.helper.get_attribute_value(one) for one in node.attribute if one.name == name), default)


def node_of(operation: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    """Return a new node, named for its output."""
    import onnx.helper

    return onnx.helper.make_node(operation, inputs, [output], name=f"{output}/{operation}", **attributes)

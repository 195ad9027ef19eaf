"""The arrows of the design, held by a test: who may import whom, no cycles, no god modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "servable"
LINES_AT_MOST = 400

# ring -> what of servable it may import (a ring, or one module of it)
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "protos": set(),
    "transport": {"core.errors"},
    "wire": {"core", "protos"},
    "observe": {"core", "protos"},
    "engines": {"core", "protos"},
    "lifecycle": {"core", "engines.base", "engines.plan"},
    "serving": {"core", "lifecycle.manager", "lifecycle.warmup", "engines.base", "engines.plan"},
    "listeners": {"core", "transport", "wire", "serving", "lifecycle.manager", "lifecycle.intake", "observe"},
    "client": {"core", "wire", "protos", "transport", "engines.base"},
    "preprocess": {"core"},
    "zoo": {"core"},
    "report": {"core"},
    "lab": {"core", "protos", "client", "wire", "transport", "report", "zoo"},
    "forge": {
        "core", "protos", "engines", "lifecycle.intake", "lifecycle.layout", "report", "zoo",
        "lab.sources", "lab.synthesis", "lab.statistics", "lab.machine",
    },
    "settings": {
        "core", "protos", "lifecycle.config", "lifecycle.manager", "lifecycle.warmup", "serving.plans",
        "serving.batching_parameters", "serving.canary", "observe.log_options",
        "transport.limits", "transport.listen", "transport.tls", "listeners.http_replies", "listeners.keys",
        "engines.base",
    },
    "app": {
        "core", "engines", "lifecycle", "serving", "wire", "transport", "listeners", "observe", "protos", "settings",
    },
}  # fmt: skip
ANYTHING = {"cli", "__init__", "__main__"}

# ring -> foreign packages it may import; others of the rings below are free to use what they declare
FOREIGN: dict[str, set[str]] = {
    "core": {"numpy", "ml_dtypes"},
    "protos": {"google", "google_crc32c", "grpc_tools"},
    "transport": {"httptools", "uvloop"},
    "lifecycle": {"numpy"},
    "serving": {"numpy"},
    "listeners": set(),
}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(parts), path


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Yield (absolute module, line, whether at module level); imports inside functions count too."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide arrows"
            assert node.module is not None
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno, id(node) in top


def ring_of(module: str) -> str:
    return module.split(".")[0]


def is_allowed(ring: str, target: str) -> bool:
    """``target`` is what follows ``servable.`` in the import."""
    if ring in ANYTHING or ring_of(target) == ring:
        return True
    return any(target == allowed or target.startswith(allowed + ".") for allowed in ALLOWED[ring])


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=[name for name, _ in modules()])
def test_imports_follow_the_rings(module: str, path: Path) -> None:
    ring = ring_of(module)
    assert ring in ALLOWED or ring in ANYTHING, f"{module} belongs to no ring"
    wrong = []
    for target, line, _ in imports(path):
        package, _, rest = target.partition(".")
        if package == "servable":
            if rest and not is_allowed(ring, rest):
                wrong.append(f"line {line}: servable.{rest}")
        elif ring in FOREIGN and package not in FOREIGN[ring] and not is_stdlib(package):
            wrong.append(f"line {line}: {target}")
    assert not wrong, f"{module} ({ring}) may not import {wrong}"


def is_stdlib(package: str) -> bool:
    import sys

    return package in sys.stdlib_module_names or package == "__future__"


def test_engines_never_import_each_other() -> None:
    from servable.engines.base import ENGINES

    engines = {target.partition(":")[0] for target in ENGINES.values()}
    for module, path in modules():
        if f"servable.{module}" in engines:
            for target, line, _ in imports(path):
                others = [name for name in engines - {f"servable.{module}"} if target.startswith(name)]
                assert not others, f"{module} line {line} imports {others}"


def test_no_cycles_between_modules() -> None:
    graph: dict[str, set[str]] = {}
    names = {name.removesuffix(".__init__") for name, _ in modules()}
    for module, path in modules():
        here = module.removesuffix(".__init__")
        for target, _, top in imports(path):
            if not top or not target.startswith("servable."):
                continue
            found = target.removeprefix("servable.")
            while found and found not in names:
                found = found.rpartition(".")[0]
            if found and found != here:
                graph.setdefault(here, set()).add(found)
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module not in done:
            for following in sorted(graph.get(module, ())):
                visit(following, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_modules_stay_readable() -> None:
    long = {name: count for name, path in modules() if (count := len(path.read_text().splitlines())) > LINES_AT_MOST}
    assert not long, f"modules above {LINES_AT_MOST} lines: {long}"


def test_no_junk_drawers() -> None:
    forbidden = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [name for name, _ in modules() if forbidden & set(name.split("."))]

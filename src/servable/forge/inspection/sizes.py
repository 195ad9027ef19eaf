"""Sizes that torch writes as expressions of symbols: ``Mul(Integer(8), Symbol('s52', positive=True))``, ``50*s77``."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Mapping[str, Callable[..., int]] = {
    "Add": lambda *parts: sum(parts),
    "Mul": lambda *parts: math.prod(parts),
    "Max": max,
    "Min": min,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Integer": int,
}
_SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)|(\w+)")


def symbol(text: str) -> str | None:
    """Return the name of the symbol that an expression is, ``None`` if it is more than one."""
    found = _SYMBOL.fullmatch(text)
    return None if found is None or text.isdecimal() else found[1] or found[2]


def evaluate(text: str, symbols: Mapping[str, int]) -> int | None:
    """Return the size, ``None`` where a symbol or a form is not known."""
    try:
        found = _value(ast.parse(text, mode="eval").body, symbols)
    except (SyntaxError, KeyError, TypeError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, int) else None


def _value(node: Any, symbols: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return symbols[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, symbols)
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, symbols), _value(node.right, symbols))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "Symbol":
            return symbols[ast.literal_eval(node.args[0])]
        return _FUNCTIONS[node.func.id](*(_value(argument, symbols) for argument in node.args))
    raise ValueError

"""Time the JSON codecs of the REST API: microseconds an operation, best of several rounds.

Run it as ``python bench/json_micro.py``. The baseline beside it is the obvious way: orjson and ``numpy.array``.
"""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable

import numpy as np
import orjson

from servable.core.errors import ServingError
from servable.core.signatures import Signature, TensorSpec
from servable.core.tensors import FLOAT32, INT32, INT64, STRING, UINT8, Array, DType
from servable.wire import tfserving_rest as rest

ROUNDS = 7
ROUND_S = 0.15


def best_us(operation: Callable[[], object]) -> float:
    """Return the time of one call in the best round."""
    operation()
    once_s = timeit.timeit(operation, number=3) / 3
    number = max(3, int(ROUND_S / once_s))
    return min(timeit.repeat(operation, number=number, repeat=ROUNDS)) / number * 1e6


def signature(**inputs: DType) -> Signature:
    """Return a signature with these inputs of unknown rank."""
    return Signature("serving_default", {name: TensorSpec(name, dtype, None) for name, dtype in inputs.items()}, {})


def decoding() -> None:
    """Bodies to tensors, against orjson and numpy.array without any checks."""
    rng = np.random.default_rng(7)
    tokens = rng.integers(0, 20_000, (1, 50))
    floats = rng.standard_normal((100, 1025)).astype(np.float32)
    image = rng.integers(0, 255, (1, 224, 224, 3))
    short, doubles, pixels = rest.encode_predict_request({"x": floats}), floats.tolist(), image.tolist()
    holes = json.dumps({"inputs": [[float("nan"), *row[1:]] for row in doubles]}).encode()
    named = {"inputs": {"x": tokens.tolist(), "y": [0.5, 1.5]}}
    rows = {"instances": [{"x": row, "y": 0.5} for row in rng.integers(0, 9, (32, 8)).tolist()]}
    cases: list[tuple[str, bytes, Signature, DType]] = [
        ("row, [1,50] -> int32", orjson.dumps({"instances": tokens.tolist()}), signature(x=INT32), INT32),
        ("row, [1,50] -> int64", orjson.dumps({"instances": tokens.tolist()}), signature(x=INT64), INT64),
        ("row, [1,50] -> float32", orjson.dumps({"instances": tokens.tolist()}), signature(x=FLOAT32), FLOAT32),
        ("row, [3] floats", b'{"instances": [1.0, 2.5, 5.0]}', signature(x=FLOAT32), FLOAT32),
        ("columnar, x [1,50] and y [2]", orjson.dumps(named), signature(x=INT32, y=FLOAT32), INT32),
        ("row, 32 objects of x [8] and y", orjson.dumps(rows), signature(x=INT32, y=FLOAT32), INT32),
        ("row, 32 strings", orjson.dumps({"instances": ["a short text"] * 32}), signature(x=STRING), STRING),
        ("1.1 MB, [100,1025] short floats", short, signature(x=FLOAT32), FLOAT32),
        ("2.1 MB, the same as doubles", orjson.dumps({"inputs": doubles}), signature(x=FLOAT32), FLOAT32),
        ("2.1 MB, with NaN", holes, signature(x=FLOAT32), FLOAT32),
        ("0.5 MB, image [1,224,224,3]", orjson.dumps({"instances": pixels}), signature(x=UINT8), UINT8),
    ]
    print(f"{'decode':40}{'bytes':>10}{'ours us':>12}{'orjson us':>12}{'+ numpy us':>12}")
    for name, body, takes, dtype in cases:
        ours = best_us(lambda body=body, takes=takes: rest.parse_predict_body(body).to_inputs(takes))  # type: ignore[misc]
        try:
            parse = best_us(lambda body=body: orjson.loads(body))  # type: ignore[misc]
            plain = best_us(lambda body=body, dtype=dtype: _plainly(body, dtype))  # type: ignore[misc]
        except (orjson.JSONDecodeError, TypeError):
            parse = plain = float("nan")
        print(f"{name:40}{len(body):>10}{ours:>12.2f}{parse:>12.2f}{plain:>12.2f}")


def _plainly(body: bytes, dtype: DType) -> object:
    (value,) = orjson.loads(body).values()
    value = value["x"] if isinstance(value, dict) else value
    return np.array(value).astype(dtype.numpy)


def encoding() -> None:
    """Tensors to bodies."""
    rng = np.random.default_rng(7)
    big = rng.standard_normal((100, 1025)).astype(np.float32)
    holes = big.copy()
    holes[:, 0] = np.nan
    labels = np.array([b"positive", b"negative"] * 16, object)
    small = np.array([[0.1, 0.9]], np.float32)
    cases: list[tuple[str, dict[str, Array], bool]] = [
        ("row, one output float32 [1,2]", {"y": small}, True),
        ("columnar, two outputs", {"labels": np.array([1]), "probs": small}, False),
        ("row, two outputs, 32 rows", {"labels": np.arange(32), "probs": np.repeat(small, 32, 0)}, True),
        ("row, 32 strings", {"y": labels}, True),
        ("columnar, [100,1025] float32", {"y": big}, False),
        ("the same with NaN", {"y": holes}, False),
    ]
    print(f"\n{'encode':40}{'bytes':>10}{'ours us':>12}")
    for name, outputs, row_format in cases:
        size = len(rest.encode_predict_response(outputs, row_format=row_format))
        ours = best_us(
            lambda outputs=outputs, row_format=row_format: rest.encode_predict_response(outputs, row_format=row_format)  # type: ignore[misc]
        )
        print(f"{name:40}{size:>10}{ours:>12.2f}")


def the_rest() -> None:
    """Paths, and texts that are refused."""
    refused = {
        "nested 500 000 deep": b"[" * 500_000,
        "1 MB of numbers, then a fault": b'{"inputs": [' + b"1," * 500_000 + b"x]}",
        "1 MB of strings, unterminated": b"[" + b'"a\\n",' * 170_000,
        "1 MB of objects, unterminated": b"[" + b'{"a":1},' * 125_000,
    }
    print(f"\n{'other':40}{'bytes':>10}{'ours us':>12}")
    path = best_us(lambda: rest.parse_path(b"POST", b"/v1/models/sentiment:predict"))
    print(f"{'parse_path':40}{'':>10}{path:>12.2f}")
    for name, body in refused.items():
        print(f"{name:40}{len(body):>10}{best_us(lambda body=body: _refuse(body)):>12.2f}")  # type: ignore[misc]


def _refuse(body: bytes) -> None:
    try:
        rest.parse_predict_body(body)
    except ServingError:
        return
    raise AssertionError("this body should have been refused")


if __name__ == "__main__":
    decoding()
    encoding()
    the_rest()

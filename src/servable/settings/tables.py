"""The tables inside ``servable.toml`` that stand for one value: ``batching``, ``request_log``, ``canary``."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from servable.core.errors import ServingError, invalid_argument
from servable.observe.log_options import RequestLogOptions
from servable.serving.batching_parameters import BatchingParameters
from servable.serving.canary import CanaryOptions
from servable.settings.config_fields import BATCHING

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class Key(NamedTuple):
    """One key of a table: the type of its value, or of the elements of a list, and what it is."""

    kind: type
    what: str
    is_list: bool = False


BATCHING_KEYS = {
    "max_batch_size": Key(int, BATCHING["max_batch_size"]),
    "batch_timeout_micros": Key(int, BATCHING["batch_timeout_micros"]),
    "max_enqueued_batches": Key(int, BATCHING["max_enqueued_batches"]),
    "num_batch_threads": Key(int, BATCHING["num_batch_threads"]),
    "thread_pool_name": Key(str, BATCHING["thread_pool_name"]),
    "allowed_batch_sizes": Key(int, BATCHING["allowed_batch_sizes"], is_list=True),
    "pad_variable_length_inputs": Key(bool, BATCHING["pad_variable_length_inputs"]),
    "enable_large_batch_splitting": Key(bool, BATCHING["enable_large_batch_splitting"]),
    "max_execution_batch_size": Key(int, BATCHING["max_execution_batch_size"]),
}
REQUEST_LOG_KEYS = {
    "filename_prefix": Key(str, "where the files go and how their names begin; relative to the file of settings"),
    "sampling_rate": Key(float, "the share of requests that is logged, 0 to 1"),
    "type": Key(str, "`tfrecord`: records of PredictionLog"),
    "max_file_bytes": Key(int, "size at which a file is followed by the next"),
    "max_files": Key(int, "files that are kept; 0 is all"),
}


CANARY_KEYS = {
    "percent": Key(float, "the share of requests that name no version which goes to the version on trial, 0 to 100"),
    "shadow_percent": Key(float, "the share of the others which it is asked as well, unseen, answers compared"),
    "version": Key(int, "the version on trial; by default the newest available one"),
    "max_error_rate": Key(float, "its rate of failures may be so much above the other version's, 0 to 1"),
    "max_difference_rate": Key(float, "the share of compared answers that may differ, 0 to 1; by default any"),
    "min_requests": Key(int, "how many requests decide at least"),
    "window_s": Key(float, "how many seconds back they count"),
    "rtol": Key(float, "relative difference up to which numbers are equal"),
    "atol": Key(float, "absolute difference up to which numbers are equal"),
}


def canary_table(value: object, where: str) -> CanaryOptions:
    """Return the trial in a table; INVALID_ARGUMENT begins with ``where``."""
    values = _read(value, CANARY_KEYS, where)
    try:
        return CanaryOptions(**values)
    except ServingError as error:
        raise ServingError(error.code, f"{where}: {error.message}") from None


def batching_table(value: object, where: str) -> BatchingParameters:
    """Return the parameters in a table; INVALID_ARGUMENT begins with ``where``."""
    values = _read(value, BATCHING_KEYS, where)
    try:
        return BatchingParameters(**values)
    except ServingError as error:
        raise ServingError(error.code, f"{where}: {error.message}") from None


def request_log_table(value: object, where: str, folder: Path) -> RequestLogOptions:
    """Return the request log in a table; names of files are relative to ``folder``."""
    values = _read(value, REQUEST_LOG_KEYS, where)
    prefix = values.pop("filename_prefix", "")
    try:
        return RequestLogOptions(str(folder.absolute() / prefix) if prefix else "", **values)
    except ServingError as error:
        raise ServingError(error.code, f"{where}: {error.message}") from None


def refuse_unknown(table: Mapping[str, Any], known: Collection[str], what: str, where: str) -> None:
    """Raise INVALID_ARGUMENT for the first key that is not known, with the one that was probably meant."""
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name.replace("-", "_").lower(), known, 1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise invalid_argument(f"{where}: there is no {what} {name!r}; {advice}")


def _read(value: object, keys: Mapping[str, Key], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid_argument(f"{where}: expected a table with keys such as {', '.join([*keys][:2])}, not {value!r}")
    refuse_unknown(value, keys, "key", where)
    return {name: _typed(element, keys[name], f"{where}: {name}") for name, element in value.items()}


def _typed(value: object, key: Key, where: str) -> Any:
    if key.is_list:
        if not isinstance(value, list):
            raise invalid_argument(f"{where}: expected a list, not {value!r}")
        return tuple(_typed(element, Key(key.kind, key.what), where) for element in value)
    if key.kind is float and type(value) is int:
        return float(value)
    if type(value) is not key.kind:
        raise invalid_argument(f"{where}: expected {_WORDS[key.kind]}, not {value!r}")
    return value

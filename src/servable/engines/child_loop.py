"""The child's side: load what the parent names, then answer its calls until it says no more."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import io
import os
import sys
import traceback
from pathlib import Path
from typing import cast

from servable.core.errors import Code, ServingError, failed_precondition, internal
from servable.engines.base import Artifact, Engine, EngineOptions, Model
from servable.engines.child_memory import Arena
from servable.engines.child_messages import (
    Answer,
    Channel,
    Failure,
    FromParent,
    Load,
    Loaded,
    Progress,
    Run,
    child_channel,
)
from servable.engines.child_signatures import describe


def serve(read_fd: int, write_fd: int, requests_fd: int, answers_fd: int) -> None:
    """Live the child's life on these descriptors. Does not return."""
    for fd in (read_fd, write_fd, requests_fd, answers_fd):
        os.set_inheritable(fd, False)  # what the model starts must not hold them open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    faulthandler.enable()
    code = 1
    try:
        _live(child_channel(read_fd, write_fd), Arena(requests_fd), Arena(answers_fd))
        code = 0
    except BrokenPipeError:
        pass  # the parent is gone, or has had enough of us
    except BaseException:  # noqa: BLE001  # the boundary of the process: whatever it was, it goes to the log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # tearing a framework down takes time and may crash; the kernel frees all of it


def _live(channel: Channel[FromParent], requests: Arena, answers: Arena) -> None:
    order = channel.receive()
    if not isinstance(order, Load):
        return
    try:
        model = _load(order, channel)
    except ServingError as error:
        channel.send(Failure(error.code, error.message))
        return
    forms = describe(model.signatures, answers)
    channel.send(Loaded(model.engine, model.precision, forms, answers.size))
    # A framework's hundreds of thousands of objects are here to stay: no collection need walk them again.
    gc.collect()
    gc.freeze()
    while (message := channel.receive()) is not None:
        if isinstance(message, Run):
            channel.send(_run(model, message, requests, answers))
    model.close()


def _load(order: Load, channel: Channel[FromParent]) -> Model:
    module_name, _, class_name = order.target.partition(":")
    options = EngineOptions(
        intra_op_threads=order.intra_op_threads,
        inter_op_threads=order.inter_op_threads,
        precision=order.precision,
        saved_model_tags=order.saved_model_tags,
        report=lambda line: channel.send(Progress(line)),
    )
    try:
        engine = cast("type[Engine]", getattr(importlib.import_module(module_name), class_name))()
        return _around(engine.load(Artifact(order.kind, Path(order.path)), options), order.transform)
    except ServingError:
        raise
    except ImportError as error:
        traceback.print_exc()
        raise failed_precondition(f"the engine {order.target} cannot be imported: {error}") from error
    except Exception as error:
        traceback.print_exc()
        raise internal(f"loading {order.path} failed: {type(error).__name__}: {error}") from error


def _around(model: Model, transform: str) -> Model:
    if not transform:
        return model
    from servable.engines.transform import transformed

    return transformed(model, Path(transform))


def _run(model: Model, message: Run, requests: Arena, answers: Arena) -> Answer | Failure:
    try:
        inputs = requests.take(message.inputs, message.memory)
        outputs = model.run(message.signature, inputs, message.outputs)
        return Answer(answers.put(outputs.items()), answers.size)
    except ServingError as error:
        return Failure(error.code, error.message)
    except Exception as error:  # noqa: BLE001  # a model may raise anything
        traceback.print_exc()
        return Failure(Code.INTERNAL, f"the model failed: {type(error).__name__}: {error}")

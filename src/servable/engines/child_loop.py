"""The child's side: load what the parent names, then answer its calls until it says no more."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import io
import os
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import cast

from servable.core.errors import Code, ServingError, failed_precondition, internal
from servable.core.tensors import Array
from servable.engines.base import Artifact, Engine, EngineOptions, Model
from servable.engines.child_link import ChildLink
from servable.engines.child_memory import Arena
from servable.engines.child_messages import (
    Answer,
    Channel,
    End,
    Failure,
    FromParent,
    Load,
    Loaded,
    Profile,
    Profiled,
    Progress,
    Run,
    Step,
    child_channel,
)
from servable.engines.child_signatures import describe
from servable.engines.streams import in_streams


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
    link = ChildLink(channel, requests, answers)
    try:
        model = _load(order, channel, link)
    except ServingError as error:
        channel.send(Failure(error.code, error.message))
        return
    forms = describe(model.signatures, answers)
    channel.send(Loaded(model.engine, model.precision, forms, answers.size, model.uses))
    # A framework's hundreds of thousands of objects are here to stay: no collection need walk them again.
    gc.collect()
    gc.freeze()
    calls = _Calls(model, link, requests, answers)
    while (message := channel.receive()) is not None:
        if isinstance(message, Run | Step):
            channel.send(calls.reply(message))
        elif isinstance(message, Profile):
            channel.send(_profile(model, begin=message.begin))
    model.close()


def _profile(model: Model, *, begin: bool) -> Profiled:
    try:
        return Profiled(model.begin_profile(), []) if begin else Profiled(False, [*model.end_profile()])
    except Exception:  # noqa: BLE001  # a framework may raise anything; nobody's request is to fail by that
        traceback.print_exc()
        return Profiled(False, [])


def _load(order: Load, channel: Channel[FromParent], link: ChildLink) -> Model:
    module_name, _, class_name = order.target.partition(":")
    options = EngineOptions(
        intra_op_threads=order.intra_op_threads,
        inter_op_threads=order.inter_op_threads,
        streams=order.streams,
        precision=order.precision,
        saved_model_tags=order.saved_model_tags,
        report=lambda line: channel.send(Progress(line)),
        link=link,
    )
    try:
        engine = cast("type[Engine]", getattr(importlib.import_module(module_name), class_name))()
        settings = Path(order.settings) if order.settings else None
        artifact = Artifact(order.kind, Path(order.path), settings=settings)
        model = in_streams(engine.load(artifact, options), options.streams)
        return _around(model, order.transform)
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


class _Calls:
    """Answers calls, one at a time, and keeps streams that are between two parts."""

    def __init__(self, model: Model, link: ChildLink, requests: Arena, answers: Arena) -> None:
        self._model = model
        self._link = link
        self._requests = requests
        self._answers = answers
        self._streams: dict[int, Generator[dict[str, Array], None, None]] = {}

    def reply(self, message: Run | Step) -> Answer | Failure | End:
        """Compute, and say what came of it."""
        try:
            self._link.open()
            try:
                outputs = self._run(message) if isinstance(message, Run) else self._step(message)
            finally:
                self._link.close()
            if outputs is None:
                return End()
            return Answer(self._answers.put(outputs.items()), self._answers.size)
        except ServingError as error:
            return Failure(error.code, error.message)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001  # a model may raise anything
            traceback.print_exc()
            return Failure(Code.INTERNAL, f"the model failed: {type(error).__name__}: {error}")

    def _run(self, message: Run) -> dict[str, Array] | None:
        inputs = self._requests.take(message.inputs, message.memory)
        if not message.stream:
            return self._model.run(message.signature, inputs, message.outputs)
        parts = self._streams[message.stream] = self._model.stream(message.signature, inputs, message.outputs)
        return self._part(message.stream, parts)

    def _step(self, message: Step) -> dict[str, Array] | None:
        if not message.last:
            return self._part(message.stream, self._streams[message.stream])
        parts = self._streams.pop(message.stream, None)
        if parts is not None:
            parts.close()
        return None

    def _part(self, stream: int, parts: Generator[dict[str, Array], None, None]) -> dict[str, Array] | None:
        try:
            return next(parts)
        except StopIteration:
            del self._streams[stream]
            return None
        except BaseException:
            del self._streams[stream]
            raise

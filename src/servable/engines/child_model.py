"""The model whose engine runs in a child process, as the server sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence

from servable.core.errors import ServingError, failed_precondition, invalid_argument, unavailable
from servable.core.spans import Span
from servable.core.tensors import Array
from servable.engines import base
from servable.engines.base import Artifact, Caller, EngineOptions, Model
from servable.engines.child_keeper import Keeper
from servable.engines.child_messages import Load, Profiled
from servable.engines.child_process import ChildProcess, ProcessEnded
from servable.engines.child_restart import Suspicion, Verdict, rows_of
from servable.engines.child_signatures import restore
from servable.engines.child_watch import MIB


class ChildModel(Model):
    """Answers by a child process, which it starts again when it ends."""

    def __init__(self, engine_name: str, artifact: Artifact, options: EngineOptions, label: str) -> None:
        target = base.ENGINES.get(engine_name)
        if target is None:
            raise failed_precondition(f"no engine is called {engine_name!r}; there are {', '.join(base.ENGINES)}")
        load = Load(
            target,
            artifact.kind,
            str(artifact.path),
            options.intra_op_threads,
            options.inter_op_threads,
            options.streams,
            options.precision,
            options.saved_model_tags,
            str(artifact.transform or ""),
            str(artifact.settings or ""),
        )
        self.label = label
        self._suspicion = Suspicion()
        self.timeout_s = options.child_timeout_s
        self._streams = 0
        self._keeper = Keeper(load, label, options.child_memory_mb * MIB)
        loaded = self._keeper.start(options.report)
        self.engine = loaded.engine
        self.precision = loaded.precision
        self.uses = loaded.uses
        try:
            with self._keeper.turn:
                self.signatures = restore(loaded.signatures, self._keeper.live().answers, loaded.memory)
        except BaseException:
            self._keeper.close()
            raise

    def __repr__(self) -> str:
        """Return the label and the engine."""
        return f"<ChildModel {self.label} {self.engine}>"

    @property
    def pid(self) -> int:
        """Return the id of the process that answers now; UNAVAILABLE if there is none."""
        return self._keeper.live().pid

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute in the child. Outputs are the caller's own."""
        return self.run_calling(signature, inputs, outputs, None)

    def run_calling(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str], caller: Caller | None
    ) -> dict[str, Array]:
        """Compute in the child, which may call other models through ``caller``."""
        with self._keeper.turn:
            process = self._keeper.live()
            results = self._held_to_account(
                process, signature, inputs,
                lambda: process.call(signature, inputs, outputs, self.timeout_s, caller),
            )  # fmt: skip
        assert results is not None
        return results

    def calling(self, caller: Caller) -> Model:
        """Return this model with a way to others."""
        return _Calling(self, caller) if self.uses else self

    def stream(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Generator[dict[str, Array], None, None]:
        """Compute in the child, part by part. The child keeps what is between two parts; its end ends that too."""
        return self.stream_calling(signature, inputs, outputs, None)

    def stream_calling(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str], caller: Caller | None
    ) -> Generator[dict[str, Array], None, None]:
        """Do as ``stream``; the child may call other models through ``caller``."""
        keeper, timeout_s = self._keeper, self.timeout_s
        with keeper.turn:
            process = keeper.live()
            self._streams += 1
            number = self._streams
            part = self._held_to_account(
                process, signature, inputs,
                lambda: process.call(signature, inputs, outputs, timeout_s, caller, number),
            )  # fmt: skip
        try:
            while part is not None:
                yield part
                with keeper.turn:
                    part = None
                    if keeper.live() is not process:
                        raise unavailable(f"the process of model {self.label} ended while it answered in parts")
                    part = self._held_to_account(
                        process, signature, inputs,
                        lambda: process.step(number, last=False, timeout_s=timeout_s, caller=caller),
                    )  # fmt: skip
        finally:
            if part is not None:
                self._end_stream(process, number)

    def _end_stream(self, process: ChildProcess, number: int) -> None:
        """Let the child forget a stream of which not all was taken."""
        with self._keeper.turn, contextlib.suppress(ServingError, ProcessEnded):
            if self._keeper.live() is process:
                process.step(number, last=True, timeout_s=self.timeout_s)

    def _held_to_account(
        self,
        process: ChildProcess,
        signature: str,
        inputs: Mapping[str, Array],
        compute: Callable[[], dict[str, Array] | None],
    ) -> dict[str, Array] | None:
        """Compute unless these rows are known to end processes; remember it if they do."""
        if self._suspicion.active:
            self._judge(signature, inputs)
        try:
            results = compute()
        except ProcessEnded as ended:
            if ended.computing:
                self._suspicion.killed(rows_of(signature, inputs))
            raise unavailable(f"the process of model {self.label} {process.end()}; it is being restarted") from None
        if self._suspicion.active:
            self._suspicion.survived(rows_of(signature, inputs))
        return results

    def _judge(self, signature: str, inputs: Mapping[str, Array]) -> None:
        verdict = self._suspicion.judge(rows_of(signature, inputs))
        if verdict is Verdict.REFUSE:
            raise invalid_argument(
                f"the process of model {self.label} ended twice while it computed these inputs; they are refused"
            )
        if verdict is Verdict.APART:
            raise unavailable(
                f"the process of model {self.label} ended while it computed some of these rows; try them again"
            )

    def begin_profile(self) -> bool:
        """Begin in the process, if there is one now."""
        return self._profiled(begin=True).begun

    def end_profile(self) -> list[Span]:
        """Return what happened there; nothing if it has ended since."""
        return [Span(*span) for span in self._profiled(begin=False).spans]

    def _profiled(self, *, begin: bool) -> Profiled:
        with self._keeper.turn:
            try:
                return self._keeper.live().profile(begin=begin)
            except (ServingError, ProcessEnded):
                return Profiled(False, [])

    def begin_serving(self) -> None:
        """Give the process the priority of this one. It began with that of the thread that loads."""
        self._keeper.begin_serving()

    def close(self) -> None:
        """End the process; all its memory returns."""
        self._keeper.close()


class _Calling(Model):
    """A child model with the caller for what it computes now. Does not own the model."""

    def __init__(self, model: ChildModel, caller: Caller) -> None:
        self.engine = model.engine
        self.precision = model.precision
        self.signatures = model.signatures
        self.uses = model.uses
        self._model = model
        self._caller = caller

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        return self._model.run_calling(signature, inputs, outputs, self._caller)

    def stream(
        self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Generator[dict[str, Array], None, None]:
        return self._model.stream_calling(signature, inputs, outputs, self._caller)

    def close(self) -> None:
        self._model.close()

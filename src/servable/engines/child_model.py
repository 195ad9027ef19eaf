"""The model whose engine runs in a child process, as the server sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servable.core.errors import failed_precondition, invalid_argument, unavailable
from servable.core.tensors import Array
from servable.engines import base
from servable.engines.base import Artifact, EngineOptions, Model
from servable.engines.child_keeper import Keeper
from servable.engines.child_messages import Load
from servable.engines.child_process import ProcessEnded
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
            options.precision,
            options.saved_model_tags,
            str(artifact.transform or ""),
        )
        self.label = label
        self._suspicion = Suspicion()
        self._timeout_s = options.child_timeout_s
        self._keeper = Keeper(load, label, options.child_memory_mb * MIB)
        loaded = self._keeper.start(options.report)
        self.engine = loaded.engine
        self.precision = loaded.precision
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
        keeper = self._keeper
        with keeper.turn:
            process = keeper.live()
            if self._suspicion.active:
                self._judge(signature, inputs)
            try:
                results = process.call(signature, inputs, outputs, self._timeout_s)
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

    def close(self) -> None:
        """End the process; all its memory returns."""
        self._keeper.close()

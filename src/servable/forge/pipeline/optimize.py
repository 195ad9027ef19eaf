"""A pipeline of steps over one model: each result is an artifact to serve, compared and measured; the best is known.

What was done before is found by the content of all that went into it, and not done again. A step that fails or is not
supported is a row with its reason. Interrupted anywhere, the folder holds whole artifacts only, and the next run goes
on from there.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from servable.core.errors import Code, ServingError
from servable.core.progress import Progress, unheard
from servable.core.signatures import Signature, main_signature
from servable.engines.base import Artifact
from servable.forge.appraisal import Figures, Timing, appraise
from servable.forge.artifacts import MAIN_FILES, bytes_of, find_source, folder_of
from servable.forge.measure import Measured
from servable.forge.pipeline.optimized import GIVEN, Optimized, Row, State
from servable.forge.pipeline.records import Records, digest_of, digest_of_samples, key_of, versions
from servable.forge.pipeline.route import CHAIN, Node, check_words, find_route, is_exact, resolver
from servable.forge.reference import Reference, judged_from
from servable.forge.samples import Samples
from servable.forge.steps import Step, steps
from servable.forge.surroundings import disturbance, fixed, surroundings
from servable.forge.workshop import NotVerifiedError, open_model, perform

Data = Callable[[Signature], Samples]
"""Reads data for a signature, once one is known: not every source has an engine that tells it."""
_TRIES = 6
_ATTEMPTS = 2
"""How many steps are tried for a word before it has failed."""
_FINAL = frozenset({Code.UNIMPLEMENTED, Code.DATA_LOSS})
"""What will be so again with the same source and libraries; want of memory, a full disk or a kill may pass."""


@dataclass(frozen=True)
class Plan:
    """What to do: ``words`` name steps as ``route`` reads them; ``out`` becomes a folder of models.

    ``options`` go to every step. ``fresh`` does everything again.
    """

    source: Artifact
    out: Path
    words: Sequence[str]
    timing: Timing
    data: Data | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = False


def optimize(plan: Plan, report: Progress = unheard, *, is_over: Callable[[], bool] = lambda: False) -> Optimized:
    """Do all steps and return what came of them. Those not begun when time ``is_over`` are rows that say so."""
    table = steps()
    check_words(plan.words, table)
    began = time.monotonic()
    pipeline = _Pipeline(plan, table, report)
    rows = pipeline.run(is_over)
    samples = None if pipeline.reference is None else pipeline.reference.samples
    return Optimized(
        str(plan.source.path),
        str(plan.out),
        tuple(rows),
        plan.timing.batches,
        "" if samples is None else samples.origin,
        samples is None or samples.made_up,
        samples is not None and samples.labels is not None,
        0 if samples is None else len(samples),
        pipeline.reference_name,
        pipeline.machine,
        pipeline.versions,
        time.monotonic() - began,
    )


class _Pipeline:
    """One run: the artifacts that there are by now, and what is kept of earlier runs."""

    def __init__(self, plan: Plan, table: Mapping[str, Step], report: Progress) -> None:
        self._plan, self._table, self._report = plan, table, report
        self._resolve = resolver(table)
        self._records = Records(plan.out)
        self._nodes: list[Node] = []
        self._artifacts: dict[str, Artifact] = {}
        self._digests: dict[str, str] = {}
        self.reference: Reference | None = None
        self.reference_name = ""
        self._data: Samples | None = None
        self._data_digest = ""
        self._judged_with = ""
        """The fingerprint of the rows that all are compared on, whether given or made up."""
        self.versions = versions()
        self.machine = surroundings()

    def run(self, is_over: Callable[[], bool]) -> list[Row]:
        rows = [self._given()]
        for word in self._plan.words:
            if is_over():
                rows.append(Row(word, state=State.FAILED, reason="not done: the time was over"))
            else:
                rows += self._word(word)
        return rows

    def _given(self) -> Row:
        source = self._plan.source
        self._add(GIVEN, source, exact=True)
        row = Row(GIVEN, kind=source.kind, path=str(source.path), state=State.GIVEN, disk_bytes=bytes_of(source))
        if self.reference is None:
            return row
        return self._with_figures(row, self._records.read(GIVEN))

    def _word(self, word: str) -> list[Row]:
        """Do one word of the steps: all parts of a chain, each from what the one before made."""
        rows: list[Row] = []
        allowed = [node.name for node in self._nodes if node.exact]
        done: list[str] = []
        for part in word.split(CHAIN):
            done.append(part)
            name = "-".join(done)
            if name not in self._artifacts:
                rows += self._reach(part, name, allowed)
            if name not in self._artifacts:
                break
            allowed = [name]
        return rows

    def _reach(self, word: str, name: str, allowed: list[str]) -> list[Row]:
        """Make what a word asks for, with the conversions that this takes; what fails is a row, and gone round once."""
        rows: list[Row] = []
        failed: list[tuple[str, str]] = []
        lost: list[Row] = []
        while len(failed) < _TRIES and len(lost) < _ATTEMPTS:
            nodes = [node for node in self._nodes if node.name in allowed]
            route = find_route(word, nodes, self._table, self._resolve, failed)
            if route is None:
                break
            step, final = route.steps[0], len(route.steps) == 1
            made = name if final else self._name_of(route.source, step)
            if made in self._artifacts:
                allowed.append(made)
                continue
            row = self._make(step, route.source, made, asked=final)
            if row.state is State.FAILED:
                # A conversion may work from another artifact of the kind; the step itself will refuse that, too.
                failed += [(node.name, step.name) for node in nodes if final or node.name == route.source]
                (lost if final else rows).append(row)
                continue
            allowed.append(made)
            if final:
                return [*rows, replace(row, tried=tuple(f"{one.step}: {one.reason}" for one in lost))]
            rows.append(row)
        return [*rows, lost[0] if lost else self._unreachable(word, name, allowed)]

    def _unreachable(self, word: str, name: str, allowed: Sequence[str]) -> Row:
        kinds = ", ".join(dict.fromkeys(node.kind for node in self._nodes if node.name in allowed))
        reason = f"no step {word} reads what there is ({kinds}), nor what that can be converted to"
        self._report(f"{name}: {reason}")
        return Row(name, state=State.FAILED, reason=reason)

    def _name_of(self, source: str, step: Step) -> str:
        return step.writes if source == GIVEN else f"{source}-{step.writes}"

    def _make(self, step: Step, source_name: str, name: str, *, asked: bool) -> Row:
        row = Row(name, step.name, source_name, step.writes, asked=asked)
        before = self._records.read(name)
        record = {} if self._plan.fresh else before
        key = key_of(
            step=step.name,
            function=step.function,
            source=self._digests[source_name],
            data=self._data_digest,
            options=self._plan.options,
            versions=self.versions,
        )
        kept = self._kept(record, key)
        found_before = {} if self._plan.fresh else self._records.read(f"failed-{key}")
        if found_before:
            self._report(f"{name}: {step.name} failed before, and nothing has changed: {found_before['reason']}")
            return replace(row, **found_before, state=State.FAILED)
        if kept is not None:
            self._report(f"{name}: made before, reused")
            row = replace(row, **record["row"], state=State.REUSED, path=str(kept.path))
        else:
            began = time.monotonic()
            try:
                row, kept = self._perform(step, row)
            except ServingError as error:
                self._report(f"{name}: {error.message}")
                failure = _failure(error, time.monotonic() - began)
                if error.code in _FINAL:
                    self._records.write(f"failed-{key}", failure)
                return replace(row, **failure, state=State.FAILED)
            record = {"key": key, "path": str(kept.path), "digest": digest_of(kept), "row": row.kept()}
            self._records.write(name, record)
            _remove_version(before.get("path"), kept)
        exact = is_exact(step) and next(node.exact for node in self._nodes if node.name == source_name)
        self._add(name, kept, exact=exact)
        return self._with_figures(row, record)

    def _perform(self, step: Step, row: Row) -> tuple[Row, Artifact]:
        place = self._plan.out / row.name
        try:
            outcome = perform(
                step,
                self._artifacts[row.source],
                place,
                data=self._data,
                options=self._plan.options,
                report=self._report,
            )
        finally:
            with contextlib.suppress(OSError):
                place.rmdir()  # empty: nothing was made
        done = replace(
            row,
            state=State.MADE,
            path=str(outcome.artifact.path),
            disk_bytes=outcome.bytes_after,
            seconds=outcome.seconds,
            facts=outcome.facts,
            verdict=outcome.verdict.as_json(),
            calibration=outcome.calibration,
        )
        return done, outcome.artifact

    def _kept(self, record: Mapping[str, Any], key: str) -> Artifact | None:
        """Return what an earlier run made of the same, if it is still there and still the same."""
        if record.get("key") != key:
            return None
        try:
            artifact = find_source(_version_of(Path(record["path"])))
            return artifact if digest_of(artifact) == record["digest"] else None
        except (ServingError, OSError):
            return None

    def _add(self, name: str, artifact: Artifact, *, exact: bool) -> None:
        self._nodes.append(Node(name, artifact.kind, exact))
        self._artifacts[name] = artifact
        self._digests[name] = digest_of(artifact)
        if self.reference is None and exact:
            self._refer(name, artifact)

    def _refer(self, name: str, artifact: Artifact) -> None:
        """Make an artifact what all others are judged by, if an engine loads it."""
        try:
            if self._plan.data is not None and self._data is None:
                model = open_model(artifact)
                try:
                    self._data = self._plan.data(main_signature(model.signatures))
                    self._data_digest = digest_of_samples(self._data)
                finally:
                    model.close()
            self.reference, self.reference_name = Reference.of(artifact, self._data), name
            self._judged_with = digest_of_samples(self.reference.samples)
        except ServingError as error:
            # What an engine should load and does not, or data that cannot be read, no step will mend.
            if artifact.kind in MAIN_FILES or error.code in {Code.INVALID_ARGUMENT, Code.NOT_FOUND}:
                raise
            self._report(f"{artifact.path}: {error.message}")

    def _with_figures(self, row: Row, record: Mapping[str, Any]) -> Row:
        """Measure and judge an artifact, or take what an earlier run found of the same on the same machine."""
        key = key_of(
            artifact=self._digests[row.name],
            reference=self._digests.get(self.reference_name),
            data=self._judged_with,
            timing=[*self._plan.timing.batches, self._plan.timing.budget_s],
            machine=fixed(self.machine),
            versions=self.versions,
        )
        if not self._plan.fresh and record.get("figures_key") == key:
            kept = record["figures"]
            measured = None if kept["measured"] is None else Measured.from_json(kept["measured"])
            judged = None if kept["judged"] is None else judged_from(kept["judged"])
            return replace(row, figures=Figures(row.name, measured, judged, kept["reason"]))
        figures = appraise(row.name, self._artifacts[row.name], self.reference, self._plan.timing, report=self._report)
        # Times from a busy machine are good for this report alone.
        if figures.measured is not None and figures.measured.ok and not disturbance(self.machine):
            document = {
                "measured": figures.measured.as_json(),
                "judged": None if figures.judged is None else figures.judged.as_json(),
                "reason": figures.reason,
            }
            self._records.write(row.name, {**record, "figures_key": key, "figures": document})
        return replace(row, figures=figures)


def _version_of(path: Path) -> Path:
    """Return the version's folder of an artifact that a step made."""
    return path.parent if path.is_file() or path.suffix else path


def _remove_version(path: str | None, successor: Artifact) -> None:
    """Remove the version that an earlier run made of something else; nothing that somebody else put there."""
    if path is None:
        return
    old = _version_of(Path(path))
    if old.parent == folder_of(successor).parent and old != folder_of(successor) and old.is_dir():
        gone = old.with_name(f".old-{old.name}")
        old.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _failure(error: ServingError, seconds: float) -> dict[str, Any]:
    """Return what a row says of a step that failed, as JSON."""
    told: dict[str, Any] = {"reason": error.message, "seconds": seconds}
    if isinstance(error, NotVerifiedError):
        told |= {"verdict": error.verdict.as_json(), "facts": error.facts}
    return told

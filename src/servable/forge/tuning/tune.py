"""Find how a model runs fastest here: measure engines, precisions, threads and streams by size of batch, in children.

Four stages, within a budget of time: every form on every engine, briefly; other threads and streams for those that are
not far behind; the best of each size of batch, beside the default, in turn and long enough for intervals; and what won
once more, in fresh processes, since the best of several looks better than it is. What does not answer as the default
engine does at f32 is out, however fast it is.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from servable.core.errors import ServingError, failed_precondition
from servable.core.progress import Progress, unheard
from servable.core.signatures import Signature
from servable.engines.base import Artifact
from servable.engines.machine import cpu_threads
from servable.engines.plan import choose
from servable.engines.planned import held
from servable.engines.tuned_plan import Setting
from servable.forge.arrays import Tensors
from servable.forge.measure import Measured, begin, end, times
from servable.forge.probe import Probe
from servable.forge.samples import Samples, made_up
from servable.forge.tuning.finals import finalists, in_time, race, winners
from servable.forge.tuning.forms import forms_of
from servable.forge.tuning.trials import Form, Trial, first_trials, tolerance_of, variants
from servable.forge.tuning.tuned import Result, Tuned, TuneOptions
from servable.forge.verify import EXACT, Question, Tolerance, Verdict, compare, fixed_rows, questions
from servable.lab.machine import busy, cpu_times

PROBED_BATCHES: Final = (1, 2, 7)
"""Sizes of batch at which answers are compared, beside the largest that is tuned for."""
NEAR: Final = 1.6
"""Other threads and streams are tried where the engine's own choice is at most so many times as slow as the best."""
SCREENING: Final = 0.6
"""The share of the budget that the first two stages may take."""
_LOOK_S: Final = 0.2
_GUESSES: Final[tuple[tuple[int, tuple[float, float] | None], ...]] = (
    (8, None), (32, None), (1, None), (8, (0, 2)), (1, (0, 2)),
)  # fmt: skip
"""Sizes of free dimensions, and ranges of integers, that made-up inputs are tried with."""


def tune(
    artifact: Artifact,
    options: TuneOptions,
    read: Callable[[Signature], Samples] | None = None,
    report: Progress = unheard,
) -> Tuned:
    """Tune one artifact. ``read`` returns the inputs for its main signature; without it they are made up.

    FAILED_PRECONDITION if there is nothing to tune, or the default engine itself cannot run the model.
    """
    if artifact.code is not None:
        raise failed_precondition(f"{artifact.code} {artifact.code_is}: there is no other way to run it, and no plan")
    return _Tuning(artifact, options, read, report).run()


class _Tuning:
    """One tuning while it goes on."""

    def __init__(
        self, artifact: Artifact, options: TuneOptions, read: Callable[[Signature], Samples] | None, report: Progress
    ) -> None:
        self._artifact = artifact
        self._options = options
        self._read = read
        self._report = report
        self._default = Trial(0, Setting(choose(artifact).engine))
        self._began = time.monotonic()
        self._results: dict[Trial, Result] = {}
        self._screened_s: list[float] = []
        self._reference: dict[str, Signature] = {}
        self._batches = options.batches
        self._notes: list[str] = []

    def run(self) -> Tuned:
        """Do all stages."""
        options = self._options
        occupied = _busy_with_others()
        self._report(f"the reference: {self._default.setting}")
        self._screen_default()
        making = time.monotonic()
        forms, notes = forms_of(
            self._artifact, options.precisions, self._samples, self._report, options.engines, options.max_difference
        )
        self._began += time.monotonic() - making
        self._notes += notes
        self._forms = forms
        first = [one for one in first_trials(forms, options.precisions, options.engines) if one != self._default]
        cpus = cpu_threads()
        self._screen(first, len(first) * (1 + len(variants(self._default, cpus))))
        near = sorted((self._behind(one), place, one) for place, one in enumerate((self._default, *first)))
        others = [variants(one, cpus) for behind, _, one in near if behind <= NEAR]
        # Those of the fastest first, and of each the most promising first: time may not be enough for all.
        self._screen([one for column in itertools.zip_longest(*others) for one in column if one is not None], None)
        self._finals()
        results = tuple(self._results.values())
        return Tuned(
            self._artifact, replace(options, batches=self._batches), self._signature, self._samples, tuple(forms),
            results, time.monotonic() - self._began, tuple(self._covered), tuple(self._notes), occupied,
        )  # fmt: skip

    # -- the reference --------------------------------------------------------------------------------------------

    def _screen_default(self) -> None:
        """Run the default engine: it gives the inputs that all get, and the answers that all must give."""
        with Probe(self._artifact, self._default.setting, as_served=True) as probe:
            found = self._begin_default(probe)
            if not found.ok:
                hint = (
                    "" if self._read is not None or not probe.signatures else "; if it wants other inputs, give --data"
                )
                raise failed_precondition(
                    f"{self._default.setting.engine}, which would serve {self._artifact.path}, cannot run it: "
                    f"{found.reason}{hint}"
                )
            self._ask(probe)
            verdict = compare(self._asked[:1], self._right[:1], probe.answers(self._asked[:1]), EXACT)
            if not verdict.ok:
                self._notes.append(
                    f"the model does not answer twice alike, so nothing can be verified: {verdict.faults[0]}"
                )
            measured = self._timed(probe, found)
        self._results[self._default] = Result(self._default, measured, verdict)
        self._tell(self._results[self._default])

    def _begin_default(self, probe: Probe) -> Measured:
        """Load it, and find inputs that it takes."""
        found = begin(probe)  # with what its process makes up, which may not do
        if not probe.signatures:
            return found
        self._reference = dict(probe.signatures)
        self._signature = _main(probe.signatures)
        fixed = fixed_rows(self._signature)
        if fixed is not None:
            self._batches = (fixed,)
        rows = max(self._batches)
        if self._read is not None:
            self._samples = self._read(self._signature)
            return self._fed(probe, found)
        for free, integers in _GUESSES:
            whole = [name for name, spec in self._signature.inputs.items() if spec.dtype.numpy.kind in "iu"]
            ranges = dict.fromkeys(whole, integers) if integers else {}
            self._samples = made_up(self._signature, rows, free_size=free, ranges=ranges)
            tried = self._fed(probe, found)
            if tried.ok:
                break
        return tried

    def _fed(self, probe: Probe, found: Measured) -> Measured:
        try:
            probe.feed(self._samples.rows, self._signature.name)
            seconds = probe.first_run(self._batches[0])
        except ServingError as error:
            return replace(found, reason=error.message)
        return replace(found, first_run_s=found.first_run_s if found.ok else seconds, reason="",
                       resident_bytes=probe.memory())  # fmt: skip

    def _ask(self, probe: Probe) -> None:
        """Note what is asked of every candidate, and the right answers. Signatures without them are not covered."""
        sizes = sorted({*PROBED_BATCHES, max(self._batches)})
        self._asked: list[Question] = []
        self._right: list[Tensors] = []
        self._covered: list[str] = []
        for one in (self._signature, *(one for one in self._reference.values() if one != self._signature)):
            if not one.inputs or not one.outputs or one.streamed:
                continue
            try:
                main = one == self._signature
                asked = questions(one, self._samples if main else made_up(one, max(sizes)), sizes, probe=main)
                self._right += probe.answers(asked)
            except ServingError as error:
                if one == self._signature:
                    raise
                self._notes.append(f"signature {one.name} stays with the default engine: {error.message}")
            else:
                self._asked += asked
                self._covered.append(one.name)

    # -- screening ------------------------------------------------------------------------------------------------

    def _screen(self, trials: Sequence[Trial], expected: int | None) -> None:
        for number, trial in enumerate(trials):
            left = len(trials) - number if expected is None else max(len(trials), expected) - number
            if self._elapsed_s() > SCREENING * self._options.budget_s:
                self._results[trial] = self._out(trial, "no time was left for it: raise --budget")
                continue
            self._report(f"{trial}{self._of_form(trial)}{self._estimate(left)}")
            began = time.monotonic()
            self._results[trial] = self._screened(trial)
            self._screened_s.append(time.monotonic() - began)
            self._tell(self._results[trial])

    def _screened(self, trial: Trial) -> Result:
        form = self._forms[trial.form]
        with Probe(form.artifact, trial.setting, as_served=True) as probe:
            found = begin(probe, self._samples, self._name_in(form), self._batches)
            if not found.ok:
                return Result(trial, found, reason=found.reason)
            names = held(self._reference, probe.signatures)
            if self._signature.name not in names:
                return Result(trial, found, reason="it does not take and give the same tensors as the model")
            try:
                verdict = self._verdict(trial, names, probe)
            except ServingError as error:
                return Result(trial, found, reason=error.message)
            measured = self._timed(probe, found)
        if not verdict.ok:
            hint = " (for inputs that were made up: --data gives real ones)" if self._samples.made_up else ""
            return Result(trial, measured, verdict, reason=f"it answers differently: {verdict.faults[0]}{hint}")
        return Result(trial, measured, verdict, reason=measured.reason)

    def _verdict(self, trial: Trial, names: dict[str, str], probe: Probe) -> Verdict:
        """Compare what it answers in those signatures that it holds."""
        asked, right = [], []
        for question, answer in zip(self._asked, self._right, strict=True):
            if question.signature in names:
                asked.append(replace(question, signature=names[question.signature]))
                right.append(answer)
        found: list[Tensors] = probe.answers(asked)
        return compare(asked, right, found, self._tolerance(trial))

    def _tolerance(self, trial: Trial) -> Tolerance:
        return tolerance_of(trial.precision, made_up=self._samples.made_up, most=self._options.max_difference)

    def _timed(self, probe: Probe, found: Measured) -> Measured:
        share_s = SCREENING * self._options.budget_s / 40 / len(self._batches)
        block_s = min(0.5, max(0.02, share_s))
        return end(probe, replace(found, batches=tuple(times(probe, rows, block_s) for rows in self._batches)))

    def _behind(self, trial: Trial) -> float:
        """Return how many times as slow as the best it is, at the size of batch where it is nearest to that."""
        mine = self._results[trial]
        if not mine.ok:
            return math.inf
        able = [result for result in self._results.values() if result.ok]
        objective = self._options.objective
        return min(
            mine.seconds(rows, objective) / min(other.seconds(rows, objective) for other in able)
            for rows in self._batches
        )

    # -- finals ---------------------------------------------------------------------------------------------------

    def _finals(self) -> None:
        """Measure the best of each size of batch in turn beside the default, then what won of them once more."""
        objective = self._options.objective
        ended = self._began + self._options.budget_s
        trials = finalists(self._results, self._default, self._batches, objective)
        found = self._race("the finals", trials, self._began + (1 + SCREENING) / 2 * self._options.budget_s, ended)
        self._results.update(found)
        won = [trial for trial in winners(found, self._default, self._batches, objective) if trial != self._default]
        found = self._race("once more, in fresh processes", [self._default, *won], ended, ended)
        self._results.update({trial: replace(result, confirmed=True) for trial, result in found.items()})

    def _race(self, title: str, trials: Sequence[Trial], until: float, ended: float) -> dict[Trial, Result]:
        """Measure in turn until then; of as many as there is time for. ``ended``: when the budget is used up."""
        left_s = until - time.monotonic()
        trials = in_time(trials, self._results, self._batches, left_s)
        if len(trials) < 2:
            return {}
        self._report(
            f"{title}: {len(trials)} candidates in turn; about {max(0.0, ended - time.monotonic()):.0f} s left"
        )
        contestants = [
            (self._results[one], self._forms[one.form].artifact, self._name_in(self._forms[one.form])) for one in trials
        ]
        return race(contestants, self._samples, self._batches, lambda: until - time.monotonic(), self._report)

    # -- words ----------------------------------------------------------------------------------------------------

    def _name_in(self, form: Form) -> str:
        """Return the signature to run: the only one of a form that has no names is the main one there."""
        return "" if form.made else self._signature.name

    def _out(self, trial: Trial, reason: str) -> Result:
        artifact = self._forms[trial.form].artifact
        return Result(trial, Measured(trial.setting, artifact.kind, str(artifact.path)), reason=reason)

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def _of_form(self, trial: Trial) -> str:
        made = self._forms[trial.form].made
        return f" ({made})" if made else ""

    def _estimate(self, left: int) -> str:
        if not self._screened_s:
            return ""
        each_s = math.fsum(self._screened_s) / len(self._screened_s)
        screening = min(left * each_s, max(0.0, SCREENING * self._options.budget_s - self._elapsed_s()))
        return f"; about {screening + (1 - SCREENING) * self._options.budget_s:.0f} s left"

    def _tell(self, result: Result) -> None:
        if not result.ok:
            self._report(f"  {result.reason}")
            return
        found = [f"{1000 * one.median_s:.3g} ms at {one.rows}" for one in result.measured.batches if one.seconds]
        self._report("  " + ", ".join(found))


def _busy_with_others() -> float | None:
    """Return which share of the processors others use, while nothing of ours runs."""
    before = cpu_times()
    time.sleep(_LOOK_S)
    return busy(before, cpu_times()).share


def _main(signatures: dict[str, Signature]) -> Signature:
    from servable.forge.probe_child import main_signature

    found = main_signature(signatures)
    if found is None:
        raise failed_precondition("the model has no signature that takes inputs and gives outputs")
    return found

"""Following a plan of ``servable tune``: is there one, does it hold here, and a model that runs as it says."""

from __future__ import annotations

import dataclasses
import logging
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path

from servable.core.errors import ServingError, failed_precondition, invalid_argument
from servable.core.signatures import Signature, TensorSpec
from servable.core.spans import Span
from servable.core.tensors import Array
from servable.engines.base import AUTO_PLAN, NO_PLAN, Artifact, EngineOptions, Model, engine_class
from servable.engines.fingerprint import fingerprint, outline
from servable.engines.plan import Choice, choose, load
from servable.engines.tuned_plan import (
    Form,
    Plan,
    Setting,
    machine_key,
    misfit,
    present_plans,
    read_plan,
)

log = logging.getLogger("servable.engines")

_TAGS = ("serve",)


def follow(choice: Choice, artifact: Artifact, options: EngineOptions) -> Choice:
    """Return the choice with the plan that the options name or, with ``auto``, that the cache has for this artifact.

    What does not hold here is refused: FAILED_PRECONDITION for a plan that was named; a line in the log, and the choice
    as it was, for one of the cache.
    """
    found = _fitting(artifact, options)
    if found is None:
        return choice
    if isinstance(found, str):
        if options.plan != AUTO_PLAN:
            raise failed_precondition(
                f"the plan {options.plan} cannot be followed for {artifact.path}: {found}; "
                f"make a new one with servable tune {artifact.path} --plan FILE, or serve with --plan=off"
            )
        log.warning("%s: its plan is not followed: %s; tune it again: servable tune", artifact.path, found)
        return dataclasses.replace(choice, reason=f"{choice.reason}; its plan is not followed: {found}")
    settings = [part.setting for part in found.ranges]
    return dataclasses.replace(
        choice,
        engine="+".join(dict.fromkeys(one.engine for one in settings)),
        precision="+".join(dict.fromkeys(part.precision for part in found.ranges)),
        isolated=any(engine_class(one.engine).isolated for one in settings),
        reason=found.reason(),
        plan=found,
    )


def _fitting(artifact: Artifact, options: EngineOptions) -> Plan | str | None:
    """Return the plan to follow, or why the one that there is cannot be, or ``None`` if there is none."""
    if options.plan != AUTO_PLAN:
        plan = read_plan(Path(options.plan))
        return _in_the_way(artifact, options) or _misfit(plan, artifact, fingerprint(artifact)) or plan
    plans = present_plans()  # mostly none: then nothing of the artifact is read
    files = outline(artifact) if plans else ()
    alike = [plan for _, plan in plans if plan.key.files == files]
    if not alike:
        stale = any(plan.model == str(artifact.path) for _, plan in plans)
        return "it was tuned for other contents of the artifact" if stale else None
    if (reason := _in_the_way(artifact, options)) is not None:
        return reason
    content = fingerprint(artifact)
    reasons = []
    for plan in sorted(alike, key=lambda one: one.key.fingerprint != content):
        reason = _misfit(plan, artifact, content)
        if reason is None:
            return plan
        reasons.append(reason)
    return reasons[0]


def _in_the_way(artifact: Artifact, options: EngineOptions) -> str | None:
    """Return what of this start a plan knows nothing about."""
    if artifact.code is not None:
        return f"{artifact.code.name} {artifact.code_is}, which plans do not cover"
    if options.intra_op_threads or options.inter_op_threads:
        return "numbers of threads are asked for"
    if options.saved_model_tags != _TAGS:
        return f"the tags {','.join(options.saved_model_tags)} are asked for"
    return None


def _misfit(plan: Plan, artifact: Artifact, content: str) -> str | None:
    reason = misfit(plan.key, machine_key(content, (), set(plan.key.libraries)))
    if reason is not None:
        return reason
    for part in plan.ranges:
        found = engine_class(part.setting.engine)
        form = plan.forms[part.form]
        if not found.installed():
            return f"the engine {part.setting.engine} is not installed"
        if form.kind not in found.kinds:
            return f"{part.setting.engine} does not read {form.kind} artifacts"
    for form in plan.forms:
        if form.path and (reason := _spoiled(form, artifact)) is not None:
            return reason
    return None


def _spoiled(form: Form, artifact: Artifact) -> str | None:
    """Return what happened to a form that was made of the artifact, or ``None`` if it is as it was."""
    place = Path(form.path)
    if not place.exists():
        return f"{place}, which was made of {artifact.path.name}, is gone"
    try:
        same = fingerprint(_of_form(form, artifact)) == form.fingerprint
    except ServingError as error:
        return error.message
    return None if same else f"{place} is not what was tuned"


def _of_form(form: Form, artifact: Artifact) -> Artifact:
    if not form.path:
        return artifact
    place = Path(form.path)
    beside = (place if place.is_dir() else place.parent) / "servable.toml"
    return Artifact(form.kind, place, settings=beside if beside.is_file() else None)


def load_planned(plan: Plan, artifact: Artifact, options: EngineOptions) -> Model:
    """Load what the plan needs. A signature that not every form holds is answered by the default engine."""
    loaded: dict[tuple[int, Setting], Model] = {}
    try:
        for part in plan.ranges:
            if (part.form, part.setting) not in loaded:
                form = _of_form(plan.forms[part.form], artifact)
                options.report(f"loading {form.path} with {part.setting}")
                loaded[part.form, part.setting] = _member(form, part.setting, options)
        members = [(part.rows, loaded[part.form, part.setting]) for part in plan.ranges]
        signatures = _own_signatures(artifact, options) or members[0][1].signatures
        covered = {name: one for name, one in signatures.items() if name in plan.signatures}
        names = [held(covered, member.signatures) for _, member in members]
        missing = [
            name for name, one in signatures.items() if _callable(one) and any(name not in held for held in names)
        ]
        rest = None
        if missing:
            options.report(f"loading the default engine for {', '.join(missing)}")
            rest = load(choose(artifact), artifact, dataclasses.replace(options, plan=NO_PLAN))
    except BaseException:
        for model in loaded.values():
            model.close()
        raise
    routes = [(rows, member, held) for (rows, member), held in zip(members, names, strict=True)]
    return PlannedModel(signatures, routes, rest, list(loaded.values()), plan)


class PlannedModel(Model):
    """Several models that answer alike; the number of rows says which is asked. Takes them over.

    ``routes`` are (rows up to which, model, its name for each signature that it holds), in order; ``rest`` answers the
    signatures that they do not all hold.
    """

    def __init__(
        self,
        signatures: Mapping[str, Signature],
        routes: Sequence[tuple[int | None, Model, Mapping[str, str]]],
        rest: Model | None,
        members: Sequence[Model],
        plan: Plan,
    ) -> None:
        self.signatures = signatures
        self.engine = "+".join(dict.fromkeys(model.engine for model in members))
        self.precision = "+".join(dict.fromkeys(part.precision for part in plan.ranges))
        self.concurrent = all(model.concurrent for model in members) and (rest is None or rest.concurrent)
        self._members = [*members, *([rest] if rest is not None else [])]
        self._rest = rest
        self._ends = [rows for rows, _, _ in routes if rows is not None]
        everywhere = set.intersection(*(set(held) for _, _, held in routes))
        self._routes = {name: [(model.run, held[name]) for _, model, held in routes] for name in everywhere}

    def run(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute with the model that is for so many rows: the first dimension of the first input."""
        routes = self._routes.get(signature)
        if routes is None:
            return self._run_rest(signature, inputs, outputs)
        if self._ends:
            shape = next(iter(inputs.values())).shape if inputs else ()
            run, name = routes[bisect_left(self._ends, shape[0] if shape else 1)]
        else:
            run, name = routes[0]
        return run(name, inputs, outputs)

    def _run_rest(self, signature: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if self._rest is not None:
            return self._rest.run(signature, inputs, outputs)
        if signature in self.signatures:
            raise invalid_argument(f"signature {signature!r} cannot be called: it takes or gives nothing")
        raise invalid_argument(f"there is no signature {signature!r}; there are {', '.join(self.signatures)}")

    def begin_profile(self) -> bool:
        """Begin in each that can."""
        return any([model.begin_profile() for model in self._members])  # noqa: C419  # all of them, not up to the first

    def end_profile(self) -> list[Span]:
        """Return what any of them noted."""
        return [span for model in self._members for span in model.end_profile()]

    def begin_serving(self) -> None:
        """Tell all."""
        for model in self._members:
            model.begin_serving()

    def close(self) -> None:
        """Close all."""
        for model in self._members:
            model.close()


def _member(form: Artifact, setting: Setting, options: EngineOptions) -> Model:
    options = dataclasses.replace(
        options,
        intra_op_threads=setting.intra_op_threads,
        inter_op_threads=setting.inter_op_threads,
        streams=setting.streams,
        plan=NO_PLAN,
    )
    choice = choose(form, setting.engine, setting.precision)
    return load(choice, form, options)


def _own_signatures(artifact: Artifact, options: EngineOptions) -> Mapping[str, Signature] | None:
    """Return what the artifact itself says, with the names that its metadata shows; ``None`` if only engines know."""
    if artifact.kind == "saved_model":
        from servable.engines import savedmodel

        return savedmodel.read(artifact.path, options.saved_model_tags).signatures
    if artifact.kind == "onnx":
        from servable.engines import onnx_model

        found = onnx_model.signature(onnx_model.read(artifact.path))
        return {found.name: found}
    return None


def _callable(signature: Signature) -> bool:
    return bool(signature.inputs) and bool(signature.outputs)


def held(signatures: Mapping[str, Signature], found: Mapping[str, Signature]) -> dict[str, str]:
    """Return which signatures of a model another one holds, and under which name: formats without names have one."""
    wanted = [one for one in signatures.values() if _callable(one)]
    if len(wanted) == 1 and len(found) == 1:
        (only,) = found.values()
        return {wanted[0].name: only.name} if _same(wanted[0], only) else {}
    return {one.name: one.name for one in wanted if one.name in found and _same(one, found[one.name])}


def _same(wanted: Signature, found: Signature) -> bool:
    return _types(wanted.inputs) == _types(found.inputs) and _types(wanted.outputs) == _types(found.outputs)


def _types(specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    return {name: spec.dtype.name for name, spec in specs.items()}

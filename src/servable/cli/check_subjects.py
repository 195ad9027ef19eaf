"""What ``servable check`` and its pytest plugin examine: an artifact, in a process of its own, or a served model."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from servable.cli.targets import Served, find_version, parse_target
from servable.core.errors import Code, ServingError
from servable.core.scratch import scratch
from servable.core.signatures import Signature
from servable.engines.base import Artifact, EngineOptions, Model
from servable.engines.plan import Choice, artifact_of_file, choose
from servable.forge.arrays import Tensors
from servable.forge.check.examination import Outputs, Subject
from servable.forge.workshop import load_as
from servable.serving.validation import chosen_outputs, complete_inputs, missing_signature


class ArtifactSubject:
    """An artifact, loaded by the engine that would serve it. In a child process: what ends it ends no check."""

    place = (1, "in another process")

    def __init__(self, target: str, artifact: Artifact, engine: str | None) -> None:
        self.target = target
        self._artifact = artifact
        choice = choose(artifact, engine)
        self.engine = f"{choice.engine} at {choice.precision}"
        self._choice: Choice = dataclasses.replace(choice, isolated=True)
        self._model = self._loaded()
        self._ended = False
        self.signatures: Mapping[str, Signature] = self._model.signatures

    def ask(self, signature: str, inputs: Tensors) -> Outputs:
        """Check names and types as a server does, then compute."""
        found = self.signatures.get(signature)
        if found is None:
            raise missing_signature(signature)
        complete = complete_inputs(found, inputs)
        if self._ended:
            # What comes next is not to be blamed for what ended the process, nor to wait for a server's pauses.
            self._model.close()
            self._model, self._ended = self._loaded(), False
        try:
            return self._model.run(signature, complete, chosen_outputs(found, ()))
        except ServingError as error:
            self._ended = error.code is Code.UNAVAILABLE
            raise

    def reopened(self) -> AbstractContextManager[Subject]:
        """Load it once more."""
        return self._opened(self._artifact)

    @contextlib.contextmanager
    def copied(self) -> Iterator[Subject]:
        """Copy the version's folder, or, of a file that was named by itself, what shares its name."""
        with (
            scratch() as folder,
            self._opened(_copy(self._artifact, folder / "1")) as subject,
        ):
            yield subject

    def elsewhere(self) -> AbstractContextManager[Subject]:
        """Load it once more: each has a process of its own."""
        return self.reopened()

    def close(self) -> None:
        """End its process."""
        self._model.close()

    def _loaded(self) -> Model:
        return load_as(self._choice, self._artifact, EngineOptions(allow_python=True))

    @contextlib.contextmanager
    def _opened(self, artifact: Artifact) -> Iterator[Subject]:
        with contextlib.closing(ArtifactSubject(self.target, artifact, self._choice.engine)) as subject:
            yield subject


class ServedSubject:
    """A model on a running server."""

    engine = ""
    place = (8, "over 8 other connections")

    def __init__(self, target: str, served: Served, version: int | None) -> None:
        from servable.client import Client

        self.target = target
        self._served = served
        self._version = version
        self._client = Client(served.url)
        try:
            self.signatures: Mapping[str, Signature] = self._client.signatures(served.model, version=version)
        except BaseException:
            self._client.close()
            raise

    def ask(self, signature: str, inputs: Tensors) -> Outputs:
        """Send a request."""
        answer = self._client.predict(self._served.model, signature, version=self._version, inputs=inputs)
        return dict(answer.outputs)

    def reopened(self) -> None:
        """Its server alone could load it again."""
        return

    def copied(self) -> None:
        """Its files are not here."""
        return

    def elsewhere(self) -> AbstractContextManager[Subject]:
        """Connect once more: another worker may answer."""
        return contextlib.closing(ServedSubject(self.target, self._served, self._version))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def open_subject(text: str, version: int | None = None, engine: str | None = None) -> ArtifactSubject | ServedSubject:
    """Load or reach what was named on a command line."""
    target = parse_target(text)
    if isinstance(target, Served):
        return ServedSubject(text, target, version)
    return ArtifactSubject(text, find_version(target, version), engine)


def _copy(artifact: Artifact, folder: Path) -> Artifact:
    home = artifact.path if artifact.path.is_dir() else artifact.path.parent
    if artifact.path.name == "model.savedmodel":
        home = home.parent
    if artifact.path.is_dir() or home.name.isdecimal():
        shutil.copytree(home, folder)
        return artifact_of_file(folder)
    folder.mkdir()
    for found in home.glob(f"{artifact.path.stem}.*"):
        if found.is_file():
            shutil.copy2(found, folder)
    return artifact_of_file(folder / artifact.path.name)

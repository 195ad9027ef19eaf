"""What a model's troubles cost the model beside it: a killed process, a load, an unload.

    python -m bench.neighbours [--rounds 5] [--seconds 4] [--rate 3000] [--only WORD]

All in one ordinary server on one core. Beside what happens, h2load asks a one-layer ONNX model, which the server
computes itself, at a fixed rate from the other core, whether answers come or not. Each round has a calm time, then
the trouble; latencies are those of requests that were sent in that time. ``p99 ratio`` is the median over the rounds
of trouble to calm, ``slowest`` the slowest answer of all rounds. ``told`` is when the last of the killed process's
requests had its answer, ``back`` when the next was answered. Memory is that of the server and its processes, one second
after a load and after the unload; the neighbour has brought ONNX Runtime itself (about 30 MB, which stays) before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.processes import LOADER_CORE, family, free_port, pinned, resident_mb, running, wait_until_ok
from bench.questions import PREDICT, samples
from bench.run import REPORTS, conditions, steal_ticks
from servable.client import AsyncClient
from servable.core.errors import Code, ServingError
from servable.zoo import catalog

NEIGHBOUR = "half_plus_two"
CONNECTIONS = 30
IN_FLIGHT = 32
SLOW_MODEL = """
import time
from servable import Tensor

class Slow:
    def predict(self, x: Tensor["float32", "n"]) -> Tensor["float32", "n"]:
        time.sleep(0.5)
        return x
"""


@dataclass
class Round:
    """Latencies in ms of the neighbour's requests, and what was seen of the trouble."""

    calm: list[float]
    trouble: list[float]
    failed: int
    facts: dict[str, float]

    def p99s(self) -> tuple[float, float]:
        return p99(self.calm), p99(self.trouble)


@dataclass
class Trouble:
    """One kind: ``happen`` lets it happen and returns when the time to look at is over, with facts by name."""

    title: str
    happen: Callable[[], dict[str, float]]
    rounds: list[Round] = field(default_factory=list)


def p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100, method="inclusive")[98] if len(latencies) > 1 else float("nan")


class Neighbour:
    """The load: h2load with a log of each request's start and duration."""

    def __init__(self, port: int, rate: int, folder: Path) -> None:
        body = folder / "neighbour.bin"
        body.write_bytes(samples(NEIGHBOUR, (1,))[0].framed(NEIGHBOUR))
        self._log = folder / "neighbour.log"
        self._command = pinned(
            LOADER_CORE,
            [
                "h2load", "-c", str(CONNECTIONS), "-m", "64", f"--rps={rate / CONNECTIONS:g}", "-d", str(body),
                "-H", "content-type: application/grpc", "-H", "te: trailers", "--log-file", str(self._log),
                f"http://127.0.0.1:{port}{PREDICT}",
            ],
        )  # fmt: skip

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Load the server until the block ends."""
        self._log.unlink(missing_ok=True)
        loader = subprocess.Popen([*self._command, "-D", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            loader.send_signal(signal.SIGINT)
            loader.wait(10)

    def requests(self, begin: float, end: float) -> tuple[list[float], int]:
        """Return the latencies in ms of requests sent between two moments (seconds since 1970), and how many failed."""
        found, failed = [], 0
        for line in self._log.read_text().splitlines():
            start_us, status, took_us = map(int, line.split()[:3])
            if begin <= start_us / 1e6 < end:
                found.append(took_us / 1e3)
                failed += status != 200
        return found, failed


def one_round(neighbour: Neighbour, trouble: Trouble, seconds: float) -> Round:
    with neighbour.running():
        time.sleep(1.5)
        calm_begin = time.time()
        time.sleep(seconds)
        calm_end = time.time()
        facts = trouble.happen()
        end = time.time()
        time.sleep(0.3)
    calm, _ = neighbour.requests(calm_begin, calm_end)
    worse, failed = neighbour.requests(calm_end, end)
    return Round(calm, worse, failed, facts)


class Bench:
    """A server with a model to be killed, and places where models come and go."""

    def __init__(self, folder: Path, pid: int, port: int) -> None:
        self.folder = folder
        self.pid = pid
        self.port = port
        self._marks = 0

    def state(self, model: str) -> str:
        url = f"http://127.0.0.1:{self.port}/v1/models/{model}"
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:
                return str(json.load(reply)["model_version_status"][0]["state"])
        except urllib.error.HTTPError:
            return "NONE"

    def wait(self, model: str, state: str, limit_s: float = 120.0) -> None:
        end = time.monotonic() + limit_s
        while self.state(model) != state:
            if time.monotonic() > end:
                raise RuntimeError(f"{model} was not {state} after {limit_s} s, but {self.state(model)}")
            time.sleep(0.1)

    def publish(self, model: str) -> None:
        """Let version 1 appear, whole, in the model's directory."""
        coming = self.folder / "served" / model / "coming"
        shutil.copytree(self.folder / "store" / model, coming)
        coming.rename(coming.with_name("1"))

    def withdraw(self, model: str) -> None:
        shutil.rmtree(self.folder / "served" / model / "1")
        self.wait(model, "END")

    def load(self, model: str) -> dict[str, float]:
        """Load a model; then, while nobody looks, unload it and see what memory comes back."""
        began = time.monotonic()
        before = resident_mb(self.pid)
        self.publish(model)
        self.wait(model, "AVAILABLE")
        return {"load s": time.monotonic() - began, "before MB": before}

    def unload(self, model: str, facts: dict[str, float]) -> None:
        time.sleep(1.0)
        loaded = resident_mb(self.pid)
        self.withdraw(model)
        time.sleep(1.0)
        left = resident_mb(self.pid)
        facts["grew MB"] = loaded - facts["before MB"]
        facts["returned %"] = 100 * (loaded - left) / max(1.0, loaded - facts["before MB"])

    def child(self, label: str) -> int:
        for member in family(self.pid):
            words = Path(f"/proc/{member}/cmdline").read_bytes().split(b"\0")
            if b"servable.engines.child" in words and label.encode() in words:
                return member
        raise RuntimeError(f"{label} has no process")

    def kill(self) -> dict[str, float]:
        """Kill the model's process while it has 32 requests, and ask again until an answer comes."""
        return asyncio.run(self._kill())

    async def _kill(self) -> dict[str, float]:
        async with AsyncClient(f"grpc://127.0.0.1:{self.port}", timeout_s=30) as client:
            asked = [asyncio.ensure_future(self._ask(client)) for _ in range(IN_FLIGHT)]
            await asyncio.sleep(0.1)
            assert not any(each.done() for each in asked), "the requests are in flight"
            os.kill(self.child("slow/1"), signal.SIGKILL)
            killed = time.monotonic()
            answers = await asyncio.gather(*asked)
            unavailable = sum(code is Code.UNAVAILABLE for code, _ in answers)
            told = max(at for _, at in answers) - killed
            while (answer := await self._ask(client))[0] is not Code.OK:
                await asyncio.sleep(0.01)
            # The model itself takes half a second.
            return {"unavailable": unavailable, "told ms": told * 1e3, "back s": answer[1] - killed - 0.5}

    async def _ask(self, client: AsyncClient) -> tuple[Code, float]:
        self._marks += 1
        try:
            await client.predict("slow", x=np.array([self._marks], np.float32))
        except ServingError as error:
            return error.code, time.monotonic()
        return Code.OK, time.monotonic()


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[int, int]]:
    """Ordinary ``servable serve``; it is not ready as long as some models have no version."""
    port = free_port()
    command = [sys.executable, "-m", "servable", "serve", *arguments, "--listen", f"127.0.0.1:{port}"]
    with running([*command, "--log_level", "error"], environment={}) as process:
        wait_until_ok(f"http://127.0.0.1:{port}/healthz", process)
        yield process.pid, port


def build(folder: Path) -> None:
    """Make the models: those in ``store`` are served when they are published."""
    served, store = folder / "served", folder / "store"
    catalog.build(NEIGHBOUR, served, kind="onnx")
    (served / "slow" / "1").mkdir(parents=True)
    (served / "slow" / "1" / "model.py").write_text(SLOW_MODEL)
    for name, kind in (("resnet_tensorflow", "saved_model"), ("resnet_onnx", "onnx")):
        made = catalog.build("resnet50", folder / name, kind=kind)
        store.mkdir(exist_ok=True)
        shutil.copytree(made, store / name)
        shutil.rmtree(folder / name)
        (served / name).mkdir()
    models = "".join(
        f'config {{ name: "{path.name}" base_path: "{path}" }}\n' for path in sorted(served.iterdir()) if path.is_dir()
    )
    (folder / "models.config").write_text(f"model_config_list {{ {models} }}")


def measure(folder: Path, options: argparse.Namespace) -> list[Trouble]:
    arguments = (
        f"--model_config_file={folder}/models.config", "--allow_python", "--file_system_poll_wait_seconds=0.2",
    )  # fmt: skip
    troubles: list[Trouble] = []
    with serving(*arguments) as (pid, port):
        bench = Bench(folder, pid, port)
        for model in (NEIGHBOUR, "slow"):
            bench.wait(model, "AVAILABLE")
        neighbour = Neighbour(bench.port, options.rate, folder)
        troubles.append(Trouble("kill -9 of a Python model's process with 32 requests in flight", bench.kill))
        titles = {
            "resnet_tensorflow": "load of a ResNet-50 SavedModel, in TensorFlow, in a process of its own",
            "resnet_onnx": "load of a ResNet-50 ONNX, in the server's own process",
        }
        loads = {title: model for model, title in titles.items()}
        for model, title in titles.items():
            troubles.append(Trouble(title, lambda model=model: bench.load(model)))  # type: ignore[misc]
        for number in range(options.rounds):
            for trouble in troubles:
                if options.only not in trouble.title:
                    continue
                found = one_round(neighbour, trouble, options.seconds)
                model_loaded = loads.get(trouble.title)
                if model_loaded is not None:
                    bench.unload(model_loaded, found.facts)
                trouble.rounds.append(found)
                calm, worse = found.p99s()
                facts = ", ".join(f"{name} {value:.4g}" for name, value in found.facts.items())
                print(
                    f"round {number + 1}: {trouble.title}: p99 {calm:.2f} -> {worse:.2f} ms, "
                    f"slowest {max(found.trouble):.1f} ms of {len(found.trouble)}, {facts}",
                    flush=True,
                )
    return [trouble for trouble in troubles if trouble.rounds]


def page(troubles: list[Trouble], options: argparse.Namespace, steal: int) -> str:
    summary, _command, method = (__doc__ or "").strip().split("\n\n")
    lines = ["# A model's troubles and the model beside it", "", summary, "", method, ""]
    lines += [
        "| trouble | p99 calm ms | p99 ms | p99 ratio | slowest ms | failed | what was seen |",
        "|" + " --- |" * 7,
    ]
    for trouble in troubles:
        pairs = [found.p99s() for found in trouble.rounds]
        ratio = statistics.median(worse / calm for calm, worse in pairs)
        calm, worse = (statistics.median(values) for values in zip(*pairs, strict=True))
        slowest = max(max(found.trouble) for found in trouble.rounds)
        failed = sum(found.failed for found in trouble.rounds)
        cells = (
            trouble.title,
            f"{calm:.2f}",
            f"{worse:.2f}",
            f"{ratio:.2f}",
            f"{slowest:.1f}",
            failed,
            _facts(trouble),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    command = f"--rounds {options.rounds} --seconds {options.seconds:g} --rate {options.rate}"
    made = f"Command: `python -m bench.neighbours {command}`. {conditions()}"
    lines += ["", f"{made} CPU time stolen during the run: {steal} ticks.", ""]
    return "\n".join(lines)


def _facts(trouble: Trouble) -> str:
    names = [name for name in trouble.rounds[0].facts if name != "before MB"]
    return "; ".join(f"{name}: {', '.join(f'{found.facts[name]:.3g}' for found in trouble.rounds)}" for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long the calm time of each round is")
    parser.add_argument("--rate", type=int, default=3000, help="requests a second of the neighbour's load")
    parser.add_argument("--only", default="", help="only troubles whose title contains this; writes no report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        steal = steal_ticks()
        text = page(measure(folder, options), options, steal_ticks() - steal)
    if not options.only:
        (REPORTS / "neighbours.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

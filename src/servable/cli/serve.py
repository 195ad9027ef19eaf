"""``servable serve``: run a server until SIGTERM, and tell a person what it does meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import threading
import time

from servable.app import Server
from servable.cli import DONE, FAILED
from servable.cli.samples import curl_line
from servable.core.status import VersionState
from servable.engines.machine import cpus
from servable.observe.logs import configure_logs
from servable.settings import ServeSettings, add_flags, read_settings, spell_out

log = logging.getLogger("servable.cli")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every option of the settings."""
    parser.description = (
        "Serve models over TensorFlow Serving's gRPC and REST. PATH is a model directory (with integer version "
        "directories), a root of many models, a version or SavedModel directory, or one artifact file."
    )
    parser.usage = "servable serve [[NAME=]PATH ...] [--FLAG[=VALUE] ...]"
    parser.epilog = "Every flag can be given as an environment variable, SERVABLE_ and its name in capitals."
    parser.add_argument("--version", action="store_true", default=argparse.SUPPRESS, help="print the version and exit")
    add_flags(parser)


def rewrite(words: list[str]) -> list[str]:
    """Return the command line as argparse can read it."""
    return spell_out(words, {"version"})


def run(arguments: argparse.Namespace) -> int:
    """Serve; 0 after an orderly end, 1 if nothing could be served."""
    return serve(read_settings(vars(arguments)))


def serve(settings: ServeSettings) -> int:
    """Serve until SIGTERM with these settings, and say first what of them has no effect."""
    configure_logs(settings.log_level, settings.log_format)
    for line in settings.idle_lines():
        log.warning("%s", line)
    loop_factory = _fast_loop()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        code = runner.run(_serve(settings))
    _leave_threads_behind(code)
    return code


def _fast_loop() -> type[asyncio.AbstractEventLoop]:
    import uvloop

    return uvloop.Loop  # type: ignore[no-any-return]


def _leave_threads_behind(code: int) -> None:
    """End the process at once if a thread is still at work: loading, or computing what the drain did not wait for.

    The interpreter's own end would unwind it inside a framework's C++, which aborts the process.
    """
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


async def _serve(settings: ServeSettings) -> int:
    began = time.monotonic()
    server = Server(settings)

    def on_listening(server: Server) -> None:
        # At once: with port 0 there is no other way to know the port, and loading may take minutes.
        _print(listening(server))

    def on_ready(server: Server, complete: bool) -> None:
        _print(summary(server, time.monotonic() - began, complete=complete))

    return DONE if await server.run(on_listening, on_ready) else FAILED


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def listening(server: Server) -> str:
    """Return where the server listens, and what each port speaks."""
    lines = [""]
    for listener in server.listeners:
        wires = " and ".join(word for key, word in (("h2", "gRPC"), ("h1", "REST")) if key in listener.protocols)
        lines.append(f"  listening on {listener.address}  {wires}{', TLS' if listener.tls else ''}")
    return "\n".join([*lines, ""])


def cpu_plan(settings: ServeSettings, models: int) -> str:
    """Return how the models use the CPUs. Each may use all it can get: the kernel shares them between those at work."""
    found = cpus()
    threads = settings.tensorflow_intra_op_parallelism or found.threads
    plan = f"{found}: {threads} thread{'s' if threads > 1 else ''} for an operation"
    return f"{plan}, shared by {models} models" if models > 1 else plan


def summary(server: Server, seconds: float, *, complete: bool) -> str:
    """Return what a person wants to see once the models are loaded."""
    lines: list[str] = []
    rest = next(
        (
            f"{'https' if port.tls else 'http'}://{port.address}"
            for port in server.listeners
            if "h1" in port.protocols and port.address.path is None
        ),
        "",
    )
    curl = ""
    for loaded in server.manager.loaded():
        lines.append("")
        lines.append(f"  {loaded.name}/{loaded.version}  {loaded.choice.engine} {loaded.choice.precision}")
        lines.append(f"    {loaded.choice.reason}")
        callable_plans = [plan for plan in loaded.executor.plans.values() if plan.signature.inputs]
        for plan in callable_plans:
            batching = "batched" if plan.merge else f"not batched: {plan.reason}"
            lines.append(f"    {plan.signature}  ({batching})")
            if not curl and rest and plan.signature.inputs:
                curl = curl_line(rest, loaded.name, plan.signature)
    for name in server.manager.models():
        for status in server.statuses_of(name):
            if status.error is not None:
                lines += ["", f"  {name}/{status.version}  FAILED  {status.error}"]
            elif status.state is VersionState.START and status.reason:
                lines += ["", f"  {name}/{status.version}  waiting: {status.reason}"]
        problem = server.manager.problem(name)
        if problem is not None:
            lines += ["", f"  {name}  {problem.message}"]
        lines += [f"  {name}/{version}  waiting: {lack}" for version, lack in server.manager.waiting(name).items()]
    lines += ["", f"  {cpu_plan(server.settings, len(server.manager.loaded()))}"]
    lines.append(f"  {'ready' if complete else 'not every model is available'} after {seconds:.2f} s")
    if curl:
        lines += ["", "  try it:", f"  {curl}"]
    return "\n".join([*lines, "", ""])

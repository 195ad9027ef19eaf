"""Writes what docs/reference has of the declared options: ``python -m servable.cli.flags_page [--check]``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from servable.observe.exposition import name_in_text
from servable.observe.tfserving_names import METRICS
from servable.settings import ENVIRONMENT_PREFIX, config_fields, default_text, option_fields
from servable.settings.channel_arguments import CORRESPONDING
from servable.settings.schema import schema_text
from servable.settings.tfserving_flags import IDLE, MAPPED, WORKING

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
PAGE = REFERENCE / "flags.md"
CONFIG_PAGE = REFERENCE / "tfserving-files.md"
METRICS_PAGE = REFERENCE / "tfserving-metrics.md"
SCHEMA = REFERENCE / "servable.schema.json"


def page() -> str:
    """Return the page of flags."""
    lines = [
        "# Flags of `servable serve`",
        "",
        "Generated from `settings.ServeOptions` by `make flags`; do not edit. A flag wins over the environment",
        f"variable (`{ENVIRONMENT_PREFIX}` and the name in capitals), that over [`servable.toml`](servable-toml.md),",
        "that over the default. Booleans take `--flag`, `--flag=true`, `--flag=false`, and the name with *no* before",
        "it; others `--flag=VALUE` or `--flag VALUE`. A flag that does not exist is an error that names the one that",
        "was probably meant.",
        "",
        "`tensorflow_model_server` takes the same flags with TensorFlow Serving's defaults: `--host` is 0.0.0.0,",
        "`--port` 8500, and REST is off. The last column says what a flag of TensorFlow Serving does here.",
        "`servable doctor --flags 'OLD COMMAND LINE'` explains a command line flag by flag.",
        "",
    ]
    rows = []
    for item in option_fields():
        choices = item.metadata["choices"]
        what = item.metadata["help"] + (f": {', '.join(choices)}" if choices else "")
        rows.append((f"`--{item.name}`", default_text(item) or "", what, _theirs(item.name)))
    lines += _table(("flag", "default", "what", "TensorFlow Serving's"), rows)
    lines += ["", "## Accepted from TensorFlow Serving, without effect", ""]
    lines += ["Each prints one line at start: accepted, no effect because ...", ""]
    lines += _table(("flag", "because"), [(f"`--{name}`", flag.reason) for name, flag in IDLE.items()])
    lines += [
        "",
        "`--use_alts_credentials=true` is refused: what was to be protected must not become plain in silence.",
    ]
    lines += ["", "## Names in `--grpc_channel_arguments`", ""]
    lines += _table(
        ("name", "limit of ours"), [(f"`{name}`", f"`{ours}`") for name, (ours, _) in CORRESPONDING.items()]
    )
    return "\n".join([*lines, ""])


def _theirs(name: str) -> str:
    if name in MAPPED:
        return f"mapped {MAPPED[name]}"
    return f"works{f'; {WORKING[name]}' if WORKING[name] else ''}" if name in WORKING else ""


def config_page() -> str:
    """Return the page of the fields of TensorFlow Serving's files."""
    lines = [
        "# TensorFlow Serving's configuration files",
        "",
        "Generated from `settings.config_fields` by `make flags`; do not edit. These files are read as they are, in",
        "protobuf's text format with all its punctuation: `field: { }` and `field { }`, commas and semicolons",
        "between fields, `[...]` lists, `<...>` for braces, comments, adjacent strings, enums by name or number. An",
        "error names file, line, column and field, and what would be right. `servable config convert` turns them",
        "into [`servable.toml`](servable-toml.md), and back.",
        "",
        "A field that has no effect is accepted with one line at start.",
    ]
    for title, intro, table in _FILES:
        lines += ["", f"## {title}", "", intro, "", *_table(("field", "here"), _fields(table))]
    return "\n".join([*lines, ""])


def metrics_page() -> str:
    """Return the page of TensorFlow Serving's metrics."""
    lines = [
        "# TensorFlow Serving's metrics",
        "",
        "Generated from `observe.tfserving_names` by `make flags`; do not edit. The path of a",
        "`--monitoring_config_file`, or of `--monitoring_path`, shows these under TensorFlow Serving's names, with its",
        "labels, types and buckets, in its form of Prometheus' text; then [ours](metrics.md). Dashboards and alerts",
        "that were made for TensorFlow Serving go on. It answers any method, as `text/plain`; with a query it answers",
        "400, as there.",
        "",
        "HandleReloadConfigRequest tells the growth of these by the names with slashes. Paths are those of the last",
        "256 versions that were loaded. Not here: `mlmd_map`, `load_latency_by_stage` and the metrics of TensorFlow's",
        "graph optimizers and of XLA, which tell of what happens inside its process.",
        "",
    ]
    rows = [
        (f"`{name_in_text(name)}`", f"`{name}`", metric.kind, ", ".join(metric.labels), metric.buckets, metric.what)
        for name, metric in METRICS.items()
    ]
    return "\n".join([*lines, *_table(("in the text", "name", "type", "labels", "buckets", "what"), rows), ""])


_FILES = (
    (
        "`--model_config_file`: ModelServerConfig",
        """Read again every `--model_config_file_poll_wait_seconds`, or replaced by HandleReloadConfigRequest: wholly,
or not at all.""",
        config_fields.MODEL_SERVER,
    ),
    (
        "`--batching_parameters_file`, and `batching_params.pbtxt` in a version: BatchingParameters",
        """With `--enable_batching`. In a version it is read with `--enable_per_model_batching_parameters`; its threads
and their name are then those of the server.""",
        config_fields.BATCHING,
    ),
    ("`--monitoring_config_file`: MonitoringConfig", "", config_fields.MONITORING),
    (
        "`--ssl_config_file`: SSLConfig",
        "Protects every TCP port, REST too: a plain port beside it would offer what it protects.",
        config_fields.SSL,
    ),
    (
        "`--tensorflow_session_config_file`: tensorflow.ConfigProto",
        "Fields inside those without effect are not looked at.",
        config_fields.CONFIG_PROTO,
    ),
    (
        "`--platform_config_file`: PlatformConfigMap",
        "For the platform `tensorflow`, with a SavedModelBundleSourceAdapterConfig in it, whose `legacy_config` has:",
        config_fields.PLATFORM,
    ),
)


def _fields(table: Mapping[str, str]) -> list[tuple[str, str]]:
    rows = []
    for name, text in table.items():
        reason = config_fields.idle_reason(text)
        rows.append((f"`{name}`", f"no effect because {reason}" if reason else text))
    return rows


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return a table in Markdown."""
    escaped = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *escaped)]


def main() -> int:
    """Write the files, or with ``--check`` say whether they are what would be written."""
    generated = {PAGE: page(), CONFIG_PAGE: config_page(), METRICS_PAGE: metrics_page(), SCHEMA: schema_text()}
    if "--check" in sys.argv[1:]:
        return 0 if all(path.read_text() == text for path, text in generated.items()) else 1
    for path, text in generated.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

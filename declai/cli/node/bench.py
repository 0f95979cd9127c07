"""`declai node bench`: how fast this machine serves a stage, and what keeps it from being faster."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from declai.chain.fields import NUMERIC_PROFILES
from declai.cli.node.offer import Layers
from declai.cli.node.settings import node_settings
from declai.cli.options import config_option
from declai.cli.output import emit, fields, json_option, steps_progress, table
from declai.worker.model.threads import num_usable_cores, use_passive_waiting
from declai.worker.node.settings import NodeSettings

if TYPE_CHECKING:
    from declai.contributor.bench.subject import Subject

GIB = 2**30
BUSY = 0.5  # load per core at which figures say more about others than about the stage


@click.command()
@click.argument("model_dir", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@config_option
@click.option("--layers", type=Layers(), help="Layers to measure. [default: the offered ones, or all of MODEL_DIR]")
@click.option("--profile", type=click.Choice(NUMERIC_PROFILES), help="Number format. [default: the offer's, or fp32]")
@click.option("--device", help="Such as cuda. [default: the settings', or cpu]")
@click.option("--threads", type=click.IntRange(1, 1024), help="[default: as the node takes them]")
@click.option("--quick", is_flag=True, help="Fewer steps and smaller sizes: rougher figures in less time.")
@json_option
def bench(
    model_dir: Path | None,
    layers: tuple[int, int] | None,
    profile: str | None,
    device: str | None,
    threads: int | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Measure how fast this machine serves layers, and how near that comes to what the machine can do.

    With the settings of a node it takes the layers that the node served last; with MODEL_DIR, a local folder with
    config.json and safetensors; without either, a random model. Needs no chain and no gateway. What else the machine
    does counts: stop the node meanwhile.

    \b
    declai node bench --quick
    declai node bench models/declai-demo --layers 0-2 --profile bf16
    declai node bench --config node.toml --json
    """
    use_passive_waiting()  # before torch loads, as the node does it
    from declai.contributor.bench.report import run

    settings = node_settings() if "DECLAI_CONFIG" in os.environ else None
    with ExitStack() as stack:
        place = (model_dir, layers, profile, device or (settings.device if settings else "cpu"))
        subject = _subject(settings, *place, quick, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        bar = stack.enter_context(steps_progress())
        task = bar.add_task("loading", total=None)
        found = run(
            subject,
            _max_cache_bytes(settings),
            threads=threads or (settings.num_threads if settings else 0) or num_usable_cores(),
            quick=quick,
            started=lambda number: bar.update(task, description="measuring", total=number),
            tick=lambda: bar.advance(task),
        )
    emit(found, as_json, lambda: _render(found))


def _subject(
    settings: NodeSettings | None,
    model_dir: Path | None,
    layers: tuple[int, int] | None,
    profile: str | None,
    device: str,
    quick: bool,
    scratch: Path,
) -> Subject:
    from declai.contributor.bench.subject import from_folder, from_node, made

    if model_dir is not None:
        return from_folder(model_dir, layers, profile or "fp32", device)
    if settings is not None:
        return from_node(settings, layers, profile, device)
    if layers is not None:
        raise click.UsageError("--layers needs a model: name its folder, or a node's settings with --config")
    return made(scratch, profile or "fp32", device, quick=quick)


def _max_cache_bytes(settings: NodeSettings | None) -> int:
    default: int = NodeSettings.model_fields["max_cache_bytes"].default
    return settings.max_cache_bytes if settings else default


def _render(found: dict[str, Any]) -> None:
    model, machine, cache = found["model"], found["machine"], found["cache"]
    first, end = model["layers"]
    fields(
        [
            ("model", model["name"]),
            ("layers", f"{first}-{end - 1} in {model['profile']}"),
            (
                "weights",
                f"{model['num_weights'] / 1e6:.1f} million, {model['weight_bytes'] / GIB:.2f} GiB a step",
            ),
            (
                "sequences",
                "all in one forward" if model["packs_sequences"] else "one after the other, by the model's kind",
            ),
            ("device", f"{machine['device']}, {machine['threads']} threads"),
            ("memory", f"{machine['read_bytes_per_s'] / 1e9:.1f} GB/s can be read"),
            ("arithmetic", f"{machine['flops_per_s'] / 1e9:.0f} GFLOP/s in matrix products"),
            ("cache", f"{cache['bytes_per_token']:,} bytes per token; {_fitting(cache)}"),
        ]
    )
    for name, column in (("decode", "sequences"), ("prefill", "chunk_tokens")):
        click.echo(f"\n{name}")
        columns = [column.replace("_", " "), "tokens/s", "ms/step", "of memory", "of arithmetic"]
        rows = [[row[column], *_cells(row)] for row in found[name]]
        table(columns, rows, "The model's context is too short.")
    click.echo(f"\n{found['bottleneck']}")
    if machine["load_before"] > BUSY * num_usable_cores():
        text = f"other programs use this machine (load {machine['load_before']:g}): alone it would be faster"
        click.secho(text, fg="yellow", err=True)


def _fitting(cache: dict[str, Any]) -> str:
    fits = " or ".join(
        f"{number} sequences of {int(tokens):,}" for tokens, number in cache["sequences_that_fit"].items()
    )
    return f"{fits} tokens fit in {cache['max_cache_bytes'] / GIB:.1f} GiB"


def _cells(row: dict[str, float]) -> list[str]:
    shares = [f"{row[name]:.0%}" for name in ("share_of_memory", "share_of_arithmetic")]
    return [f"{row['tokens_per_s']:.1f}", f"{row['ms_per_step']:.2f}", *shares]

"""`declai devnet`: a whole network on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from types import FrameType
from typing import get_args

import click

from declai.cli.output import emit, fields, json_option, table
from declai.devnet.devnet import DEFAULT_MODEL, Devnet, Options
from declai.devnet.layout import DevnetLayout
from declai.devnet.processes import ChainKind
from declai.errors import DeclaiError
from declai.home import home
from declai.network import Network, load

DOWN_TIMEOUT_S = 40.0
dir_option = click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The devnet's folder. [default: $DECLAI_HOME/devnet]",
)


@click.group("devnet")
def command() -> None:
    """A chain, a broker, a gateway and stage workers, all real, all on this machine.

    \b
    declai devnet up                # Ctrl-C, or `declai devnet down` elsewhere, ends all of it
    declai chat "What is a list?"
    """


def _folder(folder: Path | None) -> Path:
    return (folder or home() / "devnet").resolve()


def _running_pid(layout: DevnetLayout) -> int | None:
    """The process of the devnet in this folder, if it lives."""
    try:
        pid = int(layout.pid_file.read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


@command.command()
@click.option("--nodes", "num_nodes", type=click.IntRange(1, 64), default=3, show_default=True)
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Hugging Face folder. [default: the demo's model, of a checkout]",
)
@click.option("--chain", type=click.Choice(get_args(ChainKind)), default="anvil", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads of each node. [default: the machine's cores]")
@click.option("--settle-every", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Seconds.")
@dir_option
def up(
    num_nodes: int, model: Path | None, chain: ChainKind, threads: int | None, settle_every: float, folder: Path | None
) -> None:
    """Start a network and stay in the foreground. DIR/devnet.json appears when all is ready."""
    model = model or _demo_model()
    layout = DevnetLayout(_folder(folder))
    if (pid := _running_pid(layout)) is not None:
        raise DeclaiError(f"a devnet runs in {layout.folder} already (process {pid}): end it with `declai devnet down`")
    _empty(layout)
    layout.pid_file.write_text(str(os.getpid()))
    devnet = Devnet(
        Options(layout.folder, num_nodes, model, chain, threads, settle_every),
        lambda step: click.echo(f"  {step} ...", err=True),
    )

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    started = time.monotonic()
    try:
        network = devnet.up()
        _announce(network, layout, time.monotonic() - started)
        _watch(devnet)
    except KeyboardInterrupt:
        click.echo("stopping ...", err=True)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
        devnet.down()
        layout.pid_file.unlink(missing_ok=True)


def _demo_model() -> Path:
    if not DEFAULT_MODEL.is_dir():
        raise DeclaiError("the demo's model is part of a checkout, not of the package: name one with --model FOLDER")
    return DEFAULT_MODEL


def _empty(layout: DevnetLayout) -> None:
    """A devnet begins from nothing; a folder that is no devnet's is never emptied."""
    if layout.folder.exists() and any(layout.folder.iterdir()):
        if not (layout.password_file.exists() or layout.pid_file.exists()):
            raise DeclaiError(f"{layout.folder} is not empty and not a devnet's: choose another --dir")
        shutil.rmtree(layout.folder)
    layout.folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _announce(network: Network, layout: DevnetLayout, seconds: float) -> None:
    click.echo(f"ready in {seconds:.1f} s: {layout.network_file}", err=True)
    click.echo(f"  gateway  {network.gateway.url}", err=True)
    click.echo(f"  chain    {network.chain.rpc_url} (id {network.chain.chain_id})", err=True)
    for node in network.nodes:
        click.echo(f"  node     {node.address}  layers {node.layers[0]}-{node.layers[1] - 1}", err=True)
    hint = "" if layout.folder == _folder(None) else f"DECLAI_NETWORK={layout.network_file} "
    click.echo(f'try:  {hint}declai chat "What is a list?"', err=True)


def _watch(devnet: Devnet) -> None:
    reported: set[str] = set()
    while True:
        for child in devnet.dead():
            if child.name not in reported:
                reported.add(child.name)
                click.echo(f"{child.name} ended (code {child.popen.returncode}); its log: {child.log_path}", err=True)
        time.sleep(0.5)


@command.command()
@dir_option
@json_option
def status(folder: Path | None, as_json: bool) -> None:
    """Show what runs."""
    layout = DevnetLayout(_folder(folder))
    pid = _running_pid(layout)
    if pid is None or not layout.network_file.exists():
        raise DeclaiError(f"no devnet is ready in {layout.folder}: `declai devnet up` starts one")
    network = load(layout.network_file)
    alive = [(node, _alive(node.pid)) for node in network.nodes]
    data = {
        "pid": pid,
        "network_file": str(layout.network_file),
        "gateway": network.gateway.url,
        "rpc_url": network.chain.rpc_url,
        "nodes": [{"address": node.address, "layers": node.layers, "pid": node.pid, "alive": a} for node, a in alive],
    }

    def render() -> None:
        fields([(key, value) for key, value in data.items() if key != "nodes"])
        rows = [(n.address, f"{n.layers[0]}-{n.layers[1] - 1}", n.pid, "yes" if a else "no") for n, a in alive]
        table(["node", "layers", "pid", "alive"], rows, "")

    emit(data, as_json, render)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@command.command()
@dir_option
def down(folder: Path | None) -> None:
    """End a devnet and everything it started."""
    layout = DevnetLayout(_folder(folder))
    pid = _running_pid(layout)
    if pid is None:
        click.echo("no devnet runs here", err=True)
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while _running_pid(layout) is not None and _alive(pid):
        if time.monotonic() > deadline:
            raise DeclaiError(f"process {pid} does not end; its children die with it: kill -9 {pid}")
        time.sleep(0.1)

"""`declai ipfs`: content-addressed files in the local block store."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from declai.cli.output import bytes_progress, emit, fields, json_option
from declai.home import home
from declai.ipfs.errors import IpfsError
from declai.ipfs.exchange import Exchange
from declai.ipfs.store import BlockStore

store_option = click.option(
    "--store",
    "store_path",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="DECLAI_BLOCKS",
    help="Block store folder. [default: $DECLAI_HOME/blocks]",
)
peer_option = click.option(
    "--peer", "peers", multiple=True, help="Trustless gateway to fetch missing blocks from; may be repeated."
)


@click.group("ipfs")
def command() -> None:
    """Files by content: CIDs of the profile unixfs-v1-2025, every block verified when it is read.

    \b
    declai ipfs add model.safetensors
    declai ipfs get CID -o copy.safetensors --peer http://127.0.0.1:8080
    """


def _open(path: Path | None) -> BlockStore:
    return BlockStore(path or home() / "blocks")


def _fetch(store: BlockStore, cid: str, peers: tuple[str, ...]) -> None:
    if peers:
        exchange = Exchange(store, peers)
        try:
            exchange.fetch(cid)
        finally:
            exchange.close()


@command.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@store_option
def add(file: Path, store_path: Path | None) -> None:
    """Add FILE and print its CID alone."""
    with bytes_progress() as bar:
        task = bar.add_task(file.name, total=file.stat().st_size)
        cid = _open(store_path).add(file, lambda size: bar.advance(task, size))
    click.echo(cid)


@command.command()
@click.argument("cid")
@store_option
@peer_option
def cat(cid: str, store_path: Path | None, peers: tuple[str, ...]) -> None:
    """Write the file of CID to standard output."""
    store = _open(store_path)
    _fetch(store, cid, peers)
    for piece in store.read(cid):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


@command.command()
@click.argument("cid")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True)
@store_option
@peer_option
def get(cid: str, output: Path, store_path: Path | None, peers: tuple[str, ...]) -> None:
    """Write the file of CID to a file; an existing one is replaced when all of it is there."""
    store = _open(store_path)
    _fetch(store, cid, peers)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file, bytes_progress() as bar:
            task = bar.add_task(output.name, total=store.file_size(cid))
            for piece in store.read(cid):
                file.write(piece)
                bar.advance(task, len(piece))
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


@command.command()
@click.argument("cid")
@store_option
@json_option
def stat(cid: str, store_path: Path | None, as_json: bool) -> None:
    """Print the sizes of CID's DAG."""
    found = _open(store_path).stat(cid)
    emit(vars(found), as_json, lambda: fields(list(vars(found).items())))


@command.command()
@click.argument("cid")
@store_option
@json_option
def verify(cid: str, store_path: Path | None, as_json: bool) -> None:
    """Hash every block of CID; exit 1 when one is missing or damaged."""
    found = _open(store_path).verify(cid)
    data = {"cid": cid, "ok": found.ok, "blocks": found.num_blocks, "missing": found.missing, "corrupt": found.corrupt}
    emit(data, as_json, lambda: fields(list(data.items())))
    if not found.ok:
        raise IpfsError(f"{cid} is not whole: {len(found.missing)} blocks missing, {len(found.corrupt)} damaged")

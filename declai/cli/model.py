"""`declai model`: publish models, and look at those that are published."""

from __future__ import annotations

import time
from pathlib import Path

import click

from declai.chain.contracts.models import ModelVersion, model_id
from declai.chain.fields import to_hex
from declai.chain.index import EventIndex
from declai.chain.sender import TransactionSender
from declai.cli.options import network_option, wallet_options
from declai.cli.output import bytes_progress, emit, fields, json_option, table
from declai.client.aio import chain_of
from declai.extras import require
from declai.home import home
from declai.ipfs.errors import IpfsError
from declai.ipfs.exchange import Exchange
from declai.ipfs.manifest import Manifest
from declai.ipfs.store import BlockStore
from declai.network import Network, load
from declai.wallets import unlock

blocks_option = click.option(
    "--store",
    "store_path",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="DECLAI_BLOCKS",
    help="Block store folder. [default: $DECLAI_HOME/blocks]",
)


@click.group("model")
def command() -> None:
    """Models: one shard per layer, content-addressed, named on chain.

    \b
    declai model publish ./my-model --name my-model --wallet publisher
    declai model pull declai-demo --layers 0-2
    """


@command.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", help="Name on the network. [default: the folder's name]")
@click.option("--license", "license_", help="Licence of the model, an SPDX identifier.")
@click.option("--check/--no-check", default=True, show_default=True, help="Compare the split model with the whole.")
@click.option("--chain/--no-chain", "on_chain", default=True, show_default=True, help="Register the version on chain.")
@blocks_option
@network_option
@wallet_options
@json_option
def publish(
    folder: Path,
    name: str | None,
    license_: str | None,
    check: bool,
    on_chain: bool,
    store_path: Path | None,
    network_path: Path | None,
    wallet_name: str,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Cut the Hugging Face model in FOLDER into shards and publish it."""
    require("node")  # it runs the model, to see that it can be cut
    from declai.ipfs.shards import folder_bytes
    from declai.publish import add_model

    store = BlockStore(store_path or home() / "blocks")
    with bytes_progress() as bar:
        task = bar.add_task("adding shards", total=folder_bytes(folder))
        published = add_model(
            folder,
            name or folder.resolve().name,
            store,
            check=check,
            progress=lambda size: bar.advance(task, size),
            license=license_,
        )
    data = {"name": published.manifest.name, "manifest_cid": published.cid, "layers": published.manifest.num_layers}
    if on_chain:
        network = load(network_path)
        chain = chain_of(network)
        sender = TransactionSender(chain, unlock(wallet_name, network, password_file))
        receipt = sender.send(
            chain.models.publish(published.manifest.name, published.cid, published.manifest.num_layers)
        )
        data["transaction"] = to_hex(bytes(receipt["transactionHash"]))
    emit(data, as_json, lambda: fields(list(data.items())))


@command.command("list")
@network_option
@json_option
def list_(network_path: Path | None, as_json: bool) -> None:
    """List the models on chain."""
    network = load(network_path)
    index = EventIndex(home() / f"index-{network.chain.chain_id}.db", chain_of(network))
    state = index.sync()
    rows = [
        {
            "name": model.name,
            "versions": len(model.versions),
            "layers": model.versions[-1].num_layers,
            "manifest_cid": model.versions[-1].manifest_cid,
            "publisher": model.publisher,
        }
        for model in sorted(state.models.values(), key=lambda model: model.name)
    ]
    index.close()
    names = ["name", "versions", "layers", "manifest_cid"]
    emit(rows, as_json, lambda: table(names, [[row[n] for n in names] for row in rows], "No model is published yet."))


def _version(network: Network, name: str) -> ModelVersion:
    return chain_of(network).models.current(model_id(name))[1]


def _manifest(network: Network, name: str, store: BlockStore) -> tuple[str, Manifest, Exchange]:
    version = _version(network, name)
    exchange = Exchange(store, [network.gateway.url])
    exchange.fetch(version.manifest_cid)
    return version.manifest_cid, Manifest.load(version.manifest_cid, store), exchange


@command.command()
@click.argument("name")
@blocks_option
@network_option
@json_option
def show(name: str, store_path: Path | None, network_path: Path | None, as_json: bool) -> None:
    """Show what a model is made of."""
    network = load(network_path)
    cid, manifest, exchange = _manifest(network, name, BlockStore(store_path or home() / "blocks"))
    exchange.close()
    shards = manifest.shards
    data = {
        "name": manifest.name,
        "manifest_cid": cid,
        "architecture": (manifest.architecture.get("architectures") or ["unknown"])[0],
        "dtype": manifest.dtype,
        "layers": manifest.num_layers,
        "hidden_size": manifest.hidden_size,
        "vocab_size": manifest.vocab_size,
        "context_length": manifest.context_length,
        "bytes": sum(shard.size for shard in (shards.embedding, *shards.layers, shards.head)),
        "license": manifest.license,
    }
    emit(data, as_json, lambda: fields(list(data.items())))


def _range(text: str | None, num_layers: int) -> tuple[int, int]:
    if text is None:
        return 0, num_layers
    first, _, last = text.partition("-")
    try:
        return int(first), int(last or first) + 1
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a range of layers such as 0-5") from None


@command.command()
@click.argument("name")
@click.option("--layers", help="Layers to pull, such as 0-5. [default: all]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the files.")
@blocks_option
@network_option
@json_option
def pull(
    name: str,
    layers: str | None,
    out: Path | None,
    store_path: Path | None,
    network_path: Path | None,
    as_json: bool,
) -> None:
    """Fetch a model's shards, or those of some layers alone, every block verified."""
    from declai.ipfs.shards import pull_stage, pull_tokenizer

    store = BlockStore(store_path or home() / "blocks")
    cid, manifest, exchange = _manifest(load(network_path), name, store)
    folder = out or home() / "models" / cid
    first_layer, end_layer = _range(layers, manifest.num_layers)
    wanted = manifest.stage_shards(first_layer, end_layer)
    with bytes_progress() as bar:
        task = bar.add_task(name, total=sum(shard.size for shard in wanted))
        for shard in wanted:
            exchange.fetch(shard.cid, lambda size: bar.advance(task, size))
    paths = pull_stage(manifest, first_layer, end_layer, store, exchange.fetch, folder)
    pull_tokenizer(manifest, store, exchange.fetch, folder)
    exchange.close()
    data = {"manifest_cid": cid, "folder": str(folder), "files": [path.name for path in paths]}
    emit(data, as_json, lambda: fields(list(data.items())))


@command.command()
@click.argument("name")
@blocks_option
@network_option
@json_option
def verify(name: str, store_path: Path | None, network_path: Path | None, as_json: bool) -> None:
    """Hash every block of a model that is here; exit 1 when one is missing or damaged."""
    store = BlockStore(store_path or home() / "blocks")
    cid = _version(load(network_path), name).manifest_cid
    started = time.monotonic()
    results = {cid: store.verify(cid)}
    if results[cid].ok:
        results |= {found: store.verify(found) for found in Manifest.load(cid, store).cids()}
    bad = [found for found, result in results.items() if not result.ok]
    data = {"manifest_cid": cid, "ok": not bad, "files": len(results), "bad": bad}
    emit(data, as_json, lambda: fields([*data.items(), ("seconds", f"{time.monotonic() - started:.2f}")]))
    if bad:
        raise IpfsError(f"{len(bad)} files of {name} are missing or damaged: declai model pull {name}")

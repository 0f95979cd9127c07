"""`declai market`: what is offered, by whom, for how much."""

from __future__ import annotations

from pathlib import Path

import click

from declai.chain.pricing import format_credits
from declai.cli.options import network_option
from declai.cli.output import emit, json_option, table
from declai.fetch import get_json
from declai.network import load


@click.command("market")
@click.option("--model", help="Offers for this model alone.")
@network_option
@json_option
def command(model: str | None, network_path: Path | None, as_json: bool) -> None:
    """List the offers: model, layers, prices in credits per million token-layers, speed, load."""
    url = load(network_path).gateway.url
    nodes = get_json(url, "/v1/nodes")["data"]
    offers = [node for node in nodes if model is None or node.get("model") == model]
    rows = [
        (
            node["model"],
            f"{node['layers'][0]}-{node['layers'][1] - 1}",
            format_credits(int(node["prompt_price"])),
            format_credits(int(node["output_price"])),
            f"{1e6 * node['seconds_per_token_layer']:.0f} us" if node.get("seconds_per_token_layer") else "-",
            f"{node['running']}/{node['capacity']}" if node.get("live") else "offline",
            node["address"],
        )
        for node in offers
    ]
    columns = ["model", "layers", "prompt", "output", "per token-layer", "load", "node"]
    emit(offers, as_json, lambda: table(columns, rows, "No offers."))

"""`declai node offer`: what a node serves, and for how much."""

from __future__ import annotations

from pathlib import Path

import click

from chain.contracts.nodes import Offer
from chain.fields import NUMERIC_PROFILES, to_hex
from chain.pricing import format_credits
from declai.cli.node.operating import open_operating
from declai.cli.options import CREDITS, network_option, operator_options
from declai.cli.output import emit, fields, json_option


class Layers(click.ParamType[tuple[int, int]]):
    """Layers such as 0-5, both ends served; the value is (first, one after the last)."""

    name = "A-B"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        first, _, last = str(value).partition("-")
        if not (first.isdigit() and (last or first).isdigit() and int(first) <= int(last or first) < 2**16 - 1):
            self.fail(f"{value!r} is not a range of layers such as 0-5", param, ctx)
        return int(first), int(last or first) + 1


@click.command()
@click.argument("model")
@click.option("--layers", type=Layers(), help="Layers to serve, such as 0-5.")
@click.option(
    "--numeric-profile",
    type=click.Choice(list(NUMERIC_PROFILES)),
    default="fp32",
    show_default=True,
    help="Number format that the stage computes in: one offer for each.",
)
@click.option("--prompt-price", type=CREDITS, help="Credits per million token-layers of prompt.")
@click.option("--output-price", type=CREDITS, help="Credits per million token-layers of output.")
@click.option("--remove", is_flag=True, help="Take the offer back.")
@network_option
@operator_options
@json_option
def offer(
    model: str,
    layers: tuple[int, int] | None,
    numeric_profile: str,
    prompt_price: int | None,
    output_price: int | None,
    remove: bool,
    network_path: Path | None,
    wallet_name: str,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Offer layers of MODEL; a new offer takes the place of the one in the same number format.

    A token through six layers is six token-layers. A node serves its offer as it was when it started: start it again.

    \b
    declai node offer my-model --layers 0-5 --prompt-price 1 --output-price 3
    declai node offer my-model --numeric-profile bf16 --remove
    """
    operating = open_operating(network_path, wallet_name, password_file)
    profile = NUMERIC_PROFILES[numeric_profile]
    data: dict[str, object] = {"operator": operating.address, "model": model, "numeric_profile": numeric_profile}
    if remove:
        receipt = operating.operator().remove_offer(model, profile)
        data["removed"] = True
    else:
        if layers is None or prompt_price is None or output_price is None:
            raise click.UsageError("an offer needs --layers, --prompt-price and --output-price (or --remove)")
        receipt = operating.operator().set_offer(model, Offer(*layers, profile, 0, prompt_price, output_price))
        prices = {"prompt_price_units": str(prompt_price), "output_price_units": str(output_price)}
        data |= {"layers": list(layers), **prices}
    data["transaction"] = to_hex(bytes(receipt["transactionHash"]))

    def render() -> None:
        shown = {name: value for name, value in data.items() if not name.endswith("_units") and name != "layers"}
        if layers and not remove:
            shown["layers"] = f"{layers[0]}-{layers[1] - 1}"
            shown["prices"] = f"{format_credits(prompt_price or 0)} prompt, {format_credits(output_price or 0)} output"
        fields(list(shown.items()))

    emit(data, as_json, render)

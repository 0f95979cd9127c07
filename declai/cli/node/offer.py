"""`declai node offer`: what a node serves, and for how much."""

from __future__ import annotations

import re
from pathlib import Path

import click

from declai.chain.contracts.nodes import Offer
from declai.chain.fields import NUMERIC_PROFILES, to_hex
from declai.chain.pricing import format_credits
from declai.cli.node.operating import open_operating
from declai.cli.options import CREDITS, network_option, operator_options
from declai.cli.output import emit, fields, json_option


class Layers(click.ParamType[tuple[int, int]]):
    """Layers such as 0-5, both ends served, or 3 alone; the value is (first, one after the last)."""

    name = "A-B"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", str(value))
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < 2**16 - 1:
            self.fail(f"{value!r} is not a range of layers such as 0-5", param, ctx)
        return first, last + 1


@click.command()
@click.argument("model")
@click.option("--layers", type=Layers(), help="Layers to serve, such as 0-5.")
@click.option(
    "--numeric-profile",
    type=click.Choice(list(NUMERIC_PROFILES)),
    default="fp32",
    show_default=True,
    help="Number format that the stage computes in, of its weights for int8 and int4: one offer for each.",
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
    terms = _terms(layers, numeric_profile, prompt_price, output_price, remove)
    operating = open_operating(network_path, wallet_name, password_file)
    data: dict[str, object] = {"operator": operating.address, "model": model, "numeric_profile": numeric_profile}
    if terms is None:
        receipt = operating.operator().remove_offer(model, NUMERIC_PROFILES[numeric_profile])
        data["removed"] = True
    else:
        receipt = operating.operator().set_offer(model, terms)
        data["layers"] = [terms.first_layer, terms.end_layer]
        data |= {"prompt_price_units": str(terms.prompt_price), "output_price_units": str(terms.output_price)}
    data["transaction"] = to_hex(bytes(receipt["transactionHash"]))
    emit(data, as_json, lambda: fields(_lines(data, terms)))


def _terms(
    layers: tuple[int, int] | None,
    numeric_profile: str,
    prompt_price: int | None,
    output_price: int | None,
    remove: bool,
) -> Offer | None:
    """The offer that the options describe; None takes one back."""
    if remove:
        if layers or prompt_price is not None or output_price is not None:
            raise click.UsageError("--remove takes back an offer as it is: leave --layers and the prices out")
        return None
    if layers is None or prompt_price is None or output_price is None:
        raise click.UsageError("an offer needs --layers, --prompt-price and --output-price (or --remove)")
    return Offer(*layers, NUMERIC_PROFILES[numeric_profile], 0, prompt_price, output_price)


def _lines(data: dict[str, object], terms: Offer | None) -> list[tuple[str, object]]:
    lines = [("operator", data["operator"]), ("model", data["model"]), ("number format", data["numeric_profile"])]
    if terms is None:
        lines.append(("offer", "taken back"))
    else:
        lines.append(("layers", f"{terms.first_layer}-{terms.end_layer - 1}"))
        lines.append(("prompt price", f"{format_credits(terms.prompt_price)} credits per million token-layers"))
        lines.append(("output price", f"{format_credits(terms.output_price)} credits per million token-layers"))
    return [*lines, ("transaction", data["transaction"])]

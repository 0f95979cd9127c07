"""`declai node offer`: which layers in which number format at which price, or none any more."""

from __future__ import annotations

from pathlib import Path

import pytest

from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Role
from declai.chain.fields import NUMERIC_PROFILES
from declai.chain.pricing import UNITS_PER_CREDIT
from tests.support.desks import Desk
from tests.support.world import World

MODEL = "test/offered"
PRICES = ("--prompt-price", "1", "--output-price", "3")


@pytest.fixture(scope="module")
def published(own_world: World) -> str:
    """A model of six layers."""
    own_world.send(own_world.treasury, own_world.chain.models.publish(MODEL, "bafkoffered", 6))
    return MODEL


@pytest.fixture
def worker(desk: Desk, published: str, tmp_path: Path) -> Desk:
    key = str(tmp_path / "link.key")
    desk.ok("node", "register", "--signer", "signer", "--link-key", key, "--endpoint", "tcp://node.example:8082")
    return desk


def offers(desk: Desk) -> dict[int, tuple[int, int, int, int]]:
    """What the registry has of the operator's, by numeric profile."""
    found = desk.chain.nodes.offers(desk.network.wallets["operator"].address, model_id(MODEL))
    return {o.numeric_profile: (o.first_layer, o.end_layer, o.prompt_price, o.output_price) for o in found}


def test_one_offer_for_each_number_format_and_a_new_one_takes_its_place(worker: Desk) -> None:
    done = worker.json("node", "offer", MODEL, "--layers", "0-5", *PRICES)
    assert (done["layers"], done["numeric_profile"]) == ([0, 6], "fp32")
    assert (done["prompt_price_units"], done["output_price_units"]) == (
        str(UNITS_PER_CREDIT),
        str(3 * UNITS_PER_CREDIT),
    )
    worker.ok("node", "offer", MODEL, "--layers", "3", *PRICES, "--numeric-profile", "bf16")
    worker.ok("node", "offer", MODEL, "--layers", "2-3", "--prompt-price", "0", "--output-price", "0.5")
    bf16 = NUMERIC_PROFILES["bf16"]
    one = UNITS_PER_CREDIT
    assert offers(worker) == {0: (2, 4, 0, one // 2), bf16: (3, 4, one, 3 * one)}


def test_an_offer_is_taken_back_once(worker: Desk) -> None:
    worker.ok("node", "offer", MODEL, "--layers", "0-5", *PRICES)
    text = worker.fails("node", "offer", MODEL, "--remove", "--numeric-profile", "int8")
    assert f"has no offer for {MODEL} in int8: name the format" in text
    assert worker.json("node", "offer", MODEL, "--remove")["removed"] is True
    assert offers(worker) == {}
    assert "has no offer" in worker.fails("node", "offer", MODEL, "--remove")


def test_layers_that_the_model_has_not_are_said_with_those_that_it_has(worker: Desk) -> None:
    text = worker.fails("node", "offer", MODEL, "--layers", "4-6", *PRICES)
    assert f"{MODEL} has layers 0-5, not 4-6" in text
    text = worker.fails("node", "offer", "test/nothing", "--layers", "0-1", *PRICES)
    assert "no model is published as 'test/nothing': see `declai model list`" in text
    assert offers(worker) == {}


@pytest.mark.parametrize("layers", ["5-0", "3-", "-3", "1-2-3", "²-3", "a", "0-65535", "0x1", "1 - 2", ""])
def test_what_is_no_range_of_layers(desk: Desk, layers: str) -> None:
    text = desk.fails("node", "offer", MODEL, f"--layers={layers}", *PRICES, code=2)
    assert f"{layers!r} is not a range of layers such as 0-5" in text


def test_options_that_do_not_go_together(desk: Desk) -> None:
    layers = ("--layers", "0-1")
    needs = "an offer needs --layers, --prompt-price and --output-price"
    assert needs in desk.fails("node", "offer", MODEL, *layers, "--prompt-price", "1", code=2)
    assert needs in desk.fails("node", "offer", MODEL, *PRICES, code=2)
    assert "leave --layers and the prices out" in desk.fails("node", "offer", MODEL, "--remove", *layers, code=2)
    assert "leave --layers and the prices out" in desk.fails(
        "node", "offer", MODEL, "--remove", "--prompt-price", "0", code=2
    )
    text = desk.fails("node", "offer", MODEL, *layers, *PRICES, "--numeric-profile", "fp8", code=2)
    assert "'fp8' is not one of 'fp32', 'bf16', 'fp16', 'int8', 'int4'" in text
    text = desk.fails("node", "offer", MODEL, *layers, "--prompt-price", "1e20", "--output-price", "1", code=2)
    assert "'1e20' credits are more than contracts count" in text


def test_the_highest_price_fits_the_contract(worker: Desk) -> None:
    highest = "99999999999999999999.999999999999999999"
    worker.ok("node", "offer", MODEL, "--layers", "0-5", "--prompt-price", highest, "--output-price", highest)
    assert offers(worker)[0][2:] == (10**38 - 1, 10**38 - 1)


def test_a_gateway_offers_no_layers(desk: Desk, published: str) -> None:
    gateway = desk.keep("gateway", desk.world.register(Role.GATEWAY))
    text = desk.fails("node", "offer", MODEL, "--layers", "0-1", *PRICES, "--wallet", "gateway")
    assert f"{gateway.address} is registered as a gateway alone" in text


def test_an_offer_ends_with_the_registration(worker: Desk, tmp_path: Path) -> None:
    worker.ok("node", "offer", MODEL, "--layers", "0-5", *PRICES)
    worker.ok("node", "deregister")
    assert offers(worker) == {}
    assert "has registered no node" in worker.fails("node", "offer", MODEL, "--layers", "0-5", *PRICES)
    assert "has no offer" in worker.fails("node", "offer", MODEL, "--remove")

"""`make demo`: a network on this machine, one streamed answer, its receipts, its settlement; all ends with it."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import click

PROMPT = "What is the for statement?"
BUDGET_CREDITS = "5"


def main() -> None:
    """Run the demo in a folder of its own. Exits 1 when anything does not hold."""
    with tempfile.TemporaryDirectory(prefix="declai-demo-") as scratch:
        os.environ["DECLAI_HOME"] = scratch
        try:
            _run(Path(scratch) / "devnet")
        except KeyboardInterrupt:
            sys.exit(1)
        except Exception as error:
            from declai.cli.output import report_failure

            report_failure(error)
            sys.exit(1)


def _title(text: str) -> None:
    click.secho(f"\n{text}", bold=True)


def _run(folder: Path) -> None:
    # After DECLAI_HOME is set, and late: the first line should appear at once.
    click.secho("DeCLAI: a prompt goes in, three machines' worth of stages answer, the chain says who paid", bold=True)
    from declai.devnet.devnet import Devnet, Options

    started = time.monotonic()
    devnet = Devnet(Options(folder, settle_every_s=3600), lambda step: click.echo(f"  {step} ..."))
    try:
        network = devnet.up()
        click.echo(f"  ready in {time.monotonic() - started:.1f} s")
        _show(devnet, network)
    finally:
        devnet.down()


def _show(devnet: object, network: object) -> None:
    from declai.chain.pricing import format_credits, parse_credits
    from declai.cli.output import fields, table
    from declai.client.sync import Client
    from declai.network import Network, default_path

    assert isinstance(network, Network)
    names = {wallet.address.lower(): name for name, wallet in network.wallets.items()}
    _title("The network")
    rows = [(names[n.address.lower()], f"{n.layers[0]}-{n.layers[1] - 1}", n.endpoint, n.pid) for n in network.nodes]
    table(["stage worker", "layers", "link", "pid"], rows, "")

    with Client(network) as client:
        before = client.balance()
        session = client.open_session(parse_credits(BUDGET_CREDITS))
        _title(f"A wallet asks, every request signed by its session's key ({BUDGET_CREDITS} credits locked on chain)")
        click.echo(f"> {PROMPT}")
        asked = time.monotonic()
        last = None
        for delta in client.stream(PROMPT, max_tokens=160, temperature=0):
            click.echo(delta.text, nl=False)
            sys.stdout.flush()
            last = delta
        seconds = time.monotonic() - asked
        assert last is not None
        assert last.usage is not None
        assert last.request is not None
        click.echo(f"\n[{last.usage.completion_tokens} tokens in {seconds:.1f} s, {last.usage.cost_credits} credits]")

        _title("Receipts, each signed by the node that did the work and checked by the wallet before it acknowledges")
        receipts = client.receipts(last.request)
        table(
            ["stage", "node", "layers", "prompt", "output", "credits"],
            [
                (
                    stage["stage"],
                    names[stage["assignment"]["node"].lower()],
                    f"{stage['assignment']['first_layer']}-{stage['assignment']['end_layer'] - 1}",
                    stage["receipt"]["prompt_tokens"],
                    stage["receipt"]["output_tokens"],
                    format_credits(int(stage["receipt"]["cost"])),
                )
                for stage in receipts["stages"]
            ],
            "none",
        )
        _settle_and_verify(client, network, names, last.request, session.id)
        assert before.wallet_units >= client.balance().wallet_units
    click.echo(f"\nDone. Try it yourself: declai devnet up   ({default_path().name} tells other programs where it is)")
    fields([("total", f"{time.monotonic() - asked + seconds:.1f} s after the network was ready")])


def _settle_and_verify(client: object, network: object, names: dict[str, str], request: str, session: str) -> None:
    from declai.api.settings import GatewaySettings
    from declai.api.settlement.periodic import run_settlement
    from declai.chain.index import EventIndex
    from declai.chain.pricing import format_credits
    from declai.cli.output import fields
    from declai.client.aio import chain_of
    from declai.errors import ReceiptError
    from declai.home import home
    from declai.ipfs.exchange import Exchange
    from declai.ipfs.store import BlockStore
    from declai.network import Network
    from declai.protocol.batch_checks import LedgerFacts, verify_request

    assert isinstance(network, Network)
    os.environ["DECLAI_CONFIG"] = str(home() / "devnet" / "gateway.toml")
    batches = run_settlement(GatewaySettings())
    chain = chain_of(network)
    index = EventIndex(home() / "index.db", chain)
    store = BlockStore(home() / "blocks")
    exchange = Exchange(store, [network.gateway.url])
    facts = LedgerFacts(chain.domain, chain.ledger.max_fee_bps(), index.sync())
    verdict = verify_request(request, facts, store, exchange.fetch)
    exchange.close()
    index.close()
    _title(f"Settled on chain in block {verdict.block}, gas {batches[0]['gas_used']:,}")
    paid = [(f"  {names[node.lower()]} earned", format_credits(units)) for node, units in verdict.earnings.items()]
    fields(
        [
            (f"{names.get(verdict.payer.lower(), verdict.payer)} was charged", format_credits(verdict.cost)),
            *paid,
            ("  gateway's fee", format_credits(verdict.fee)),
        ]
    )
    _title("Verified from the chain and IPFS alone")
    for line in verdict.checks:
        click.echo(f"  ok  {line}")
    settled = chain.ledger.session(bytes.fromhex(session[2:])).settled
    if not verdict.ok or settled != verdict.cost:
        raise ReceiptError(f"the settlement does not hold: {verdict.problems}, {settled} was debited")


if __name__ == "__main__":
    main()

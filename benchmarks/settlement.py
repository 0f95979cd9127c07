"""Gas: per receipt for batches of any size, and of every other thing that people pay gas for. Measured on Anvil.

The reference, measured in the same run, is one voucher per payer and node, as The Graph's contracts redeem them: a
signed total that debits one payer and pays one node. Here that is a batch of one claim and one payout.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from _court import claims_and_proofs, trial
from _gas import Bench
from _kit import record

from declai.chain.messages import new_account
from declai.devnet.processes import start_chain

SIZES = (100, 1_000, 10_000)
HONESTY = [
    "Accounts exist, one request is in flight per session, and the batch goes into a slot that was used before.",
    "The first batch of an epoch that pays a node also reports its last epoch's work: its line stands apart.",
    "Gas of Anvil's Cancun rules; a rollup charges calldata and execution by its own.",
    "The voucher reference is our own leanest path for one payer and one node, not The Graph's deployed code.",
]


def batches(bench: Bench) -> dict[str, Any]:
    """Gas of batches of 10 payers and 6 nodes, first in fresh slots, then in used ones."""
    figures: dict[str, Any] = {}
    for _ in range(5):
        bench.settle(10, 6, 100)
    bench.warp(5 * 86_400)
    bench.settle(10, 6, 100, slot=0)  # the nodes' standings come into being
    bench.warp(5 * 86_400)
    figures["batch_first_of_epoch_gas"], _ = bench.settle(10, 6, 100, slot=1)
    for slot, size in enumerate(SIZES, start=2):
        gas, data = bench.settle(10, 6, size, slot=slot)
        figures[f"batch_{size}_gas"] = gas
        figures[f"batch_{size}_gas_per_receipt"] = round(gas / size, 2)
    calldata = sum(4 if byte == 0 else 16 for byte in data)
    figures |= {
        "split_base": 21_000,
        "split_calldata": calldata,
        "split_signatures": 10 * 3_000,
        "split_storage": 18 * (2_100 + 2_900),
        "split_event": 375 * 4 + 8 * (32 * (5 + 10 + 6)),
    }
    figures["split_computation"] = figures["batch_10000_gas"] - sum(v for k, v in figures.items() if "split" in k)
    return figures


def vouchers(bench: Bench) -> dict[str, Any]:
    """What 10 payers and 6 nodes cost with one voucher for each pair."""
    gas, _ = bench.settle(1, 1, 1)
    each = gas - 17_100  # as in a slot that was used before
    return {"voucher_gas": each, "vouchers_of_60_pairs_gas": 60 * each}


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder, start_chain(Path(folder)) as rpc_url:
        bench = Bench(rpc_url, num_payers=10, num_nodes=6)
        figures: dict[str, Any] = {
            "register_gas": bench.gas_of_register,
            "open_session_gas": bench.gas_of_open,
            "close_session_gas": bench.gas(
                bench.payer.address, bench.chain.ledger.close_session(bench.open(new_account().address))
            ),
        }
        figures |= batches(bench) | vouchers(bench) | trial(bench) | claims_and_proofs(bench)
        record("settlement", figures, HONESTY)


if __name__ == "__main__":
    main()

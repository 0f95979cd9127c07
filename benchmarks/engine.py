"""Three stage processes in a ring against transformers in one process: speed, load, memory, distance between stages.

All that a part compares runs in the same minutes, in rounds that alternate; ratios are of each round's pair. Between a
part's lowest and highest figure lies what else the machine did. `load of others` is the processor time that other
programs took meanwhile, as a share of the whole machine.
"""

import argparse
from collections.abc import Callable
from typing import Any

import _engine_distance
import _engine_load
import _engine_memory
import _engine_speed
from _figures import OtherLoad, Row, print_table
from _kit import keep

from declai.worker.model.threads import use_passive_waiting

PARTS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Row]], list[str]]] = {
    "speed": (_engine_speed.measure, _engine_speed.HONESTY),
    "load": (_engine_load.measure, _engine_load.HONESTY),
    "memory": (_engine_memory.measure, _engine_memory.HONESTY),
    "distance": (_engine_distance.measure, _engine_distance.HONESTY),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts; may be given several times")
    parser.add_argument("--quick", action="store_true", help="one round of small runs: does it work at all?")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: speed alone, 1B model in bf16")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    use_passive_waiting()  # inherited by the stage processes, too: both sides wait in the same way
    for name in options.only or (PARTS if options.device == "cpu" else ["speed"]):
        measure, honesty = PARTS[name]
        others = OtherLoad()
        rows = measure(options)
        figures: dict[str, Any] = {**rows, "load of others": others.share()}
        keep(f"engine_{name}" + ("" if options.device == "cpu" else f"_{options.device}"), figures, honesty)
        print(f"\n{name} (load of others: {figures['load of others']:.0%}, rounds: {options.rounds})")
        print_table(rows)


if __name__ == "__main__":
    main()

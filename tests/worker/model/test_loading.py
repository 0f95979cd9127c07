"""A stage in memory: what stays in its files, what is shared, and how much loading takes at most."""

import subprocess
import sys
from pathlib import Path
from weakref import WeakValueDictionary

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from declai.worker.model import linears
from declai.worker.model.stage import Stage, stage_shards
from tests.support.zoo import NUM_LAYERS, Zoo, cut_into_shards, save_random_model
from tests.support.zoo import _config as config_of

MIB = 2**20


def mappings(path: Path) -> list[tuple[int, int]]:
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    return [(int(begin, 16), int(end, 16)) for begin, end in (line.split()[0].split("-") for line in lines)]


def lies_in(tensor: torch.Tensor, path: Path) -> bool:
    return any(begin <= tensor.data_ptr() < end for begin, end in mappings(path))


def private_kib(path: Path) -> int:
    """Memory that mappings of a file take beside the pages that all who map it share."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith(("Anonymous:", "Private_Dirty:")):
            total += int(line.split()[1])
    return total


def load(zoo: Zoo, files: dict[object, Path], layers: tuple[int, int], profile: str = "fp32") -> Stage:
    architecture = zoo.architecture("llama")
    return Stage.load(architecture, *layers, [files[key] for key in stage_shards(architecture, *layers)], profile)


@pytest.fixture
def files(zoo: Zoo, tmp_path: Path) -> dict[object, Path]:
    """Shards that no other test maps."""
    return dict(cut_into_shards(zoo.architecture("llama"), zoo.folder("llama"), tmp_path / "shards"))


@pytest.mark.parametrize("profile", ["fp32", "bf16", "int8", "int4"])
def test_files_of_weights_laid_out_anew_are_let_go(zoo: Zoo, files: dict[object, Path], profile: str) -> None:
    stage = load(zoo, files, (0, 3), profile)
    assert lies_in(stage._model.get_input_embeddings().weight, files["embedding"])
    assert [mappings(files[layer]) for layer in range(3)] == [[], [], []]


def test_weights_that_need_no_other_form_stay_in_their_files(
    zoo: Zoo, files: dict[object, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linears, "_can_pack", lambda dtype: False)
    stages = [load(zoo, files, (0, 2)) for _ in range(2)]
    rows = [stage.forward(torch.arange(3, 9), stage.new_cache(8, 8)) for stage in stages]
    assert torch.equal(*rows)
    for stage in stages:
        for layer in (0, 1):
            projections = [
                module for module in stage._model.model.layers[layer].modules() if hasattr(module, "in_features")
            ]
            assert len(projections) == 7
            assert all(lies_in(projection.weight, files[layer]) for projection in projections)
    assert all(private_kib(files[key]) == 0 for key in (0, 1, "embedding"))


def test_a_tied_weight_is_read_from_one_place(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linears, "_can_pack", lambda dtype: False)
    stage = Stage.load(zoo.architecture("llama-tied"), 0, NUM_LAYERS, [zoo.folder("llama-tied") / "model.safetensors"])
    embedding, head = stage._model.get_input_embeddings(), stage._model.get_output_embeddings()
    assert embedding.weight.data_ptr() == head.weight.data_ptr()


@pytest.mark.parametrize("profile", ["fp32", "int4"])
def test_stages_that_overlap_share_their_layers(zoo: Zoo, profile: str) -> None:
    shared: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()
    architecture, paths = zoo.architecture("llama"), [zoo.folder("llama") / "model.safetensors"]
    whole = Stage.load(architecture, 0, 5, paths, profile, linears=shared)
    part = Stage.load(architecture, 1, 3, paths, profile, linears=shared)
    name = "model.layers.2.mlp.up_proj"
    assert whole._model.get_submodule(name) is part._model.get_submodule(name)
    rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    alone = Stage.load(architecture, 1, 3, paths, profile)
    assert torch.equal(part.forward(rows, part.new_cache(4, 4)), alone.forward(rows, alone.new_cache(4, 4)))
    del whole, part
    assert not shared


# Loads a stage while a thread watches the memory that belongs to no file; what torch takes once is taken before.
LOADER = """
import sys, threading
from pathlib import Path
from declai.worker.model.architecture import inspect_architecture
from declai.worker.model.stage import Stage

def taken():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024

folder, profile = Path(sys.argv[1]), sys.argv[2]
files = [folder / "model.safetensors"]
architecture = inspect_architecture(folder)
Stage.load(architecture, 1, 2, files, profile)
before = highest = taken()
done = threading.Event()

def watch():
    global highest
    while not done.wait(0.001):
        highest = max(highest, taken())

watcher = threading.Thread(target=watch)
watcher.start()
stage = Stage.load(architecture, 0, architecture.num_layers, files, profile)
done.set()
watcher.join()
print(highest - before)
"""


@pytest.mark.parametrize(("profile", "bits_per_weight"), [("fp32", 32), ("int8", 8)])
def test_loading_takes_what_the_stage_takes_and_a_tensor(tmp_path: Path, profile: str, bits_per_weight: int) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8}
    folder = save_random_model(config_of("llama", **sizes), tmp_path / "model", torch.bfloat16)
    weights = load_file(folder / "model.safetensors").values()
    stage_bytes = sum(weight.numel() for weight in weights) * bits_per_weight // 8
    largest_bytes = max(weight.numel() for weight in weights) * 4
    command = [sys.executable, "-c", LOADER, str(folder), profile]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    assert int(done.stdout) < stage_bytes + 3 * largest_bytes + 8 * MIB


# Runs the same prompt again and again in a thread, as a node does; prints how many pages each run took of the system.
STEPPER = """
import resource, sys, threading
from pathlib import Path
import torch
from declai.worker.model.architecture import inspect_architecture
from declai.worker.model.stage import Stage

folder = Path(sys.argv[1])
stage = Stage.load(inspect_architecture(folder), 0, 2, [folder / "model.safetensors"])

def run():
    for number in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        stage.forward(torch.arange(512), stage.new_cache(512, 512))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def test_steps_use_the_memory_of_steps_before(tmp_path: Path) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 2, "vocab_size": 512}
    folder = save_random_model(config_of("llama", **sizes), tmp_path / "model")
    command = [sys.executable, "-c", STEPPER, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    pages = sorted(map(int, done.stdout.split()))
    assert pages[len(pages) // 2] < 1024  # where nothing is kept 4,000 and more; now and then a block finds no place

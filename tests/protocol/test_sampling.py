"""Sampling: the same draw everywhere, from the right set, with the right odds."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from declai.protocol.errors import NonFiniteLogits
from declai.protocol.options import Sampling
from declai.protocol.sampling import log_probabilities, most_likely, sample

VOCAB_SIZE = 24

parameters_strategy = st.builds(
    Sampling,
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, VOCAB_SIZE + 2),
    top_p=st.floats(0.05, 1),
    min_p=st.floats(0, 0.5),
    seed=st.integers(0, 2**64 - 1),
)


def logits_of(seed: int, size: int = VOCAB_SIZE) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 2).astype(np.float32)


def reference_probabilities(logits: np.ndarray, parameters: Sampling) -> np.ndarray:
    """The distribution after transformers' own processors, in the order in which `generate` applies them."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(parameters.temperature)])
    if parameters.top_k:
        warpers.append(TopKLogitsWarper(parameters.top_k))
    if parameters.top_p < 1:
        warpers.append(TopPLogitsWarper(parameters.top_p))
    if parameters.min_p:
        warpers.append(MinPLogitsWarper(parameters.min_p))
    scores = warpers(torch.zeros(1, 0, dtype=torch.long), torch.from_numpy(logits.copy())[None])
    return scores[0].double().softmax(-1).numpy()


@settings(max_examples=60, deadline=None)
@given(parameters=parameters_strategy, logits_seed=st.integers(0, 10**6))
def test_only_tokens_that_the_filters_keep_are_drawn(parameters: Sampling, logits_seed: int) -> None:
    logits = logits_of(logits_seed)
    allowed = reference_probabilities(logits, parameters) > 0
    assert all(allowed[sample(logits, parameters, position)] for position in range(100))


@pytest.mark.parametrize(
    "parameters",
    [
        Sampling(seed=1),
        Sampling(seed=2, temperature=0.5),
        Sampling(seed=3, temperature=2.0),
        Sampling(seed=4, top_k=5),
        Sampling(seed=5, top_p=0.8),
        Sampling(seed=6, min_p=0.1),
        Sampling(seed=7, temperature=1.5, top_k=12, top_p=0.9, min_p=0.02),
        Sampling(seed=2**64 - 1, top_k=VOCAB_SIZE),
    ],
)
def test_draws_are_distributed_as_softmax(parameters: Sampling) -> None:
    logits, num_draws = logits_of(11), 20_000
    draws = [sample(logits, parameters, position) for position in range(num_draws)]
    expected = reference_probabilities(logits, parameters) * num_draws
    counts = np.bincount(draws, minlength=VOCAB_SIZE)
    possible = expected > 0
    assert not counts[~possible].any()
    chi_square = float(((counts - expected)[possible] ** 2 / expected[possible]).sum())
    freedom = int(possible.sum()) - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)  # about one in 10,000 for an honest sampler; seeds are fixed


def test_draws_at_neighbouring_positions_and_seeds_are_independent() -> None:
    logits = np.zeros(2, dtype=np.float32)
    draws = np.array([[sample(logits, Sampling(seed=seed), at) for at in range(400)] for seed in range(50)])
    assert abs(draws.mean() - 0.5) < 0.015
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.03


def test_the_noise_of_version_one_is_fixed() -> None:
    """An audit reruns old draws: these may never change."""
    logits = np.zeros(1000, dtype=np.float32)
    assert [sample(logits, Sampling(seed=42), position) for position in range(8)] == [
        439,
        433,
        542,
        662,
        478,
        100,
        462,
        580,
    ]
    huge = Sampling(seed=2**64 - 1)
    assert [sample(logits, huge, position) for position in (0, 2**32 - 1)] == [561, 641]


def test_another_process_draws_the_same() -> None:
    code = (
        "import json, numpy as np; from declai.protocol.sampling import *;"
        "logits = (np.random.default_rng(5).standard_normal(300) * 2).astype(np.float32);"
        "print(json.dumps([sample(logits, Sampling(seed=9, top_p=0.9), i) for i in range(50)]))"
    )
    theirs = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    logits = logits_of(5, 300)
    assert theirs == [sample(logits, Sampling(seed=9, top_p=0.9), position) for position in range(50)]


@given(logits_seed=st.integers(0, 10**6), position=st.integers(0, 2**32 - 1), parameters=parameters_strategy)
def test_a_draw_depends_on_nothing_else(logits_seed: int, position: int, parameters: Sampling) -> None:
    logits = logits_of(logits_seed)
    kept = logits.copy()
    first = sample(logits, parameters, position)
    sample(logits, parameters, position + 1)
    assert sample(logits, parameters, position) == first
    assert np.array_equal(logits, kept)


def test_greedy_takes_the_lowest_id_of_equals() -> None:
    logits = np.array([1, 3, 3, -np.inf], dtype=np.float32)
    assert sample(logits, Sampling(temperature=0, seed=5), 3) == 1


@given(top_k=st.integers(1, 6), seed=st.integers(0, 1000))
def test_equal_logits_stay_or_go_together(top_k: int, seed: int) -> None:
    logits = np.array([2, 1, 1, 1, 0], dtype=np.float32)
    kept = {sample(logits, Sampling(temperature=10, top_k=top_k, seed=seed), at) for at in range(200)}
    assert kept == ({0} if top_k == 1 else {0, 1, 2, 3} if top_k <= 4 else {0, 1, 2, 3, 4})


def test_extreme_parameters_still_draw() -> None:
    logits = np.array([0, 1e30, -1e30, -np.inf], dtype=np.float32)
    for parameters in (
        Sampling(temperature=1e-30),
        Sampling(temperature=10, top_k=1),
        Sampling(top_p=1e-30),
        Sampling(min_p=1.0),
    ):
        assert {sample(logits, parameters, position) for position in range(20)} == {1}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    logits = logits_of(1)
    logits[7] = bad
    for temperature in (0.0, 1.0):
        with pytest.raises(NonFiniteLogits):
            sample(logits, Sampling(temperature=temperature), 0)
    with pytest.raises(NonFiniteLogits):
        sample(np.full(4, -np.inf, dtype=np.float32), Sampling(), 0)


token_lists = st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=20)


@settings(max_examples=40, deadline=None)
@given(logits_seed=st.integers(0, 10**6), prompt=token_lists, output=token_lists, penalty=st.floats(0.5, 2))
def test_the_repetition_penalty_is_that_of_transformers(
    logits_seed: int, prompt: list[int], output: list[int], penalty: float
) -> None:
    logits = logits_of(logits_seed)
    scores = torch.from_numpy(logits.copy())[None]
    if prompt + output:
        scores = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt + output]), scores)
    winner = sample(logits, Sampling(temperature=0, repetition_penalty=penalty), 0, prompt, output)
    assert scores[0, winner] == pytest.approx(float(scores.max()), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(logits_seed=st.integers(0, 10**6), output=token_lists, presence=st.floats(-2, 2), frequency=st.floats(-2, 2))
def test_presence_and_frequency_penalties_are_those_of_openai(
    logits_seed: int, output: list[int], presence: float, frequency: float
) -> None:
    logits = logits_of(logits_seed)
    counts = np.bincount(np.array(output, dtype=np.int64), minlength=VOCAB_SIZE)
    expected = logits - presence * (counts > 0) - frequency * counts
    parameters = Sampling(temperature=0, presence_penalty=presence, frequency_penalty=frequency)
    winner = sample(logits, parameters, 0, [1, 2, 3], output)
    assert expected[winner] == pytest.approx(expected.max(), abs=1e-5)


def test_biases_are_added() -> None:
    logits = np.array([3, 2, 1, 0], dtype=np.float32)
    assert sample(logits, Sampling(temperature=0, logit_bias={0: -100.0, 3: 2.5}), 0) == 3
    never = Sampling(logit_bias={0: -100.0, 1: -100.0})
    assert {sample(logits, never, position) for position in range(100)} == {2, 3}


def test_log_probabilities_are_normalised() -> None:
    logits = logits_of(3) * 50
    values = log_probabilities(logits, range(VOCAB_SIZE))
    assert sum(np.exp(values)) == pytest.approx(1)
    assert max(values) <= 0


@given(
    st.lists(st.sampled_from([-np.inf, -3.0, 0.0, 0.5, 7.0]), min_size=1, max_size=40),
    st.integers(0, 45),
)
def test_the_most_likely_are_those_of_a_stable_sort(values: list[float], count: int) -> None:
    logits = np.array(values, dtype=np.float32)
    possible = [token_id for token_id, value in enumerate(values) if value > -np.inf]
    assert most_likely(logits, count) == sorted(possible, key=lambda token_id: -values[token_id])[:count]

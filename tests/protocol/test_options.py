"""Generation options: bounded, consistent, and their sampling committed to in one form for good."""

from __future__ import annotations

import pytest

from declai.protocol.options import GenerationOptions, Grammar, Sampling, stop_strings

ANY = Grammar(kind="regex", text=".*")


@pytest.mark.parametrize(
    "fields",
    [
        {"top_logprobs": 1},
        {"ignore_eos": True, "sampling": Sampling(grammar=ANY)},
        {"stop": ("",)},
        {"stop": ("a" * 257,)},
        {"stop": ("a",) * 17},
        {"logprobs": True, "top_logprobs": 10**6},
        {"surprise": 1},
    ],
)
def test_options_that_contradict_or_pass_their_bounds_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="GenerationOptions"):
        GenerationOptions.model_validate(fields)


def test_what_sampling_is_committed_to_as_does_not_change() -> None:
    """Receipts hold a hash of these bytes: another form, and no stored receipt could be checked any more."""
    sampling = Sampling(temperature=0.7, top_k=3, seed=2**63 + 1, logit_bias={3: 1.5})
    assert sampling.canonical() == (
        b'{"frequency_penalty":0,"logit_bias":{"3":1.5},"min_p":0,"presence_penalty":0,"repetition_penalty":1,'
        b'"seed":"9223372036854775809","temperature":0.7,"top_k":3,"top_p":1}'
    )
    constrained = sampling.model_copy(update={"grammar": ANY})
    assert b'"grammar":{"kind":"regex","text":".*"}' in constrained.canonical()


def test_the_stop_strings_of_a_body() -> None:
    assert stop_strings(None) == stop_strings([]) == ()
    assert stop_strings("ab") == ("ab",)
    assert stop_strings(["a", "b"]) == ("a", "b")

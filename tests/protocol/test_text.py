"""Text from tokens and stop strings in it: any split of the stream gives the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from declai.protocol.text import IncrementalDetokenizer, OutputText, StopMatcher

CORPUS = ["the quick brown fox jumps over the lazy dog, and then héllo wörld 你好 🎉 once more"] * 3


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3, Qwen: any byte is a token, so a character may span several."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2, Mistral, Gemma: pieces with a mark for spaces, bytes for what has no piece, a first space dropped."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"abcdefghijklmnopqrstuvwxyz,."]
    merges = [("t", "h"), ("th", "e"), ("▁", "the")]
    pieces += ["th", "the", "▁the"]
    tokenizer = Tokenizer(
        models.BPE({piece: index for index, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


TOKENIZERS = {"byte-level": byte_level(), "byte-fallback": byte_fallback()}


def pieces_of(tokenizer: Tokenizer, token_ids: list[int]) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer)
    return [*(detokenizer.push(token_id) for token_id in token_ids), detokenizer.flush()]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=st.text(max_size=60) | st.text("the o你🎉é ", max_size=60))
@settings(max_examples=200, deadline=None)
def test_pieces_join_to_the_whole_text(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    token_ids = tokenizer.encode(text).ids
    pieces = pieces_of(tokenizer, token_ids)
    assert "".join(pieces) == tokenizer.decode(token_ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_text_comes_as_soon_as_it_is_certain(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    token_ids = tokenizer.encode("the dog, 🎉 the").ids
    pieces = pieces_of(tokenizer, token_ids)
    held = [piece for piece in pieces[:-1] if not piece]
    assert len(held) <= 4  # the bytes of one character but its last, and a first space that is dropped
    assert pieces[-1] == ""


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(token_ids=st.lists(st.integers(0, 280), max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_tokens_give_text_without_end_of_waiting(kind: str, token_ids: list[int]) -> None:
    detokenizer = IncrementalDetokenizer(TOKENIZERS[kind])
    for token_id in token_ids:
        detokenizer.push(token_id)
        assert len(detokenizer._pending) < 16
        assert len(detokenizer._context) <= 16
    detokenizer.flush()
    assert detokenizer.flush() == ""


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_special_tokens_give_no_text_and_do_not_part_words(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    special = 0 if kind == "byte-level" else 2
    plain = tokenizer.encode("the dog").ids
    mixed = [special, plain[0], special, *plain[1:], special]
    assert "".join(pieces_of(tokenizer, mixed)) == "the dog"


def reference_cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end - len(stop)], stop
    return text, None


stop_lists = st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4)


@given(pieces=st.lists(st.text("ab\n", max_size=6), max_size=12), stops=stop_lists)
@settings(max_examples=500, deadline=None)
def test_the_first_complete_stop_string_cuts_however_the_text_comes(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown, stopped_by = "", None
    for piece in pieces:
        matched = matcher.push(piece)
        shown += matched.text
        stopped_by = stopped_by or matched.stop
    assert (shown + matcher.flush(), stopped_by) == reference_cut("".join(pieces), stops)


@given(text=st.text("abc", max_size=20), stops=stop_lists)
def test_only_what_may_be_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    matched = matcher.push(text)
    if matched.stop is None:
        held = text[len(matched.text) :]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopMatcher(["a", ""])


def text_of(output: OutputText, token_ids: list[int]) -> str:
    return "".join(output.push(token_id) for token_id in token_ids) + output.flush()


def test_an_output_ends_at_its_end_of_sequence_token_special_or_not() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    token_ids = tokenizer.encode("the dog the fox").ids
    end = tokenizer.encode(" the").ids[0]
    output = OutputText(tokenizer, (), {end})
    assert text_of(output, token_ids) == "the dog"
    assert output.ended
    assert text_of(OutputText(tokenizer), token_ids) == "the dog the fox"


def test_what_was_held_back_comes_with_the_end_of_the_sequence() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    *token_ids, end = tokenizer.encode("over the").ids
    output = OutputText(tokenizer, ("r of", "never"), {end})
    assert "".join(output.push(token_id) for token_id in token_ids) == "ove"
    assert output.push(end) == "r"
    assert output.push(end) == output.flush() == ""


def test_without_a_tokenizer_only_the_end_of_the_sequence_is_seen() -> None:
    output = OutputText(None, (), {7})
    assert text_of(output, [1, 2, 3]) == ""
    assert not output.ended
    assert output.push(7) == ""
    assert output.ended

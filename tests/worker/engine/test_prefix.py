"""What the cache finds, held against a plain model: over any order of sessions, input and memory."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker.engine.blocks import FreeBlocks, Run
from worker.engine.cache import CacheManager
from worker.engine.errors import AtCapacity
from worker.engine.prefix import BLOCK_TOKENS, InputChain

NUM_BLOCKS = 12


@given(
    tokens=st.binary(max_size=100),
    cuts=st.lists(st.integers(0, 100), max_size=5),
    salt=st.binary(min_size=1, max_size=2),
    token_bytes=st.integers(1, 3),
)
def test_names_do_not_depend_on_the_pieces(tokens: bytes, cuts: list[int], salt: bytes, token_bytes: int) -> None:
    data = memoryview(b"".join(bytes([token]) * token_bytes for token in tokens))
    whole, pieces = InputChain(salt), InputChain(salt)
    whole.extend(data, len(tokens))
    ends = sorted(min(cut, len(tokens)) for cut in cuts)
    for begin, end in zip([0, *ends], [*ends, len(tokens)], strict=True):
        pieces.extend(data[begin * token_bytes : end * token_bytes], end - begin)
    assert pieces.names == whole.names
    assert len(whole.names) == len(tokens) // BLOCK_TOKENS


def test_a_name_says_all_that_came_before() -> None:
    def names(salt: bytes, tokens: bytes) -> list[bytes]:
        chain = InputChain(salt)
        chain.extend(memoryview(tokens), len(tokens))
        return chain.names

    plain = names(b"a", bytes(48))
    assert len(set(plain)) == 3
    assert names(b"a", bytes(32) + b"x" * 16)[:2] == plain[:2]
    for other in (names(b"b", bytes(48)), names(b"a", b"x" + bytes(47))):
        assert not set(other) & set(plain)
    assert names(b"", bytes(48)) == []


class Cache(RuleBasedStateMachine):
    """`memory` is what really lies in each block: the salt and the input up to its end that made it."""

    def __init__(self) -> None:
        super().__init__()
        self.manager = CacheManager(6, NUM_BLOCKS * 10, block_bytes=10)
        self.memory: list[tuple[bytes, bytes] | None] = [None] * NUM_BLOCKS
        self.salts: dict[bytes, bytes] = {}
        self.lengths: dict[bytes, int] = {}
        self.inputs: dict[bytes, bytes] = {}
        self.computed: dict[bytes, int] = {}
        self.number = 0

    @rule(salt=st.sampled_from([b"", b"a", b"b"]), num_blocks=st.integers(1, 5))
    def add(self, salt: bytes, num_blocks: int) -> None:
        self.number += 1
        name = self.number.to_bytes(4, "big")
        free = self.manager.num_blocks - sum(len(blocks_of(self.manager, other)) for other in self.salts)
        try:
            self.manager.allocate(name, 0, num_blocks * BLOCK_TOKENS, salt)
        except AtCapacity:
            assert num_blocks > free or len(self.salts) == 6
            return
        assert num_blocks <= free  # whatever was left in blocks stands in nobody's way
        self.salts[name], self.inputs[name], self.computed[name] = salt, b"", 0
        self.lengths[name] = num_blocks * BLOCK_TOKENS

    @precondition(lambda self: self.salts)
    @rule(data=st.data(), words=st.lists(st.sampled_from([b"x" * 16, b"y" * 16, b"z" * 5]), min_size=1, max_size=4))
    def feed(self, data: st.DataObject, words: list[bytes]) -> None:
        name = data.draw(st.sampled_from(sorted(self.salts)))
        tokens = b"".join(words)[: self.lengths[name] - len(self.inputs[name])]
        self.manager.feed(name, memoryview(tokens), len(tokens))
        self.inputs[name] += tokens

    @precondition(lambda self: self.salts)
    @rule(data=st.data(), num_tokens=st.integers(1, 40))
    def compute(self, data: st.DataObject, num_tokens: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.salts)))
        self._write(name, min(len(self.inputs[name]), self.computed[name] + num_tokens))

    @precondition(lambda self: self.salts)
    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.salts)))
        end = data.draw(st.integers(0, len(self.inputs[name])))
        found = self.manager.find(name, end)
        longest = self._longest(name, end)
        if found is None:
            assert longest <= self.computed[name] or self.computed[name] % BLOCK_TOKENS
            return
        runs, num_tokens = found
        assert self.computed[name] < num_tokens <= end
        assert num_tokens >= longest
        blocks = [slot // BLOCK_TOKENS for first, length in runs for slot in range(first, first + length, BLOCK_TOKENS)]
        for number, block in enumerate(blocks[: num_tokens // BLOCK_TOKENS], start=1):
            assert self.memory[block] == (self.salts[name], self.inputs[name][: number * BLOCK_TOKENS])
        self._write(name, num_tokens)

    @precondition(lambda self: self.salts)
    @rule(data=st.data(), keep=st.booleans())
    def free(self, data: st.DataObject, keep: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.salts)))
        if not keep:
            for block in blocks_of(self.manager, name):
                self.memory[block] = None
        self.manager.free(name, keep=keep)
        for books in (self.salts, self.inputs, self.computed, self.lengths):
            del books[name]

    @invariant()
    def no_block_has_two_owners(self) -> None:
        self.manager.check_integrity(self.salts)
        blocks = [block for name in self.salts for block in blocks_of(self.manager, name)]
        assert len(blocks) == len(set(blocks))

    def _write(self, name: bytes, end: int) -> None:
        blocks = blocks_of(self.manager, name)
        for number in range(self.computed[name] // BLOCK_TOKENS, -(-end // BLOCK_TOKENS)):
            whole = (number + 1) * BLOCK_TOKENS <= end
            text = self.inputs[name][: (number + 1) * BLOCK_TOKENS]
            self.memory[blocks[number]] = (self.salts[name], text) if whole else None
        self.computed[name] = end
        self.manager.computed(name, end)

    def _longest(self, name: bytes, end: int) -> int:
        """The most that open sessions hold. Ended ones may hold more."""
        found, salt = 0, self.salts[name]
        for other, text in self.inputs.items():
            if salt and self.salts[other] == salt:
                same = common(text[: self.computed[other]], self.inputs[name][:end])
                found = max(found, same // BLOCK_TOKENS * BLOCK_TOKENS)
        return found


def blocks_of(manager: CacheManager, name: bytes) -> list[int]:
    return [
        slot // BLOCK_TOKENS
        for first, length in manager.slots(name)
        for slot in range(first, first + length, BLOCK_TOKENS)
    ]


def common(one: bytes, other: bytes) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


TestCache = Cache.TestCase


def test_what_an_ended_session_left_is_found_until_its_blocks_are_handed_out() -> None:
    manager = CacheManager(4, 60, block_bytes=10)

    def session(name: bytes, tokens: bytes) -> int:
        manager.allocate(name, 0, len(tokens), b"salt")
        manager.feed(name, memoryview(tokens), len(tokens))
        found = manager.find(name, len(tokens))
        manager.computed(name, len(tokens))
        return 0 if found is None else found[1]

    assert session(b"1", bytes(48)) == 0
    manager.free(b"1")
    assert session(b"2", bytes(48)) == 48
    manager.free(b"1")
    manager.free(b"2")
    assert session(b"3", b"x" * 96) == 0
    manager.free(b"3", keep=False)
    assert session(b"4", bytes(48)) == 0
    manager.free(b"4")
    assert session(b"5", b"x" * 48) == 0
    manager.check_integrity([b"5"])


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=60))
def test_a_run_that_was_freed_later_is_never_taken_before_an_older_one(events: list[tuple[int, bool]]) -> None:
    free, held = FreeBlocks(24), list[tuple[Run, ...]]()
    freed_at, now = [0] * 24, 0
    for number, gives in events:
        if gives and held:
            now += 1
            runs = held.pop(number % len(held))
            for block in expanded(runs):
                freed_at[block] = now
            free.give_back(runs)
        elif number <= free.num_free:
            taken = {block for runs in held for block in expanded(runs)}
            ages = [
                max(freed_at[first : first + number])
                for first in range(25 - number)
                if not taken & set(range(first, first + number))
            ]
            held.append(free.take(number))
            assert len(held[-1]) == 1 if ages else len(held[-1]) > 1
            if ages:
                assert max(freed_at[block] for block in expanded(held[-1])) == min(ages)


def expanded(runs: tuple[Run, ...]) -> list[int]:
    return [block for first, length in runs for block in range(first, first + length)]

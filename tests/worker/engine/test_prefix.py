"""What the cache finds, held against a plain model: over any order of sequences, input and memory."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from declai.worker.engine.errors import AtCapacity
from declai.worker.engine.memory.blocks import FreeBlocks
from declai.worker.engine.memory.cache import CacheManager
from declai.worker.engine.memory.prefix import InputChain
from declai.worker.model.layout import BLOCK_TOKENS, CacheLayout, Group, Lane, Run

NUM_BLOCKS = 20


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
    """`memory` is what really lies in each slot: the salt, and the input up to the position that made it."""

    layout = CacheLayout(1, (Group((0,), None, None),))
    most_tokens = 40

    def __init__(self) -> None:
        super().__init__()
        self.manager = CacheManager(6, NUM_BLOCKS * BLOCK_TOKENS, self.layout)
        self.memory: dict[int, tuple[bytes, bytes]] = {}
        self.salts: dict[bytes, bytes] = {}
        self.lengths: dict[bytes, int] = {}
        self.inputs: dict[bytes, bytes] = {}
        self.computed: dict[bytes, int] = {}
        self.number = 0

    @rule(salt=st.sampled_from([b"", b"a", b"b"]), num_blocks=st.integers(1, 5))
    def add(self, salt: bytes, num_blocks: int) -> None:
        self.number += 1
        name, length = self.number.to_bytes(4, "big"), num_blocks * BLOCK_TOKENS
        taken = sum(lane.num_slots for other in self.salts for lane in self.manager.lanes(other))
        needed = self.manager.num_blocks_for(length)
        try:
            self.manager.allocate(name, 0, length, salt)
        except AtCapacity:
            assert needed > NUM_BLOCKS - taken // BLOCK_TOKENS or len(self.salts) == 6
            return
        assert needed <= NUM_BLOCKS - taken // BLOCK_TOKENS  # whatever was left in blocks stands in nobody's way
        self.salts[name], self.inputs[name], self.computed[name], self.lengths[name] = salt, b"", 0, length

    @precondition(lambda self: self.salts)
    @rule(data=st.data(), words=st.lists(st.sampled_from([b"x" * 16, b"y" * 16, b"z" * 5]), min_size=1, max_size=4))
    def feed(self, data: st.DataObject, words: list[bytes]) -> None:
        name = data.draw(st.sampled_from(sorted(self.salts)))
        tokens = b"".join(words)[: self.lengths[name] - len(self.inputs[name])]
        self.manager.feed(name, memoryview(tokens), len(tokens))
        self.inputs[name] += tokens

    @precondition(lambda self: self.salts)
    @rule(data=st.data())
    def compute(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.salts)))
        begin = self.computed[name]
        end = min(len(self.inputs[name]), begin + data.draw(st.integers(1, self.most_tokens)))
        for number, reach in enumerate(self._reaches()):
            first = 0 if reach is None else max(0, begin - reach)
            assert self._lies(name, number, first, begin)  # all that the new tokens attend to
            self._write(name, number, begin, end)
        self.computed[name] = end
        self.manager.computed(name, end)

    @precondition(lambda self: self.salts)
    @rule(data=st.data())
    def find(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.salts)))
        end = data.draw(st.integers(0, len(self.inputs[name])))
        hit = self.manager.find(name, end)
        if hit is None:
            assert self._longest(name, end) <= self.computed[name] or self.computed[name] % BLOCK_TOKENS
            return
        assert self.computed[name] < hit.num_tokens <= end
        assert hit.num_tokens >= self._longest(name, end)
        for number, (lane, first) in enumerate(zip(hit.lanes, hit.firsts, strict=True)):
            assert self._lies(name, number, first, hit.num_tokens, lane)
            self._write(name, number, first, hit.num_tokens)
        self.computed[name] = hit.num_tokens
        self.manager.copied(name, hit)

    @precondition(lambda self: self.salts)
    @rule(data=st.data(), keep=st.booleans())
    def free(self, data: st.DataObject, keep: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.salts)))
        if not keep:
            for slot in slots_of(self.manager.lanes(name)):
                self.memory.pop(slot, None)
        self.manager.free(name, keep=keep)
        for books in (self.salts, self.inputs, self.computed, self.lengths):
            del books[name]

    @invariant()
    def no_slot_has_two_owners(self) -> None:
        self.manager.check_integrity(self.salts)
        slots = [slot for name in self.salts for slot in slots_of(self.manager.lanes(name))]
        assert len(slots) == len(set(slots))

    def _reaches(self) -> list[int | None]:
        return [None if group.window is None else group.window - 1 for group in self.layout.groups]

    def _write(self, name: bytes, number: int, first: int, end: int) -> None:
        lane = self.manager.lanes(name)[number]
        for position in range(first, end):
            self.memory[slot_of(lane, position)] = self.salts[name], self.inputs[name][: position + 1]

    def _lies(self, name: bytes, number: int, first: int, end: int, lane: Lane | None = None) -> bool:
        lane = lane or self.manager.lanes(name)[number]
        return all(
            self.memory.get(slot_of(lane, position)) == (self.salts[name], self.inputs[name][: position + 1])
            for position in range(first, end)
        )

    def _longest(self, name: bytes, end: int) -> int:
        """The most that open sequences hold. Ended ones may hold more."""
        found, salt = 0, self.salts[name]
        for other, text in self.inputs.items():
            if salt and self.salts[other] == salt:
                same = common(text[: self.computed[other]], self.inputs[name][:end])
                found = max(found, same // BLOCK_TOKENS * BLOCK_TOKENS)
        return found


class CacheWithRings(Cache):
    """What a window has left behind is overwritten: nobody has to find it."""

    layout = CacheLayout(1, (Group((0,), None, None), Group((1,), 10, 25)))
    most_tokens = 16

    def _longest(self, name: bytes, end: int) -> int:
        return 0


def slots_of(lanes: Sequence[Lane]) -> list[int]:
    return [slot for lane in lanes for first, length in lane.runs for slot in range(first, first + length)]


def slot_of(lane: Lane, position: int) -> int:
    ((slot, _),) = lane.cut(position, position + 1)
    return slot


def common(one: bytes, other: bytes) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


TestCache = Cache.TestCase
TestCacheWithRings = CacheWithRings.TestCase


def test_what_an_ended_sequence_left_is_found_until_its_blocks_are_handed_out() -> None:
    manager = CacheManager(4, 6 * BLOCK_TOKENS, Cache.layout)

    def sequence(name: bytes, tokens: bytes) -> int:
        manager.allocate(name, 0, len(tokens), b"salt")
        manager.feed(name, memoryview(tokens), len(tokens))
        hit = manager.find(name, len(tokens))
        manager.computed(name, len(tokens))
        return 0 if hit is None else hit.num_tokens

    assert sequence(b"1", bytes(48)) == 0
    manager.free(b"1")
    assert sequence(b"2", bytes(48)) == 48
    manager.free(b"1")
    manager.free(b"2")
    assert sequence(b"3", b"x" * 96) == 0
    manager.free(b"3", keep=False)
    assert sequence(b"4", bytes(48)) == 0
    manager.free(b"4")
    assert sequence(b"5", b"x" * 48) == 0
    manager.check_integrity([b"5"])


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.booleans()), max_size=60))
def test_a_run_that_was_freed_later_is_never_taken_before_an_older_one(events: list[tuple[int, bool, bool]]) -> None:
    free, held = FreeBlocks(24), list[tuple[Run, ...]]()
    freed_at, now = [0] * 24, 0
    for number, gives, findable in events:
        if gives and held:
            now += 1
            runs = held.pop(number % len(held))
            for block in expanded(runs):
                freed_at[block] = now if findable else 0  # where nothing is left, nothing is lost
            free.give_back(runs, findable=findable)
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


def test_blocks_in_which_nothing_can_be_found_are_taken_again_at_once() -> None:
    manager = CacheManager(4, 100 * BLOCK_TOKENS, Cache.layout)
    places = []
    for name in (b"1", b"2"):
        manager.allocate(name, 0, 48)
        places.append(manager.lanes(name))
        manager.free(name)
    assert places[0] == places[1]


def expanded(runs: tuple[Run, ...]) -> list[int]:
    return [block for first, length in runs for block in range(first, first + length)]

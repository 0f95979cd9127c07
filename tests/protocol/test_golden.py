"""What was signed or committed to once can be checked for good: fixed inputs give the values that they always gave."""

from __future__ import annotations

import hashlib

import pytest

from declai.chain.contracts.ledger import Payout
from declai.chain.keystore import decrypt
from declai.chain.merkle import SumTree
from declai.chain.messages import (
    Acceptance,
    Assignment,
    Domain,
    InferenceReceipt,
    InferenceRequest,
    SessionClose,
    SignedMessage,
    digest,
)
from declai.ipfs.cid import RAW, Cid
from declai.protocol.batches import BatchFile, ClaimEntry, Header, PayoutEntry, ReceiptEntry, root_of, sum_tree
from declai.protocol.commitments import Commitment, StageCommitment, output_record
from declai.protocol.jobs import job_id
from declai.protocol.joining import join_text

DOMAIN = Domain(chain_id=31337, ledger="0x" + "42" * 20)
NODE = "0x" + "17" * 20


def word(number: int) -> bytes:
    return bytes([number]) * 32


REQUEST = InferenceRequest(
    session=word(1),
    nonce=7,
    model=word(2),
    body=word(3),
    max_tokens=100,
    tier=1,
    max_cost=10**18,
    acked_below=5,
    spent=10**17,
    deadline=1_800_000_000,
)
ASSIGNMENT = Assignment(
    request=digest(REQUEST, DOMAIN),
    stage=1,
    first_layer=2,
    end_layer=4,
    numeric_profile=0,
    shard=word(4),
    node=NODE,
    prompt_price=10**18,
    output_price=3 * 10**18,
    attempt=0,
    deadline=1_800_000_000,
)
RECEIPT = InferenceReceipt(
    assignment=digest(ASSIGNMENT, DOMAIN),
    node=NODE,
    prompt_tokens=11,
    output_tokens=42,
    inputs=word(5),
    outputs=word(6),
    cost=274 * 10**12,
    started_at=1_799_999_990,
    finished_at=1_799_999_999,
)
# EIP-712 digests, as wallets and contracts have them.
DIGESTS = {
    REQUEST: "26d9335113eb681bb2367c70c9ca5cb5022eaeb5635dc530763dcf2d2e18fe8a",
    ASSIGNMENT: "c6437a394724a10021520ebacc00769428da4ff89630a47cdc031e6a8e7e623f",
    RECEIPT: "2c3ec297e11dbf67cca5b452fe04a231b4c5aef161ced87b67f0c6dd14ed4e0c",
    Acceptance(receipt=digest(RECEIPT, DOMAIN)): "ee95713df616ccd23609d1ce840fdd7f7a6e6848d5b994679ae48ae703f07050",
    SessionClose(
        session=word(1), settled=10**17, deadline=1_800_000_000
    ): "0101137a23c03bcb5553353f2dc75a2a7d9a13aa8506332cbf9940a05c89d7e2",
}


@pytest.mark.parametrize(("message", "expected"), DIGESTS.items(), ids=lambda value: type(value).__name__)
def test_a_signed_message_never_changes(message: SignedMessage, expected: str) -> None:
    assert digest(message, DOMAIN).hex() == expected


def commitment() -> Commitment:
    """Of the second stage, over 40 positions: one full chunk and a part of the next."""
    stage = StageCommitment(job_id(digest(REQUEST, DOMAIN), 0), digest(ASSIGNMENT, DOMAIN), 1, "fp32", word(4))
    rows = bytes(range(40)) * 8
    stage.received(0, rows, 40)
    stage.sent(0, rows[::-1], 40)
    return stage.seal(40, output_record([1, 2, 3], 7, b"{}"))


def test_a_commitment_never_changes() -> None:
    sealed = commitment()
    assert sealed.inputs.hex() == "1fd9b12bf61c4ded80dfc25dead4baced9f67db34b3d66a9fe1589ceda104fb2"
    assert sealed.outputs.hex() == "8a29ac5d339e4cd4bd1d3fbb9533f41308b31708dba94e5d26161a14d5efef86"
    assert sha256(sealed.records) == "1dac978e94a7c7f6a8253f8271ebcfef0f1f9624c530c88af06e169f5d5160f4"


def test_a_batch_never_changes() -> None:
    signature = bytes(64) + b"\x1b"
    receipt = ReceiptEntry(
        request=REQUEST,
        request_signature=signature,
        num_stages=3,
        assignment=ASSIGNMENT,
        assignment_signature=signature,
        receipt=RECEIPT,
        signature=signature,
        records=commitment().records,
    )
    file = BatchFile(
        chain_id=DOMAIN.chain_id,
        ledger=DOMAIN.ledger,
        gateway="0x" + "23" * 20,
        slot=3,
        claims=[ClaimEntry(request=REQUEST, signature=signature, cost=10**15)],
        payouts=[PayoutEntry(node=NODE, receipts=[receipt])],
    )
    tree = sum_tree([receipt], DOMAIN)
    header = Header((tree.root,), Cid.of(RAW, file.to_bytes()))
    root = root_of([Payout(NODE, tree.total)], header.cid.digest)
    assert sha256(file.to_bytes()) == "e6d0d19811bec14d938410781101723c88e641a33490f2131cc19a3c0dfc7c45"
    assert sha256(header.to_bytes()) == "40f529b16df9ddd84833707e145fcc1177970b822cedb11247b04e87dfa3d75b"
    assert root.hex() == "2c1067df6d8e0fbc7c555bfbbe75c6dda8ebbd97395081cd64a1e6518a86111c"


def test_a_sum_tree_never_changes() -> None:
    tree = SumTree([(word(1), 5), (word(2), 6), (word(3), 7)])
    assert tree.root.hex() == "07410daf2616f7c313090da3167581779c9ec1ffa58d67f751c12ee808941ba9"


def test_what_a_node_signs_to_join_never_changes() -> None:
    text = join_text(NODE, 31337, NODE, 1_800_000_000, "ab" * 16)
    assert sha256(text.encode()) == "ae516df75c24b03b8f20c4eefa77bf9cf8b8608d5e09dbfb5a22f395a3ae67e9"


def test_a_keystore_of_other_tools_opens() -> None:
    """The example of the Web3 Secret Storage definition."""
    text = (
        '{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},'
        '"ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2",'
        '"kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256",'
        '"salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},'
        '"mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},'
        '"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}'
    )
    account = decrypt(text, "testpassword")
    assert account.key.hex() == "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

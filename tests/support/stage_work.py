"""What honest stages commit to and sign, without a model: link k carries `hidden(k, position)`."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

from eth_account.signers.local import LocalAccount

from declai.protocol.commitments import StageCommitment, output_record
from declai.protocol.jobs import StageJob
from declai.protocol.options import Sampling
from declai.protocol.receipts import SignedReceipt, build_receipt


def hidden(link: int, position: int, salt: int = 0) -> bytes:
    return struct.pack("<4f", link, position, salt, 0.5)


def commit(job: StageJob, prompt: list[int], output: list[int], salt: int = 0) -> StageCommitment:
    """What an honest stage commits to; with a `salt` it sends other hidden states."""
    commitment = StageCommitment(job.job_id, job.assignment_digest, job.stage, "fp32", bytes(32))
    for position in range(len(prompt) + len(output) - 1):
        token = struct.pack("<I", [*prompt, *output][position])
        commitment.received(position, token if job.is_first else hidden(job.stage, position), 1)
        if job.is_last:
            made = position - len(prompt) + 1
            commitment.sent(position, struct.pack("<I", output[made]) if made >= 0 else b"", 1)
        else:
            commitment.sent(position, hidden(job.stage + 1, position, salt), 1)
    return commitment


def signed_receipts(
    jobs: list[StageJob],
    signers: Sequence[LocalAccount],
    prompt: list[int],
    output: list[int],
    sampling: Sampling,
    *,
    salts: dict[int, int] | None = None,
) -> list[SignedReceipt]:
    """Every stage's receipt; `salts` by stage."""
    now = int(time.time())
    signed = []
    for job, signer in zip(jobs, signers, strict=False):
        record = output_record(output, sampling.seed, sampling.canonical()) if job.is_last else None
        commitment = commit(job, prompt, output, (salts or {}).get(job.stage, 0))
        sealed = commitment.seal(len(prompt) + len(output) - 1, record)
        signed.append(build_receipt(job, sealed, len(output), now - 1, now, signer))
    return signed

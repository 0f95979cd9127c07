"""What a node does with a task, from the envelope to the signed receipt. Runs in a Celery pool thread."""

from __future__ import annotations

import logging
import time
from typing import Protocol

from eth_account.signers.local import LocalAccount

from declai.chain.errors import BadSignature
from declai.chain.fields import NUMERIC_PROFILES
from declai.chain.messages import recover
from declai.ipfs.errors import IpfsError
from declai.protocol.errors import InvalidGrammar, NotServed, TaskRefused, TaskReplayed
from declai.protocol.grammar import Constraint
from declai.protocol.jobs import Envelope, StageJob
from declai.protocol.options import Grammar
from declai.protocol.receipts import acceptance_of, build_receipt
from declai.protocol.ring import Replacement
from declai.protocol.wire import Replaced
from declai.worker.engine import InvalidSequence
from declai.worker.errors import WorkerError
from declai.worker.job.ends import JobEnd
from declai.worker.job.engine_thread import EngineThread
from declai.worker.job.stage_engine import StageEngine, StageIdentity
from declai.worker.job.store import NodeStore, StoredReceipt
from declai.worker.tasks.envelopes import Refused, Terms, check_replacement, open_envelope
from declai.worker.tasks.registry import PeerRegistry

log = logging.getLogger(__name__)

SEND_AGAIN_FOR_S = 24 * 3600


class Engines(Protocol):
    """Where the engine for a job's layers comes from."""

    def get(self, first_layer: int, end_layer: int) -> tuple[StageEngine, StageIdentity]:
        """Raises WorkerError or IpfsError when these layers cannot be served."""

    def constraint(self, grammar: Grammar) -> Constraint:
        """A grammar compiled for the model's tokens. Raises InvalidGrammar."""


class StageService:
    """One node's way with tasks. `account` is the node's signer; it never leaves this object."""

    def __init__(
        self,
        terms: Terms,
        registry: PeerRegistry,
        store: NodeStore,
        engine_thread: EngineThread,
        engines: Engines,
        account: LocalAccount,
    ) -> None:
        self._terms = terms
        self._registry = registry
        self._store = store
        self._engine_thread = engine_thread
        self._engines = engines
        self._account = account

    def send_waiting_receipts(self) -> None:
        """Take up the receipts that an earlier run of this node could not deliver."""
        for stored in self._store.unacknowledged(since=int(time.time()) - SEND_AGAIN_FOR_S):
            self._engine_thread.deliver(stored.job.gateway, stored.receipt.to_frame(stored.job.job_id))

    def keep_acceptance(self, job_id: bytes, acceptance: bytes) -> None:
        """Keep the gateway's word for a receipt. One that is not its word leaves the receipt on its way."""
        stored = self._store.get(job_id)
        if stored is None or not self._is_accepted(stored, acceptance):
            log.warning("the acceptance of job %s is not signed by its gateway", job_id.hex())
            return
        self._store.accept(job_id, acceptance)
        self._engine_thread.delivered(job_id)

    def take_replacement(self, job: StageJob, change: Replacement, frame: Replaced) -> None:
        """Let a job speak with the node that took a place beside it, if that is its gateway's word.

        `change` is what the frame says.
        """
        try:
            check_replacement(change, frame, job, self._terms, self._registry)
        except TaskRefused as reason:
            log.warning("refused a change of job %s: %s", job.job_id.hex(), reason)
            return
        self._engine_thread.replace(change)

    def _is_accepted(self, stored: StoredReceipt, acceptance: bytes) -> bool:
        job = stored.job
        try:
            signer = recover(acceptance_of(stored.receipt.receipt, job.domain), job.domain, acceptance)
            # Who signed the assignment was checked when the job was taken; a changed key is looked up.
            assigned_by = recover(job.assignment, job.domain, job.assignment_signature)
        except BadSignature:
            return False
        return signer == assigned_by or self._registry.gateway_of(signer) == job.gateway.address

    def run_stage(self, envelope: Envelope) -> None:
        """Live as long as the job, then sign and keep its receipt and see it off. Refusals are not errors here."""
        try:
            job = open_envelope(envelope, self._terms, self._registry, self._store.take)
        except Refused as refused:
            log.warning("refused job %s: %s", refused.job.job_id.hex(), refused.reason)
            if isinstance(refused.reason, TaskReplayed):
                return  # the first copy may be running: a word about this one would be taken as the end of that one
            self._engine_thread.refuse(refused.job, refused.reason.code, str(refused.reason))
            return
        except TaskRefused as reason:
            log.warning("dropped a task: %s", reason)
            return
        try:
            engine, identity = self._engines.get(job.assignment.first_layer, job.assignment.end_layer)
            _check_identity(job, identity)
            grammar = job.options.sampling.grammar if job.options is not None else None
            constraint = self._engines.constraint(grammar) if grammar is not None else None
        except InvalidGrammar as error:
            self._engine_thread.refuse(job, InvalidSequence.code, str(error))
            return
        except (IpfsError, NotServed, WorkerError) as error:
            log.error("no stage for job %s: %s", job.job_id.hex(), error)
            self._engine_thread.refuse(job, NotServed.code, str(error))
            return
        started_at = int(time.time())
        end = self._engine_thread.submit(job, engine, identity, constraint).result()
        self._conclude(job, end, started_at)

    def _conclude(self, job: StageJob, end: JobEnd, started_at: int) -> None:
        log.info("job %s ended: %s, %d tokens", job.job_id.hex(), end.code or end.finish_reason, end.num_output_tokens)
        if end.commitment is None:
            return
        finished_at = min(int(time.time()), job.assignment.deadline)
        signed = build_receipt(job, end.commitment, end.num_output_tokens, started_at, finished_at, self._account)
        self._store.save(job, signed)
        self._engine_thread.deliver(job.gateway, signed.to_frame(job.job_id))


def _check_identity(job: StageJob, identity: StageIdentity) -> None:
    """Raises NotServed where the node would sign records that contradict the assignment: those cost it stake."""
    if job.assignment.shard != identity.shard_root:
        raise NotServed(f"the assignment names weights {job.assignment.shard.hex()}, not {identity.shard_root.hex()}")
    if job.assignment.numeric_profile != NUMERIC_PROFILES[identity.profile]:
        raise NotServed(
            f"the assignment names numeric profile {job.assignment.numeric_profile}, not {identity.profile}"
        )

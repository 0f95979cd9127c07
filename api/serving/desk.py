"""Where a request is taken in: prompt into tokens, a plan and its price, admission, and off it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from api.auth.signed import SignedHeader
from api.credits.admission import Admission, Admitted, Asked
from api.errors import ContextLengthExceeded, InvalidRequest
from api.scheduling.nodes import NodeDirectory
from api.serving.catalog import ModelCatalog, ServedModel
from api.serving.generator import Generator
from api.serving.jobs import Generation
from api.serving.quotes import Question, Quote, quote
from api.serving.running import Running
from api.serving.tokenizer import ModelTokenizer
from chain.pricing import Tier
from worker.jobs import Sampling

# When the caller names no limit: enough for an answer, and little enough that its price is no surprise.
DEFAULT_MAX_TOKENS = 512
MAX_TOKENISING = 8


@dataclass(frozen=True)
class Ask:
    """What somebody wants generated. `encode` makes the prompt's token ids; `prompt_param` names it in errors."""

    model: str
    encode: Callable[[ModelTokenizer], list[int]]
    prompt_param: str
    max_tokens: int | None
    tier: Tier
    sampling: Sampling
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: bool = False
    numeric_profile: int | None = None
    exact: bool = False


@dataclass(frozen=True)
class Begun:
    """A request that was admitted and runs."""

    admitted: Admitted
    generation: Generation
    running: Running


class Desk:
    """Takes requests in, for one gateway."""

    def __init__(
        self,
        catalog: ModelCatalog,
        directory: NodeDirectory,
        admission: Admission,
        generator: Generator,
        fee_bps: int,
    ) -> None:
        self._catalog = catalog
        self._directory = directory
        self._admission = admission
        self._generator = generator
        self._fee_bps = fee_bps
        # Long prompts must not take all threads: others wait for the store and the chain in them.
        self._tokenising = asyncio.Semaphore(MAX_TOKENISING)

    async def estimate(self, ask: Ask, max_cost: int | None = None) -> tuple[Generation, Quote]:
        """What would be generated, on which nodes, and for how much at most. Costs nothing.

        Raises:
            GatewayError: the model is not known, the prompt does not fit, or nobody serves it now.
        """
        async with self._tokenising:
            generation = await asyncio.to_thread(self._generation, ask)
        model = generation.model
        question = Question(
            model=model,
            num_prompt_tokens=len(generation.prompt_token_ids),
            max_tokens=generation.max_tokens,
            tier=ask.tier,
            numeric_profile=ask.numeric_profile,
            max_cost=max_cost,
        )
        offers = self._directory.offers(model.id, model.manifest_cid)
        links = self._directory.link_speeds()
        return generation, await asyncio.to_thread(quote, offers, links, question, self._fee_bps)

    async def begin(self, ask: Ask, body: dict[str, Any], payer: SignedHeader | str) -> Begun:
        """Admit a request and start to serve it. `payer` is a signed header, or the session of an API key.

        Raises:
            GatewayError: it is refused, and nothing is charged.
        """
        self._generator.check_room()
        signed = payer if isinstance(payer, SignedHeader) else None
        max_cost = signed.request.max_cost if signed else None
        generation, quoted = await self.estimate(ask, max_cost)
        asked = Asked(generation.model.name, body, generation.max_tokens, ask.tier, quoted.max_cost)
        if isinstance(payer, SignedHeader):
            admitting = asyncio.to_thread(self._admission.admit_signed, payer, asked)
        else:
            admitting = asyncio.to_thread(self._admission.admit_keyed, payer, asked)
        admitted = await admitting
        return Begun(admitted, generation, self._generator.start(admitted, generation, quoted.plan))

    def _generation(self, ask: Ask) -> Generation:
        model = self._catalog.get(ask.model)
        prompt = ask.encode(model.tokenizer)
        if not prompt:
            raise InvalidRequest("the prompt has no tokens: say something", param=ask.prompt_param)
        _check_vocabulary(model, prompt, ask)
        return Generation(
            model=model,
            prompt_token_ids=prompt,
            max_tokens=_room(model, len(prompt), ask),
            sampling=ask.sampling,
            stop=ask.stop,
            ignore_eos=ask.ignore_eos,
            logprobs=ask.logprobs,
            numeric_profile=ask.numeric_profile,
            exact=ask.exact,
        )


def _check_vocabulary(model: ServedModel, prompt: list[int], ask: Ask) -> None:
    size = model.manifest.vocab_size
    if max(prompt) >= size:
        raise InvalidRequest(f"token ids of {model.name} are below {size}, not {max(prompt)}", param=ask.prompt_param)
    foreign = [token_id for token_id in ask.sampling.logit_bias if token_id >= size]
    if foreign:
        raise InvalidRequest(f"token ids of {model.name} are below {size}, not {foreign[0]}", param="logit_bias")


def _room(model: ServedModel, num_prompt_tokens: int, ask: Ask) -> int:
    """How many tokens may be made. Raises ContextLengthExceeded."""
    context = model.manifest.context_length
    room = context - num_prompt_tokens
    wanted = ask.max_tokens if ask.max_tokens is not None else max(min(DEFAULT_MAX_TOKENS, room), 1)
    if wanted > room:
        param = ask.prompt_param if room < 1 else "max_tokens"
        raise ContextLengthExceeded(
            f"{model.name} has a context of {context} tokens; the prompt has {num_prompt_tokens} and {wanted} more are "
            "asked for: shorten the prompt or lower max_tokens",
            param=param,
        )
    return wanted

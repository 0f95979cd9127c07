"""Where a request is taken in: prompt into tokens, a plan and its price, admission, and off it goes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from declai.api.credits.admission import Admission, Admitted, Asked
from declai.api.errors import ContextLengthExceeded, InvalidRequest
from declai.api.nodes.directory import NodeDirectory
from declai.api.serving.catalog import ModelCatalog, ServedModel
from declai.api.serving.choices import Choices
from declai.api.serving.generator import Generator
from declai.api.serving.quoting import quote_now
from declai.api.serving.running import Arrivals, Running
from declai.api.serving.stage_jobs import Generation
from declai.chain.pricing import Tier
from declai.planning.placement import Plan
from declai.planning.quotes import Quote
from declai.protocol.errors import InvalidGrammar, TemplateRefused
from declai.protocol.options import GenerationOptions, seed_of_choice
from declai.protocol.prompts import PromptSource
from declai.protocol.signed_requests import SignedHeader

# When the caller names no limit: enough for an answer, and little enough that its price is no surprise.
DEFAULT_MAX_TOKENS = 512
MAX_TOKENISING = 8


@dataclass(frozen=True)
class ParsedRequest:
    """A request's body, parsed and bounded: what somebody wants generated, and what the plan for it must keep to.

    `max_tokens` is None where the caller names no limit; `grammar_param` is the body's field with the grammar.
    """

    model: str
    prompt: PromptSource
    max_tokens: int | None
    options: GenerationOptions
    tier: Tier
    grammar_param: str = "response_format"
    num_choices: int = 1
    numeric_profile: int | None = None
    exact: bool = False


@dataclass(frozen=True)
class Begun:
    """A request that was admitted and runs."""

    admitted: Admitted
    generation: Generation
    running: Running


class Intake:
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

    async def estimate(self, asked: ParsedRequest, max_cost: int | None = None) -> tuple[Generation, Quote]:
        """What would be generated, on which nodes, and for how much at most. Costs nothing.

        Raises:
            GatewayError: the model is not known, the prompt does not fit, or nobody serves it now.
        """
        async with self._tokenising:
            generation = await asyncio.to_thread(self._generation, asked)
        return generation, await quote_now(self._directory, generation, asked.tier, self._fee_bps, max_cost=max_cost)

    async def begin(
        self, asked: ParsedRequest, body: dict[str, Any], payer: SignedHeader | str
    ) -> tuple[list[Begun], Choices]:
        """Admit a request and start to serve it. `payer` is a signed header, or the session of an API key.

        A request pays one output, so several choices are as many requests.

        Raises:
            GatewayError: it is refused, and nothing is charged.
        """
        if asked.num_choices > 1 and isinstance(payer, SignedHeader):
            raise InvalidRequest("a signed request pays one output: sign one for each choice, with n 1", param="n")
        self._generator.check_room(asked.num_choices)
        signed = payer if isinstance(payer, SignedHeader) else None
        max_cost = signed.request.max_cost if signed else None
        generation, quoted = await self.estimate(asked, max_cost)
        priced = Asked(generation.model.name, body, generation.max_tokens, asked.tier, quoted.max_cost)
        if isinstance(payer, SignedHeader):
            admitted = [await asyncio.to_thread(self._admission.admit_signed, payer, priced)]
        else:
            admitted = await asyncio.to_thread(self._admission.admit_keyed_set, payer, priced, asked.num_choices)
        arrivals: Arrivals = asyncio.Queue()
        begun = [self._start(one, generation, quoted.plan, choice, arrivals) for choice, one in enumerate(admitted)]
        return begun, Choices([choice.running for choice in begun], arrivals)

    def _start(self, admitted: Admitted, generation: Generation, plan: Plan, choice: int, arrivals: Arrivals) -> Begun:
        sampling = generation.options.sampling
        seeded = sampling.model_copy(update={"seed": seed_of_choice(sampling.seed, choice)})
        chosen = replace(generation, options=generation.options.model_copy(update={"sampling": seeded}))
        return Begun(admitted, chosen, self._generator.start(admitted, chosen, plan, choice, arrivals))

    def _generation(self, asked: ParsedRequest) -> Generation:
        model = self._catalog.get(asked.model)
        try:
            prompt = model.tokenizer.encode_prompt(asked.prompt)
        except TemplateRefused as error:
            raise InvalidRequest(str(error), param=asked.prompt.field) from None
        if not prompt:
            raise InvalidRequest("the prompt has no tokens: say something", param=asked.prompt.field)
        _check_vocabulary(model, prompt, asked)
        _check_grammar(model, asked)
        return Generation(
            model=model,
            prompt_token_ids=prompt,
            max_tokens=_room(model, len(prompt), asked),
            options=asked.options,
            numeric_profile=asked.numeric_profile,
            exact=asked.exact,
        )


def _check_vocabulary(model: ServedModel, prompt: list[int], asked: ParsedRequest) -> None:
    size = model.manifest.vocab_size
    if max(prompt) >= size:
        raise InvalidRequest(f"token ids of {model.name} are below {size}, not {max(prompt)}", param=asked.prompt.field)
    foreign = [token_id for token_id in asked.options.sampling.logit_bias if token_id >= size]
    if foreign:
        raise InvalidRequest(f"token ids of {model.name} are below {size}, not {foreign[0]}", param="logit_bias")


def _check_grammar(model: ServedModel, asked: ParsedRequest) -> None:
    """Compile what the last stage will compile: a grammar that fails there would cost the caller its time."""
    if asked.options.sampling.grammar is None:
        return
    try:
        model.grammars.constraint(asked.options.sampling.grammar)
    except InvalidGrammar as error:
        raise InvalidRequest(f"no output can be held to this format: {error}", param=asked.grammar_param) from None


def _room(model: ServedModel, num_prompt_tokens: int, asked: ParsedRequest) -> int:
    """How many tokens may be made. Raises ContextLengthExceeded."""
    context = model.manifest.context_length
    room = context - num_prompt_tokens
    wanted = asked.max_tokens if asked.max_tokens is not None else max(min(DEFAULT_MAX_TOKENS, room), 1)
    if wanted > room:
        param = asked.prompt.field if room < 1 else "max_tokens"
        raise ContextLengthExceeded(
            f"{model.name} has a context of {context} tokens; the prompt has {num_prompt_tokens} and {wanted} more are "
            "asked for: shorten the prompt or lower max_tokens",
            param=param,
        )
    return wanted

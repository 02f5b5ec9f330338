"""A managed model as a predictor: asked over the network, paid by the token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain

from thriftune.managed.backends import Opened
from thriftune.managed.patience import patiently
from thriftune.managed.types import Answer, Question
from thriftune.money.tokens import Purchase, TokenMeter
from thriftune.tasks.base import Prediction, Request

AT_ONCE = 8  # requests in flight
CONTEXT_TOKENS = 1_048_576  # documented for Gemini 2.5, base and tuned


@dataclass(frozen=True)
class ManagedPredictor:
    """A managed model that answers.

    Args:
        name: as reports show it.
        model: who is asked.
        question: makes a question of a request, with a limit on the answer's tokens.
        max_new_tokens: the longest answer when a request names no limit.
        meter: buys the tokens; None where they are on the caller's account.
    """

    name: str
    model: Opened
    question: Callable[..., Question]
    max_new_tokens: int
    meter: TokenMeter | None = None
    context_tokens: int = CONTEXT_TOKENS

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """One greedy answer a request, in order; together they are one purchase.

        Raises:
            OutOfBudget: the money left does not hold their tokens; nothing was asked.
            BadInput: the provider refuses, or is out of reach.
        """
        questions = [self.question(request) for request in requests]
        most_input = sum(question.most_input_tokens for question in questions)
        most_output = sum(question.most_output_tokens for question in questions)
        what = f"{self.name}: {len(questions)} answers"
        buying = nullcontext(Purchase()) if self.meter is None else self.meter.buying(what, most_input, most_output)
        with buying as bought, ThreadPoolExecutor(AT_ONCE) as pool:
            asked = [pool.submit(self._answer, question) for question in questions]
            try:
                answers = [each.result() for each in asked]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            finally:  # an answer is billed also where another one failed
                for each in asked:
                    if each.done() and not each.cancelled() and each.exception() is None:
                        answer = each.result()
                        bought.add(answer.input_tokens, answer.output_tokens)
        return [Prediction(answer.text.strip(), {}, answer.output_tokens) for answer in answers]

    def count_tokens(self, request: Request) -> int:
        """Tokens of the prompt, as the provider counts them."""
        return patiently(lambda: self.model.backend.count(self.model.model, [self.question(request)]))

    def stream(
        self, request: Request, max_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> Iterator[str]:
        """The answer, one piece for each token: a provider sends several at a time, so the rest of them are empty."""
        question = self.question(request, max_tokens, temperature=temperature, seed=seed)

        def begun() -> tuple[list[Answer], Iterator[Answer]]:
            pieces = self.model.backend.stream(self.model.model, question)
            first = next(pieces, None)
            return ([] if first is None else [first]), pieces

        first, rest = patiently(begun)
        told = 0
        for piece in chain(first, rest):
            fresh = piece.output_tokens - told
            if piece.text:
                yield piece.text
                told, fresh = told + 1, fresh - 1
            if fresh > 0:
                yield from [""] * fresh
                told += fresh

    def _answer(self, question: Question) -> Answer:
        return patiently(lambda: self.model.backend.answer(self.model.model, question))

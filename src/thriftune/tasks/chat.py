"""Chat and instruction tuning of a decoder with LoRA, the loss on the answer only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn import functional

from thriftune.errors import BadInput
from thriftune.models.adapters import LoraShape, with_adapters
from thriftune.models.load import load_decoder, load_tokenizer
from thriftune.models.prefix import freeze_first, still_prefix
from thriftune.models.quantised import load_quantised_decoder
from thriftune.models.quiet import quiet_transformers
from thriftune.models.reference import ModelFolder
from thriftune.tasks.base import TASK_FILE, Batch, Encoded, Message, Prediction, Request
from thriftune.tasks.batches import READ_BATCH_TOKENS, attention_mask, pack, pad, ragged, sorted_batches

IGNORED = -100
GENERATE_BATCH_TOKENS = 4096  # answers of a batch are generated together, a token of each at a time
PACKABLE = frozenset({"llama", "qwen2", "qwen3", "phi", "gpt2", "gpt_neox", "opt"})
"""Families whose decoders read a mask for each token, and positions that begin anew (tests/tasks/test_packing.py)."""
LOGITS_CHUNK = 16_777_216  # most logits (positions × vocabulary) computed at once: 64 MiB in fp32
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""The template for a model that has none: `role: content` a line, the end-of-text token after each answer."""


@dataclass(frozen=True)
class ChatTask:
    """Conversations in, the assistant's next answer out.

    Args:
        model: the decoder.
        seed: of the adapters' fresh weights.
        max_tokens: longer conversations are cut at the end (and counted).
        lora: the adapters, or None to train every weight.
        max_new_tokens: the longest answer to generate.
        frozen_layers: how many of the first layers have no adapters, or stay as they are where every weight is trained.
    """

    model: ModelFolder
    seed: int = 0
    max_tokens: int = 1024
    lora: LoraShape | None = field(default_factory=LoraShape)
    max_new_tokens: int = 96
    frozen_layers: int = 0

    name = "chat"

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = load_tokenizer(self.model.path)
        if not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
        if tokenizer.eos_token_id is None:
            raise BadInput(
                "the tokenizer names no end-of-text token, so a model tuned with it would never stop",
                where=str(self.model.path / "tokenizer_config.json"),
                found="no eos_token",
                expected="an eos_token",
                way_out="add the model's own eos_token to tokenizer_config.json",
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def build(self) -> torch.nn.Module:
        torch.manual_seed(self.seed)
        quantised = self.lora is not None and self.lora.quantised
        model = load_quantised_decoder(self.model.path) if quantised else load_decoder(self.model.path, torch.float32)
        freeze_first(model, self.frozen_layers)
        if self.lora is not None:
            model = with_adapters(model, self.lora, "CAUSAL_LM", self.frozen_layers)
        still_prefix(model)
        return model

    def prompt(self, messages: list[Message]) -> str:
        """The conversation as the model reads it, up to where its answer begins."""
        return cast(str, self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _pair(self, messages: list[Message], answer: str) -> tuple[str, str]:
        prompt = self.prompt(messages)
        whole = self._tokenizer.apply_chat_template(
            [*messages, {"role": "assistant", "content": answer}], tokenize=False
        )
        if not whole.startswith(prompt):
            raise BadInput(
                "the model's chat template writes a finished conversation unlike an open one, "
                "so the answer's tokens cannot be told from the question's",
                where=str(self.model.path),
                found=repr(whole[-120:]),
                expected=f"a text that begins with {prompt[-120:]!r}",
                way_out="give the model folder a chat_template.jinja in which a conversation only grows",
            )
        return prompt, whole[len(prompt) :].rstrip("\n") or self._tokenizer.eos_token

    def encode(self, frame: pl.DataFrame) -> Encoded:
        return self.encode_pairs(frame["messages"].to_list(), frame["target"].to_list())

    def encode_pairs(self, conversations: Sequence[list[Message]], answers: Sequence[str]) -> Encoded:
        """Conversations with their answers; a token counts when it belongs to the answer (its end included)."""
        pairs = [self._pair(messages, answer) for messages, answer in zip(conversations, answers, strict=True)]
        read = {"add_special_tokens": False, "verbose": False}
        prompts = self._tokenizer([prompt for prompt, _ in pairs], **read)["input_ids"] if pairs else []
        finals = self._tokenizer([answer for _, answer in pairs], **read)["input_ids"] if pairs else []
        whole = [prompt + answer for prompt, answer in zip(prompts, finals, strict=True)]
        tokens, offsets, cut_tokens, cut_rows = ragged(whole, self.max_tokens)
        labels = tokens.astype(np.int64)
        for row, prompt in enumerate(prompts):
            start = int(offsets[row])
            labels[start : min(start + len(prompt), int(offsets[row + 1]))] = IGNORED
        labels[offsets[:-1]] = IGNORED  # nothing foretells a row's first token
        counted = np.add.reduceat(labels != IGNORED, offsets[:-1]) if pairs else np.zeros(0)
        weights = counted.astype(np.float64)
        return Encoded(tokens, offsets, labels, weights, cut_tokens, cut_rows, packed=self.packed)

    @property
    def packed(self) -> bool:
        """Whether the conversations of a batch stand one behind the other, none reading another."""
        return self.model.model_type in PACKABLE

    def batch(self, encoded: Encoded, rows: NDArray[np.int64]) -> Batch:
        if not encoded.packed:
            return self.conversations(encoded, rows)
        pad_token = int(self._tokenizer.pad_token_id)
        return pack(encoded, rows, input_ids=(encoded.tokens, pad_token), labels=(encoded.labels, IGNORED))

    def conversations(self, encoded: Encoded, rows: NDArray[np.int64]) -> Batch:
        """The padded tensors of some rows that are a conversation each."""
        return {
            "input_ids": pad(encoded.tokens, encoded, rows, self._tokenizer.pad_token_id),
            "attention_mask": attention_mask(encoded, rows),
            "labels": pad(encoded.labels, encoded, rows, IGNORED),
        }

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return answer_losses(model, batch).sum()

    def validate(self, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> dict[str, float]:
        losses = self.row_losses(model, encoded, batch_tokens)
        loss = float(losses.sum() / encoded.weights.sum())
        return {"loss": loss, "perplexity": float(np.exp(loss))}

    @torch.inference_mode()
    def row_losses(self, model: torch.nn.Module, encoded: Encoded, batch_tokens: int) -> NDArray[np.float64]:
        """(rows,) negative log-likelihood summed over the answer of each row, which is a conversation."""
        training = model.training
        model.eval()
        device = next(model.parameters()).device
        losses = np.zeros(len(encoded))
        for rows in sorted_batches(encoded.lengths, batch_tokens):
            batch = {name: tensor.to(device) for name, tensor in self.conversations(encoded, rows).items()}
            counted = batch["labels"][:, 1:] != IGNORED
            row_of_loss = counted.nonzero()[:, 0].cpu().numpy()
            np.add.at(losses, rows[row_of_loss], answer_losses(model, batch).double().cpu().numpy())
        model.train(training)
        return losses

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        with quiet_transformers():
            cast(Any, model).save_pretrained(folder)
        self._save_reading(folder)

    def _save_reading(self, folder: Path) -> None:
        """Write what reading needs besides the weights."""
        self._tokenizer.save_pretrained(folder)
        (folder / TASK_FILE).write_text(json.dumps(self.describe(), indent=1))

    def load(self, folder: Path) -> torch.nn.Module:
        if self.lora is None:
            return load_decoder(folder, torch.float32)
        from peft import PeftModel

        base = load_decoder(self.model.path, torch.float32)
        with quiet_transformers():
            tuned = PeftModel.from_pretrained(cast(Any, base), folder, is_trainable=False)
        return cast(torch.nn.Module, cast(Any, tuned).merge_and_unload())

    def predictor(self, model: torch.nn.Module, name: str) -> DecoderPredictor:
        return DecoderPredictor(name, self, model)

    def untuned(self) -> DecoderPredictor:
        """The model without any tuning, as a predictor."""
        return self.predictor(load_decoder(self.model.path, torch.float32), "untuned")

    def describe(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "reference": self.model.lasting_reference,
            "model": self.model.content_hash,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "lora": None if self.lora is None else vars(self.lora),
            "template": self._tokenizer.chat_template,
            "max_new_tokens": self.max_new_tokens,
            "frozen_layers": self.frozen_layers,
            "packed": self.packed,
        }


def answer_losses(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """(counted positions,) cross-entropy of each token that counts, row after row.

    Only the positions that count reach the vocabulary projection, in chunks, so that neither a long prompt nor a
    vocabulary of 262,000 words makes a (rows × length × vocabulary) tensor. The chunks are recomputed in the
    backward pass, which keeps no logits at all.
    """
    causal = cast(Any, model)
    causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
    targets = batch["labels"][:, 1:]
    counted = targets != IGNORED
    hidden = causal.get_decoder()(input_ids=batch["input_ids"], use_cache=False, **_seen(batch)).last_hidden_state
    states, wanted = hidden[:, :-1][counted], targets[counted]
    head = causal.get_output_embeddings()
    softcap = getattr(causal.config, "final_logit_softcapping", None)

    def chunk_losses(part: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        logits = head(part)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        return functional.cross_entropy(logits, target, reduction="none")

    size = max(1, LOGITS_CHUNK // head.weight.shape[0])
    pieces = list(zip(torch.split(states, size), torch.split(wanted, size), strict=True))
    if len(pieces) <= 1 or not torch.is_grad_enabled():
        parts = [chunk_losses(*piece) for piece in pieces]
    else:
        from torch.utils.checkpoint import checkpoint

        parts = [cast(torch.Tensor, checkpoint(chunk_losses, *piece, use_reentrant=False)) for piece in pieces]
    return torch.cat(parts)


def _seen(batch: Batch) -> Batch:
    """What each token sees: those before it in its row; of a packed batch's rows, in its own."""
    if "segments" not in batch:
        return {"attention_mask": batch["attention_mask"]}
    segments = batch["segments"]
    length = segments.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    mask = (segments[:, None, :, None] == segments[:, None, None, :]) & before
    return {"attention_mask": mask, "position_ids": batch["position_ids"]}


@dataclass(frozen=True)
class DecoderPredictor:
    """A decoder that answers greedily."""

    name: str
    task: ChatTask
    model: torch.nn.Module
    batch_tokens: int = READ_BATCH_TOKENS

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """One answer a conversation."""
        prompts = [self._prompt_ids(request) for request in requests]
        lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64) + self.task.max_new_tokens
        answers: list[Prediction | None] = [None] * len(prompts)
        for rows in sorted_batches(lengths, GENERATE_BATCH_TOKENS):
            for row, answer in zip(rows, self._generate([prompts[row] for row in rows]), strict=True):
                answers[row] = answer
        return cast(list[Prediction], answers)

    def answer_losses(
        self, requests: Sequence[Request], targets: Sequence[str]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(rows,) summed negative log-likelihood of the given answers, and (rows,) how many tokens each has."""
        encoded = self.task.encode_pairs([as_messages(request) for request in requests], targets)
        return self.task.row_losses(self.model, encoded, self.batch_tokens), encoded.weights

    @property
    def max_new_tokens(self) -> int:
        """The longest answer, in tokens, when a request names no limit."""
        return self.task.max_new_tokens

    @property
    def context_tokens(self) -> int:
        """The most tokens, prompt and answer together, that the model reads."""
        return self.task.model.max_positions or self.task.max_tokens + self.task.max_new_tokens

    def count_tokens(self, request: Request) -> int:
        """Tokens of the prompt as the model reads it, chat template included."""
        return len(self._prompt_ids(request))

    def stream(
        self, request: Request, max_tokens: int, temperature: float = 0.0, seed: int | None = None
    ) -> Iterator[str]:
        """The answer, one piece for each token; empty where a token does not yet complete a character.

        Cache and random generator belong to the stream, so that several may take turns on one model.
        """
        causal, tokenizer = cast(Any, self.model), self.task._tokenizer
        stated = causal.generation_config.eos_token_id
        ends = {*(stated if isinstance(stated, list) else [stated]), tokenizer.eos_token_id}
        draws = torch.Generator(device=self._device)
        if seed is None:
            draws.seed()
        else:
            draws.manual_seed(seed)
        ids = torch.tensor([self._prompt_ids(request)], device=self._device)
        cache: Any = None
        said: list[int] = []
        shown = ""
        causal.eval()
        for _ in range(max_tokens):
            with torch.inference_mode():
                out = causal(input_ids=ids, past_key_values=cache, use_cache=True)
                cache, logits = out.past_key_values, out.logits[0, -1].float()
                token = next_token(logits, temperature, draws)
            if token in ends:
                return
            said.append(token)
            text = tokenizer.decode(said, skip_special_tokens=True)
            if text.endswith("\ufffd"):  # half a character
                yield ""
            else:
                yield text[len(shown) :]
                shown = text
            ids = torch.tensor([[token]], device=self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _prompt_ids(self, request: Request) -> list[int]:
        text = self.task.prompt(as_messages(request))
        ids: list[int] = self.task._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids[-self.task.max_tokens :]

    def _settings(self, max_tokens: int) -> dict[str, Any]:
        tokenizer = self.task._tokenizer
        return {
            "max_new_tokens": max_tokens,
            "do_sample": False,
            "temperature": None,
            "top_p": None,
            "top_k": None,
            "pad_token_id": tokenizer.pad_token_id,
        }

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]]) -> list[Prediction]:
        tokenizer, longest = self.task._tokenizer, max(map(len, prompts))
        ids = torch.full((len(prompts), longest), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        self.model.eval()
        out = (
            cast(Any, self.model)
            .generate(
                input_ids=ids.to(self._device),
                attention_mask=mask.to(self._device),
                **self._settings(self.task.max_new_tokens),
            )[:, longest:]
            .cpu()
        )
        texts = tokenizer.batch_decode(out, skip_special_tokens=True)
        counts = (out != tokenizer.pad_token_id).sum(dim=1).tolist()
        return [Prediction(text.strip(), {}, count) for text, count in zip(texts, counts, strict=True)]


def next_token(logits: torch.Tensor, temperature: float, draws: torch.Generator) -> int:
    """The token that comes next, from (vocabulary,) logits: the likeliest at temperature 0, else drawn."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(0), 1, generator=draws))


def as_messages(request: Request) -> list[Message]:
    """A request as a conversation: a bare text is the user's turn."""
    return [{"role": "user", "content": request}] if isinstance(request, str) else list(cast(list[Message], request))

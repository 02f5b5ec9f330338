"""Training's part of the project file."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from thriftune.models.reference import ModelFolder
from thriftune.options import Options, Seconds, parse_amount
from thriftune.tasks.kinds import Method, kind_of
from thriftune.train.recipe import Phase

MANY_LABELS = 6  # from here on a fresh head has a rate of its own
HEAD_RATE, FASTEST_HEAD = 100.0, 1e-2  # so many times its encoder's, but no more than this
MIN_UPDATES = 200  # few rows are passed over more often, so that the rate's curve has this many steps to act
MAX_EPOCHS = 10
GRADUAL = ((0.0, 2 / 3, 4.0), (0.5, 0.0, 1.5))
"""Phases of `unfreeze: gradual`: progress, share of the layers that is frozen, factor on the rate. Of 20 schedules that
take half of full fine-tuning's time on the movie reviews none was clearly better;
bench/prefix_cache.py tells how far below it they end."""
GRADUAL_PASSES = 2 / 3  # of the usual passes over the data: at these rates each does more
LARGE_ENCODER = 100_000_000  # parameters; BERT base has 110 million
ADAPTERS_RATE, ADAPTED_WIDTH = 5e-4, 2000  # a decoder of this width learns best through adapters at this rate,
BY_WIDTH, QWEN_BY_WIDTH = 0.781, 0.0775  # one narrower by a factor at the factor to this power times it: Llama, Qwen


def read_auto(value: Any) -> Any:
    """The word `auto` as None: to be decided from the task, the data or a probe."""
    return None if value == "auto" else value


def read_class_weights(value: Any) -> str | dict[str, float]:
    """The word none or balanced, or a number for each label.

    Raises:
        ValueError: with what was expected, when it is neither.
    """
    if value in ("none", "balanced"):
        return str(value)
    try:
        return {str(label): float(weight) for label, weight in value.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError("none, balanced, or a number for each label") from None


def read_gain_worth(value: Any) -> str | Decimal:
    """The word none or objective, or an amount of money.

    Raises:
        ValueError: with what was expected, when it is neither.
    """
    if value in ("none", "objective"):
        return str(value)
    try:
        return parse_amount(value).normalize()
    except ValueError:
        raise ValueError("none, objective, or an amount of money for a point, such as 0.50") from None


GainWorth = Annotated[Literal["none", "objective"] | Decimal, BeforeValidator(read_gain_worth)]
ClassWeights = Annotated[Literal["none", "balanced"] | dict[str, float], BeforeValidator(read_class_weights)]
AutoInt = Annotated[int | None, BeforeValidator(read_auto)]
AutoFloat = Annotated[float | None, BeforeValidator(read_auto)]


class LoraOptions(Options):
    """The adapters of `method: lora` (Hu et al., "LoRA", ICLR 2022)."""

    rank: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Rank 16 on every linear layer learns as full tuning does on sets this small",
    )
    alpha: int = Field(default=32, ge=1, le=4096, description="Twice the rank, the usual scale")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="None: few passes over the data leave little to regularise"
    )
    targets: Literal["all-linear"] = Field(
        default="all-linear",
        description="Every linear layer: adapters on attention alone fall short (QLoRA, 2023, figure 2)",
    )


class PhaseOptions(Options):
    """A phase of gradual unfreezing."""

    at: float = Field(gt=0, lt=1, description="The share of training after which it begins")
    frozen: int = Field(ge=0, le=1000, description="How many of the first layers are still frozen; 0 trains all")
    rate: float = Field(default=1.0, gt=0, le=100, description="A factor on the rate of the schedule; as it is")


class TrainOptions(Options):
    """How to train. What says "auto" is decided from the task and the data, or probed, and recorded as a decision."""

    method: Literal["auto", "full", "lora", "dora", "qlora", "head"] = Field(
        default="auto",
        description="Every weight for a classifier, adapters for a chat model, whose weights are many more; qlora needs"
        " a GPU and the extra `gpu`",
    )
    epochs: AutoInt = Field(
        default=None,
        ge=1,
        le=1000,
        description="3 passes for a classifier (2 to 4 in Devlin et al., BERT, 2019), 2 for chat; more, up to 10, where"
        " that makes fewer than 200 updates; two thirds of them with unfreeze gradual; the governor shortens what the"
        " budget does not hold",
    )
    batch_rows: AutoInt = Field(
        default=None, ge=1, le=65_536, description="Rows an update: 32 for a classifier, 8 conversations for chat"
    )
    micro_batch_tokens: AutoInt = Field(
        default=None, ge=16, le=16_777_216, description="Padded tokens a forward pass: all of an update's rows at once"
    )
    learning_rate: AutoFloat = Field(
        default=None,
        gt=0,
        le=1,
        description="Classifier: 1e-4, the best measured for MiniLM, and 2e-5 from 100 million parameters on (BERT,"
        " 2019); head alone: 1e-3, measured; adapters: on a decoder 5e-4 × (2,000 ÷ its width)^0.781, for a Qwen"
        " ^0.0775 (LoRA Without Regret, 2025), on a classifier 1e-3, for preferences 5e-5;"
        " decoder, every weight: 2e-5",
    )
    head_rate: AutoFloat = Field(
        default=None,
        gt=0,
        le=1000,
        description="A classifier's head's rate over its encoder's: 100 for a fresh one of 6 labels or more, up to a"
        " rate of 1e-2 (at one rate for all, training ends before a head of many labels points anywhere); 1 for fewer"
        " labels, a head that was trained before, adapters, the head alone, and with unfreeze gradual",
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="A layer's rate over that of the one above it: the same, since small encoders move little in a"
        " few passes; 0.9 or less spares the lower layers of large ones (ULMFiT, 2018)",
    )
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="As BERT was trained with")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="Share of progress in which the rate rises, as in BERT")
    schedule: Literal["linear", "cosine", "constant", "step"] = Field(
        default="linear",
        description="A rate that falls linearly to nothing where the budget ends is best under one (Li et al., Budgeted"
        " Training, 2020)",
    )
    clip_norm: float = Field(default=1.0, gt=0, le=1e6, description="Longer gradients are cut to this norm, as in BERT")
    order: Literal["mixed", "sequence"] = Field(
        default="mixed",
        description="All parts of the data at once; sequence takes one after the other, in the order of the files",
    )
    mixing_temperature: float = Field(
        default=1.0,
        ge=1,
        le=1000,
        description="Each part by its size; 2 to 5 gives small parts more of an epoch (T5, 2020, section 3.5.2)",
    )
    heads: Literal["auto", "shared", "by_part"] = Field(
        default="auto",
        description="A head for each part of the data where their labels differ, since they are tasks of their own; one"
        " for all parts where they are the same",
    )
    replay: float = Field(
        default=0.1,
        ge=0,
        le=10,
        description="In a sequence, a tenth of a part's number of rows comes again from the parts before it, so that"
        " they are not forgotten",
    )
    lora: LoraOptions = Field(default_factory=LoraOptions, description="The adapters of method lora")
    freeze_layers: int = Field(
        default=0, ge=0, le=1000, description="No layer: frozen layers cost quality, which is measured elsewhere"
    )
    unfreeze: Literal["none", "gradual"] = Field(
        default="none",
        description="What is frozen stays so; gradual begins with the last layers and frees the rest on the way",
    )
    phases: tuple[PhaseOptions, ...] = Field(
        default=(), description="With unfreeze gradual: your own phases after the first, which freezes freeze_layers"
    )
    prefix_cache_gb: float = Field(
        default=8.0,
        ge=0,
        le=100_000,
        description="GB of the disk for what frozen first layers answer, kept where that saves time; 0 keeps nothing",
    )
    prefix_states: Literal["fp32", "fp16"] = Field(
        default="fp32",
        description="How these states are stored: fp16 takes half the room, and rounds each to 1 part in 2,048",
    )
    max_tokens: AutoInt = Field(
        default=None,
        ge=8,
        le=1_048_576,
        description="As long a row as the model reads, or as the data needs if that is less",
    )
    dropout: AutoFloat = Field(
        default=None,
        ge=0,
        lt=1,
        description="The model's own rates; none with unfreeze gradual, whose few updates of most layers leave little"
        " to regularise",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="None: probabilities stay readable as they are")
    beta: float = Field(
        default=0.1,
        gt=0,
        le=100,
        description="Preferences: what a nat of the margin over the untuned model's weighs, as in DPO (2023)",
    )
    class_weights: ClassWeights = Field(
        default="none",
        description="What a row of a label counts: 1, so that probabilities stay readable; balanced counts rare labels"
        " more, as their share asks; or a number for each label",
    )
    ema: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay of an average of the weights that is validated and kept in their place; none, since a rate"
        " that falls to nothing does as much",
    )
    patience: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Validations without gain before a short decay ends training; on a hundred rows three end it by"
        " chance, points too early",
    )
    min_gain: float = Field(default=0.0, ge=0, le=1, description="Any gain counts; patience evens out the noise")
    gain_worth: GainWorth = Field(
        default="none",
        description="Money for a point (0.01 of the watched figure): training ends by a short decay once the rest of it"
        " would cost more than it can bring; none trains on, objective takes objective.worth",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "tf32"] = Field(
        default="auto",
        description="Probed: bf16 is 7 times faster on some processors and 200 times slower on others; fp16 with loss"
        " scaling on a GPU that lacks it; tf32 on your word only",
    )
    threads: AutoInt = Field(default=None, ge=1, le=4096, description="Probed: as many as make a step fastest")
    parallel: Literal["auto", "ddp", "fsdp", "tensor"] = Field(
        default="auto",
        description="With several processes: a copy of the model in each (ddp) where it fits into half of what memory"
        " is free, else its parts divided among them (fsdp)",
    )
    checkpoint_seconds: Seconds = Field(
        default=30.0, ge=1, le=30, description="At most 30 s of work are repeated after a crash; that is the promise"
    )
    validations_per_epoch: AutoInt = Field(
        default=None,
        ge=1,
        le=1000,
        description="As often as costs no more than a small share of training, by the probe",
    )

    def method_for(self, task: str) -> Method:
        """The method, "auto" resolved for the task."""
        return kind_of(task).methods[0] if self.method == "auto" else self.method

    @model_validator(mode="after")
    def _downwards(self) -> Self:
        ats, frozen = [phase.at for phase in self.phases], [phase.frozen for phase in self.phases]
        if ats != sorted(set(ats)) or frozen != sorted(set(frozen), reverse=True):
            raise ValueError("phases that begin one after the other, each with fewer frozen layers")
        if self.phases and (self.unfreeze == "none" or self.freeze_layers <= frozen[0]):
            raise ValueError("unfreeze: gradual and freeze_layers above the first phase's, where phases are stated")
        return self

    def phases_for(self, layers: int) -> tuple[Phase, ...]:
        """The phases of gradual unfreezing for a model of so many layers; none where nothing is freed on the way."""
        if self.unfreeze == "none":
            return ()
        if self.phases:
            return (Phase(0.0, self.freeze_layers), *(Phase(p.at, p.frozen, p.rate) for p in self.phases))
        first, *later = (Phase(begins, min(round(share * layers), layers - 1), rate) for begins, share, rate in GRADUAL)
        frozen = self.freeze_layers or first.frozen
        found = [Phase(0.0, frozen, first.rate)]
        found += [phase for phase in later if phase.frozen < frozen]
        distinct = {phase.frozen: phase for phase in reversed(found)}  # of a shallow model: the first of equal ones
        return tuple(sorted(distinct.values(), key=lambda phase: phase.begins)) if len(distinct) > 1 else ()

    @property
    def prefix_cache_bytes(self) -> float:
        """`prefix_cache_gb` in bytes."""
        return self.prefix_cache_gb * 1e9

    def batch_rows_for(self, task: str) -> int:
        """Rows an update, "auto" resolved for the task."""
        return self.batch_rows or kind_of(task).batch_rows

    def epochs_for(self, task: str, rows: int) -> int:
        """Passes over the data, "auto" resolved for the task and the number of training rows."""
        if self.epochs is not None:
            return self.epochs
        updates = max(1, math.ceil(rows / self.batch_rows_for(task)))
        passes = max(kind_of(task).epochs, min(MAX_EPOCHS, math.ceil(MIN_UPDATES / updates)))
        return math.ceil(passes * GRADUAL_PASSES) if self.unfreeze == "gradual" else passes

    @property
    def dropout_rate(self) -> float | None:
        """What replaces the model's own dropout rates, "auto" resolved; None to keep them."""
        return 0.0 if self.dropout is None and self.unfreeze == "gradual" else self.dropout

    def head_rate_for(self, task: str, model: ModelFolder, fresh_labels: int) -> float:
        """The head's rate over the encoder's, "auto" resolved for the model and so many labels of a fresh head."""
        if self.head_rate is not None:
            return self.head_rate
        if fresh_labels < MANY_LABELS or self.method_for(task) != "full" or self.unfreeze != "none":
            return 1.0
        return max(1.0, min(HEAD_RATE, FASTEST_HEAD / self.learning_rate_for(task, model)))

    def learning_rate_for(self, task: str, model: ModelFolder) -> float:
        """The peak rate, "auto" resolved for the task and the model.

        Source of a decoder's adapters' rate: Schulman et al., "LoRA Without Regret", Thinking Machines, 2025.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        method = self.method_for(task)
        if method == "head":
            return 1e-3
        if method in {"lora", "dora", "qlora"}:
            power = QWEN_BY_WIDTH if "qwen" in model.model_type else BY_WIDTH
            return kind_of(task).lora_rate or ADAPTERS_RATE * (ADAPTED_WIDTH / model.hidden_size) ** power
        small = kind_of(task).model == "encoder" and model.parameters < LARGE_ENCODER
        return 1e-4 if small else 2e-5

"""Whether a model fits a task, its data and the machine, before anything is loaded or paid for."""

from __future__ import annotations

from dataclasses import dataclass

from thriftune.models.footprint import Footprint, Tuning, footprint
from thriftune.models.inspection import LORA_RANK, Inspection, config_of
from thriftune.tasks.kinds import KINDS, TaskName, kind_of

TYPICAL_TOKENS = 128  # of a row, where no data says otherwise


@dataclass(frozen=True)
class Reading:
    """What the model would read of some data.

    Args:
        rows: that there are.
        longest: tokens of the longest row, as it is read.
        cut_rows: how many rows are longer than what is read of them.
        cut_tokens: how many tokens that loses.
    """

    rows: int
    longest: int
    cut_rows: int
    cut_tokens: int


@dataclass(frozen=True)
class Need:
    """What one way of tuning needs.

    Args:
        name: of the way, such as `full` or `freeze 5`.
        tuning: the way.
        footprint: what it holds beside the process itself.
    """

    name: str
    tuning: Tuning
    footprint: Footprint


def task_for(inspection: Inspection) -> TaskName:
    """The first task that this kind of model is for."""
    return next(name for name, kind in KINDS.items() if kind.model == inspection.model.kind)


def needs_of(inspection: Inspection, rows: int, tokens: int, classes: int = 2) -> list[Need]:
    """The memory of each way that a task of the model's kind can be tuned, and of freezing half and all but one layer.

    Args:
        inspection: of the model.
        rows: of a batch.
        tokens: of its longest row.
        classes: of an encoder's head.
    """
    kinds = [kind for kind in KINDS.values() if kind.model == inspection.model.kind]
    methods: dict[str, None] = dict.fromkeys(method for kind in kinds for method in kind.methods)
    depths = sorted({inspection.model.layers // 2, inspection.freezable} - {0}) if inspection.freezable else []
    ways = {str(method): Tuning(method, rank=LORA_RANK) for method in methods if method in ("full", "lora", "head")}
    ways |= {f"freeze {depth}": Tuning("full", depth) for depth in depths}
    config = config_of(inspection.model)
    return [
        Need(name, way, footprint(config, inspection.model.kind, way, rows, tokens, classes))
        for name, way in ways.items()
    ]


def warnings_for(
    inspection: Inspection,
    task: TaskName,
    needs: list[Need],
    usable: int,
    process: int,
    reading: Reading | None = None,
) -> list[str]:
    """What will not fit, a sentence each.

    Args:
        inspection: of the model.
        task: what it shall be tuned for.
        needs: of memory.
        usable: bytes that this machine still has.
        process: bytes of the process itself, before a model is loaded.
        reading: of the data, where there is some.
    """
    model, kind = inspection.model, kind_of(task)
    found = []
    if model.kind != kind.model:
        fitting = [name for name, each in KINDS.items() if each.model == model.kind]
        found.append(f"task {task} needs another kind of model: this {model.kind} is for {' or '.join(fitting)}")
    if kind.generates and inspection.eos_token is None:
        found.append("the tokenizer names no end-of-text token (eos_token), so a tuned model would never stop")
    if kind.generates and inspection.chat_template is None:
        found.append("there is no chat template; a plain one is used, which the model has not seen in its training")
    if reading is not None and reading.cut_rows:
        found.append(
            f"{reading.cut_rows:,} of {reading.rows:,} rows are longer than the {reading.longest:,} tokens that are "
            f"read of a row: {reading.cut_tokens:,} tokens would be cut"
        )
    if not inspection.freezable:
        found.append("its layers share their weights, so that none can be frozen alone")
    for need in needs:
        peak = need.footprint.peak
        if peak is None:
            found.append(f"what {need.name} holds in memory is not known for this family")
        elif peak + process > usable:
            found.append(
                f"{need.name} would hold {(peak + process) / 2**30:.1f} GiB; {usable / 2**30:.1f} GiB are free here"
            )
    return found

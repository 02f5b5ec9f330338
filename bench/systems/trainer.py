"""What a competent person writes to tune an encoder in a given time: the Trainer, batches by length, a sane rate.

`trainer.py fit FOLDER SECONDS SEED MODEL` reads train.jsonl and leaves model/; `trainer.py predict FOLDER` answers
texts.jsonl in answers.jsonl.
"""

import json
import sys
import time
from pathlib import Path

import psutil
from given import quick_bf16, read, step_timer

BEGAN = psutil.Process().create_time()
RATE, BATCH_ROWS, EPOCHS, MAX_TOKENS = 1e-4, 32, 3, 256
VALIDATION_ROWS = 500
TIMED_STEPS, CAUTION, SAVING_SECONDS = 10, 1.15, 2.0


def fit(folder, limit, seed, checkpoint):
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    rows = read(folder / "train.jsonl")
    labels = sorted({row["label"] for row in rows})
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=MAX_TOKENS)
    data = Dataset.from_dict(dict(encoded) | {"labels": [labels.index(row["label"]) for row in rows]})
    held = min(VALIDATION_ROWS, len(data) // 10)
    validation, train = data.select(range(held)), data.select(range(held, len(data)))

    def trainer(steps, callbacks=()):
        set_seed(seed)
        named = dict(enumerate(labels))
        model = AutoModelForSequenceClassification.from_pretrained(
            checkpoint, num_labels=len(labels), id2label=named, label2id={label: n for n, label in named.items()}
        )
        arguments = TrainingArguments(
            output_dir=str(folder / "out"),
            max_steps=steps,
            learning_rate=RATE,
            warmup_steps=steps // 10,
            weight_decay=0.01,
            per_device_train_batch_size=BATCH_ROWS,
            per_device_eval_batch_size=2 * BATCH_ROWS,
            train_sampling_strategy="group_by_length",
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            bf16=quick_bf16(),
            use_cpu=not torch.cuda.is_available(),
            seed=seed,
        )
        return Trainer(model, arguments, train_dataset=train, processing_class=tokenizer, callbacks=list(callbacks))

    timer = step_timer()
    trainer(TIMED_STEPS, [timer]).train()
    step = timer.step_seconds
    evaluating = step / 3 * held / BATCH_ROWS  # a forward pass is a third of a step

    class StopInTime(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if time.time() - BEGAN > limit - SAVING_SECONDS - evaluating - step:
                control.should_training_stop = True

    left = limit - (time.time() - BEGAN) - SAVING_SECONDS - evaluating
    whole = EPOCHS * -(-len(train) // BATCH_ROWS)
    final = trainer(max(1, min(whole, int(left / (CAUTION * step)))), [StopInTime()])
    final.train()
    print(final.evaluate(validation))
    final.save_model(str(folder / "model"))


def predict(folder):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model").eval()
    texts = [row["text"] for row in read(folder / "texts.jsonl")]
    with (folder / "answers.jsonl").open("w", encoding="utf-8") as out, torch.inference_mode():
        for start in range(0, len(texts), 64):
            part = texts[start : start + 64]
            batch = tokenizer(part, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt")
            for best in model(**batch).logits.argmax(1).tolist():
                out.write(json.dumps({"answer": model.config.id2label[best]}) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "fit":
        fit(Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    else:
        predict(Path(sys.argv[2]))

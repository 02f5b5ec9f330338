"""What a competent person writes to tune a chat model in a given time: TRL's SFTTrainer with adapters.

`trl_sft.py fit FOLDER SECONDS SEED MODEL` reads train.jsonl and leaves model/; `trl_sft.py predict FOLDER` answers
prompts.jsonl in answers.jsonl.
"""

import json
import sys
import time
from pathlib import Path

import psutil
from given import quick_bf16, read, step_timer

BEGAN = psutil.Process().create_time()
RATE, BATCH_ROWS, EPOCHS, MAX_TOKENS, ANSWER_TOKENS = 2e-4, 8, 2, 512, 96
PADDED_TO = 64  # tokens or a multiple: in bfloat16 each new length of a batch costs seconds before its first step
VALIDATION_ROWS = 50
TIMED_STEPS, CAUTION, SAVING_SECONDS = 5, 1.15, 2.0


def fit(folder, limit, seed, checkpoint):
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in read(folder / "train.jsonl")
    ]
    held = min(VALIDATION_ROWS, len(rows) // 10)
    validation, train = Dataset.from_list(rows[:held]), Dataset.from_list(rows[held:])
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    quick = quick_bf16()

    def trainer(steps, callbacks=()):
        set_seed(seed)
        arguments = SFTConfig(
            output_dir=str(folder / "out"),
            max_steps=steps,
            learning_rate=RATE,
            warmup_steps=steps // 10,
            per_device_train_batch_size=BATCH_ROWS,
            per_device_eval_batch_size=BATCH_ROWS,
            max_length=MAX_TOKENS,
            train_sampling_strategy="group_by_length",
            dataloader_pin_memory=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            bf16=quick,
            pad_to_multiple_of=PADDED_TO if quick else None,
            use_cpu=not torch.cuda.is_available(),
            seed=seed,
        )
        return SFTTrainer(
            AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32"),
            arguments,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=list(callbacks),
        )

    timer = step_timer()
    began = time.time()
    timing = trainer(TIMED_STEPS, [timer])
    making = time.time() - began
    timing.train()
    step = timer.step_seconds
    evaluating = step / 2 * held / BATCH_ROWS

    class StopInTime(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if time.time() - BEGAN > limit - SAVING_SECONDS - evaluating - step:
                control.should_training_stop = True

    left = limit - (time.time() - BEGAN) - SAVING_SECONDS - evaluating - making
    whole = EPOCHS * -(-len(train) // BATCH_ROWS)
    final = trainer(max(1, min(whole, int(left / (CAUTION * step)))), [StopInTime()])
    final.train()
    print(final.evaluate())
    final.save_model(str(folder / "model"))


def predict(folder):
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model", padding_side="left")
    model = AutoPeftModelForCausalLM.from_pretrained(folder / "model").eval()
    prompts = [row["prompt"] for row in read(folder / "prompts.jsonl")]
    with (folder / "answers.jsonl").open("w", encoding="utf-8") as out, torch.inference_mode():
        for start in range(0, len(prompts), 32):
            turns = [[{"role": "user", "content": prompt}] for prompt in prompts[start : start + 32]]
            batch = tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
            )
            answers = model.generate(**batch, max_new_tokens=ANSWER_TOKENS, do_sample=False)
            for answer in tokenizer.batch_decode(answers[:, batch["input_ids"].shape[1] :], skip_special_tokens=True):
                out.write(json.dumps({"answer": answer.strip()}) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "fit":
        fit(Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    else:
        predict(Path(sys.argv[2]))

"""The loss and gradients of preference tuning equal those of TRL's DPOTrainer on the same pairs."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

from models_for_tests import WORDS, llama_folder
from thriftune.models.load import load_decoder
from thriftune.models.reference import resolve
from thriftune.tasks.batches import micro_batches
from thriftune.tasks.prefer import PreferTask

PAIRS = 12


@pytest.fixture
def task(tmp_path: Path) -> PreferTask:
    return PreferTask(resolve(str(llama_folder(tmp_path / "llama"))), max_tokens=400, beta=0.3)


def pairs() -> tuple[list[str], list[str], list[str]]:
    """Questions with two answers of different lengths each."""
    random = np.random.default_rng(0)
    texts = [[" ".join(random.choice(WORDS, random.integers(1, 20))) for _ in range(PAIRS)] for _ in range(3)]
    return texts[0], texts[1], texts[2]


def adapted(task: PreferTask) -> torch.nn.Module:
    """The model to train, its adapters moved from zero, where the model is its own reference."""
    model = task.build().train()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return model


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("budget", [None, 400], ids=["whole", "accumulated"])
def test_loss_and_gradients_equal_trl(task: PreferTask, tmp_path: Path, budget: int | None) -> None:
    prompts, chosen, rejected = pairs()
    model = adapted(task)
    conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
    encoded = task.encode_preferences(conversations, chosen, rejected)
    ours = 0.0
    parts = micro_batches(encoded.lengths, np.arange(PAIRS), budget)
    assert len(parts) > 1 if budget else len(parts) == 1
    for part in parts:
        loss = task.loss(model, task.batch(encoded, part)) / encoded.weights.sum()
        loss.backward()
        ours += loss.item()

    end = task._tokenizer.eos_token
    rows = {
        "prompt": [task.prompt(messages) for messages in conversations],
        "chosen": [answer + end for answer in chosen],
        "rejected": [answer + end for answer in rejected],
    }
    trainer = DPOTrainer(
        model=load_decoder(task.model.path, torch.float32),
        args=DPOConfig(
            output_dir=str(tmp_path / "trl"), beta=task.beta, report_to=[], use_cpu=True, bf16=False,
            gradient_checkpointing=False, dataset_num_proc=None,
        ),
        train_dataset=datasets.Dataset.from_dict(rows),
        processing_class=task._tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    trainer.model.load_state_dict(model.state_dict())
    theirs = trainer.compute_loss(trainer.model.train(), trainer.data_collator(list(trainer.train_dataset)))
    theirs.backward()

    assert ours == pytest.approx(theirs.item(), abs=1e-5)
    assert abs(ours - np.log(2)) > 1e-3, "at the reference every loss is ln 2, which would show little"
    wanted, found = gradients(trainer.model), gradients(model)
    assert wanted.keys() == found.keys() and wanted
    scale = torch.cat([g.flatten() for g in wanted.values()]).norm()
    assert torch.cat([(wanted[name] - found[name]).flatten() for name in wanted]).norm() < 1e-5 * scale

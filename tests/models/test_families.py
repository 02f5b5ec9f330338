"""What the table of families in docs/models.md says, family by family: what is trained, kept, saved and served."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
import torch
from families import FAMILIES, reference_of
from starlette.testclient import TestClient
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from thriftune.deploy.options import DeployOptions
from thriftune.deploy.serve import create_app
from thriftune.errors import BadInput
from thriftune.models.load import layer_list
from thriftune.models.prefix import NotPassable, Prefix, frozen_depth
from thriftune.models.quiet import quiet_transformers
from thriftune.models.reference import resolve
from thriftune.tasks.base import Request
from thriftune.tasks.saved import open_saved
from thriftune.train.loop import Loop
from thriftune.train.machine import Machine
from thriftune.train.options import LoraOptions, TrainOptions
from thriftune.train.prefix_cache import Needs, PrefixCache, prefix_states
from thriftune.train.setup import work_of
from thriftune.train.train import Work

pytestmark = pytest.mark.slow

KEPT = Path(__file__).parents[2] / "docs" / "families.json"
ROWS, UPDATES = 24, 3
METHODS = {
    "full": {"method": "full"},
    "head": {"method": "head"},
    "lora": {"method": "lora", "lora": LoraOptions(rank=4, alpha=8)},
}


def rows_of(decoder: bool) -> pl.DataFrame:
    drawn = np.random.default_rng(0)
    if decoder:
        asked = [f"how do i mend {'my old ' * int(drawn.integers(0, 4))}lamp {number}?" for number in range(ROWS)]
        messages = [[{"role": "user", "content": text}] for text in asked]
        return pl.DataFrame({"messages": messages, "target": [f"turn it off {number}" for number in range(ROWS)]})
    texts = [" ".join(drawn.choice(["good", "bad", "film", "the", "was"], drawn.integers(2, 20))) for _ in range(ROWS)]
    return pl.DataFrame({"text": texts, "target": ["yes" if "good" in text else "no" for text in texts]})


class Trial:
    """A family in one way of tuning it."""

    def __init__(self, name: str, folder: Path, frozen: int = 0, **options: object) -> None:
        self.decoder = FAMILIES[name].decoder
        stated = TrainOptions(freeze_layers=frozen, batch_rows=ROWS // UPDATES, learning_rate=1e-3, **options)
        frame = rows_of(self.decoder)
        task, reference = "chat" if self.decoder else "classify", reference_of(name, folder)
        self.work: Work = work_of(task, reference, folder, stated, 0, "data", frame, frame[:4])

    def loop(self) -> Loop:
        work = self.work
        return Loop(work.task, work.task.build(), work.train, work.validation, work.recipe, Machine(), None)

    def requests(self) -> list[Request]:
        return rows_of(self.decoder)["messages" if self.decoder else "text"].to_list()[:2]


def trained(loop: Loop) -> list[float]:
    """A few updates, which change what is trained and nothing else; their losses."""
    before = {name: value.detach().clone() for name, value in loop.model.named_parameters()}
    losses = [loop.update(step).item() for step in range(UPDATES)]
    assert np.isfinite(losses).all()
    moved = {name for name, value in loop.model.named_parameters() if not value.equal(before[name])}
    free = {name for name, value in loop.model.named_parameters() if value.requires_grad}
    assert moved and moved <= free
    assert len(moved) > len(free) / 2  # positions that no row reaches stand still
    return losses


def saved_and_answering(trial: Trial, loop: Loop, folder: Path) -> None:
    """The tuned model answers the same after a reload by us, by Transformers alone, and from behind the service."""
    task, model = trial.work.task, loop.model.eval()
    folder.mkdir()
    task.save(model, folder)
    again, reloaded = open_saved(folder)
    requests, expected = trial.requests(), task.predictor(model, "tuned").predict(trial.requests())
    predictor = again.predictor(reloaded, "tuned")
    found = predictor.predict(requests)
    assert [answer.output for answer in found] == [answer.output for answer in expected]
    assert [answer.scores for answer in found] == [pytest.approx(answer.scores, abs=1e-5) for answer in expected]
    for name, figure in task.validate(model, trial.work.validation, 512).items():
        assert again.validate(reloaded, trial.work.validation, 512)[name] == pytest.approx(figure, rel=1e-4)
    (by_transformers_decoder if trial.decoder else by_transformers_encoder)(trial, model, folder)
    with TestClient(create_app(predictor, str.strip, task.name, DeployOptions(), "r-test", environment={})) as client:
        if trial.decoder:
            answer = client.post("/v1/chat/completions", json={"messages": requests[0]})
            assert answer.json()["choices"][0]["message"]["content"] == expected[0].output
        else:
            answers = client.post("/predict", json={"texts": requests}).json()["predictions"]
            assert [answer["label"] for answer in answers] == [answer.output for answer in expected]


@torch.inference_mode()
def by_transformers_encoder(trial: Trial, model: torch.nn.Module, folder: Path) -> None:
    with quiet_transformers():
        plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = trial.requests()
    read = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    encoded = trial.work.task.encode(pl.DataFrame({"text": texts, "target": ["yes"] * len(texts)}))
    logits = plain(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).logits
    assert torch.allclose(logits, trial.work.task.text_logits(model, encoded, 512), atol=1e-5)
    assert plain.config.id2label == {0: "no", 1: "yes"}


@torch.inference_mode()
def by_transformers_decoder(trial: Trial, model: torch.nn.Module, folder: Path) -> None:
    with quiet_transformers():
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()  # adapters through PEFT
    validation = trial.work.validation
    batch = trial.work.task.conversations(validation, np.arange(len(validation)))
    loss = trial.work.task.validate(model, validation, 512)["loss"]
    assert plain(**batch, use_cache=False).loss.item() == pytest.approx(loss, rel=1e-4)
    assert AutoTokenizer.from_pretrained(folder).chat_template


def drops(model: torch.nn.Module, depth: int, run: Callable[[], object]) -> bool:
    """Whether two runs in training mode give the layer before `depth` different states."""
    seen: list[torch.Tensor] = []
    hook = layer_list(model)[depth - 1].register_forward_hook(
        lambda _module, _inputs, output: seen.append(output[0] if isinstance(output, tuple) else output)
    )
    model.train()
    for _ in range(2):
        run()
    hook.remove()
    return not torch.equal(*seen)


def kept_states(name: str, folder: Path, frozen: int) -> None:
    """Training from kept states is training with the frozen first layers in evaluation mode."""
    lora = METHODS["lora"] if FAMILIES[name].decoder else {}
    trial = Trial(name, folder, frozen, **lora)
    plain, kept = trial.loop(), trial.loop()
    assert frozen_depth(kept.model) == frozen
    batch = trial.work.task.batch(trial.work.train, np.arange(4))
    assert not drops(plain.model, frozen, lambda: trial.work.task.loss(plain.model, batch))
    if not isinstance(FAMILIES[name].make, str):
        free = Trial(name, folder, 0, **lora).work.task.build()
        if lora:
            free.requires_grad_(True)
        assert drops(free, frozen, lambda: trial.work.task.loss(free, batch)), "the family's rates are all 0 here"
    needs = Needs(trial.work.task, trial.work.train, kept.machine, frozen)
    prefix = Prefix(kept.model, frozen)
    states = {}
    for rows in np.split(np.arange(ROWS), 4):  # padded otherwise than the updates are
        flat = prefix_states(kept.model, prefix, needs, rows)
        ends = np.cumsum(trial.work.train.lengths[rows])[:-1]
        states |= dict(zip(rows.tolist(), np.split(flat, ends), strict=True))
    prefix.release()
    # As after a restart, when the states are found on the disk: this one has never seen the layers answer a batch.
    kept.prefix_cache = PrefixCache(Prefix(kept.model, frozen), states.__getitem__)
    assert trained(kept) == pytest.approx(trained(plain), rel=1e-5)
    expected, found = (torch.cat([p.detach().flatten() for p in loop.trained]) for loop in (plain, kept))
    assert (found - expected).norm() / expected.norm() < 1e-5


def outcome(attempt: Callable[[], None]) -> str:
    """`yes`, or the reason that the code gives a user."""
    try:
        attempt()
    except BadInput as refusal:
        return refusal.what
    except NotPassable as refusal:
        return str(refusal)
    return "yes"


def found_of(name: str, folder: Path) -> dict[str, str]:
    """What a family can, column by column of the table."""

    def tuned(frozen: int, options: dict[str, object], saved: str) -> None:
        trial = Trial(name, folder, frozen, **options)
        loop = trial.loop()
        trained(loop)
        saved_and_answering(trial, loop, folder / saved)

    last = resolve(reference_of(name, folder)).layers - 1
    columns = {
        method: outcome(lambda options=options, method=method: tuned(0, options, f"{name}-{method}"))
        for method, options in METHODS.items()
    }
    columns["frozen"] = outcome(lambda: tuned(last, {"method": "full"}, f"{name}-frozen"))
    return columns | {"kept": outcome(lambda: kept_states(name, folder, last))}


def row_of(name: str, folder: Path) -> dict[str, object]:
    """A row of the table."""
    family = FAMILIES[name]
    task = "chat" if family.decoder else "classify"
    return {"family": family.shown, "hub": family.hub, "task": task, "columns": found_of(name, folder)}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_does_what_the_table_says(name, tmp_path):
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert list(kept) == list(FAMILIES)
    assert row_of(name, tmp_path) == kept[name], "the table is stale: run this file as a program, then `make docs`"


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        rows = {name: row_of(name, Path(scratch)) for name in FAMILIES}
    KEPT.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

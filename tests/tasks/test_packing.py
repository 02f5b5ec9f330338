"""Packed batches: no row reads another, losses and gradients are those of padded ones, and bins hold every row once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from families import FAMILIES, reference_of

from thriftune.models.reference import resolve
from thriftune.tasks.batches import PACK_WIDTH, balanced, bins_of, micro_batches, padded_tokens
from thriftune.tasks.chat import PACKABLE, ChatTask

SMALL_DECODERS = [name for name, family in FAMILIES.items() if family.decoder and callable(family.make)]
row_lengths = st.lists(st.integers(1, 700), min_size=1, max_size=60).map(lambda found: np.array(found, dtype=np.int64))


def encoded_pairs(task: ChatTask):
    asked = ["what is this", "and that", "tell me all of it, from the beginning to the end", "so"]
    return task.encode_pairs(
        [[{"role": "user", "content": text}] for text in asked], [f"{text}, it is so" for text in asked]
    )


def loss_and_gradients(task: ChatTask, model: torch.nn.Module, batch) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = task.loss(model, batch)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", SMALL_DECODERS)
def test_a_packed_batch_has_the_loss_and_the_gradients_of_a_padded_one_where_the_family_is_packed(name, tmp_path):
    task = ChatTask(resolve(reference_of(name, tmp_path)), lora=None)
    encoded, rows = encoded_pairs(task), np.array([2, 0, 3, 1])
    assert encoded.packed == (task.model.model_type in PACKABLE)
    if not encoded.packed:
        return
    model = task.build().double().eval()
    padded = loss_and_gradients(task, model, task.conversations(encoded, rows))
    batch = task.batch(encoded, rows)
    found = loss_and_gradients(task, model, batch)
    assert found[0] == pytest.approx(padded[0], rel=1e-10)
    assert (found[1] - padded[1]).norm() / padded[1].norm() < 1e-8
    assert batch["input_ids"].shape[0] == -(-int(encoded.lengths.sum()) // PACK_WIDTH) < len(rows)


@given(row_lengths)
def test_bins_hold_every_row_once_and_none_overlaps_another(lengths):
    places, ends = bins_of(lengths)
    taken = np.zeros((places[-1, 0] + 1, ends.max()), dtype=int)
    for (number, start), end in zip(places, ends, strict=True):
        taken[number, start:end] += 1
    assert taken.max() == 1
    assert taken.sum() == lengths.sum()


@given(row_lengths)
def test_the_balanced_order_has_every_row_and_keeps_the_bound_of_the_longest_first(lengths):
    rows = balanced(lengths, np.arange(len(lengths)))
    assert sorted(rows) == list(range(len(lengths)))
    width, longest = max(PACK_WIDTH, int(lengths.max())), int(lengths.max())
    count = -(-int(lengths.sum()) // width)
    places, ends = bins_of(lengths[rows])
    assert places[-1, 0] + 1 <= count
    assert ends.max() <= lengths.sum() / count + longest * (1 - 1 / count)  # any list schedule; Graham, 1966


@given(row_lengths, st.integers(50, 3000))
def test_packed_micro_batches_keep_the_budget_and_lose_no_row(lengths, budget):
    parts = micro_batches(lengths, np.arange(len(lengths)), budget, packed=True)
    assert sorted(np.concatenate(parts)) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or padded_tokens(lengths, [part], packed=True) <= budget

"""How this machine computes: device, precision and threads, probed and never assumed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from thriftune.budget.record import Record
from thriftune.errors import BadInput
from thriftune.tasks.batches import READ_BATCH_TOKENS
from thriftune.train.launch import ranks_on_this_machine

BF16_GAIN = 2.0  # bfloat16 must multiply matrices this much faster: casts and master weights eat the rest
GAIN_PART = "bf16-gain"  # the record's part: seconds of a product in fp32 over those in bfloat16
NEAR = 1.15  # times the least seconds that count as no slower
REPEATS = 5
MOST_ROWS, LEAST_ROWS, NUMBERS = 1024, 256, 2**20  # of a probed product's left side: rows, and its numbers
FEW_ROWS = 16  # of a product that may be emulated
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
TF32_SINCE = 8  # the first of the GPUs' compute capabilities that has it


@dataclass(frozen=True)
class Machine:
    """How this machine computes: all of it probed, recorded as decisions, and so the same after a resume."""

    device: str = "cpu"
    precision: str = "fp32"  # or tf32; or bf16 or fp16, by autocast over fp32 master weights
    threads: int = 1
    micro_batch_tokens: int | None = None  # padded tokens a forward pass, None for the whole update at once
    read_batch_tokens: int = READ_BATCH_TOKENS
    states: str = "fp32"  # how kept states of frozen first layers are stored; or fp16

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the forward pass runs."""
        if self.precision in HALVES:
            return torch.autocast(self.device.split(":")[0], dtype=HALVES[self.precision])
        return nullcontext()


def usable_cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def product_seconds(rows: int, inner: int, columns: int, dtype: torch.dtype, device: str) -> float:
    """Seconds of one (rows, inner) × (inner, columns) product, the least of a few: a neighbour only ever adds."""
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(inner, columns, device=device).to(dtype)
    seconds = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        left @ right
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def probed_rows(hidden: int) -> int:
    """Rows of a probed product: as many tokens as a batch has, fewer for a wide model, which they keep long busy.

    Fewer do not tell: on a processor where bfloat16 trains MiniLM twice as fast, products of 256 rows were 1.9 to 2.3
    times as fast with two threads, of 1,024 rows 3 times.
    """
    return max(LEAST_ROWS, min(MOST_ROWS, NUMBERS // hidden))


def probe_device() -> tuple[str, str]:
    """Where to compute, and why."""
    if torch.cuda.is_available():
        return "cuda", f"{torch.cuda.get_device_name()} is here"
    return "cpu", "no accelerator is here"


def probe_threads(hidden: int) -> tuple[int, str]:
    """How many threads multiply matrices of this model's size fastest, and why.

    Of numbers that are nearly as fast the largest: what keeps a core busy for the moment of a probe does not last.
    """
    cores = max(1, usable_cores() // ranks_on_this_machine())
    measured: dict[int, float] = {}
    for threads in sorted({1, max(1, cores // 2), cores}):
        torch.set_num_threads(threads)
        measured[threads] = product_seconds(probed_rows(hidden), hidden, 4 * hidden, torch.float32, "cpu")
    best = max(threads for threads, seconds in measured.items() if seconds <= NEAR * min(measured.values()))
    timings = ", ".join(f"{threads}: {1e3 * seconds:.2f} ms" for threads, seconds in measured.items())
    return best, f"one product of this model's size by threads: {timings}"


def probe_precision(hidden: int, device: str, record: Record) -> tuple[str, str]:
    """fp32, bf16 or fp16, by what a matrix product of this model's size takes in each, and why.

    Args:
        hidden: the model's width.
        device: `cpu`, or an accelerator.
        record: keeps every look: near the bound one look alone would choose now this and now that.
    """
    if device != "cpu":
        supported = torch.cuda.is_bf16_supported()
        return ("bf16" if supported else "fp16"), f"the accelerator {'has' if supported else 'lacks'} bfloat16"
    rows = probed_rows(hidden)
    full = product_seconds(rows, hidden, 4 * hidden, torch.float32, device)
    few = product_seconds(FEW_ROWS, hidden, 4 * hidden, torch.bfloat16, device)  # the first product makes its kernel
    if few * rows / FEW_ROWS > 20 * full:  # emulated: do not wait for more of it
        return "fp32", "bfloat16 products are more than 20 times slower than fp32 here"
    part = f"{GAIN_PART}/{rows}x{hidden}"
    record.add(part, full / product_seconds(rows, hidden, 4 * hidden, torch.bfloat16, device))
    looks = record.seen(part)
    gain = median(looks)
    because = f"bfloat16 products are {gain:.2f} times as fast as fp32 here ({BF16_GAIN} needed)"
    because += f", the median of {len(looks)} looks" if len(looks) > 1 else ""
    return ("bf16" if gain >= BF16_GAIN else "fp32"), because


def choose_machine(
    take: Callable[[str, Callable[[], tuple[Any, str]]], Any], hidden: int, wanted: Any, record: Record
) -> Machine:
    """The machine as recorded, or probed and recorded now.

    Args:
        take: `Decisions.take`.
        hidden: the model's hidden size.
        wanted: the project file's `train` options, of which `precision` and `threads` may be "auto".
        record: what was measured on this machine before.
    """
    device = take("device", probe_device)
    stated = "stated in the project file"
    threads = take("threads", lambda: probe_threads(hidden) if wanted.threads is None else (wanted.threads, stated))
    torch.set_num_threads(threads)
    precision = take(
        "precision",
        lambda: probe_precision(hidden, device, record) if wanted.precision == "auto" else (wanted.precision, stated),
    )
    if precision == "tf32":
        _allow_tf32(device)
    return Machine(
        device=device,
        precision=precision,
        threads=threads,
        micro_batch_tokens=wanted.micro_batch_tokens,
        states=wanted.prefix_states,
    )


def _allow_tf32(device: str) -> None:
    """Let the accelerator multiply fp32 matrices with 10 bits of mantissa.

    Raises:
        BadInput: it cannot.
    """
    if device == "cpu" or torch.cuda.get_device_capability()[0] < TF32_SINCE:
        raise BadInput(
            "this machine has no TF32",
            where="train.precision",
            found="tf32",
            expected="auto, fp32, bf16 or fp16 here",
            way_out="leave train.precision out: it is probed",
        )
    torch.set_float32_matmul_precision("high")

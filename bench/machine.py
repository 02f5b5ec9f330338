"""What this machine is, and how fast it can at best be: matrix products by precision, and memory."""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from pathlib import Path
from typing import Any

SHAPES = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (1024, 384, 1536),
    (1024, 1536, 384),
    (4096, 576, 1536),
)  # rows, inner, columns; the last three are MiniLM's and SmolLM2's
REPEATS = 4
HOPELESS = 0.2  # a precision this much slower than fp32 on a small product is not tried on larger ones
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")


def measured_machine(threads: int) -> dict[str, Any]:
    """This machine's facts and its peaks now, measured in a process of their own.

    Returns:
        cores, threads, memory_gb, cpu, isa, accelerator, torch, peak_gflops by precision (largest over shapes),
        bandwidth_gb_per_s.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (threads,))


def better_peaks(machine: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """The machine with the larger of two measurements of each peak."""
    peaks = {name: max(value, again["peak_gflops"][name]) for name, value in machine["peak_gflops"].items()}
    bandwidth = max(machine["bandwidth_gb_per_s"], again["bandwidth_gb_per_s"])
    return machine | {"peak_gflops": peaks, "bandwidth_gb_per_s": bandwidth}


def _measure(threads: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(threads)
    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    return {
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "cpu": _cpu_name(),
        "isa": _isa(),
        "accelerator": torch.cuda.get_device_name() if gpu else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peak_gflops": _peaks(device),
        "bandwidth_gb_per_s": round(_bandwidth(device), 1),
    }


def _peaks(device: str) -> dict[str, float]:
    import torch

    full = {shape: _gflops(shape, torch.float32, device) for shape in SHAPES}
    small = SHAPES[0]
    tried = SHAPES if _gflops(small, torch.bfloat16, device, repeats=1) > HOPELESS * full[small] else (small,)
    half = max(_gflops(shape, torch.bfloat16, device, repeats=REPEATS if len(tried) > 1 else 1) for shape in tried)
    return {"fp32": round(max(full.values()), 1), "bf16": round(half, 1)}


def _gflops(shape: tuple[int, int, int], dtype: Any, device: str, repeats: int = REPEATS) -> float:
    """The best of some timings of one matrix product."""
    import torch

    rows, inner, columns = shape
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(inner, columns, device=device).to(dtype)
    best = float("inf")
    for _ in range(repeats + 1):
        began = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2e-9 * rows * inner * columns / best


def _bandwidth(device: str) -> float:
    """Bytes read and written a second by a large copy, in GB/s; the best of some."""
    import torch

    source = torch.ones(64 * 2**20, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * source.numel() * 4 / best / 1e9


def _cpu_field(name: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _cpu_name() -> str:
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _isa() -> list[str]:
    present = set((_cpu_field("flags") or _cpu_field("Features")).split())
    return [flag for flag in FLAGS if flag in present]

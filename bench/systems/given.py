"""What the systems' scripts share: rows from a file, whether this processor is quick in bfloat16, a step's time."""

import json
import time
from pathlib import Path

CPU = Path("/proc/cpuinfo")
WARMING_STEPS = 2


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def quick_bf16():
    flags = CPU.read_text() if CPU.is_file() else ""
    return any(unit in flags for unit in ("amx_bf16", "avx512_bf16"))


def step_timer():
    """A callback of the Trainer that tells what a step takes once the first ones have warmed up."""
    from transformers import TrainerCallback

    class Timer(TrainerCallback):
        def __init__(self):
            self.ends = []

        def on_step_end(self, *_, **__):
            self.ends.append(time.time())

        @property
        def step_seconds(self):
            warm = self.ends[WARMING_STEPS:]
            return (warm[-1] - warm[0]) / (len(warm) - 1)

    return Timer()

"""What the systems' scripts share: rows from a file, and whether this processor is quick in bfloat16."""

import json
from pathlib import Path

CPU = Path("/proc/cpuinfo")


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def quick_bf16():
    flags = CPU.read_text() if CPU.is_file() else ""
    return any(unit in flags for unit in ("amx_bf16", "avx512_bf16"))

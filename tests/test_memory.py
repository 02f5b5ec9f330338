"""The most memory that a span of work held, as the kernel counts it."""

import subprocess
import sys

MIB = 2**20
SCRIPT = """
import numpy as np
from thriftune.memory import peak, resident_bytes, usable_bytes

MIB = 2**20
def fill(mib):
    return np.ones(mib * MIB // 8)

kept = fill(200)
before = resident_bytes()
with peak() as outer:
    gone = fill(300); del gone
    with peak() as inner:
        gone = fill(50); del gone
    with peak() as idle:
        pass
print((outer.bytes - before) / MIB, (inner.bytes - before) / MIB, (idle.bytes - before) / MIB)
print(usable_bytes() / MIB)
"""


def test_spans_nest_and_each_tells_its_own_peak():
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    peaks, usable = ended.stdout.splitlines()
    outer, inner, idle = map(float, peaks.split())
    assert 290 < outer < 330
    assert 45 < inner < 80
    assert idle < 30
    assert float(usable) > 100

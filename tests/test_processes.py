from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

from thriftune.processes import Life, machine_id, process_age, this_process


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    me = this_process()
    assert me.life() is Life.ALIVE
    assert replace(me, started="1").life() is Life.DEAD
    assert replace(me, place="another boot").life() is Life.UNSEEN


def test_a_dead_process_is_dead_before_its_parent_waits_for_it() -> None:
    program = "from thriftune.processes import this_process as t; print(repr(t()), flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    line = child.stdout.readline()
    name = replace(this_process(), pid=child.pid, started=line.partition("started='")[2].partition("'")[0])
    assert name.life() is Life.ALIVE
    child.kill()
    time.sleep(0.2)
    assert name.life() is Life.DEAD  # a zombie
    child.communicate()
    assert name.life() is Life.DEAD


def test_a_process_s_age_counts_its_start_up() -> None:
    program = "import time; time.sleep(0.5); from thriftune.processes import process_age; print(process_age())"
    began = time.monotonic()
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    took = time.monotonic() - began
    assert 0.5 < float(said) <= took + 0.02  # the kernel counts in hundredths
    assert process_age() > 0


def test_a_machine_has_a_name() -> None:
    assert machine_id() and machine_id() == machine_id()

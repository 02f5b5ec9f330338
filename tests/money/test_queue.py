"""Who is next on a machine, and who makes room for whom: on tickets as they are, and on a real queue of processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from thriftune.clock import ManualClock
from thriftune.errors import LeaseHeld
from thriftune.money.queue import (
    AGEING_SECONDS,
    LOOK_SECONDS,
    SWITCH_SECONDS,
    Ticket,
    Turn,
    joined,
    more_urgent,
    refuse,
    tickets,
)
from thriftune.processes import ProcessName, this_process
from thriftune.store import Store

NOW = 1_700_000_000.0
ELSEWHERE = "another boot"


def ticket(name: str, *, priority: int = 5, slack: float = 1e6, needs: float = 600.0, working: bool = False) -> Ticket:
    """A ticket that has just come, with so much slack."""
    owner = ProcessName(len(name), name, ELSEWHERE)
    deadline = NOW + needs + slack
    return Ticket("m", None, name, f"/{name}", owner, priority, deadline, needs, NOW, NOW, 0.0, NOW, working)


def order(*waiting: Ticket, now: float = NOW) -> list[str]:
    return [one.project for one in sorted(waiting, key=lambda one: one.urgency(now))]


def test_the_stated_priority_goes_before_slack_and_slack_before_who_came_first():
    relaxed, pressed, early, high = (
        ticket("relaxed", slack=9000),
        ticket("pressed", slack=60),
        replace(ticket("early", slack=500), joined_at=NOW - 1),
        ticket("high", priority=6, slack=1e9),
    )
    late = replace(ticket("late", slack=500), joined_at=NOW + 1)
    assert order(relaxed, pressed, late, high, early) == ["high", "pressed", "early", "late", "relaxed"]


def test_whoever_waits_long_enough_comes_before_every_newcomer():
    waiting = replace(ticket("patient", priority=0), since=NOW - 10 * AGEING_SECONDS)
    assert order(waiting, ticket("newcomer", priority=9)) == ["patient", "newcomer"]
    younger = replace(waiting, since=NOW - 8 * AGEING_SECONDS)
    assert order(younger, ticket("newcomer", priority=9)) == ["newcomer", "patient"]


def test_the_one_at_work_makes_room_for_a_higher_priority_and_keeps_the_age_it_came_with():
    at_work = ticket("at work", working=True)
    assert more_urgent(at_work, [ticket("same"), ticket("higher", priority=6)], NOW).project == "higher"
    aged = replace(at_work, waited_s=2 * AGEING_SECONDS)
    assert more_urgent(aged, [ticket("higher", priority=7)], NOW) is None
    assert more_urgent(aged, [ticket("highest", priority=8)], NOW).project == "highest"


def test_age_brings_forward_but_takes_nobodys_place():
    at_work = ticket("at work", working=True)
    aged = replace(ticket("aged"), since=NOW - 3 * AGEING_SECONDS)
    assert more_urgent(at_work, [aged], NOW) is None


def test_at_one_level_the_one_at_work_makes_room_for_who_would_be_late_if_it_is_not_late_itself_by_that():
    late = ticket("late", slack=100, needs=300)
    room = 300 + SWITCH_SECONDS
    assert more_urgent(ticket("w", slack=room, working=True), [late], NOW).project == "late"
    assert more_urgent(ticket("w", slack=room - 1, working=True), [late], NOW) is None
    assert more_urgent(ticket("w", slack=room, needs=100, working=True), [late], NOW) is None  # it ends soon enough


def test_after_making_room_nobody_hands_the_machine_back_and_forth():
    """The one that has made room can afford to wait for the other's end, now and at every later moment."""
    first, second = ticket("first", slack=600, needs=1000, working=True), ticket("second", slack=100, needs=300)
    assert more_urgent(first, [second], NOW) is second
    resting, working = replace(first, working=False), replace(second, working=True)
    for passed in range(0, 300, 10):
        assert more_urgent(working, [resting], NOW + passed) is None


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


def join(store: Store, clock: ManualClock, machine: str, name: str, priority: int = 5, **more: object) -> Turn:
    """A turn of a process that is out of sight, which counts as there as long as it gives signs of life."""
    made = replace(ticket(name, priority=priority), machine=machine, since=clock.now(), joined_at=clock.now(), **more)
    turn = Turn(store, clock, made)
    with store.begin() as transaction:
        turn._write(transaction, made)
    return turn


def there(store: Store, clock: ManualClock, machine: str) -> list[Ticket]:
    return tickets(store, clock.now(), replace(ticket("anybody"), machine=machine))


def test_the_machine_is_taken_by_one_and_by_the_most_urgent(shared_store, clock, unused_name):
    first, second, third = (join(shared_store, clock, unused_name, name) for name in ("a", "bb", "ccc"))
    urgent = join(shared_store, clock, unused_name, "dddd", priority=8)
    assert [turn.take() for turn in (first, second, third, urgent)] == [False, False, False, True]
    assert urgent.since is None  # it did not wait: its process is paid from its start
    clock.advance(5)
    assert not first.take()
    urgent.leave()
    assert first.take() and not second.take()
    assert first.since == clock.now()
    assert [one.project for one in there(shared_store, clock, unused_name)] == ["a", "bb", "ccc"]


def test_a_process_out_of_sight_that_gives_no_sign_of_life_frees_its_place(shared_store, clock, unused_name):
    gone, waiting = (join(shared_store, clock, unused_name, name) for name in ("gone", "waiting"))
    assert gone.take() and not waiting.take()
    clock.advance(59)
    assert not waiting.take()
    clock.advance(2)
    assert waiting.take()
    gone.expect(10.0, None)  # it was there after all: its ticket is made anew, and the lease decides between them
    assert len(there(shared_store, clock, unused_name)) == 2


def test_making_room_and_coming_back_keeps_the_time_waited_and_what_is_left_to_do(shared_store, clock, unused_name):
    turn = join(shared_store, clock, unused_name, "low", needs_s=100.0)
    assert turn.take()
    clock.advance(30)
    urgent = join(shared_store, clock, unused_name, "urgent", priority=9)
    assert turn.must_yield() and turn.yields_to.project == "urgent"
    turn.step_back()
    assert turn.ticket.remaining(clock.now()) == pytest.approx(70)
    assert urgent.take() and not turn.take()
    clock.advance(40)
    urgent.leave()
    assert turn.take()
    assert turn.since == clock.now()
    assert turn.ticket.waited(clock.now()) == pytest.approx(40)
    assert turn.ticket.remaining(clock.now()) == pytest.approx(70)


def test_a_cluster_is_taken_with_the_machine_or_neither_and_by_the_most_urgent_of_all_machines(
    shared_store, clock, unused_name
):
    cluster, (here, yonder, third) = f"{unused_name}:6379", [f"{unused_name}-{number}" for number in range(3)]
    first = join(shared_store, clock, here, "first", cluster=cluster)
    alone = join(shared_store, clock, yonder, "alone")
    second = join(shared_store, clock, yonder, "second", cluster=cluster)
    assert first.take() and alone.take()
    assert not second.take()
    assert [one.project for one in second.before()] == ["first", "alone"]
    alone.leave()
    clock.advance(5)
    assert not second.take()  # its machine is free and the cluster is not, so it leaves the machine to others
    other = join(shared_store, clock, yonder, "other", priority=6)
    assert other.take()
    other.leave()
    assert not first.must_yield()
    clock.advance(LOOK_SECONDS)
    urgent = join(shared_store, clock, third, "urgent", priority=8, cluster=cluster)
    assert first.must_yield() and first.yields_to.project == "urgent"
    first.step_back()
    assert not first.take() and not second.take() and urgent.take()
    elsewhere = join(shared_store, clock, here, "elsewhere", cluster="another:6379")
    assert elsewhere.take()  # another cluster, and the machine that the first has given back
    assert {one.project for one in first.before()} == {"urgent", "elsewhere", "second"}


def test_a_run_that_does_not_wait_is_told_who_has_the_machine_or_the_cluster(shared_store, clock, unused_name):
    cluster = f"{unused_name}:6379"
    first = join(shared_store, clock, f"{unused_name}-0", "first", cluster=cluster)
    second = join(shared_store, clock, f"{unused_name}-1", "second", cluster=cluster)
    assert first.take() and not second.take()
    with pytest.raises(LeaseHeld, match="project first is at work on the cluster already") as refused:
        refuse(second)
    assert refused.value.where == f"cluster {cluster}, from machine {unused_name}-0"
    first.leave()
    refuse(second)  # nobody is before it any more
    assert second.take()
    third = join(shared_store, clock, f"{unused_name}-1", "third")
    assert not third.take()
    with pytest.raises(LeaseHeld, match="project second is at work on this machine already"):
        refuse(third)


def test_a_killed_process_frees_its_place_at_once(shared_url, shared_store, clock, unused_name, tmp_path):
    program = (
        "import sys; from pathlib import Path; from thriftune.clock import SystemClock;"
        "from thriftune.store import open_store; from thriftune.money.queue import joined\n"
        f"with joined(open_store({shared_url!r}), SystemClock(), 'killed', Path('/k'), 9, {unused_name!r}) as turn:\n"
        "    assert turn.take(); print('taken', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    killed = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True)
    try:
        assert killed.stdout.readline() == "taken\n"
        with joined(shared_store, clock, "waiting", tmp_path, 5, unused_name) as turn:
            assert not turn.take()
            (at_work,) = turn.before()
            assert (at_work.project, at_work.owner.pid) == ("killed", killed.pid)
            killed.kill()
            killed.wait()
            assert turn.take()
        assert there(shared_store, clock, unused_name) == []
    finally:
        killed.kill()
        killed.communicate()


def test_a_project_has_one_place_and_a_process_keeps_its_own(shared_store, clock, unused_name, tmp_path):
    other = replace(ticket("films"), machine=unused_name, folder=str(tmp_path))
    turn = Turn(shared_store, clock, other)
    with shared_store.begin() as transaction:
        turn._write(transaction, other)
    with pytest.raises(LeaseHeld, match="has a place"), joined(shared_store, clock, "films", tmp_path, 5, unused_name):
        raise AssertionError("it has joined")
    turn.leave()
    with joined(shared_store, clock, "films", Path("elsewhere"), 5, unused_name) as mine:
        mine.take()
        mine.step_back()
        clock.advance(20)
        with joined(shared_store, clock, "films", Path("elsewhere"), 5, unused_name) as again:  # as after an exec
            assert again.ticket.owner == this_process()
            assert again.ticket.waited(clock.now()) == pytest.approx(20)
            assert again.take()
            assert again.since == clock.now()

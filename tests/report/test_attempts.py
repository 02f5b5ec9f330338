import copy
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from recorded_run import SETTINGS, STARTED, Recorder, Story, record

from thriftune.report.attempts import attempt_lines, settings_changed
from thriftune.report.load import read_events


def test_each_attempt_tells_what_changed_what_it_cost_and_what_it_gained(tmp_path):
    store, story = record(tmp_path, Story(steps=60))
    settings = copy.deepcopy(SETTINGS)
    settings["train"]["learning_rate"] = 3e-4
    second = Recorder(store, Story(settings=settings, total=Decimal("0.70")), started=STARTED + 300)
    second.collect()
    second.finish("refused", 3, "too little")
    first, last = attempt_lines(story.summary(), read_events(store, story.name))
    assert (first.changed, first.decision, first.gain.baseline) == ((), "ship", "tfidf")
    assert first.cost > last.cost > 0
    assert last.changed == ("train.learning_rate: 0.0001 → 0.0003", "budget.total: 0.50 → 0.70")
    assert (last.outcome, last.decision, last.quality) == ("refused", None, None)


def test_an_attempt_without_a_recorded_recipe_does_not_say_that_nothing_changed(tmp_path):
    store, story = record(tmp_path, Story(steps=20))
    events = read_events(store, story.name)
    started = next(event for event in events if event.kind == "attempt.started")
    bare = type(started)(len(events) + 1, story.name, 2, started.at + 900, started.kind, started.data | {"recipe": "x"})
    assert attempt_lines(story.summary(), [*events, bare])[1].changed is None


def test_new_and_gone_settings_are_named():
    assert settings_changed({"a": {"b": 1}, "c": [1, 2]}, {"a": {"d": True}, "c": [1, 3]}) == (
        "a.b: 1 (gone)",
        "c[1]: 2 → 3",
        "a.d: yes (new)",
    )


@given(
    st.recursive(
        st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.text(max_size=3), inner), max_leaves=8
    )
)
def test_equal_settings_have_no_changes(settings):
    assert settings_changed(settings, copy.deepcopy(settings)) == ()

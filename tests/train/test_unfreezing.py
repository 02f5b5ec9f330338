"""Gradual unfreezing: which layers are trained when, from kept states or not, and what is recorded of it."""

from dataclasses import replace

import pytest
import torch
from loops import COSTS, ONLY_AT_THE_END, Record, classifier, frame, loop_of, weights

from models_for_tests import bert_folder, llama_folder
from thriftune.budget.governor import Governor, Overheads
from thriftune.errors import Interrupted
from thriftune.models.adapters import LoraShape
from thriftune.models.dropout import QuickDropout
from thriftune.models.load import layer_list, parameters_by_block
from thriftune.models.prefix import Prefix, passable_depth
from thriftune.models.reference import resolve
from thriftune.tasks.chat import ChatTask
from thriftune.train.costs import Costs, PhaseCosts, PrefixCosts
from thriftune.train.options import PhaseOptions, TrainOptions
from thriftune.train.prefix_cache import STATES, Needs, open_or_build, open_or_build_all
from thriftune.train.probe import probe_costs
from thriftune.train.recipe import Phase, Recipe
from thriftune.train.train import Work, ways_to_train
from thriftune.train.unfreezing import Unfreezing, mean_cost

PHASES = (Phase(0.0, 3, 2.0), Phase(0.3, 2), Phase(0.6, 1), Phase(0.8, 0, 0.5))
RECIPE = Recipe(epochs=6, rows_per_update=16, rate=1e-3, phases=PHASES)
STEPS = 18


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert", layers=4)


def with_kept_states(loop, folder):
    """The loop with the states of every phase's depth."""
    depths = [phase.frozen for phase in loop.recipe.phases if phase.frozen]
    wanted = {depth: Needs(loop.task, loop.train, loop.machine, depth) for depth in depths}
    prefix = Prefix(loop.model, max(depths))
    loop.kept = open_or_build_all(folder, loop.model, prefix, wanted, 1e-5, 1e9, loop.watch.unit)
    return loop


def noted(loop):
    """What was trained, whether kept states were used, and how each layer drops, by step."""
    steps = {}
    update = loop.update

    def watched(step):
        before = [p.detach().clone() for p in loop.model.parameters()]
        loss = update(step)
        moved = {p for p, old in zip(loop.model.parameters(), before, strict=True) if not p.equal(old)}
        blocks = {name for name, ps in parameters_by_block(loop.model).items() if moved.intersection(ps)}
        dropping = [
            max(m.p * m.training for m in layer.modules() if isinstance(m, QuickDropout))
            for layer in layer_list(loop.model)
        ]
        depth = loop.prefix_cache.depth if loop.prefix_cache else 0
        steps[step] = (blocks, dropping, depth)
        return loss

    loop.update = watched
    return steps


def test_layers_are_freed_from_the_top_down_and_drop_only_when_they_are_trained(model, tmp_path):
    record = Record(tmp_path)
    loop = with_kept_states(loop_of(classifier(model), RECIPE, record), tmp_path / "prefix")
    steps = noted(loop)
    loop.run(ONLY_AT_THE_END, COSTS)
    assert loop.step == STEPS
    for step, (blocks, dropping, depth) in steps.items():
        frozen = next(phase.frozen for phase in reversed(PHASES) if phase.begins <= step / STEPS)
        free = {f"layer.{n}" for n in range(frozen, 4)} | {"head"} | ({"embeddings"} if frozen == 0 else set())
        assert blocks == free
        assert dropping == [0.0] * frozen + [0.1] * (4 - frozen)
        assert depth == frozen
    begun = [(d["at_step"], d["chosen"]) for d in record.of("decision") if d["what"] == "phase"]
    assert begun == [(6, 1), (11, 2), (15, 3)]


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_training_phases_from_kept_states_is_training_them_with_the_prefix_in_evaluation_mode(model, tmp_path, family):
    if family == "bert":
        task, phases = classifier(model), PHASES
    else:
        folder = llama_folder(tmp_path / "llama")
        task = ChatTask(resolve(str(folder)), max_tokens=100, lora=LoraShape(4, 8, 0.1))
        phases = (Phase(0.0, 1, 2.0), Phase(0.5, 0))
    recipe = replace(RECIPE, phases=phases)
    data = conversations() if family == "llama" else frame()
    loops = []
    for name in ("plain", "kept"):
        loop = loop_of(task, recipe, Record(tmp_path / name), encoded=task.encode(data))
        if name == "kept":
            with_kept_states(loop, tmp_path / "prefix")
        begun = weights(loop)
        loop.run(ONLY_AT_THE_END, COSTS)
        loops.append(weights(loop))
    plain, kept = loops
    assert (plain - begun).norm() > 0.01 * begun.norm()
    assert (kept - plain).norm() / plain.norm() < 1e-5
    assert (kept - plain).norm() / (plain - begun).norm() < 1e-4


def conversations():
    import polars as pl

    messages = [[{"role": "user", "content": f"mend {number}?"}] for number in range(48)]
    return pl.DataFrame({"messages": messages, "target": [f"off {number}" for number in range(48)]})


def test_one_pass_keeps_the_states_of_every_depth(model, tmp_path):
    task = classifier(model)
    loop = with_kept_states(loop_of(task, RECIPE, Record(tmp_path)), tmp_path / "together")
    assert sorted(loop.kept) == [1, 2, 3]
    found = {depth: cache.states_of(5).copy() for depth, cache in loop.kept.items()}
    loop.kept[3].prefix.release()
    for depth, states in found.items():
        needs = Needs(task, loop.train, loop.machine, depth)
        prefix = Prefix(loop.model, depth)
        alone = open_or_build(tmp_path / "apart", loop.model, prefix, needs, 1e-5, 1e9, loop.watch.unit)
        assert (alone.states_of(5) == states).all()
        prefix.release()
    # A depth that is there stays; one that is not is made beside it.
    written = {d.name: (d / STATES).stat().st_mtime_ns for d in (tmp_path / "together").iterdir()}
    gone = Needs(task, loop.train, loop.machine, 2).key
    (tmp_path / "together" / gone / STATES).unlink()
    with_kept_states(loop, tmp_path / "together")
    again = {d.name: (d / STATES).stat().st_mtime_ns for d in (tmp_path / "together").iterdir()}
    assert {name for name in written if again[name] != written[name]} == {gone}


@pytest.mark.parametrize("settings", [{"frozen_layers": 2}, {"head_only": True}])
def test_states_are_used_where_nothing_is_freed_on_the_way_too(model, tmp_path, settings):
    task = classifier(model, **settings)
    recipe = replace(RECIPE, phases=())
    plain = loop_of(task, recipe, Record(tmp_path / "plain"))
    plain.run(ONLY_AT_THE_END, COSTS)
    loop = loop_of(task, recipe, Record(tmp_path / "kept"))
    depth = passable_depth(loop.model)
    needs = Needs(task, loop.train, loop.machine, depth)
    prefix = Prefix(loop.model, depth)
    loop.kept = open_or_build_all(tmp_path / "p", loop.model, prefix, {depth: needs}, 1e-5, 1e9, loop.watch.unit)
    steps = noted(loop)
    loop.run(ONLY_AT_THE_END, COSTS)
    assert {used for _, _, used in steps.values()} == {depth}
    assert (weights(loop) - weights(plain)).norm() < 1e-5 * weights(plain).norm()


def test_what_is_newly_freed_has_fresh_moments_and_rises_to_its_rate(model, tmp_path):
    recipe = replace(RECIPE, phases=(Phase(0.0, 3), Phase(0.5, 0)), thaw=0.2, decay="constant", warmup=0.0)
    loop = loop_of(classifier(model), recipe, Record(tmp_path))
    rates, moments = {}, {}
    update = loop.update

    def watched(step):
        loss = update(step)
        blocks = parameters_by_block(loop.model)
        for block in ("head", "layer.0"):
            groups = [group for group in loop.optimizer.param_groups if {*group["params"]} & {*blocks[block]}]
            rates.setdefault(block, []).extend(group["lr"] for group in groups)
            moments[block, step] = {float(loop.optimizer.state[p]["step"]) for p in blocks[block] if p.requires_grad}
        return loss

    loop.update = watched
    loop.run(ONLY_AT_THE_END, COSTS)
    assert moments["head", 17] == {18.0}
    assert moments["layer.0", 17] == {9.0}
    assert set(rates["head"]) == {1e-3}
    risen = sorted(set(rates["layer.0"]))
    assert risen[0] == pytest.approx(1e-3 * (0.5 / 18) / 0.2)
    assert risen[-1] == 1e-3


def test_the_best_weights_of_an_early_phase_are_whole(model, tmp_path):
    loop = loop_of(classifier(model), replace(RECIPE, watch="loss"), Record(tmp_path))
    update, found = loop.update, {}

    def watched(step):
        loss = update(step)
        if step == 3:  # the last before the validation
            found["best"] = weights(loop)
        return loss

    validate = loop.task.validate

    class Rising:
        """The task, with validation losses that only rise."""

        def __getattr__(self, name):
            return getattr(task, name)

        def validate(self, *arguments):
            return validate(*arguments) | {"loss": float(loop.step)}

    task = loop.task
    loop.task, loop.update = Rising(), watched
    outcome = loop.run(4, COSTS)
    assert outcome.best_step == 4
    assert torch.equal(weights(loop), found["best"])


@pytest.mark.parametrize("stop", [4, 6, 7, 12, 16])
def test_a_run_stopped_in_any_phase_goes_on_to_the_same_weights(model, tmp_path, stop):
    task = classifier(model)
    undisturbed = loop_of(task, RECIPE, Record(tmp_path / "undisturbed"))
    undisturbed.run(ONLY_AT_THE_END, COSTS)
    record = Record(tmp_path / "stopped")
    stopped = loop_of(task, RECIPE, record, interrupted=lambda: stopped.step >= stop)
    stopped._block = lambda every, block=stopped._block: block(1)  # a step a block
    with pytest.raises(Interrupted):
        stopped.run(ONLY_AT_THE_END, COSTS)
    assert stopped.step == stop
    resumed = with_kept_states(loop_of(task, RECIPE, record), tmp_path / "prefix")
    plain = loop_of(task, RECIPE, record)
    plain.run(ONLY_AT_THE_END, COSTS)
    assert torch.equal(weights(plain), weights(undisturbed))
    resumed.run(ONLY_AT_THE_END, COSTS)
    assert (weights(resumed) - weights(undisturbed)).norm() < 1e-5 * weights(undisturbed).norm()


def test_patience_waits_for_the_last_phase(model, tmp_path):
    recipe = replace(RECIPE, patience=1, min_gain=1.0)  # no validation is ever good enough
    loop = loop_of(classifier(model), recipe, Record(tmp_path))
    outcome = loop.run(1, COSTS)
    assert outcome.stopped == "patience"
    assert outcome.steps > 15  # the last phase began there


def test_the_costs_ahead_are_those_of_the_phases_to_come():
    phases = (Phase(0.0, 5), Phase(0.5, 2), Phase(0.75, 0))
    assert mean_cost(phases, [1.0, 4.0, 8.0]) == pytest.approx(0.5 + 0.25 * 4 + 0.25 * 8)
    assert mean_cost(phases, [1.0, 4.0, 8.0], 0.5) == pytest.approx(6.0)
    assert mean_cost(phases, [1.0, 4.0, 8.0], 1.0) == 8.0


def test_the_probe_measures_the_first_phase_and_the_last_and_leaves_the_model_alone(model, tmp_path):
    loop = loop_of(classifier(model), RECIPE, Record(tmp_path))
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    costs = probe_costs(loop, 0.0, tmp_path)
    assert all(value.equal(before[name]) for name, value in loop.model.state_dict().items())
    built = loop.task.build()
    assert [p.requires_grad for p in loop.model.parameters()] == [p.requires_grad for p in built.parameters()]
    drops = [[m.p for m in model.modules() if isinstance(m, QuickDropout)] for model in (loop.model, built)]
    assert drops[0] == drops[1]
    assert [phase.depth for phase in costs.phases] == [3, 2, 1, 0]
    assert costs.prefix.depth == 3
    assert costs.depths == [3, 2, 1]
    first, last = costs.phases[0].computed, costs.phases[-1].computed
    assert costs.phases[1].computed == pytest.approx(first + (last - first) / 3)
    assert costs.checkpoint > 0


def test_the_governor_is_told_what_the_phases_to_come_cost(model, tmp_path):
    """A plan that would fit at the first phase's speed alone is cut before the dear phases begin."""
    recipe = replace(RECIPE, epochs=200, patience=1000)
    loop = loop_of(classifier(model), recipe, Record(tmp_path))
    loop.unfreezing.costs = [1.0, 2.0, 3.0, 4.0]
    asked: list[tuple[float, float]] = []

    class Asked(Governor):
        def review(self, step, planned, step_seconds):
            asked.append((loop.pace.progress(step), step_seconds / loop.step_seconds()))
            return super().review(step, planned, step_seconds)

    overheads = Overheads(validation=0.0, validate_every=1000, checkpoint=0.0, checkpoint_every=30.0)
    governor = Asked(lambda: 1e9, tail_seconds=0.0, full_steps=loop.full_steps, overheads=overheads)
    loop.watch = replace(loop.watch, governor=governor)
    loop.run(ONLY_AT_THE_END, replace(COSTS, seconds_per_token=1e-6))
    assert len(asked) > 4
    for progress, ratio in asked:
        now = max(number for number, phase in enumerate(PHASES) if phase.begins <= progress)
        expected = mean_cost(PHASES, loop.unfreezing.costs, progress) / loop.unfreezing.costs[now]
        # It is asked at the end of a block, before the phase that is due there begins.
        assert ratio == pytest.approx(expected) or progress in {phase.begins for phase in PHASES}
    assert asked[0][1] > 1.5
    assert asked[-1][1] == pytest.approx(1.0)


def work_of_costs(loop) -> Work:
    return Work(loop.task, loop.train, loop.validation, loop.recipe, "", 32, 2)


def test_states_are_kept_at_the_depths_that_the_disk_holds_and_the_pass_is_paid_once(model, tmp_path):
    work = work_of_costs(loop_of(classifier(model), RECIPE, Record(tmp_path)))
    kept = [PhaseCosts(3, 4.0, 1.0), PhaseCosts(2, 5.0, 3.0), PhaseCosts(1, 6.0, 5.0), PhaseCosts(0, 8.0)]
    costs = Costs(4.0, 0.0, 0.0, 0.0, PrefixCosts(3, 3.0, 1.0, 128), tuple(kept))
    ways = {way.kept: way for way in ways_to_train(work, costs, TrainOptions())}
    assert len(ways) == 8
    tokens = work.mean_step_tokens
    assert ways[()].step == pytest.approx(tokens * (0.3 * 4 + 0.3 * 5 + 0.2 * 6 + 0.2 * 8))
    assert ways[3, 2, 1].step == pytest.approx(tokens * (0.3 * 1 + 0.3 * 3 + 0.2 * 5 + 0.2 * 8))
    assert ways[3, 2, 1].first == ways[3,].first == pytest.approx(3.0 * work.train_tokens)
    assert ways[1,].first == pytest.approx(1.0 * work.train_tokens)
    room_for_two = 2 * 128 * work.train_tokens / 1e9
    assert max(len(way.kept) for way in ways_to_train(work, costs, TrainOptions(prefix_cache_gb=room_for_two))) == 2


def test_gradual_unfreezing_fits_models_of_any_depth():
    for layers in range(2, 40):
        phases = TrainOptions(unfreeze="gradual").phases_for(layers)
        frozen = [phase.frozen for phase in phases]
        assert not phases or (phases[0].begins == 0 and len(phases) > 1)
        assert frozen == sorted(set(frozen), reverse=True)
        assert all(number < layers for number in frozen)
    assert TrainOptions().phases_for(12) == ()


def test_stated_phases_go_down():
    stated = (PhaseOptions(at=0.5, frozen=2), PhaseOptions(at=0.8, frozen=0, rate=0.3))
    options = TrainOptions(unfreeze="gradual", freeze_layers=4, phases=stated)
    assert options.phases_for(6) == (Phase(0.0, 4), Phase(0.5, 2), Phase(0.8, 0, 0.3))
    for wrong in (
        {"phases": stated},
        {"unfreeze": "gradual", "freeze_layers": 2, "phases": stated},
        {"unfreeze": "gradual", "freeze_layers": 5, "phases": stated[::-1]},
        {"unfreeze": "gradual", "freeze_layers": 5, "phases": (stated[0], PhaseOptions(at=0.8, frozen=2))},
    ):
        with pytest.raises(ValueError, match="phase"):
            TrainOptions(**wrong)


def test_an_unfreezing_without_phases_changes_nothing(model):
    built = classifier(model, frozen_layers=2).build()
    before = [p.requires_grad for p in built.parameters()]
    unfreezing = Unfreezing(built, ())
    assert [p.requires_grad for p in built.parameters()] == before
    assert unfreezing.is_last
    assert unfreezing.freed_at == {}
    assert unfreezing.begin(0) == unfreezing.ahead(0.5) == 1.0

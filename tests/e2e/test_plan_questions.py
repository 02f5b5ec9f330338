"""`thriftune plan` with questions and comparisons, as a child process: what it answers, and that it changes nothing."""

import json
from xml.etree import ElementTree

import pytest

from line_for_tests import classifier
from models_for_tests import bert_folder


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    return classifier(folder / "films", bert_folder(folder / "bert"), folder / "home")


def test_a_question_is_answered_beside_the_plan_and_the_project_file_stays_as_it_is(line) -> None:
    before = (line.folder / "thriftune.yaml").read_bytes()
    asked = line.json("plan", "--rows", "3000", "--deadline", "5m", "--budget", "4", "--target", "0.9")
    told = asked["what_if"]
    assert told["asked"] == {"budget": "4", "deadline": 300.0, "target": 0.9, "rows": 3000}
    assert told["steps"]["full"] == pytest.approx(10 * asked["steps"]["full"], rel=0.05)
    assert told["time_s"]["p50"] > 3 * asked["total"]["time_s"]["p50"]
    assert told["left"]["deadline_s"] < 300
    assert float(told["left"]["money"]) < 4
    assert told["outcome"] in ("whole", "cut")
    assert (line.folder / "thriftune.yaml").read_bytes() == before
    again = line.json("plan")
    assert "what_if" not in again
    assert line.rows("SELECT count(*) FROM attempts") == [(1,)]
    assert line.rows("SELECT total_nano FROM budgets")[0][0] == 5 * 10**9
    assert asked["price"] == "3.6 USD an hour, compute.price_per_hour"
    assert asked["price_age_days"] is None
    assert [phase["name"] for phase in again["timeline"]["phases"]][-2:] == ["training", "evaluation"]
    assert again["timeline"]["deadline_at"] is not None


def test_what_cannot_be_done_says_what_could(line) -> None:
    ended = line.do("plan", "--deadline", "2s")
    assert ended.returncode == 0, ended.stderr
    assert "end with an evaluated model" in ended.stdout
    assert "is a budget of" in " ".join(ended.stdout.split())
    assert "only the question was changed" in ended.stdout


@pytest.mark.parametrize(
    "arguments",
    [("--rows", "few"), ("--budget", "-3"), ("--deadline", "yesterday"), ("--picture", "f.svg"), ("--target", "x")],
)
def test_a_bad_value_is_one_message_and_exit_2(line, arguments) -> None:
    ended = line.do("plan", *arguments)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("error: ") == 1
    assert arguments[0] in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_comparison_has_every_market_a_choice_with_reasons_and_a_picture(line) -> None:
    told = line.json("plan", "--compare", "--picture", "frontier.svg")["compare"]
    kinds = {option["kind"] for option in told["options"]}
    assert kinds == {"local", "on-demand", "spot"}
    assert {"1 x L4", "8 x H100"} <= {option["accelerators"] for option in told["options"]}
    (chosen,) = [option for option in told["options"] if not option["why_not"]]
    assert chosen["name"] == told["chosen"]["name"]
    for option in told["options"]:
        if option["kind"] != "local" and option["time_s"]:
            assert option["basis"].startswith("prior")
            assert option["time_s"]["p95"] / option["time_s"]["p5"] > 2
            assert "days old" in option["price"]
        if option["risk"] and option["risk"]["rate"] == "not known":
            assert option["risk"]["interruptions"] is None
            assert option["why_not"]
    assert ElementTree.parse(line.folder / "frontier.svg").getroot().tag.endswith("svg")
    ended = line.do("plan", "--compare")
    assert ended.returncode == 0, ended.stderr
    assert "not measured, but foretold" in ended.stdout
    assert "AWS Spot Instance Advisor" in ended.stdout
    assert json.dumps(told)  # plain values, no NaN

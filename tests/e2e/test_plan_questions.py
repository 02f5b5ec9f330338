"""`thriftune plan` with questions and comparisons, as a child process: what it answers, and that it changes nothing."""

import json
from xml.etree import ElementTree

import pytest

from line_for_tests import chat, classifier
from models_for_tests import bert_folder, llama_folder


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
    kept = line.json("report")["compared"]
    assert kept["ways"] == len(told["options"])
    assert kept["options"][kept["chosen"]]["name"] == chosen["name"]
    ended = line.do("plan", "--compare")
    assert ended.returncode == 0, ended.stderr
    assert "not measured, but foretold" in ended.stdout
    assert "AWS Spot Instance Advisor" in ended.stdout
    assert json.dumps(told)  # plain values, no NaN


def test_for_chat_managed_tuning_stands_beside_it(tmp_path) -> None:
    line = chat(tmp_path / "tickets", llama_folder(tmp_path / "llama"), tmp_path / "home")
    told = line.json("plan", "--compare")
    managed = [option for option in told["compare"]["options"] if option["kind"] == "managed"]
    assert {option["name"].partition(":")[0] for option in managed} == {"openai", "vertex"}
    for option in managed:
        assert option["time_s"] is None
        assert option["price_is_old"]
        assert "how long it takes is not known" in option["why_not"]
        per_million = float(option["price"].partition(" ")[0])
        assert option["cost"]["p50"] == pytest.approx(told["tokens"] * per_million / 1e6)


def test_a_timeline_follows_a_run_from_its_plan_to_its_end(tmp_path) -> None:
    line = classifier(tmp_path / "films", bert_folder(tmp_path / "bert"), tmp_path / "home", epochs=2)
    ended = line.do("timeline")
    assert ended.returncode == 2
    assert "run `thriftune plan` first" in ended.stderr
    with (line.folder / "thriftune.yaml").open("a") as file:
        file.write("timeline: {tasks: [{name: review, who: bo, hours: 2, after: evaluation}]}\n")
    line.run_killed_at("step.done")
    killed = line.json("timeline")
    states = {phase["name"]: phase["state"] for phase in killed["phases"]}
    assert (states["data"], states["training"], states["review"]) == ("done", "to come", "to come")
    assert killed["deadline_at"] is not None
    assert 0 <= killed["chance"] <= 1
    assert line.do("run").returncode == 0
    done = line.json("timeline")
    states = {phase["name"]: phase["state"] for phase in done["phases"]}
    assert states == {
        **dict.fromkeys(("data", "baselines", "set-up", "training", "evaluation"), "done"),
        "review": "to come",
    }
    assert done["chance"] == 1.0
    told = line.json("report")["schedule"]
    assert [phase["name"] for phase in told["phases"]] == [phase["name"] for phase in done["phases"]]
    for name in ("plan.ics", "plan.csv", "plan.mmd"):
        assert line.do("timeline", "--export", name).returncode == 0
        assert "review" in (line.folder / name).read_text()
    assert line.do("timeline", "--export", "plan.pdf").returncode == 2
    page = (line.folder / ".thriftune" / "reports" / "attempt-1.html").read_text()
    assert "Gantt chart of films" in page

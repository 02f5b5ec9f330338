"""What the documents say is there: commands parse, files and headings exist, generated parts are fresh."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import docs as made  # noqa: E402  scripts/docs.py

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
STAGES = ("collect", "prepare", "select", "plan", "train", "evaluate", "report", "deploy")
PROMISES = 8

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
IN_REPOSITORY = re.compile(r"^(?:src|tests|bench|docs|examples|scripts|\.ci)/[\w./-]*(?:::\w+)?$")
IN_PACKAGE = re.compile(r"^[a-z]+/[\w/]+\.(?:py|csv)$|^[a-z]+\.py$")
VARIABLE = re.compile(r"\bTHRIFTUNE_[A-Z_]+\b")

ENVIRONMENT = re.compile(r"^[A-Z_]+=\S*$")
SEPARATORS = frozenset({"|", "&&", "||", ";", "&"})
ELSEWHERE = frozenset({"cd", "curl", "export", "git", "head", "psql", "tee"})  # programs that are not ours to check


def of_page(path: Path) -> str:
    return str(path.relative_to(ROOT))


def console_commands(text: str) -> Iterator[list[str]]:
    """The commands of ```console blocks (after `$`) and of plain blocks in which every line is one of ours."""
    for language, block in FENCED.findall(text):
        for line in block.splitlines():
            if language == "console" and line.startswith("$ "):
                yield from split_commands(line[2:])
            elif language == "" and line.startswith("thriftune "):
                yield from split_commands(line)


def split_commands(line: str) -> Iterator[list[str]]:
    """The commands of a line, comments and settings of the environment left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SEPARATORS:
            words.append(word)
            continue
        while words and ENVIRONMENT.match(words[0]):
            words.pop(0)
        if words:
            yield words
        words = []


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def check_command(words: list[str], mentioned: bool = False) -> None:
    """Raise or fail unless a command could be given as it stands; one that is only mentioned may lack its arguments."""
    program = words[0].removeprefix(".venv/bin/")
    if program == "thriftune":
        check_ours(words[1:], mentioned)
    elif program == "make":
        assert words[1:] and set(words[1:]) <= make_targets(), f"no such target: {words}"
    elif program.startswith("python") and words[1] == "-m":
        assert (ROOT / "src" / words[2].replace(".", "/")).with_suffix(".py").is_file(), words
    elif program.startswith("python") or program == "bash":
        assert (ROOT / words[1]).is_file(), words
    elif "/" in program:
        assert (ROOT / program).is_file(), words
    else:
        assert program in ELSEWHERE, f"{program} is neither ours nor a program that a reader surely has"


def check_ours(words: list[str], mentioned: bool) -> None:
    """Give a command to the real parser, which raises when a command, an option or an argument is wrong."""
    command, name = made.command_line(), "thriftune"
    while words and (inner := getattr(command, "commands", None)) is not None and words[0] in inner:
        command, name, words = inner[words[0]], f"{name} {words[0]}", words[1:]
    if words and hasattr(command, "commands") and (shown := getattr(command, "by_default", "")):
        command = command.commands[shown]
    if "--help" in words or (not words and hasattr(command, "commands")):
        return
    assert not hasattr(command, "commands"), f"{name} has no command {words[0]}"
    if words or not mentioned:
        command.make_context(name, list(words))


def test_the_parser_that_checks_the_documents_refuses_what_is_wrong():
    for right in ("thriftune run --json", "thriftune init reviews.csv --budget 2.50", "thriftune prices set a:b 2.49"):
        check_command(right.split())
    for wrong in ("thriftune fly", "thriftune run --fast", "thriftune init", "thriftune budget lend 1", "make coffee"):
        with pytest.raises(Exception):  # noqa: B017  the parser's own classes are private to it
            check_command(wrong.split())


@pytest.mark.parametrize("path", PAGES, ids=of_page)
def test_every_command_parses(path):
    text = path.read_text(encoding="utf-8")
    for words in console_commands(text):
        check_command(words)
    for code in INLINE.findall(FENCED.sub("", text)):
        if code.startswith(("thriftune ", "make ")) and "COMMAND" not in code:
            for words in split_commands(code):
                check_command(words, mentioned=True)


@pytest.mark.parametrize("path", PAGES, ids=of_page)
def test_every_link_leads_somewhere(path):
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{target} is not there"
        if anchor:
            headings = [made.slug(heading) for heading in HEADING.findall(there.read_text(encoding="utf-8"))]
            assert anchor in headings, f"{target}: there is no such heading"


@pytest.mark.parametrize("path", PAGES, ids=of_page)
def test_every_file_that_is_named_exists(path):
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    for code in INLINE.findall(text):
        if IN_REPOSITORY.match(code):
            name, _, test = code.partition("::")
            # Results are made by `make bench`; their folder is there from the first one on.
            assert (ROOT / name).exists() or name == "bench/results/", f"{name} is not there"
            if test:
                assert f"def {test}(" in (ROOT / name).read_text(encoding="utf-8"), f"{code} is not there"
        elif IN_PACKAGE.match(code):
            assert (ROOT / "src" / "thriftune" / code).exists(), f"{code} is not there"


@pytest.mark.parametrize("path", PAGES, ids=of_page)
def test_every_piece_of_a_project_file_is_one(path):
    from thriftune.project.file import ProjectFile
    from thriftune.project.yamltext import read_yaml

    whole = read_yaml((ROOT / "examples" / "sentiment" / "thriftune.yaml").read_text(encoding="utf-8"), "example").value
    for language, block in FENCED.findall(path.read_text(encoding="utf-8")):
        if language == "yaml":
            stated = read_yaml(block, str(path)).value
            ProjectFile.model_validate(stated if "name" in stated else whole | stated)


@pytest.mark.parametrize("path", PAGES, ids=of_page)
def test_no_machine_of_ours_is_named(path):
    assert not re.search(r"(?<![\w.])/(?:work|root|opt)/", path.read_text(encoding="utf-8"))


def test_what_is_generated_is_fresh():
    stale = [of_page(path) for path, text in made.pages() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `make docs`"


def test_stale_pages_are_found_and_written(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    monkeypatch.setattr(made, "ROOT", tmp_path)
    monkeypatch.setattr(made, "pages", lambda: iter([(page, "fresh\n")]))
    assert made.main(["--check"]) == 1
    assert not page.exists()
    assert made.main([]) == 0
    assert page.read_text() == "fresh\n"
    assert made.main(["--check"]) == 0
    assert "stale" in capsys.readouterr().out


def test_a_table_tells_what_was_kept_and_what_was_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "RESULTS", tmp_path)
    kept = (
        '{"claim": "c|d", "ratio": 2.0, "ratio_best": 1.5, "peer": {"name": "p", "version": "1"}, "holds": false, '
        '"machine": {"cores": 2, "peak_gflops": {"fp32": 99.6}}, "seeds": [1, 2, 3], "quick": true}'
    )
    (tmp_path / "classify.json").write_text(kept)
    page = "before\n<!-- measured: classify, chat -->\nold\n<!-- /measured -->\nafter\n"
    lines = made.with_measurements(page).splitlines()
    told = "2.00 × p 1; 1.50 × the peer at its best settings; 2 cores, fp32 100 GFLOP/s, 3 seeds (a quick run)"
    assert lines[4] == rf"| `classify` | c\|d | {told} | **no** |"
    assert lines[5].endswith("| not measured yet | not measured yet |")
    assert (lines[0], lines[-1]) == ("before", "after")


def test_each_stage_and_each_promise_has_its_page():
    for stage in STAGES:
        assert (ROOT / "docs" / f"{stage}.md").is_file(), stage
    numbers = [int(path.name.split("-")[0]) for path in sorted((ROOT / "docs" / "promises").glob("*-*.md"))]
    assert numbers == list(range(1, PROMISES + 1))


def test_every_page_can_be_reached_from_the_readme():
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            there = (page.parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there not in reached and there.exists():
                ahead.append(there)
    assert {path for path in PAGES if path not in reached} == set()


def test_every_variable_of_the_environment_is_told_of_and_read():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    code += "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "scripts").iterdir() if path.is_file())
    troubleshooting = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert set(VARIABLE.findall(code)) <= set(VARIABLE.findall(troubleshooting))
    named = {name for path in PAGES for name in VARIABLE.findall(path.read_text(encoding="utf-8"))}
    assert named <= set(VARIABLE.findall(code))


def test_every_exit_status_is_told_of():
    from thriftune import errors

    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    for name, status in vars(errors).items():
        if name.startswith("EXIT_"):
            assert re.search(rf"^\| {status} \|", page, re.MULTILINE), f"{name} = {status}"

"""The whole product on small random models: projects to run, the command line as a child process, and what it left."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

import psycopg

GOOD, BAD = ["good", "great", "fine"], ["bad", "awful", "dull", "slow"]
FILLING = ["the", "a", "film", "was", "is", "not", "very", "what", "how", "why", "do", "you", "i", "it"]
PATIENT_SECONDS = 120  # no run on these models takes that long, on a busy machine either

CLASSIFY = """name: {name}
objective: {{task: classify}}
data:
  - {{file: films.csv, text: text, label: label}}
budget: {{total: {budget}}}
deadline: {deadline}
compute: {{price_per_hour: 3.6}}
models: ./model
plan: {{probe_seconds: 0.2}}
train: {{epochs: {epochs}, batch_rows: 32, learning_rate: 0.003, patience: 1000, precision: fp32, threads: 1,
  validations_per_epoch: 2, checkpoint_seconds: 1}}
"""

CHAT = """name: tickets
objective: {task: chat}
data:
  - {file: tickets.jsonl, prompt: prompt, completion: completion}
budget: {total: 5.00}
deadline: 20m
compute: {price_per_hour: 3.6}
models: ./model
plan: {probe_seconds: 0.2}
evaluate: {generate_rows: 10}
train: {epochs: 20, batch_rows: 4, learning_rate: 0.01, patience: 1000, precision: fp32, threads: 1,
  validations_per_epoch: 1, checkpoint_seconds: 1}
"""


def write_films(path: Path, rows: int = 300, seed: int = 0) -> None:
    """Texts of known words with a label that one of them tells."""
    drawn = random.Random(seed)
    lines = ["text,label"]
    for _ in range(rows):
        label, telling = drawn.choice([("pos", GOOD), ("neg", BAD)])
        words = [*(drawn.choice(FILLING) for _ in range(drawn.randint(8, 30))), drawn.choice(telling)]
        drawn.shuffle(words)
        lines.append(f"{' '.join(words)},{label}")
    path.write_text("\n".join(lines) + "\n")


def write_opposites(path: Path, films: Path, before: str = "") -> None:
    """The same films with each label turned round, `before` in front of each text."""
    header, *rows = films.read_text().splitlines()
    other = {"pos": "neg", "neg": "pos"}
    turned = [f"{before}{text},{other[label]}" for text, label in (row.rsplit(",", 1) for row in rows)]
    path.write_text("\n".join([header, *turned]) + "\n")


@dataclass(frozen=True)
class Line:
    """A project's folder, and its commands as child processes of their own.

    Args:
        folder: holds the project file, the data and the model.
        home: THRIFTUNE_HOME, where durations are remembered.
        database: the URL of a database server; the project's own SQLite file by default.
    """

    folder: Path
    home: Path
    database: str = ""

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("THRIFTUNE_")}
        server = {"THRIFTUNE_DATABASE_URL": self.database} if self.database else {}
        return kept | {"THRIFTUNE_HOME": str(self.home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | server | more

    def command(self, *arguments: str | Path) -> list[str]:
        """The words of a command."""
        return [sys.executable, "-c", "from thriftune.cli.main import main; main()", *map(str, arguments)]

    def start(self, *arguments: str | Path, **more: str) -> subprocess.Popen[str]:
        """Begin a command; `more` are environment variables."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def do(self, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Do a command to its end."""
        process = self.start(*arguments, **more)
        try:
            out, err = process.communicate(timeout=PATIENT_SECONDS)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def run_killed_at(self, crash_point: str) -> None:
        """`thriftune run` until it gets to a named crash point, which it must."""
        ended = self.do("run", THRIFTUNE_CRASH_AT=crash_point)
        assert ended.returncode == -signal.SIGKILL, (crash_point, ended.returncode, ended.stdout, ended.stderr)

    def run_killed_after(self, seconds: float) -> bool:
        """`thriftune run` for some seconds, then SIGKILL; False when it had ended before."""
        process = self.start("run")
        try:
            process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return True
        assert process.returncode == 0
        return False

    def json(self, command: str, *arguments: str) -> dict[str, Any]:
        """What a command prints with `--json`."""
        ended = self.do(command, "--json", *arguments)
        assert ended.returncode == 0, ended.stderr
        return dict(json.loads(ended.stdout))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the project's database; a SQLite file is read as one who may not touch its log, at work or ended."""
        if self.database:
            with psycopg.connect(self.database.replace("+psycopg", "")) as server:
                return server.execute(query.encode()).fetchall()
        file = (self.folder / ".thriftune" / "thriftune.db").absolute().as_uri()
        with closing(sqlite3.connect(f"{file}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The data of the events of a kind, in their order."""
        found = self.rows(f"SELECT data FROM events WHERE kind = '{kind}' ORDER BY seq")
        return [json.loads(data) if isinstance(data, str) else data for (data,) in found]

    def wait_for(self, kind: str, count: int = 1) -> None:
        """Wait until the run at work has recorded so many events of a kind."""
        self.wait_until(lambda: len(self.events(kind)) >= count, kind)

    def wait_until(self, holds: Callable[[], bool], what: str = "it") -> None:
        """Wait until something holds of what the run at work has recorded."""
        ends = time.monotonic() + PATIENT_SECONDS
        while time.monotonic() < ends:
            try:
                if holds():
                    return
            except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):  # its database is only being made
                pass
            time.sleep(0.05)
        raise AssertionError(f"{what} did not come")

    def weights(self) -> str:
        """The hash of the one tuned model's weights."""
        (file,) = (self.folder / ".thriftune" / "artifacts" / "train").glob("**/*.safetensors")
        return hash_of(file)

    def leftovers(self) -> list[str]:
        """What is half-written: hidden names of ours under the state folder."""
        return sorted(str(path) for path in self.folder.rglob("*.tmp"))


def hash_of(file: Path) -> str:
    """BLAKE2b of a file."""
    return blake2b(file.read_bytes()).hexdigest()


def charged(line: Line) -> Decimal:
    """The sum of all charges that the events tell of."""
    return sum((Decimal(event["amount"]) for event in line.events("charge")), Decimal(0))


def classifier(folder: Path, model: Path, home: Path, text: str = CLASSIFY, database: str = "", **values: Any) -> Line:
    """A project on films, ready to run."""
    folder.mkdir(parents=True)
    shutil.copytree(model, folder / "model")
    write_films(folder / "films.csv")
    stated = {"name": "films", "budget": "5.00", "deadline": "20m", "epochs": 40} | values
    (folder / "thriftune.yaml").write_text(text.format(**stated))
    return Line(folder, home, database)


def chat(folder: Path, model: Path, home: Path) -> Line:
    """A project on questions and answers, ready to run."""
    folder.mkdir(parents=True)
    shutil.copytree(model, folder / "model")
    pairs = [(f"how do i mend {thing} {i}?", f"turn it off {i}") for i in range(40) for thing in ("lamp", "door")]
    lines = [json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in pairs]
    (folder / "tickets.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "thriftune.yaml").write_text(CHAT)
    return Line(folder, home)

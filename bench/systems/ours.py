"""The held-out rows asked of the model that `thriftune run` ended with, as its service would answer them.

`ours.py predict FOLDER` answers texts.jsonl or prompts.jsonl in answers.jsonl, `ours.py untuned FOLDER` by the model as
it came.
"""

import json
import sys
from pathlib import Path

from given import read


def predict(folder: Path, untuned: bool) -> None:
    """Write the answers."""
    from thriftune.cli.serve import open_latest
    from thriftune.project import Project

    release = open_latest(Project.load(folder / "thriftune.yaml"))
    if (folder / "texts.jsonl").exists():
        asked = [release.clean(row["text"]) for row in read(folder / "texts.jsonl")]
    else:
        prompts = [release.clean(row["prompt"]) for row in read(folder / "prompts.jsonl")]
        asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
    predictor = release.predictor.task.untuned() if untuned else release.predictor
    answers = [answer.output for answer in predictor.predict(asked)]
    (folder / "answers.jsonl").write_text("".join(json.dumps({"answer": answer}) + "\n" for answer in answers))


if __name__ == "__main__":
    predict(Path(sys.argv[2]), untuned=sys.argv[1] == "untuned")

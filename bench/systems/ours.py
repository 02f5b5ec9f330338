"""The held-out rows asked of the model that `thriftune run` ended with, as its service would answer them.

`ours.py predict FOLDER` answers texts.jsonl or prompts.jsonl in answers.jsonl, `ours.py untuned FOLDER` by the model as
it came.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from given import read


def predict(folder: Path, untuned: bool) -> None:
    """Write the answers."""
    from thriftune.cli.serve import open_latest
    from thriftune.models.reference import resolve
    from thriftune.project import Project

    project = Project.load(folder / "thriftune.yaml")
    release = open_latest(project)
    if (folder / "texts.jsonl").exists():
        asked = [release.clean(row["text"]) for row in read(folder / "texts.jsonl")]
    else:
        prompts = [release.clean(row["prompt"]) for row in read(folder / "prompts.jsonl")]
        asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
    predictor = release.predictor
    if untuned:  # a release's own model may be the tuned one, merged into a plain folder
        (reference,) = project.file.model_references
        predictor = replace(predictor.task, model=resolve(reference, base=folder)).untuned()
    answers = [answer.output for answer in predictor.predict(asked)]
    (folder / "answers.jsonl").write_text("".join(json.dumps({"answer": answer}) + "\n" for answer in answers))


if __name__ == "__main__":
    predict(Path(sys.argv[2]), untuned=sys.argv[1] == "untuned")

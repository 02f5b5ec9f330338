"""AutoGluon-MultiModal with its default recipe and `time_limit`; runs in the environment that scripts/autogluon makes.

`autogluon.py fit FOLDER SECONDS SEED MODEL` reads train.jsonl and leaves model/; `autogluon.py predict FOLDER` answers
texts.jsonl in answers.jsonl.
"""

import json
import sys
from pathlib import Path

from given import read

sys.path.pop(0)  # this file's folder: `autogluon` is the library


def predictor_class():
    """The library's predictor. Its torchvision was built for another torch: the operators that it registers as fakes
    are not there, and nothing here uses them."""
    import torch

    registered = torch.library.register_fake
    torch.library.register_fake = lambda *_, **__: lambda function: function
    import torchvision  # noqa: F401

    torch.library.register_fake = registered
    from autogluon.multimodal import MultiModalPredictor

    return MultiModalPredictor


def fit(folder, limit, seed, checkpoint):
    import pandas

    rows = pandas.DataFrame(read(folder / "train.jsonl"))[["text", "label"]]
    settings = {
        "model.names": ["hf_text"],
        "model.hf_text.checkpoint_name": checkpoint,
        "env.num_gpus": 0,
        "env.num_workers": 0,
        "env.precision": "32",
        "model.hf_text.text_trivial_aug_maxscale": 0,  # its augmentation wants a download
    }
    predictor = predictor_class()(label="label", path=str(folder / "model"))
    predictor.fit(rows, time_limit=limit, hyperparameters=settings, seed=seed)


def predict(folder):
    import pandas

    texts = pandas.DataFrame(read(folder / "texts.jsonl"))
    answers = predictor_class().load(str(folder / "model")).predict(texts)
    lines = [json.dumps({"answer": str(answer)}) + "\n" for answer in answers.tolist()]
    (folder / "answers.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    if sys.argv[1] == "fit":
        fit(Path(sys.argv[2]), int(float(sys.argv[3])), int(sys.argv[4]), sys.argv[5])
    else:
        predict(Path(sys.argv[2]))

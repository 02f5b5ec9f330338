"""The cheap way: TF-IDF with logistic regression; for chat, the answer of the most similar question.

`tfidf.py fit FOLDER SECONDS SEED` reads train.jsonl and answers texts.jsonl or prompts.jsonl in answers.jsonl: it is
too quick to be stopped. `tfidf.py predict FOLDER` finds that done.
"""

import json
import sys
from pathlib import Path

from given import read


def classify(rows, texts):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(max_iter=1000, class_weight=None)
    )
    search = GridSearchCV(model, {"logisticregression__C": [1, 3, 10, 30]}, cv=3)
    search.fit([row["text"] for row in rows], [row["label"] for row in rows])
    return [str(label) for label in search.predict(texts)]


def retrieve(rows, prompts):
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    known = vectors.fit_transform([row["prompt"] for row in rows])
    nearest = (vectors.transform(prompts) @ known.T).argmax(axis=1)
    return [rows[int(row)]["completion"] for row in nearest.ravel().tolist()[0]]


def fit(folder):
    rows = read(folder / "train.jsonl")
    if (folder / "prompts.jsonl").exists():
        answers = retrieve(rows, [row["prompt"] for row in read(folder / "prompts.jsonl")])
    else:
        answers = classify(rows, [row["text"] for row in read(folder / "texts.jsonl")])
    (folder / "answers.jsonl").write_text("".join(json.dumps({"answer": answer}) + "\n" for answer in answers))


if __name__ == "__main__" and sys.argv[1] == "fit":
    fit(Path(sys.argv[2]))

"""Folds of the training rows: what belongs together stays together, and classes keep their shares."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thriftune.errors import BadInput


def repeated_folds(frame: pl.DataFrame, folds: int, repeats: int, by_class: bool, seed: int) -> NDArray[np.bool_]:
    """(repeats × folds, rows) whether a row is held out: each repeat cuts the rows into folds anew.

    Args, errors: as of `folds_of`, whose cut is the first repeat.
    """
    cuts = [folds_of(frame, folds, by_class, seed + repeat) for repeat in range(repeats)]
    return np.concatenate([cut[None, :] == np.arange(folds)[:, None] for cut in cuts])


def folds_of(frame: pl.DataFrame, folds: int, by_class: bool, seed: int) -> NDArray[np.int64]:
    """(rows,) the fold in which each row is held out.

    Args:
        frame: training rows, with `group` and `target`.
        folds: how many.
        by_class: whether each class is spread evenly over the folds.
        seed: of the shuffle.

    Raises:
        BadInput: there are fewer groups of rows than folds.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    named = frame["group"].to_list() if "group" in frame.columns else [None] * len(frame)
    groups = [f"row {row}" if group is None else f"group {group}" for row, group in enumerate(named)]
    if len(set(groups)) < folds:
        raise BadInput(
            "there are too few rows to search by cross-validation",
            where="search.folds",
            found=f"{len(set(groups))} rows or groups of rows to train on",
            expected=f"at least {folds}, one a fold",
            way_out="give it more rows, ask for fewer folds, or leave search out",
        )
    classes = frame["target"].to_list() if by_class else [0] * len(frame)
    splitter = (StratifiedGroupKFold if by_class else GroupKFold)(n_splits=folds, shuffle=True, random_state=seed)
    held_out = np.zeros(len(frame), dtype=np.int64)
    for number, (_, rows) in enumerate(splitter.split(np.zeros(len(frame)), classes, groups)):
        held_out[rows] = number
    return held_out

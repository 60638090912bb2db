"""The two methods of a task on the same splits."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold, StratifiedShuffleSplit
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from sktransfer.demo.tasks import Method, Task

GRID = {"logisticregression__C": np.logspace(-2, 3, 6)}
INNER_FOLDS = 4


@dataclass(frozen=True)
class Outcome:
    """What one method reached on all splits.

    Attributes
    ----------
    method : str
        Its name.
    scores : ndarray of shape (n_splits,)
        Accuracy on the test rows of each split.
    chosen_C : ndarray of shape (n_splits,)
        The `C` that the inner cross-validation chose.
    seconds : float
        For all splits: loading the network, searches, refits and predictions.
    """

    method: str
    scores: np.ndarray
    chosen_C: np.ndarray
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """What both methods of a task reached.

    Attributes
    ----------
    task : str
        Its name.
    n_train, n_test, n_classes : int
        Rows to learn from and to test on in each split, and number of classes.
    usual, pretrained : Outcome
        Without transfer, and with it; position i of both is the same split.
    """

    task: str
    n_train: int
    n_test: int
    n_classes: int
    usual: Outcome
    pretrained: Outcome


def compare(task: Task, n_splits: int, seed: int) -> Comparison:
    """Run both methods of a task on the same random splits.

    Parameters
    ----------
    task : Task
        What to compare.
    n_splits : int
        Number of random splits into few rows to learn from and many to test on.
    seed : int
        Seed of the splits.

    Returns
    -------
    Comparison
    """
    n_classes = len(np.unique(task.target))
    n_train = task.labels_per_class * n_classes
    splitter = StratifiedShuffleSplit(n_splits, train_size=n_train, random_state=seed)
    splits = list(splitter.split(task.target, task.target))
    return Comparison(
        task=task.name,
        n_train=n_train,
        n_test=len(task.target) - n_train,
        n_classes=n_classes,
        usual=_run(task, task.usual, splits, seed),
        pretrained=_run(task, task.pretrained, splits, seed),
    )


def _run(task: Task, method: Method, splits: list[tuple[np.ndarray, np.ndarray]], seed: int) -> Outcome:
    start = time.perf_counter()
    scores, chosen = [], []
    for train, test in tqdm(splits, desc=f"{task.name}, {method.name}", unit="split", leave=False):
        folds = StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=seed)
        search = GridSearchCV(method.pipeline, GRID, cv=folds)
        # A matrix product of a hundred rows is done before a second thread has woken up; many threads that wait for
        # each other make LogisticRegression ten times slower. The networks compute with torch's threads, not these.
        with threadpool_limits(1, user_api="blas"):
            search.fit(method.rows[train], task.target[train])
            scores.append(search.score(method.rows[test], task.target[test]))
        chosen.append(search.best_params_["logisticregression__C"])
    return Outcome(method.name, np.array(scores), np.array(chosen), time.perf_counter() - start)

"""What the demo compares: two tasks, and two pipelines for each."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

import numpy as np
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from sktransfer import PretrainedFeatureExtractor

# The searches go up to C=1000, where the solver needs more than its default of 100 iterations.
_MAX_ITER = 5000


@dataclass(frozen=True)
class Method:
    """A pipeline, and the rows in the form that it reads.

    Attributes
    ----------
    name : str
        As printed and drawn.
    rows : ndarray of n_samples rows
        Texts, images or flat pixels.
    pipeline : Pipeline
        Ends in a `LogisticRegression`.
    """

    name: str
    rows: np.ndarray
    pipeline: Pipeline


@dataclass(frozen=True)
class Task:
    """Labelled rows, and the two methods to compare on them.

    Attributes
    ----------
    name : str
        As printed and drawn.
    target : ndarray of shape (n_samples,)
        Class of each row.
    labels_per_class : int
        Rows of each class to learn from; the others are for the test.
    usual, pretrained : Method
        The way without transfer, and the one with it.
    """

    name: str
    target: np.ndarray
    labels_per_class: int
    usual: Method
    pretrained: Method


def read_texts() -> tuple[np.ndarray, np.ndarray]:
    """Read the texts of the demo.

    Returns
    -------
    texts : ndarray of shape (240,), object
        Messages to a city's service desk, 8 topics with 30 each.
    topics : ndarray of shape (240,), object
        Topic of each message.
    """
    with (resources.files("sktransfer.demo") / "texts.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["topic"]) for row in csv.DictReader(file)]
    texts, topics = np.array(rows, dtype=object).T
    return texts, topics


def text_task() -> Task:
    """Return the comparison on texts: TF-IDF against the shipped text network."""
    texts, topics = read_texts()
    # Without its list of stop words, TF-IDF does much worse on texts this short and few.
    counts = make_pipeline(TfidfVectorizer(stop_words="english"), LogisticRegression(max_iter=_MAX_ITER))
    network = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=_MAX_ITER))
    return Task(
        name="texts",
        target=topics,
        labels_per_class=8,
        usual=Method("TF-IDF", texts, counts),
        pretrained=Method("pretrained network", texts, network),
    )


def image_task() -> Task:
    """Return the comparison on images: pixels against the shipped image network."""
    digits = load_digits()
    # Digits have 17 shades of grey, 0 to 16. The network reads uint8; pixels in 0..1 are easier on the solver.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    pixels = make_pipeline(LogisticRegression(max_iter=_MAX_ITER))
    network = make_pipeline(PretrainedFeatureExtractor(), LogisticRegression(max_iter=_MAX_ITER))
    return Task(
        name="digits",
        target=digits.target,
        labels_per_class=10,
        usual=Method("raw pixels", digits.data / 16, pixels),
        pretrained=Method("pretrained network", images, network),
    )

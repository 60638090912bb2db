"""The real all-MiniLM-L6-v2, against sentence-transformers itself."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sktransfer import PretrainedFeatureExtractor, cache_info, unload_backbones


@pytest.fixture(scope="module")
def banking(data):
    frame = pd.read_csv(data / "banking77" / "train.csv")
    longest = frame["text"].str.len().idxmax()
    return pd.concat([frame.loc[[longest]], frame.sample(1998, random_state=0)]).reset_index(drop=True)


def test_embeddings_equal_those_of_sentence_transformers(minilm, banking):
    from sentence_transformers import SentenceTransformer

    X = ["", *banking["text"]]
    assert len(X) == 2000
    expected = SentenceTransformer(str(minilm), device="cpu").encode(X, convert_to_numpy=True, batch_size=64)
    extractor = PretrainedFeatureExtractor(minilm).fit(X)
    np.testing.assert_allclose(extractor.transform(X), expected, atol=1e-5)
    # Another order and other batch mates, computed anew.
    some = np.random.default_rng(0).permutation(2000)[:200]
    fresh = extractor.set_params(cache=None, batch_size=9).transform([X[i] for i in some])
    np.testing.assert_allclose(fresh, expected[some], atol=1e-5)


def test_a_search_over_C_loads_once_and_encodes_sixty_rows(minilm, banking, monkeypatch):
    import transformers

    rows, loads = [], []
    forward, load = transformers.BertModel.forward, transformers.BertModel.from_pretrained.__func__

    def counted_forward(self, input_ids=None, *args, **kwargs):
        rows.append(len(input_ids))
        return forward(self, input_ids, *args, **kwargs)

    def counted_load(cls, *args, **kwargs):
        loads.append(cls)
        return load(cls, *args, **kwargs)

    unload_backbones()
    monkeypatch.setattr(transformers.BertModel, "forward", counted_forward)
    monkeypatch.setattr(transformers.BertModel, "from_pretrained", classmethod(counted_load))
    some = banking.drop_duplicates("text").iloc[:60]
    model = Pipeline([("embed", PretrainedFeatureExtractor(str(minilm))), ("head", LogisticRegression())])
    search = GridSearchCV(model, {"head__C": [0.1, 1, 10, 100]}, cv=5)
    search.fit(some["text"], np.arange(60) % 3)
    assert len(loads) == 1
    assert sum(rows) == 60
    assert cache_info().misses == 60
    assert search.predict(some["text"][:3]).shape == (3,)
    assert sum(rows) == 60

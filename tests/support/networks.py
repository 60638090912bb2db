"""Tiny networks with seeded random weights, and the directories and tokenizers that go with them."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from sktransfer import ModuleBackbone

WORDS = "how do i reset my card s pin the delivery was late again thanks a one two three überweisung".split()


def tiny_tokenizer():
    """Whole words, [CLS] in front and [SEP] behind."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def save_tiny_bert(directory, *, seed=0, model_class="BertModel", **settings):
    """Save a BERT of two layers and its tokenizer, as save_pretrained does."""
    import transformers

    config = transformers.BertConfig(
        **{
            "vocab_size": len(WORDS) + 5,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "max_position_embeddings": 32,
            **settings,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, model_class)(config)
    model.save_pretrained(directory)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(directory)
    return directory


class TinyText(nn.Module):
    """An embedding table and a linear layer; counts the rows it has seen, over all its copies."""

    rows_seen = 0

    def __init__(self, dimension=6):
        super().__init__()
        self.table = nn.Embedding(len(WORDS) + 5, dimension)
        self.mix = nn.Linear(dimension, dimension)

    def forward(self, input_ids, attention_mask):
        type(self).rows_seen += len(input_ids)
        return self.mix(self.table(input_ids))


class TinyImage(nn.Module):
    """Two convolutions with batch norm and dropout; counts the rows it has seen, over all its copies."""

    rows_seen = 0

    def __init__(self, channels=3):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, pixels):
        type(self).rows_seen += len(pixels)
        return self.second(self.first(pixels))


def seeded(make, seed=0):
    """Make a module with weights of a seed, the global generator kept."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def own_images():
    """Make a small image network; without dropout, which counts rows and not what they weigh."""
    module = seeded(TinyImage)
    for inner in module.modules():
        if isinstance(inner, nn.Dropout):
            inner.p = 0.0
    return ModuleBackbone(module, name="own image network")


def own_texts():
    """Make a small network for texts of whole words."""
    return ModuleBackbone(
        seeded(TinyText), modality="text", preparation=tiny_tokenizer(), max_length=16, name="own text network"
    )


def own_series():
    """Make a small network for series of two channels."""
    module = seeded(lambda: nn.Sequential(nn.Conv1d(2, 6, 5, padding=2, bias=False), nn.BatchNorm1d(6), nn.ReLU()))
    return ModuleBackbone(module, modality="series", name="own series network")


def trained_in_contracts():
    """Return small networks by name: the kind of row that they read, and parameters of an estimator that tunes them.

    Full batches, in which weights are copies, and plain gradient descent: gradients of a head that starts as a probe are
    rounding alone there, and Adam would make whole steps of them.
    """
    full = {"batch_size": 64, "max_epochs": 1, "optimizer": "sgd"}
    # Statistics that these networks were made with are not those of any rows; learned ones count rows, whatever they weigh.
    fixed = {**full, "freeze_batch_norm": True}
    return {
        "static text": ("text", {"backbone": "text-static", "freeze_depth": 0, **full}),
        "own image network": ("image", {"backbone": own_images(), "freeze_depth": 1, **fixed}),
        "own series network": ("series", {"backbone": own_series(), "freeze_depth": 0, **fixed}),
    }


class ThreeLayers(nn.Module):
    """Reads six columns."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 7)

    def forward(self, rows):
        return self.third(torch.tanh(self.second(torch.tanh(self.first(rows)))))


def three_layers():
    """A backbone of three stages, for tables of six columns, with seven values a row."""
    return ModuleBackbone(seeded(ThreeLayers), modality="table", stages=["first", "second", "third"], name="three")

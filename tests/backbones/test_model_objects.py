"""Model objects of other libraries as backbones: read with their own preparation, or refused with advice that works."""

import copy
import pickle

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from support.estimators import ESTIMATORS
from support.networks import save_tiny_bert

from sktransfer import FineTunedClassifier, ModuleBackbone, PretrainedFeatureExtractor
from sktransfer.backbones.sources.huggingface import quiet_transformers

TEXTS = ["how do i reset my card", "the delivery was late again", "thanks", "one two three three two one"] * 2
IMAGES = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 50, 3), dtype=np.uint8)) for i in range(8)]
VIT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    with quiet_transformers():
        return save_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def encoder(bert):
    with quiet_transformers():
        network = Transformer(str(bert))
    return SentenceTransformer(
        modules=[network, Pooling(16, pooling_mode="max"), Normalize()],
        prompts={"query": "thanks ", "document": ""},
        default_prompt_name="query",
        device="cpu",
    )


def vit(directory):
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(**VIT)).eval()
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    with quiet_transformers():
        model.save_pretrained(directory)
        processor.save_pretrained(directory)
    return model, processor


def embed(backbone, X=TEXTS):
    return PretrainedFeatureExtractor(backbone).fit_transform(X)


def test_sentence_transformer_is_read_as_it_encodes(encoder):
    np.testing.assert_allclose(embed(encoder), encoder.encode(TEXTS), atol=1e-6)


def test_sentence_transformer_changed_between_two_fits(encoder):
    shorter = copy.deepcopy(encoder)
    before = embed(shorter)
    shorter.max_seq_length = 4
    np.testing.assert_allclose(embed(shorter), shorter.encode(TEXTS), atol=1e-6)
    assert abs(embed(shorter) - before).max() > 1e-3
    with torch.no_grad():
        for parameter in shorter.parameters():
            parameter.mul_(1.5)
    np.testing.assert_allclose(embed(shorter), shorter.encode(TEXTS), atol=1e-6)


def test_an_object_and_its_directory_are_one_backbone(encoder, tmp_path):
    encoder.save(str(tmp_path), create_model_card=False)
    own, named = (PretrainedFeatureExtractor(one).fit(TEXTS) for one in (encoder, tmp_path))
    assert own.backbone_.fingerprint == named.backbone_.fingerprint
    np.testing.assert_array_equal(own.transform(TEXTS), named.transform(TEXTS))


@pytest.mark.parametrize("listed", ESTIMATORS, ids=lambda listed: listed.name)
def test_every_estimator_takes_them_and_leaves_them_alone(encoder, bert, listed):
    pipeline = transformers.pipeline(
        "feature-extraction",
        model=transformers.AutoModel.from_pretrained(bert),
        tokenizer=transformers.AutoTokenizer.from_pretrained(bert),
    )
    for model in (encoder, pipeline):
        module = model if model is encoder else model.model
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        settings = str(pipeline.model.config), encoder.max_seq_length, module.training
        fitted = listed.fit(TEXTS, backbone=model)
        assert len(listed.predict(fitted, TEXTS)) == len(TEXTS)
        assert (str(pipeline.model.config), encoder.max_seq_length, module.training) == settings
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_in_a_cross_validation_and_a_pickle(encoder):
    model = make_pipeline(PretrainedFeatureExtractor(encoder), LogisticRegression())
    assert clone(model)[0].backbone is encoder
    assert np.isfinite(cross_val_score(model, TEXTS, [0, 1] * 4, cv=2)).all()
    fitted = PretrainedFeatureExtractor(encoder).fit(TEXTS)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(TEXTS), fitted.transform(TEXTS))


def test_pipeline_of_texts_is_read_like_its_directory(bert):
    model = transformers.BertForSequenceClassification.from_pretrained(bert)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    np.testing.assert_array_equal(embed(pipeline), embed(bert))


def test_network_and_tokenizer_together(bert):
    module = transformers.AutoModel.from_pretrained(bert)
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    together = ModuleBackbone(module, modality="text", preparation=tokenizer)
    np.testing.assert_allclose(embed(together), embed(bert), atol=1e-6)
    # No text is longer than the table of positions.
    np.testing.assert_allclose(embed(together, ["one two " * 40]), embed(bert, ["one two " * 40]), atol=1e-6)


def test_network_of_transformers_without_its_tokenizer_is_refused_with_advice_that_works(bert):
    module = transformers.AutoModel.from_pretrained(bert)
    with pytest.raises(TypeError, match="without its tokenizer") as caught:
        embed(module)
    advice = str(caught.value).partition("as ")[2].removesuffix(".")
    given = eval(advice, {"model": module, **vars(transformers), "ModuleBackbone": ModuleBackbone})
    np.testing.assert_allclose(embed(given), embed(bert), atol=1e-6)


def test_image_network_of_transformers_needs_its_processor(tmp_path):
    module, processor = vit(tmp_path)
    with pytest.raises(TypeError, match="without its image processor"):
        embed(module, IMAGES)
    expected = module(**processor(images=IMAGES, return_tensors="pt")).last_hidden_state.mean(dim=1).detach()
    np.testing.assert_allclose(embed(ModuleBackbone(module, preparation=processor), IMAGES), expected, atol=1e-5)
    pipeline = transformers.pipeline("image-feature-extraction", model=module, image_processor=processor)
    np.testing.assert_array_equal(embed(pipeline, IMAGES), embed(tmp_path, IMAGES))


def test_module_of_timm_is_read_like_its_name():
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model("resnet10t", pretrained=False).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(module))
    with torch.no_grad():
        features = module.forward_features(torch.stack([transform(image) for image in IMAGES]))
        expected = module.forward_head(features, pre_logits=True)
    np.testing.assert_allclose(embed(module, IMAGES), expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("wrap", [torch.compile, torch.nn.DataParallel])
def test_wrappers_of_a_known_network_are_taken_off(wrap):
    torchvision = pytest.importorskip("torchvision")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torchvision.models.squeezenet1_1(weights=None).eval()
    np.testing.assert_array_equal(embed(wrap(module), IMAGES[:2]), embed(module, IMAGES[:2]))


def refused(bert):
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    model = transformers.AutoModel.from_pretrained(bert)
    return {
        "a tuple": ((model, tokenizer), "ModuleBackbone"),
        "a tokenizer": (tokenizer, "ModuleBackbone"),
        "a state dictionary": (model.state_dict(), "backbone must be a name"),
        "a configuration": (model.config, "backbone must be a name"),
        "a cross encoder": (CrossEncoder(str(bert), device="cpu"), "does not give one embedding for each text"),
    }


@pytest.mark.parametrize("name", ["a tuple", "a tokenizer", "a state dictionary", "a configuration", "a cross encoder"])
def test_others_are_refused_with_advice(bert, name):
    with quiet_transformers():
        given, message = refused(bert)[name]
    with pytest.raises(TypeError, match=message):
        embed(given)


def test_parts_that_are_not_supported_are_named(encoder):
    class Shift(torch.nn.Module):
        def forward(self, features):
            return features

        def save(self, path, **kwargs):
            pass

    own = SentenceTransformer(modules=[encoder[0], encoder[1], Shift()], device="cpu")
    with pytest.raises(ValueError, match=r"backbone=SentenceTransformer\(...\) can't be used: .*Shift"):
        embed(own)
    with pytest.raises(ValueError, match="truncate_dim=8"):
        embed(SentenceTransformer(modules=[encoder[0], encoder[1]], device="cpu", truncate_dim=8))
    with pytest.raises(ValueError, match="weights='random' was given beside a SentenceTransformer"):
        FineTunedClassifier(encoder, weights="random").fit(TEXTS, [0, 1] * 4)
    with pytest.raises(ValueError, match="reads text rows, but X holds image rows"):
        PretrainedFeatureExtractor(encoder, modality="image").fit(IMAGES)

"""Label features and the affine layer behind them."""

import numpy as np
import pytest
import torch

from networks.text_prompt import encoder as encoder_module
from networks.text_prompt.encoder import CLIP_PARAMETERS, build_text_affine, build_text_encoder
from networks.text_prompt.features import TEXT_FEATURES, TextFeatures
from utils.config.schema import PromptsConfig
from utils.errors import UserError

LEARNED = PromptsConfig(text_encoder="learned")
LABELS = ["Artery", "Vein", "Catheter"]


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_learned_rows_come_by_label_not_by_place():
    encoder = build_text_encoder(LEARNED, LABELS)
    rows = encoder(["Vein", "Artery", "Vein"])
    assert rows.shape == (3, TEXT_FEATURES)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, encoder.embedding.weight[[1, 0, 1]])
    assert not torch.equal(rows[0], rows[1])


def test_a_batch_of_one_label():
    encoder = build_text_encoder(LEARNED, LABELS[:1])
    assert torch.equal(encoder(["Artery"]), encoder.embedding.weight)


def test_only_the_rows_asked_for_learn():
    encoder = build_text_encoder(LEARNED, LABELS)
    encoder(["Vein", "Vein"]).sum().backward()
    assert encoder.embedding.weight.grad[:, 0].tolist() == [0.0, 2.0, 0.0]


def test_learned_features_are_its_own_count():
    encoder = build_text_encoder(LEARNED, LABELS)
    assert parameters(encoder) == 3 * 512
    assert encoder.frozen_parameters == 0


def test_the_same_seed_makes_the_same_features():
    first, second = (torch.manual_seed(3) and build_text_encoder(LEARNED, LABELS) for _ in range(2))
    assert torch.equal(first.embedding.weight, second.embedding.weight)


@pytest.mark.parametrize("label", ["vein", "", "Vein "])
def test_an_unknown_label_is_named_with_the_known_ones(label):
    encoder = build_text_encoder(LEARNED, LABELS)
    with pytest.raises(UserError) as caught:
        encoder(["Artery", label])
    assert str(caught.value) == f"label '{label}' is unknown to this model; it knows Artery, Vein, Catheter"


def test_clip_is_counted_without_its_weights():
    encoder = build_text_encoder(PromptsConfig(), LABELS, encode=False)
    assert encoder.frozen_parameters == CLIP_PARAMETERS == 151_277_313
    assert parameters(encoder) == 0
    assert not encoder.features.any()


@pytest.fixture
def fake_clip(monkeypatch):
    """Features that name their text: its length, then the code of its first letter."""

    def features(texts, path):
        rows = [[len(text), ord(text[0])] + [0.0] * (TEXT_FEATURES - 2) for text in texts]
        return TextFeatures(torch.tensor(rows), f"hash of {path}")

    monkeypatch.setattr(encoder_module, "clip_text_features", features)


def test_clips_rows_come_by_label_not_by_place(fake_clip):
    encoder = build_text_encoder(PromptsConfig(clip_path="here.pt"), LABELS)
    assert encoder(["Vein", "Artery", "Vein"])[:, 0].tolist() == [4, 6, 4]
    assert encoder.weights_sha256 == "hash of here.pt"
    assert parameters(encoder) == 0


def test_clips_file_is_by_default_where_download_puts_it(fake_clip):
    assert build_text_encoder(PromptsConfig(), LABELS).weights_sha256 == "hash of weights/ViT-B-32.pt"


def test_the_bare_label_is_the_default_and_templates_are_averaged(fake_clip):
    encoder = build_text_encoder(PromptsConfig(templates=["{label}", "a {label} here"]), LABELS)
    assert encoder(["Vein"])[0, :2].tolist() == [(4 + 11) / 2, (ord("V") + ord("a")) / 2]


@pytest.mark.parametrize("norm", ["layernorm", "batchnorm"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [1, 4])
def test_affine_shapes(norm, training, batch):
    affine = build_text_affine(256, norm).train(training)
    out = affine(torch.randn(batch, TEXT_FEATURES))
    assert out.shape == (batch, 256)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("norm", ["layernorm", "batchnorm"])
def test_the_papers_affine_has_131840_parameters(norm):
    assert parameters(build_text_affine(256, norm)) == 131_840


def hidden(affine, x):
    return np.maximum((x @ affine[0].weight.T + affine[0].bias).detach().numpy().astype(np.float64), 0.0)


def test_layernorm_affine_follows_its_formula_for_every_sample_alone():
    affine, x = build_text_affine(32), torch.randn(4, TEXT_FEATURES)
    h = hidden(affine, x)
    expected = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(affine(x).detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(affine(x[:1]).detach().numpy(), expected[:1], atol=1e-5)


def test_batchnorm_affine_normalizes_over_the_batch():
    affine, x = build_text_affine(32, "batchnorm"), torch.randn(4, TEXT_FEATURES)
    h = hidden(affine, x)
    expected = (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5)
    np.testing.assert_allclose(affine(x).detach().numpy(), expected, atol=1e-5)


def test_batchnorm_of_one_label_is_its_bias_alone():
    """The released quirk: equal rows have no variance, so the prompt forgets its text."""
    affine = build_text_affine(32, "batchnorm")
    torch.nn.init.normal_(affine[2].bias)
    out = affine(torch.randn(1, TEXT_FEATURES).expand(3, -1))
    torch.testing.assert_close(out, affine[2].bias.expand(3, -1), atol=1e-4, rtol=0)


def test_a_batch_of_one_in_training_uses_the_running_statistics_and_leaves_them():
    affine = build_text_affine(32, "batchnorm")
    norm = affine[2]
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    for _ in range(3):
        affine(torch.randn(5, TEXT_FEATURES))
    before = {key: value.clone() for key, value in norm.state_dict().items()}
    x = torch.randn(1, TEXT_FEATURES)
    out = affine(x)
    mean, var = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
    expected = (hidden(affine, x) - mean) / np.sqrt(var + 1e-5)
    expected = expected * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    np.testing.assert_allclose(out.detach().numpy(), expected, atol=1e-4)
    assert all(torch.equal(norm.state_dict()[key], value) for key, value in before.items())
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in affine.parameters())
    assert norm.weight.grad.abs().sum() > 0
    torch.testing.assert_close(affine.eval()(x), out)

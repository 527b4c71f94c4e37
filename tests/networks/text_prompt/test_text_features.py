"""CLIP's text features: equal to open_clip's from every file format, encoded once, cached by weights and text."""

import json
import logging
import zipfile

import clip_files
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpointing.published import DOWNLOADS, Download
from networks.text_prompt import features as features_module
from networks.text_prompt.clip_weights import read_text_tower
from networks.text_prompt.features import TEXT_FEATURES, clip_text_features, encode_texts
from utils.errors import UserError
from utils.files import sha256

TEXTS = ["Vein", "a photo of the optic disc"]


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return clip_files.write(tmp_path_factory.mktemp("clip"), "safetensors")


def publish(path, monkeypatch):
    """Makes `path` the file that OpenAI published."""
    monkeypatch.setitem(DOWNLOADS, "clip_vit_b32", Download("https://x/ViT-B-32.pt", sha256=sha256(path)))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SALT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def direct(texts, name="ViT-B-32-quickgelu", seed=0):
    """open_clip's own encode_text."""
    model = clip_files.reference(seed)
    if name != "ViT-B-32-quickgelu":
        other = open_clip.create_model(name, pretrained=None).eval()
        other.load_state_dict(model.state_dict())
        model = other
    with torch.no_grad():
        return model.encode_text(open_clip.get_tokenizer(name)(texts))


@pytest.mark.parametrize("kind", clip_files.FORMATS)
def test_features_equal_open_clips_own_from_every_format(tmp_path, kind, monkeypatch):
    path = clip_files.write(tmp_path, kind)
    if kind == "torchscript":
        publish(path, monkeypatch)
    found = clip_text_features(TEXTS, path)
    assert found.features.shape == (2, TEXT_FEATURES)
    assert found.features.dtype == torch.float32
    torch.testing.assert_close(found.features, direct(TEXTS), atol=1e-5, rtol=0)
    assert not torch.allclose(found.features[0], found.features[1], atol=1e-2)


def test_the_plain_gelu_variant_would_not_pass():
    wrong = direct(TEXTS, "ViT-B-32")
    assert (wrong - direct(TEXTS)).abs().max() > 1e-3


def test_only_the_text_tower_is_read(clip_file):
    tower = read_text_tower(clip_file, sha256(clip_file))
    assert sum(value.numel() for value in tower.values()) == 63_428_096
    assert all(value.dtype == torch.float32 for value in tower.values())


def test_a_second_run_encodes_nothing_and_needs_no_clip_file(clip_file, monkeypatch, own_cache, caplog):
    first = clip_text_features(TEXTS, clip_file)
    assert len(list((own_cache / "clip").iterdir())) == 2

    def never(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(features_module, "encode_texts", never)
    again = clip_text_features(TEXTS[::-1], clip_file)
    assert torch.equal(again.features, first.features.flip(0))
    caplog.set_level(logging.INFO)
    without = clip_text_features(TEXTS, clip_file.with_name("gone.pt"))
    assert torch.equal(without.features, first.features)
    assert without.weights_sha256 == first.weights_sha256
    assert "come from the cache" in caplog.text


def test_only_new_texts_are_encoded(clip_file, monkeypatch):
    clip_text_features(TEXTS, clip_file)
    asked = []

    def spy(texts, tower):
        asked.extend(texts)
        return encode_texts(texts, tower)

    monkeypatch.setattr(features_module, "encode_texts", spy)
    found = clip_text_features(["Artery", *TEXTS], clip_file)
    assert asked == ["Artery"]
    torch.testing.assert_close(found.features, direct(["Artery", *TEXTS]), atol=1e-5, rtol=0)


def test_features_of_other_weights_are_others(clip_file, tmp_path):
    first = clip_text_features(TEXTS, clip_file)
    other_file = tmp_path / "other.safetensors"
    weights = clip_files.state()
    save_file({**weights, "text_projection": weights["text_projection"] * 2}, other_file)
    second = clip_text_features(TEXTS, other_file)
    torch.testing.assert_close(second.features, 2 * first.features)
    with pytest.raises(UserError, match="features of several CLIPs are cached"):
        clip_text_features(TEXTS, tmp_path / "gone.pt")


def test_a_damaged_or_foreign_cache_file_is_made_again(clip_file, own_cache):
    first = clip_text_features(TEXTS, clip_file)
    damaged, foreign = sorted((own_cache / "clip").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-100])
    tensors = load_file(foreign)
    save_file(tensors, foreign, metadata={"format": "clip-text-features-1", "text": "other", "weights_sha256": "0"})
    assert torch.equal(clip_text_features(TEXTS, clip_file).features, first.features)


def test_a_missing_file_with_labels_that_were_never_encoded_names_the_download(clip_file, tmp_path):
    clip_text_features(TEXTS, clip_file)
    with pytest.raises(UserError, match=r"gone\.pt: no such file.*python main\.py download clip_vit_b32"):
        clip_text_features([*TEXTS, "Artery"], tmp_path / "gone.pt")


def test_a_cache_that_cannot_be_written_is_no_error(clip_file, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SALT_CACHE", str(tmp_path / "file" / "cache"))
    assert clip_text_features(TEXTS, clip_file).features.shape == (2, TEXT_FEATURES)
    assert "not cached" in caplog.text


def write_bad(folder, kind):
    path = folder / "clip.safetensors"
    weights = clip_files.state()
    if kind == "missing":
        del weights["ln_final.bias"]
    elif kind == "more layers":
        weights["transformer.resblocks.12.ln_1.bias"] = torch.zeros(512)
    elif kind == "wide":
        weights["text_projection"] = torch.zeros(512, 768)
    elif kind == "sam":
        weights = {"image_encoder.pos_embed": torch.zeros(1, 4, 4, 8)}
    save_file(weights, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "gelu":
        (folder / "config.json").write_text(json.dumps({"text_config": {"hidden_act": "gelu"}}))
        path.rename(folder / "model.safetensors")
        return folder
    elif kind == "laion":
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 512}}))
        path.rename(folder / "open_clip_model.safetensors")
        return folder
    elif kind == "empty folder":
        path.unlink()
        return folder
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"'ln_final.bias' is missing, not \(512,\)"),
        ("more layers", "'transformer.resblocks.12.ln_1.bias' is .512,., not expected"),
        ("wide", r"'text_projection' is \(512, 768\), not \(512, 512\)"),
        ("sam", "is no CLIP weights file .its first key is 'image_encoder.pos_embed'"),
        ("truncated", "cannot be read as weights"),
        ("gelu", "was trained with gelu"),
        ("laion", "was trained with gelu"),
        ("empty folder", "holds none of model.safetensors"),
    ],
)
def test_what_is_not_vit_b32_is_named(tmp_path, kind, message):
    with pytest.raises(UserError, match=message) as caught:
        clip_text_features(TEXTS, write_bad(tmp_path, kind))
    assert "\n" not in str(caught.value)


def test_a_torchscript_archive_that_is_not_the_published_one_is_refused_and_never_opened(tmp_path, monkeypatch):
    path = clip_files.write(tmp_path, "torchscript")
    publish(path, monkeypatch)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"changed"
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(
        UserError, match=r"is a TorchScript archive, which holds code; .*download clip_vit_b32"
    ) as caught:
        clip_text_features(TEXTS, path)
    assert "\n" not in str(caught.value)


def test_features_equal_those_of_transformers(tmp_path):
    """The names of a Hugging Face folder, by the library that writes them."""
    import transformers  # for this test alone

    torch.manual_seed(1)
    model = transformers.CLIPModel(transformers.CLIPConfig()).eval()  # ViT-B/32
    model.save_pretrained(tmp_path)
    tokens = open_clip.get_tokenizer("ViT-B-32-quickgelu")(TEXTS)
    # Its configs of old pool where the token's number is highest, as OpenAI does.
    with torch.no_grad():
        hidden = model.text_model(input_ids=tokens).last_hidden_state
        expected = model.text_projection(hidden[torch.arange(2), tokens.argmax(-1)])
    torch.testing.assert_close(clip_text_features(TEXTS, tmp_path).features, expected, atol=1e-5, rtol=0)

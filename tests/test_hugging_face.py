"""Weights of Hugging Face's transformers as base weights, and back: every key, the same masks, the real commands."""

import json
import shutil

import numpy as np
import pytest
import torch
from hf_models import box_logits, random_sam, random_sam2
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Sam2Config, Sam2Model, SamModel

from checkpointing.tensor_files import read_tensor_file
from main import main
from model import build_model, load_model
from prompt_adapted_SAM2 import load_sam2
from prompt_adapted_segment_anything import load_sam
from utils.config import load_config
from utils.errors import UserError

MODELS = {"sam": (random_sam, 32), "sam2": (random_sam2, 64)}
KINDS = {
    "sam": "sam: {sam_type: nano, img_size: 32}\n",
    "sam2": "arch: Prompt Adapted SAM 2\nsam: {sam_type: nano, img_size: 64}\n",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each model as transformers writes it."""
    root = tmp_path_factory.mktemp("hf")
    for kind, (make, _) in MODELS.items():
        make().save_pretrained(root / kind)
    return root


@pytest.fixture
def boxed(tmp_path):
    """boxed("sam", base, "sam.img_size=64"): a model that is prompted by boxes, from base weights."""

    def build(kind, base, *overrides):
        (tmp_path / "m.yaml").write_text(KINDS[kind])
        return build_model(load_config(tmp_path / "m.yaml", None, ["prompts.type=box_full", *overrides], "none", base))

    return build


def inputs(size):
    torch.manual_seed(1)
    return torch.randn(2, 3, size, size), torch.tensor([[3.0, 5, size - 7, size - 4], [0, 2, 11, size - 1]])


@pytest.mark.parametrize("form", ["folder", "sharded", "file alone", "pytorch_model.bin"])
@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_a_box_prompt_gives_transformers_masks(folders, tmp_path, boxed, kind, form):
    make, size = MODELS[kind]
    theirs, base = make(), folders / kind
    if form == "sharded":
        base = tmp_path / "shards"
        theirs.save_pretrained(base, max_shard_size="1MB")
        assert len(list(base.glob("*.safetensors"))) > 2
    elif form == "file alone":
        base = tmp_path / "any.safetensors"
        shutil.copy(folders / kind / "model.safetensors", base)
    elif form == "pytorch_model.bin":
        base = tmp_path / "old"
        base.mkdir()
        torch.save(theirs.state_dict(), base / "pytorch_model.bin")
    pixels, boxes = inputs(size)
    expected = box_logits(theirs, pixels, boxes)
    with torch.no_grad():
        ours = boxed(kind, base).eval()(pixels, ["any"] * 2, boxes)
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_every_key_is_loaded_and_translated_back(folders, boxed, kind):
    """Also those that no single mask depends on, such as points and the prediction of quality."""
    make, size = MODELS[kind]
    path = folders / kind / "model.safetensors"
    state, expected = load_file(path), make().state_dict()
    model = boxed(kind, path)
    report = (load_sam if kind == "sam" else load_sam2)(model, state, path)
    joined = {"sam": 0, "sam2": 3}[kind]  # four points in one tensor
    assert len(report.loaded) - joined + len(report.copies) == len(state)
    assert not report.unused
    back, _ = model.hf_model(model.base_state(), size)
    assert set(expected) - set(back) == ({"prompt_encoder.shared_embedding.positional_embedding"} - set(back))
    assert all(torch.equal(back[key], expected[key]) for key in back)


def test_both_copies_of_the_positions_are_accounted_for(folders, boxed, tmp_path):
    state = load_file(folders / "sam" / "model.safetensors")
    shared, copy = "shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"
    value = state.pop(copy, None) if shared not in state else state[shared]
    model = boxed("sam", folders / "sam")
    report = load_sam(model, {**state, shared: value, copy: value.clone()}, tmp_path)
    assert report.copies == [copy]
    assert str(report).endswith(", 1 stored twice")
    state.pop(shared, None)
    assert load_sam(model, {**state, copy: value}, tmp_path).copies == []
    with pytest.raises(UserError, match="differ; SAM has one for both"):
        load_sam(model, {**state, shared: value, copy: value + 1}, tmp_path)


def test_the_video_memory_is_left_out_and_named(folders, boxed, tmp_path):
    """All that transformers' video model has beside the image model, which published SAM2 files hold."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    with torch.device("meta"):
        names = set(Sam2VideoModel(Sam2VideoConfig()).state_dict())
        of_images = set(Sam2Model(Sam2Config()).state_dict())
    assert of_images < names
    memory = names - of_images
    assert len(memory) > 100
    state = load_file(folders / "sam2" / "model.safetensors") | {name: torch.zeros(1) for name in memory}
    report = load_sam2(boxed("sam2", folders / "sam2"), state, tmp_path)
    assert set(report.unused) == memory
    assert "not used (the video memory)" in str(report)


SIZES = {"base": SamModel, "large": SamModel, "huge": SamModel,
         "tiny": Sam2Model, "small": Sam2Model, "base_plus": Sam2Model, "large (2)": Sam2Model}  # fmt: skip


@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=pytest.mark.slow if size.startswith("large") else ()) for size in SIZES]
)
def test_the_published_sizes_have_transformers_names_and_shapes(tmp_path, size):
    """By the config.json that an export writes; nothing is allocated."""
    arch = "Prompt Adapted SAM" if SIZES[size] is SamModel else "Prompt Adapted SAM 2"
    (tmp_path / "m.yaml").write_text(f"arch: {arch}\nsam: {{sam_type: {size.split()[0]}, img_size: 512}}\n")
    model = build_model(load_config(tmp_path / "m.yaml", None, (), "none"), counted_only=True)
    weights, description = model.hf_model(model.base_state(), 512)
    with torch.device("meta"):
        expected = SIZES[size](SIZES[size].config_class.from_dict(description)).state_dict()
    shared = "prompt_encoder.shared_embedding.positional_embedding"  # tied, and in SAM stored once
    assert set(expected) - {shared} == set(weights) - {shared}
    assert {key: value.shape for key, value in weights.items()} == {key: expected[key].shape for key in weights}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "sam_type"),
    [("Prompt Adapted SAM 2", "tiny"), ("Prompt Adapted SAM 2", "base_plus"), ("Prompt Adapted SAM", "base")],
)
def test_the_published_sizes_compute_the_same(tmp_path, arch, sam_type):
    """With windows that do not divide the grid."""
    (tmp_path / "m.yaml").write_text(f"arch: {arch}\nsam: {{sam_type: {sam_type}, img_size: 288, weights: random}}\n")
    torch.manual_seed(0)
    model = build_model(load_config(tmp_path / "m.yaml", None, ["prompts.type=box_full"], "none")).eval()
    for name, parameter in model.named_parameters():
        if "pos" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    weights, description = model.hf_model(model.base_state(), 288)
    kind = SamModel if arch == "Prompt Adapted SAM" else Sam2Model
    theirs = kind(kind.config_class.from_dict(description)).eval()
    theirs.load_state_dict(weights, strict=kind is Sam2Model)
    pixels, boxes = inputs(288)
    with torch.no_grad():
        expected = model(pixels, ["any"] * 2, boxes)
    torch.testing.assert_close(box_logits(theirs, pixels, boxes), expected, atol=1e-4, rtol=0)


def test_another_image_size_resizes_the_positions(folders, boxed, caplog):
    caplog.set_level("INFO")
    pixels, boxes = inputs(64)
    for kind in ("sam", "sam2"):
        model = boxed(kind, folders / kind, "sam.img_size=64").eval()
        with torch.no_grad():
            assert model(pixels, ["any"] * 2, boxes).isfinite().all()
    assert "3 of them resized to the image size" in caplog.text


def test_what_does_not_fit_is_named(folders, boxed, tmp_path):
    def refused(kind, base):
        with pytest.raises(UserError) as caught:
            boxed(kind, base)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "is a SAM2 file, the config asks for SAM; set arch: Prompt Adapted SAM 2" in refused("sam", folders / "sam2")
    assert "is a SAM file, the config asks for SAM2; set arch: Prompt Adapted SAM" in refused("sam2", folders / "sam")
    state = load_file(folders / "sam" / "model.safetensors")
    save_file({**state, "vision_encoder.extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    assert "unexpected key 'vision_encoder.extra'" in refused("sam", tmp_path / "more.safetensors")
    del state["mask_decoder.iou_token.weight"]
    save_file(state, tmp_path / "less.safetensors")
    assert "the first is 'mask_decoder.iou_token.weight'" in refused("sam", tmp_path / "less.safetensors")
    assert "needs its file of weights" not in refused("sam", tmp_path / "less.safetensors")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    assert "holds none of model.safetensors" in refused("sam", tmp_path / "empty")


@pytest.mark.parametrize(
    ("kind", "keys", "value", "message"),
    [
        ("sam", ("vision_config", "window_size"), 14, "vision_config.window_size is 14, the model of this size has 8"),
        ("sam", ("vision_config", "global_attn_indexes"), [1], "global_attn_indexes is [1]"),
        (
            "sam2",
            ("vision_config", "backbone_config", "global_attention_blocks"),
            [5],
            "attention_blocks is [5]",
        ),
        ("sam2", ("mask_decoder_config", "num_attention_heads"), 8, "mask_decoder_config.num_attention_heads is 8"),
    ],
)
def test_a_config_of_another_network_is_told(folders, boxed, tmp_path, kind, keys, value, message):
    shutil.copytree(folders / kind, tmp_path / "model")
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    section = content
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    (tmp_path / "model" / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        boxed(kind, tmp_path / "model")
    assert message in str(caught.value)


def test_damaged_shards_are_named(tmp_path):
    random_sam().save_pretrained(tmp_path, max_shard_size="1MB")
    index, shard = tmp_path / "model.safetensors.index.json", sorted(tmp_path.glob("*.safetensors"))[0]
    kept = load_file(shard)
    first = next(iter(kept))
    save_file({key: value for key, value in kept.items() if key != first}, shard)
    with pytest.raises(UserError, match="does not hold the keys that"):
        read_tensor_file(index)
    shard.unlink()
    with pytest.raises(UserError, match=f"names 1 files that are not there, the first is {shard.name}"):
        read_tensor_file(index)
    index.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(UserError, match="is not beside it"):
        read_tensor_file(index)
    index.write_text("[]")
    with pytest.raises(UserError, match="is no index of weights files"):
        read_tensor_file(index)


@pytest.fixture
def hub_cache(folders, tmp_path, monkeypatch):
    """A Hugging Face cache that holds the SAM as someone/tiny-sam; sockets raise."""
    repository = tmp_path / "hub" / "models--someone--tiny-sam"
    shutil.copytree(folders / "sam", repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    return tmp_path / "hub"


def train(workspace, base, kind, *more):
    """One epoch by the real command; the path of its weights."""
    workspace.model_config.write_text(
        f"{KINDS[kind]}prompts: {{text_encoder: learned}}\ntraining: {{lr: 1e-2, batch_size: 2, num_epochs: 1}}\n"
        "ft: {svd_ratio: 0.2, r_lora: 2}\n"
    )
    assert main(workspace.train_arguments("run/m.safetensors", "--pretrained_path", str(base), *more)) == 0
    return workspace.folder / "run" / "m.safetensors"


@pytest.mark.parametrize("kind", ["sam", "sam2"])
@pytest.mark.usefixtures("no_pictures")
def test_from_transformers_through_training_to_transformers(folders, workspace, tmp_path, capsys, monkeypatch, kind):
    """The folder of `export --format hf` opens strictly, by the lines that the command prints, with the same masks."""
    make, size = MODELS[kind]
    base = tmp_path / "base"
    shutil.copytree(folders / kind, base)
    checkpoint = train(workspace, base, kind)
    output = tmp_path / "exported"
    capsys.readouterr()
    assert main(["export", "--checkpoint", str(checkpoint), "--output", str(output), "--format", "hf"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"written: {output}"
    names = {}
    exec("\n".join(lines[1:]), names)
    theirs = names["model"].eval()
    loading = type(theirs).from_pretrained(output, output_loading_info=True)[1]
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    pixels, boxes = inputs(size)
    ours = load_model(checkpoint).model
    if kind == "sam2":  # with text, no other mask ever takes the single one's place
        theirs.mask_decoder.dynamic_multimask_via_stability = False
    with torch.no_grad():
        expected = ours(pixels, ["Bar"] * 2, boxes)
    torch.testing.assert_close(box_logits(theirs, pixels, boxes), expected, atol=2e-5, rtol=0)
    before = box_logits(make(), pixels, boxes)
    assert (before - expected).abs().max() > 1e-3  # training has moved it

    base.rename(tmp_path / "moved")
    monkeypatch.setenv("SALT_WEIGHTS", str(tmp_path))
    load_model(checkpoint)  # finds its base by its hash
    shutil.rmtree(tmp_path / "moved")
    with pytest.raises(UserError, match="needs its base weights"):
        load_model(checkpoint)


@pytest.mark.usefixtures("no_pictures")
def test_a_hub_name_means_the_cached_model(hub_cache, workspace, capsys):
    checkpoint = train(workspace, "someone/tiny-sam", "sam")
    assert "pretrained_path: someone/tiny-sam" in (checkpoint.parent / "config.yaml").read_text()
    load_model(checkpoint)
    capsys.readouterr()
    arguments = workspace.train_arguments("other/m.safetensors", "--pretrained_path", "facebook/sam-vit-base")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert (
        f"facebook/sam-vit-base: is neither a file or folder nor a model in Hugging Face's cache ({hub_cache}" in error
    )
    assert 'hf download facebook/sam-vit-base --include "*.json" "*.safetensors" fetches it' in error
    assert main(workspace.train_arguments("other/m.safetensors", "--pretrained_path", "nofolder/sam--vit")) == 1
    error = capsys.readouterr().err
    assert "nofolder/sam--vit: no such file or folder, and no name of a model of Hugging Face" in error


def test_the_processor_prepares_images_as_this_project_does(make_weights, tmp_path):
    from transformers import SamProcessor

    checkpoint = make_weights()
    output = tmp_path / "exported"
    assert main(["export", "--checkpoint", str(checkpoint), "--output", str(output), "--format", "hf"]) == 0
    image = np.random.default_rng(0).integers(0, 255, (32, 20, 3), dtype=np.uint8)
    given = SamProcessor.from_pretrained(output)(
        images=Image.fromarray(image), input_boxes=[[[0.0, 0, 9, 9]]], return_tensors="pt"
    )
    pixels, _, _ = load_model(checkpoint).transform(image)
    torch.testing.assert_close(given["pixel_values"][0], pixels, atol=1e-5, rtol=0)
    assert given["input_boxes"].tolist() == [[[0.0, 0.0, 9.0, 9.0]]]
    with torch.no_grad():
        masks = SamModel.from_pretrained(output)(**given, multimask_output=False).pred_masks
    truth = Image.fromarray(np.zeros((32, 20), np.uint8))
    labels = SamProcessor.from_pretrained(output)(images=Image.fromarray(image), segmentation_maps=truth)["labels"]
    assert masks.shape[-2:] == np.shape(labels)[-2:]  # so that a training loop can compare them
    written = json.loads((output / "config.json").read_text())
    assert written["mask_decoder_config"]["layer_norm_eps"] == 1e-5  # segment_anything's, not transformers' default

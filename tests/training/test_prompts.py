"""Training with boxes and clicks: what is drawn, what is trained, and that a run resumes to the bit."""

import json

import numpy as np
import pytest
import torch
from short_runs import MODELS, assert_same_runs, run, signal_at_step
from weights_files import KINDS

from main import main
from model import build_model
from training.prompts import jittered_boxes, prediction_rounds, random_click
from training.signals import StoppedError
from utils.config import load_config

pytestmark = pytest.mark.usefixtures("no_pictures")

SAMS = ("sam", "sam2")
PROMPTS = ("box", "points", "mixed")
FAST = {("nano SAM", "mixed")}  # the others are slow


def build(folder, kind, *overrides, strategy="lora"):
    (folder / "m.yaml").write_text(
        f"{KINDS[kind]}prompts: {{text_encoder: learned, text_affine_norm: batchnorm}}\n"
        f"data: {{root_path: {folder}, label_list: [0, 1], label_names: [Background, Vein]}}\n"
        "ft: {r_lora: 2, lora_dropout: 0}\n"
    )
    torch.manual_seed(0)
    return build_model(load_config(folder / "m.yaml", None, list(overrides), strategy), encode_text=False).train()


def sample_of(model, count=6):
    torch.manual_seed(1)
    masks = torch.zeros(count, model.img_size, model.img_size)
    masks[:, 6:15, 4:20] = 1
    return torch.randn(count, 3, model.img_size, model.img_size), ["Vein"] * count, masks


def test_clicks_are_drawn_from_all_wrong_pixels_alike():
    missed, false = np.zeros((2, 4, 5), bool)
    missed[1, 2] = false[3, 4] = True
    torch.manual_seed(0)
    drawn = [random_click(missed, false) for _ in range(400)]
    assert set(drawn) == {(1, 2), (3, 4)}
    assert 150 < drawn.count((1, 2)) < 250


def test_boxes_move_by_a_tenth_of_their_sides_and_stay_in_the_square():
    masks = torch.zeros(500, 64, 64)
    masks[:, 20:30, 5:45] = 1
    torch.manual_seed(0)
    moved = jittered_boxes(masks) - torch.tensor([5.0, 20, 44, 29])
    assert moved.abs().max() == pytest.approx(64 * 20 / 1024)  # SAM's limit at 1024 pixels
    assert moved[:, 1].std() == pytest.approx(0.8, abs=0.1)  # a tenth of 10 pixels, limited to 1.25
    masks[:, :, :] = 1
    boxes = jittered_boxes(masks)
    assert boxes.min() == 0
    assert boxes.max() == 63
    assert (jittered_boxes(torch.zeros(500, 64, 64))[:, 2:] > 60).all()


@pytest.mark.parametrize("kind", SAMS)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_everything_trained_gets_a_gradient_and_the_prompt_itself_is_trained(tmp_path, kind, prompt, strategy):
    model = build(tmp_path, kind, f"prompts.type={prompt}", "sam.mask_head=detail", strategy=strategy)
    with torch.no_grad():
        model.detail_head.correction.weight.normal_(std=0.1)
    torch.manual_seed(2)
    rounds = prediction_rounds(model, *sample_of(model))
    assert len(rounds) == (1 if prompt == "box" else 3)
    sum(logits.square().mean() for logits in rounds).backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not {name for name in trained if model.get_parameter(name).grad is None}
    assert not {name for name, p in model.named_parameters() if p.grad is not None} - trained
    named = {name.removeprefix("prompt_encoder.") for name in trained if name.startswith("prompt_encoder.")}
    corners, signs = ({f"point_embeddings.{i}.weight" for i in pair} for pair in ((2, 3), (0, 1)))
    masks = {name for name in named if name.startswith("mask_downscaling.")}
    expected = {"box": corners, "points": signs | masks, "mixed": corners | signs | masks}[prompt]
    expected |= set() if (prompt, kind) == ("box", "sam") else {"not_a_point_embed.weight"}
    assert named - {"no_mask_embed.weight"} == expected
    assert bool(masks) == (prompt != "box")
    assert ("text_affine.0.weight" in trained) == (prompt == "mixed")


@pytest.mark.parametrize("kind", SAMS)
def test_mixed_prompts_are_those_of_each_kind(tmp_path, kind, monkeypatch):
    """What a sample of a mixed batch is shown gives what a batch of its kind alone gives."""
    import training.prompts as prompts

    model = build(tmp_path, kind, "prompts.type=mixed").eval()
    images, labels, masks = sample_of(model)
    monkeypatch.setattr(prompts, "jittered_boxes", lambda masks: torch.tensor([[4.0, 6, 19, 14]]).repeat(len(masks), 1))
    monkeypatch.setattr(prompts, "random_click", lambda missed, false: tuple(np.argwhere(missed | false)[0]))
    with torch.no_grad():
        torch.manual_seed(5)
        kinds = torch.randint(3, (len(images),)).tolist()
        assert set(kinds) == {0, 1, 2}
        torch.manual_seed(5)
        mixed = prediction_rounds(model, images, labels, masks)
        for number, name in enumerate(prompts.KINDS):
            rows = [i for i, drawn in enumerate(kinds) if drawn == number]
            if name == "text":
                alone = [model(images, labels)] * 3
            else:
                model.prompt = name
                encoder, model.text_encoder = model.text_encoder, None
                alone = prediction_rounds(model, images, labels, masks)
                alone, model.text_encoder = alone * (3 // len(alone)), encoder
            for one, other in zip(mixed, alone, strict=True):
                torch.testing.assert_close(one[rows], other[rows], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mixed[0][rows], mixed[2][rows], atol=1e-4)


@pytest.mark.parametrize(
    ("model", "prompt"),
    [
        pytest.param(MODELS[m], p, id=f"{m}, {p}", marks=[] if (m, p) in FAST else pytest.mark.slow)
        for m in MODELS
        for p in PROMPTS
    ],
)
def test_a_run_resumes_within_an_epoch_to_the_bit(workspace, monkeypatch, model, prompt):
    overrides = (*model, f"prompts.type={prompt}", "training.ema_decay=0.9", "sam.mask_head=detail")
    run(workspace, "whole/m.safetensors", *overrides)
    signal_at_step(monkeypatch, 3)
    with pytest.raises(StoppedError):
        run(workspace, "cut/m.safetensors", *overrides)
    torch.manual_seed(1234)
    run(workspace, "cut/m.safetensors", *overrides, resume=True)
    assert_same_runs(workspace.folder / "whole", workspace.folder / "cut")
    results = json.loads((workspace.folder / "whole" / "results.json").read_text())
    assert (results["prompt"], results["clicks"]) == (prompt, 3 if prompt == "points" else None)


@pytest.mark.slow
def test_gradients_of_micro_batches_and_half_precision_train_as_well(workspace):
    overrides = ("training.accumulate_steps=2", "training.precision=bf16", "training.gradient_checkpointing=true")
    results = run(workspace, "r/m.safetensors", "prompts.type=mixed", *overrides)
    assert results.last.epoch == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data_transforms.scale=native"], "prompts.type = points, but the windows of data_transforms.scale = native"),
        (["arch=unet", "strategy=full"], "prompts.type = points, but unet takes no prompts; leave it out"),
        (["prompts.clicks=0"], "prompts.clicks"),
    ],
)
def test_what_contradicts_clicks_is_one_line(workspace, capsys, overrides, message):
    assert main(workspace.train_arguments("r/m.safetensors", "--set", "prompts.type=points", *overrides)) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_is_evaluated_by_other_prompts(workspace, capsys):
    run(workspace, "r/m.safetensors", "prompts.type=mixed", "training.num_epochs=1")
    checkpoint = workspace.folder / "r" / "m.safetensors"

    def tested(*more):
        status = main(["test", "--checkpoint", str(checkpoint), "--device", "cpu", *more])
        return status, capsys.readouterr().err

    scores = {}
    for more, name in (
        ((), "m_set_test"),
        (("--prompt", "text"), "m_set_test_prompt_text"),
        (("--prompt", "box"), "m_set_test_prompt_box"),
        (("--prompt", "points"), "m_set_test_prompt_points"),
        (("--prompt", "points", "--clicks", "1"), "m_set_test_prompt_points_clicks_1"),
    ):
        assert tested(*more)[0] == 0
        results = json.loads((checkpoint.parent / name / "results.json").read_text())
        scores[name] = results["native"]["dice"]["mean"], (results["prompt"], results["clicks"])
    assert [what for _, what in scores.values()] == [
        ("mixed", None), ("text", None), ("box", None), ("points", 3), ("points", 1),
    ]  # fmt: skip
    assert scores["m_set_test"][0] == scores["m_set_test_prompt_text"][0]
    assert "--clicks: is for --prompt points, and the prompt is mixed" in tested("--clicks", "2")[1]
    assert "leave out --tile and --tta" in tested("--prompt", "points", "--tile")[1]

"""SAM2 from the sam2 package: equal to its predictor, every key of its files accounted for, the published counts."""

import json

import numpy as np
import pytest
import torch
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

import adapters
from checkpointing.tensor_files import read_state_dict
from main import main
from model import build_model
from prompt_adapted_SAM2 import build_sam2_parts, sam2_type_of
from prompt_adapted_SAM2.build import _YAMLS
from utils.config import load_config
from utils.errors import ConfigError, UserError

SAM2 = "arch=Prompt Adapted SAM 2"


def official(sam_type="base_plus", version="2.1", seed=0, **build):
    """The package's own model with random weights, positions included."""
    torch.manual_seed(seed)
    yaml = _YAMLS[sam_type] if version == "2.1" else _YAMLS[sam_type].replace("sam2.1", "sam2")
    model = build_sam2(yaml, None, device="cpu", **build)
    for name, parameter in model.named_parameters():
        if "pos_embed" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    """A file of SAM 2.1 tiny's official format."""
    path = tmp_path_factory.mktemp("sam2") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": official("tiny").state_dict()}, path)
    return path


@pytest.fixture
def config(tmp_path):
    """config("salt", "ft.r_lora=2", base=path): a SAM2 config at 128 pixels, nano without a base."""
    path = tmp_path / "sam2.yaml"
    path.write_text("arch: Prompt Adapted SAM 2\nsam: {img_size: 128}\nprompts: {text_encoder: learned}\n")

    def build(strategy, *overrides, base=None):
        start = ["sam.sam_type=tiny"] if base else ["sam.sam_type=nano", "sam.weights=random"]
        kept = [one for one in start if one.split("=")[0] not in {o.split("=")[0] for o in overrides}]
        return load_config(path, None, [*kept, *overrides], strategy, base)

    return build


def from_predictor(stock, image, box):
    predictor = SAM2ImagePredictor(stock)
    predictor._bb_feat_sizes = [(stock.image_size // stride,) * 2 for stride in (4, 8, 16)]
    predictor.set_image(image)
    logits, _, _ = predictor.predict(box=np.array(box), multimask_output=False, return_logits=True)
    return logits[0]


@pytest.mark.parametrize(
    ("sam_type", "img_size"),
    [("tiny", 128), ("tiny", 256), pytest.param("base_plus", 1024, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("version", ["2", "2.1"])
def test_a_box_prompt_gives_the_predictors_logits(tmp_path, config, sam_type, img_size, version):
    stock = official(sam_type, version, hydra_overrides_extra=[f"++model.image_size={img_size}"])
    torch.save({"model": stock.state_dict()}, tmp_path / "sam2.pt")
    image = np.random.default_rng(0).integers(0, 256, (img_size, img_size, 3), dtype=np.uint8)
    box = [10, 20, img_size - 40, img_size - 60]
    expected = from_predictor(stock, image, box)
    overrides = [f"sam.sam_type={sam_type}", f"sam.img_size={img_size}", "prompts.type=box_full"]
    model = build_model(config("none", *overrides, base=tmp_path / "sam2.pt")).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        ours = model(pixels, ["any"], torch.tensor([box]).float())[0].numpy()
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(ours, expected, atol=1e-3 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("version", ["2", "2.1"])
@pytest.mark.parametrize("img_size", [128, 256, 512])
def test_every_key_of_an_official_file_is_accounted_for(tmp_path, config, version, img_size):
    state = official("tiny", version).state_dict()
    torch.save({"model": state}, tmp_path / "sam2.pt")
    model = build_model(config("none", f"sam.img_size={img_size}", base=tmp_path / "sam2.pt"))
    loaded = model.base_state()
    memory = set(state) - set(loaded)
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)
    assert not any(key.startswith(("image_encoder", "sam_", "no_mem_embed")) for key in memory)
    from prompt_adapted_SAM2 import load_sam2

    report = load_sam2(model, state, tmp_path / "sam2.pt")
    assert len(report.loaded) == len(loaded)
    assert set(report.unused) == memory
    assert "not used (the video memory)" in str(report)


@pytest.mark.parametrize("sam_type", ["tiny", "small", "base_plus", "nano"])
def test_types_are_told_by_their_weights(sam_type):
    state = {f"image_encoder.{k}": v for k, v in build_sam2_parts(sam_type, 128).image_encoder.state_dict().items()}
    assert sam2_type_of(state) == sam_type


@pytest.mark.parametrize(
    ("strategy", "overrides", "trainable"),
    [
        ("salt", ("ft.r_lora=256", "ft.r_lora_above_rank=allow"), 19_705_116),
        ("salt", ("ft.r_lora=4",), 519_852),
        ("lora", ("ft.r_lora=4",), 902_816),
    ],
)
def test_the_papers_counts_for_base_plus(tmp_path, strategy, overrides, trainable, capsys):
    (tmp_path / "m.yaml").write_text("arch: Prompt Adapted SAM 2\n")
    arguments = ["params", "--model_config", str(tmp_path / "m.yaml"), "--training_strategy", strategy, "--json"]
    assert main([*arguments, "--set", *overrides]) == 0
    assert json.loads(capsys.readouterr().out)["trainable"] == trainable


def test_salt_leaves_the_neck_plain_and_lora_and_svd_adapt_it(config):
    necks = {}
    for method in ("salt", "svd", "lora"):
        names = [name for name, _ in adapters.adapted_layers(build_model(config(method)))]
        necks[method] = sum(".neck." in name for name in names)
        assert sum(".trunk." in name for name in names) == 4 * 9
        assert not any(name.endswith(("blocks.1.proj", "blocks.3.proj")) for name in names)
    assert necks == {"salt": 0, "svd": 4, "lora": 4}


def test_the_ratio_gives_each_layer_its_own_rank(config):
    model = build_model(config("salt", "ft.svd_ratio=0.1"))
    ranks = {layer.full_rank: layer.rank for _, layer in adapters.adapted_layers(model)}
    assert ranks == {24: 2, 48: 4, 96: 9, 192: 19}


def test_r_lora_above_a_layers_rank_is_an_error_unless_allowed_or_clamped(config):
    with pytest.raises(ConfigError, match=r"r_lora 30 is outside 0\.\.24"):
        build_model(config("salt", "ft.r_lora=30"))
    for choice, columns in (("clamp", 24), ("allow", 30)):
        model = build_model(config("salt", "ft.r_lora=30", f"ft.r_lora_above_rank={choice}"))
        assert next(iter(adapters.adapted_layers(model)))[1].X.shape[1] == columns


@pytest.mark.parametrize("strategy", ["salt", "svd", "svdbiastuning", "lora", "biastuning", "decoder", "full"])
@pytest.mark.parametrize("high_res", [True, False])
def test_exactly_what_a_strategy_trains_gets_gradients(config, strategy, high_res):
    torch.manual_seed(0)
    overrides = [f"sam.high_res_features={str(high_res).lower()}", "ft.lora_dropout=0"]
    model = build_model(config(strategy, *overrides)).train()
    model(torch.randn(2, 3, 128, 128), ["Foreground"] * 2).square().mean().backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    # Without high-resolution features, what adapts the neck's finest two levels has nothing to learn.
    idle = {name for name in without if name.startswith(("image_encoder.neck.convs.2.", "image_encoder.neck.convs.3."))}
    assert without == (set() if high_res else idle)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_the_neck_and_skip_projections_train_only_where_they_should(config):
    trained = {name for name, p in build_model(config("salt")).named_parameters() if p.requires_grad}
    assert "image_encoder.trunk.pos_embed" in trained
    assert "image_encoder.trunk.pos_embed_window" in trained
    assert not any(".neck." in name or name.endswith("blocks.1.proj.weight") for name in trained)
    assert not any("conv_s" in name or "no_mem_embed" in name for name in trained)


def test_released_leaves_out_high_resolution_and_doubles_the_token(tmp_path):
    (tmp_path / "m.yaml").write_text(
        f"{SAM2.replace('=', ': ')}\nprofile: released\nsam: {{sam_type: nano, img_size: 64, weights: random}}\n"
        "prompts: {text_encoder: learned}\n"
    )
    config = load_config(tmp_path / "m.yaml")
    assert (config.sam.high_res_features, config.prompts.NUM_TEXT_REPEAT) == (False, 2)
    model = build_model(config)
    assert len(model.embed_image(torch.zeros(1, 3, 64, 64))) == 1
    assert model.text_tokens(["Foreground"]).shape == (1, 2, 128)
    assert model(torch.zeros(1, 3, 64, 64), ["Foreground"]).shape == (1, 64, 64)


@pytest.mark.parametrize("strategy", ["salt", "svd", "lora"])
def test_the_start_is_the_untouched_model(config, tiny_file, strategy):
    x = torch.randn(1, 3, 128, 128)
    outputs = []
    for each in ("none", strategy):
        torch.manual_seed(4)
        with torch.no_grad():
            outputs.append(build_model(config(each, base=tiny_file)).eval()(x, ["Foreground"]))
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-3, rtol=1e-3)


def test_sizes_that_do_not_divide_windows(config):
    for size in (96, 160, 288):
        model = build_model(config("none", f"sam.img_size={size}")).eval()
        with torch.no_grad():
            assert model(torch.randn(1, 3, size, size), ["Foreground"]).shape == (1, size, size)


def write_sam(path):
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, path)


def test_a_sam_file_for_sam2_and_the_reverse_are_told(tmp_path, config, tiny_file):
    write_sam(tmp_path / "sam.pth")
    with pytest.raises(UserError, match="is a SAM file, the config asks for SAM2; set arch: Prompt Adapted SAM"):
        build_model(config("none", base=tmp_path / "sam.pth"))
    (tmp_path / "sam.yaml").write_text("sam: {sam_type: nano, img_size: 64}\nprompts: {text_encoder: learned}\n")
    with pytest.raises(UserError, match="is a SAM2 file, the config asks for SAM; set arch: Prompt Adapted SAM 2"):
        build_model(load_config(tmp_path / "sam.yaml", None, (), "none", tiny_file))


def broken(state, kind):
    if kind == "missing":
        del state["sam_mask_decoder.iou_token.weight"]
    elif kind == "unexpected":
        state["image_encoder.extra"] = torch.zeros(1)
    elif kind == "shape":
        state["sam_mask_decoder.iou_token.weight"] = torch.zeros(1, 3)
    return state


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "1 weights are missing, the first is 'mask_decoder.iou_token.weight'"),
        ("unexpected", "unexpected key 'image_encoder.extra'"),
        ("shape", r"'mask_decoder.iou_token.weight' has shape \(1, 3\), the model needs \(1, 256\)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, config, tiny_file, kind, message):
    torch.save(broken(read_state_dict(tiny_file), kind), tmp_path / "bad.pt")
    with pytest.raises(UserError, match=message):
        build_model(config("none", base=tmp_path / "bad.pt"))


def test_another_size_is_told(config, tiny_file):
    with pytest.raises(UserError, match="is a SAM2 of sam_type 'tiny', the config asks for 'nano'"):
        build_model(config("none", "sam.sam_type=nano", base=tiny_file))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sam.sam_type=huge", "Prompt Adapted SAM 2 has base_plus, tiny, small, large, nano"),
        ("sam.img_size=144", "SAM2 needs a multiple of 32"),
    ],
)
def test_sizes_that_sam2_does_not_have(config, override, message):
    with pytest.raises(ConfigError, match=message):
        config("salt", override)


@pytest.mark.slow
def test_a_salt_step_of_base_plus_at_512(config):
    model = build_model(config("salt", "sam.sam_type=base_plus", "sam.img_size=512")).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    x, target = torch.randn(1, 3, 512, 512), torch.zeros(1, 512, 512)
    target[:, 100:200] = 1
    losses = []
    for _ in range(4):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x, ["Foreground"]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]

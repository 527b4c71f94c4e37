"""The prompt-adapted SAM: what it computes, what each strategy trains, what it counts, what it saves."""

import json

import pytest
import torch
from safetensors.torch import save_file

import adapters
from checkpointing import weights_file
from main import main
from model import build_model, load_trained, save_model
from networks.strategies import parameter_counts
from prompt_adapted_segment_anything import SAM_PREFIXES
from utils.config import load_config
from utils.errors import ConfigError, UserError

STRATEGIES = ("salt", "svd", "svdbiastuning", "lora", "biastuning", "decoder", "full", "none")


@pytest.fixture
def config(tmp_path):
    """Builds configs of a nano SAM at 32 pixels: config("lora", "ft.r_lora=2", ...)."""
    path = tmp_path / "model.yaml"
    path.write_text(
        "sam: {img_size: 32, sam_type: nano}\nprompts: {text_encoder: learned}\n"
        "ft: {svd_rank_linear: 8, svd_rank_conv2d: 4, r_lora: 2}\n"
    )

    def build(strategy="salt", *overrides, base=None):
        random = [] if base else ["sam.weights=random"]
        return load_config(path, None, [*random, *overrides], strategy, base)

    return build


@pytest.fixture
def base(tmp_path, config):
    """An official-format weights file of a nano SAM with random values."""
    torch.manual_seed(3)
    state = build_model(config("none")).state_dict()
    path = tmp_path / "nano.safetensors"
    save_file({k: v + 0.01 * torch.randn_like(v) for k, v in state.items() if k.startswith(SAM_PREFIXES)}, path)
    return path


def seeded(config, seed=0):
    torch.manual_seed(seed)
    return build_model(config)


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = ["Foreground", "Foreground"]


@pytest.mark.parametrize("strategy", ["salt", "svd", "lora"])
def test_identity_start_leaves_the_models_output_unchanged(config, base, strategy):
    plain = seeded(config("none", base=base)).eval()
    adapted = build_model(config(strategy, base=base)).eval()
    for part in ("text_affine", "text_encoder"):
        getattr(adapted, part).load_state_dict(getattr(plain, part).state_dict())
    assert len(list(adapters.adapted_layers(adapted))) == 4 * 4 + 2
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert torch.allclose(adapted(IMAGES, LABELS), plain(IMAGES, LABELS), atol=1e-4)


def test_logits_depend_on_the_label_and_not_on_the_rest_of_the_batch(tmp_path, config):
    data = tmp_path / "data.yaml"
    data.write_text(f"data: {{root_path: {tmp_path}, label_list: [0, 1, 2], label_names: [Bg, Vein, Artery]}}\n")
    two = load_config(tmp_path / "model.yaml", data, ["sam.weights=random"], "none")
    model = seeded(two).eval()
    vein, artery = model(IMAGES, ["Vein", "Artery"])
    assert vein.shape == (32, 32)
    assert torch.allclose(model(IMAGES[:1], ["Vein"])[0], vein, atol=1e-5)
    assert not torch.allclose(model(IMAGES[1:], ["Vein"])[0], artery, atol=1e-3)
    with pytest.raises(UserError, match="label 'Nerve' is unknown to this model; it knows Vein, Artery"):
        model(IMAGES, ["Vein", "Nerve"])


def expected_to_train(model, strategy):
    """The strategies' definitions, spelled by parameter names."""

    def always(name):
        norm = (
            "norm" in name and name.startswith(("image_encoder.blocks", "mask_decoder.transformer"))
        ) or "pos_embed" in name
        return norm or name.startswith("text_")

    unused = ("mask_decoder.iou_prediction", *(f"mask_decoder.output_hypernetworks_mlps.{i}" for i in (1, 2, 3)))
    decoder = [n for n, _ in model.named_parameters() if n.startswith("mask_decoder") and not n.startswith(unused)]
    names = [name for name, _ in model.named_parameters()]
    adapter = [n for n in names if n.rsplit(".", 1)[1] in ("alpha", "beta", "X", "Y", "up", "down")]
    bias = [n for n in names if n.startswith("image_encoder") and n.endswith(".bias")]
    text = [n for n in names if n.startswith("text_")]
    light = [n for n in names if always(n)]
    return {
        "none": [],
        "decoder": decoder + text,
        "full": [n for n in names if n.startswith("image_")] + decoder + text + ["prompt_encoder.no_mask_embed.weight"],
        "biastuning": light + bias,
        "svdbiastuning": light + bias + adapter,
    }.get(strategy, light + adapter)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_trains_what_it_says_and_each_of_it_gets_a_gradient(config, strategy):
    # The normal start lets X and Y get gradients in the first step.
    model = seeded(config(strategy, "ft.salt_init=normal"))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == set(expected_to_train(model, strategy))
    if not trainable:
        return
    with torch.no_grad():  # LoRA's up is 0 at the start, and so is down's gradient
        for _, parameter in adapters.adapter_parameters(model).items():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model(IMAGES, LABELS).square().mean().backward()
    silent = {name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # Biases that cancel out have no gradient: a key's before the softmax, a channel's mean before LayerNorm2d.
    assert not {name for name in silent if "bias" not in name}, silent


def test_the_config_says_where_salts_relu_acts(config):
    for relu in ("core", "diagonal", "none"):
        layers = adapters.adapted_layers(seeded(config("salt", f"ft.relu={relu}")))
        assert {layer.relu for _, layer in layers} == {relu}


@pytest.mark.parametrize(
    ("row", "overrides", "percent", "trainable"),
    [
        ("lora_256", [], 14.08, 39_625_984),
        ("lora_4", [], 0.64, 1_563_904),
        ("salt_4", [], 0.46, 1_111_752),
        ("salt_256", [], 3.90, 9_798_336),
        ("salt_256", ["ft.svd_rank_linear=200", "ft.svd_rank_conv2d=200"], 5.84, 14_996_256),
        ("lora_256", ["ft.svd_rank_linear=200", "ft.svd_rank_conv2d=200"], 14.08, 39_625_984),
        ("ssam", [], 0.43, 1_034_496),
    ],
)
def test_params_counts_the_papers_rows(capsys, row, overrides, percent, trainable):
    options = ["--set", *overrides] if overrides else []
    assert main(["params", "--model_config", f"configs/table1/{row}.yaml", "--json", *options]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["percent"] == percent
    assert counts["trainable"] == trainable
    assert counts["modules"]["text_encoder"] == {"trainable": 0, "total": 151_277_313}
    assert counts["modules"]["mask_decoder"]["total"] == 4_058_340
    assert counts["modules"]["prompt_encoder"]["total"] == 6_220
    for key in ("trainable", "total"):
        assert counts[key] == sum(module[key] for module in counts["modules"].values())


def test_counting_agrees_with_a_model_that_has_weights(config):
    for strategy in STRATEGIES:
        c = config(strategy)
        assert parameter_counts(build_model(c, counted_only=True)) == parameter_counts(build_model(c))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_weights_file_rebuilds_the_model(tmp_path, config, base, strategy, suffix):
    c = config(strategy, base=base)
    model = seeded(c)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.eval()
    path = tmp_path / f"trained{suffix}"
    save_model(model, c, path, epoch=7)
    loaded, again = load_trained(path)
    assert again == c
    expected = model(IMAGES, LABELS)
    if strategy == "none":  # nothing was trained: the text prompt is random, and is drawn again
        loaded.text_affine, loaded.text_encoder = model.text_affine, model.text_encoder
    assert torch.allclose(loaded(IMAGES, LABELS), expected, atol=1e-5)
    assert weights_file.read_weights(path).metadata["epoch"] == "7"


def test_batchnorms_running_statistics_are_saved(tmp_path, config, base):
    c = config("salt", "prompts.text_affine_norm=batchnorm", base=base)
    model = seeded(c).train()
    for _ in range(3):
        model(IMAGES, LABELS)
    save_model(model, c, tmp_path / "m.safetensors", 1)
    loaded, _ = load_trained(tmp_path / "m.safetensors")
    assert torch.equal(loaded.text_affine[2].running_mean, model.text_affine[2].running_mean)
    assert int(loaded.text_affine[2].num_batches_tracked) == 3
    assert torch.isfinite(model(IMAGES[:1], LABELS[:1])).all()  # a batch of one trains


def test_a_model_from_random_weights_is_saved_whole(tmp_path, config):
    c = config("lora")
    model = seeded(c).eval()
    save_model(model, c, tmp_path / "m.safetensors", 1)
    torch.manual_seed(99)
    loaded, _ = load_trained(tmp_path / "m.safetensors")
    assert torch.allclose(loaded(IMAGES, LABELS), model(IMAGES, LABELS), atol=1e-5)


def test_weights_files_that_do_not_fit_are_refused(tmp_path, config, base):
    c = config("salt", base=base)
    path = tmp_path / "m.safetensors"
    save_model(seeded(c), c, path, 1)
    good = weights_file.read_weights(path)

    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read as weights, it may be truncated"):
        load_trained(path)
    with pytest.raises(UserError, match="holds weights, but is no checkpoint of this project"):
        load_trained(base)

    other = {**good.metadata, "config": config("lora", base=base).to_yaml()}
    weights_file.save_weights(path, good.tensors, other)
    with pytest.raises(UserError, match=r"another architecture: \d+ missing, \d+ unexpected keys"):
        load_trained(path)

    moved = dict(good.tensors)
    moved["image_encoder.blocks.2.attn.qkv.fingerprint"] = -moved["image_encoder.blocks.2.attn.qkv.fingerprint"]
    weights_file.save_weights(path, moved, good.metadata)
    with pytest.raises(UserError, match=r"image_encoder.blocks.2.attn.qkv: its singular vectors differ"):
        load_trained(path)

    weights_file.save_weights(path, good.tensors, good.metadata)
    base.rename(tmp_path / "moved.safetensors")
    with pytest.raises(UserError, match=r"needs its base weights .*, which do not exist; .*; give --pretrained_path"):
        load_trained(path)
    load_trained(path, tmp_path / "moved.safetensors")
    save_file({"x": torch.zeros(1)}, base)
    with pytest.raises(UserError, match="was trained on other base weights"):
        load_trained(path)


def test_the_published_names_are_imported_from_model():
    import model

    names = ("Prompt_Adapted_SAM", "Prompt_Adapted_SAM2", "build_model", "load_model", "load_trained")
    assert [getattr(model, name).__name__ for name in names] == list(names)


def test_without_weights_nothing_starts(config, tmp_path):
    with pytest.raises(ConfigError, match="no base weights: give --pretrained_path"):
        build_model(config("salt", "sam.weights=pretrained"))
    with pytest.raises(UserError, match="no such file of weights"):
        build_model(config("salt", base=tmp_path / "absent.pth"))


def test_ranks_above_a_layers_are_a_config_error(config):
    with pytest.raises(ConfigError, match=r"ft: image_encoder.blocks.0.attn.qkv: svd_rank 999 is outside 0..128"):
        build_model(config("salt", "ft.svd_rank_linear=999"))
    with pytest.raises(ConfigError, match="rank pattern 'nothing' matches no adapted layer"):
        build_model(config("salt", "ft.rank_pattern={nothing: {r_lora: 1}}"))

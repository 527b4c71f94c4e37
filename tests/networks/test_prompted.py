"""Text and box prompts of the two SAMs, and what a text prompt takes over from another model's."""

import pytest
import torch
from weights_files import KINDS

from model import build_model
from utils.config import load_config

SAMS = ("sam", "sam2")


@pytest.fixture
def build(tmp_path):
    """Builds SAMs: build("sam", "prompts.NUM_TEXT_REPEAT=2", labels=("Vein",))."""

    def of(kind, *overrides, labels=("Vein", "Artery"), seed=0):
        (tmp_path / "m.yaml").write_text(
            f"{KINDS[kind]}prompts: {{text_encoder: learned}}\n"
            f"data: {{root_path: {tmp_path}, label_list: {list(range(len(labels) + 1))}, "
            f"label_names: [Background, {', '.join(labels)}]}}\n"
        )
        torch.manual_seed(seed)
        config = load_config(tmp_path / "m.yaml", None, list(overrides), "none")
        return build_model(config, encode_text=False).eval()

    return of


@pytest.mark.parametrize("kind", SAMS)
def test_a_labels_token_is_the_affine_layers_output_repeated(build, kind):
    model = build(kind, "prompts.NUM_TEXT_REPEAT=3")
    tokens = model.text_tokens(["Artery", "Vein"])
    expected = model.text_affine(model.text_encoder.embedding.weight[[1, 0]])
    assert tokens.shape[:2] == (2, 3)
    assert all(torch.equal(tokens[:, i], expected) for i in range(3))


@pytest.mark.parametrize("kind", SAMS)
def test_a_box_prompted_model_has_no_text_prompt_and_needs_boxes(build, kind):
    model = build(kind, "prompts.type=box_full")
    assert not any(name.startswith("text_") for name, _ in model.named_parameters())
    x = torch.randn(2, 3, model.img_size, model.img_size)
    box = torch.tensor([[4.0, 4, 20, 24], [0, 0, 31, 31]])
    with torch.no_grad():
        both = model(x, ["any", "other"], box)
        assert torch.allclose(model(x[:1], ["any"], box[:1])[0], both[0], atol=1e-5)
        assert not torch.allclose(model(x[:1], ["any"], box[1:])[0], both[0], atol=1e-5)
    with pytest.raises(ValueError, match="the prompt of this model is box_full: it needs boxes"):
        model(x, ["any", "other"])


def test_a_text_prompt_is_taken_over_as_far_as_both_models_have_the_same(build):
    source = build("sam", seed=1)
    affine = {f"text_affine.{key}" for key in source.text_affine.state_dict()}
    features = {"text_encoder.embedding.weight"}
    same, other_labels = build("sam"), build("sam", labels=("Artery", "Vein"))
    assert set(same.load_own_parts(source)) == affine | features
    assert torch.equal(same.text_tokens(["Vein"]), source.text_tokens(["Vein"]))
    before = other_labels.text_encoder.embedding.weight.clone()
    assert set(other_labels.load_own_parts(source)) == affine
    assert torch.equal(other_labels.text_encoder.embedding.weight, before)


@pytest.mark.parametrize("other", ["prompts.text_encoder=clip", "prompts.type=box_full", "sam.sam_type=base"])
def test_another_kind_of_text_prompt_takes_nothing_over(build, other):
    source, model = build("sam", other), build("sam", seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert model.load_own_parts(source) == source.load_own_parts(model) == []
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())

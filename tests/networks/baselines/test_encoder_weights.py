from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from networks import baselines
from networks.baselines import load_encoder_weights
from utils.errors import UserError

FILE = Path("imagenet.pth")


def randomize(module):
    """Weights of a trained network's size, so that deep features neither vanish nor explode."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.1, 0.1)
            m.running_var.uniform_(0.8, 1.2)
            m.weight.data.uniform_(0.4, 0.6)
            m.bias.data.uniform_(-0.1, 0.1)
    return module.eval()


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return randomize(torchvision.models.resnet101(weights=None))


@pytest.fixture(scope="module")
def vgg():
    """(features, state dict) of torchvision's vgg16_bn; the classifier's 120 M weights without memory."""
    torch.manual_seed(0)
    with torch.device("meta"):
        model = torchvision.models.vgg16_bn(weights=None)
    model.features = randomize(torchvision.models.vgg16_bn(weights=None, init_weights=False).features)
    return model.features, model.state_dict()


def test_segnet_has_the_features_of_vgg16_bn(vgg):
    features, state = vgg
    model = baselines.build("segnet", 1, 64).eval()
    report = load_encoder_weights(model, state, FILE)
    assert len(report.loaded) == 13 * 7
    assert report.unused == [f"classifier.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias")]
    assert str(report) == "91 weights loaded, 6 not used (the classifier)"
    x = expected = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for layer in model.network.encoder:
            x = layer(x)[0] if isinstance(layer, nn.MaxPool2d) else layer(x)
        expected = features(expected)
    assert expected.std() > 1e-3
    assert torch.allclose(x, expected, atol=1e-6)


@pytest.mark.parametrize(("name", "compared"), [("segformer", 5), ("unetplusplus", 5), ("deeplabv3plus", 4)])
def test_networks_of_smp_have_the_features_of_resnet101(name, compared, resnet):
    # DeepLabV3+ dilates the last stage instead of halving its side, so that stage differs by design.
    model = baselines.build(name, 1, 64).eval()
    state = resnet.state_dict()
    report = load_encoder_weights(model, state, FILE)
    assert report.unused == ["fc.weight", "fc.bias"]
    assert len(report.loaded) == len(state) - 2
    assert list(state) == list(resnet.state_dict()), "the caller's state dict stays as it is"
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = model.network.encoder(x)[1:]
        expected = [resnet.relu(resnet.bn1(resnet.conv1(x)))]
        expected.append(resnet.layer1(resnet.maxpool(expected[-1])))
        for stage in (resnet.layer2, resnet.layer3, resnet.layer4):
            expected.append(stage(expected[-1]))
    for ours, theirs in list(zip(features, expected, strict=True))[:compared]:
        assert theirs.std() > 1e-3
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_files_without_the_counters_of_batch_norms_load(vgg):
    state = {key: value for key, value in vgg[1].items() if not key.endswith("num_batches_tracked")}
    assert len(load_encoder_weights(baselines.build("segnet", 1, 64), state, FILE).loaded) == 13 * 6


def without(key):
    return lambda state: {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("features.1.running_mean"), "1 weights are missing, the first is 'features.1.running_mean'"),
        (
            lambda state: {**state, "extra.weight": torch.zeros(1)},
            "unexpected key 'extra.weight'; this model has no such weight",
        ),
        (
            lambda state: {k.removeprefix("features."): v for k, v in state.items()},
            "unexpected key '0.weight'; this model has no such weight",
        ),
        (
            lambda state: {**state, "features.3.weight": torch.zeros(64, 3, 3, 3)},
            "'features.3.weight' has shape (64, 3, 3, 3), the model needs (64, 64, 3, 3)",
        ),
    ],
)
def test_weights_that_do_not_fit_change_nothing(change, message, vgg):
    model = baselines.build("segnet", 1, 64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_encoder_weights(model, change(vgg[1]), FILE)
    assert str(error.value) == f"imagenet.pth: {message}; this network takes torchvision's vgg16_bn"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "size"), [("unet", "paper"), ("segformer", "nano"), ("segnet", "nano")])
def test_networks_without_such_an_encoder_say_so(name, size):
    with pytest.raises(UserError, match="no encoder that takes torchvision's weights"):
        load_encoder_weights(baselines.build(name, 1, 64, size), {}, FILE)


def test_every_network_that_names_weights_can_take_them():
    named = {name: baseline.encoder_weights for name, baseline in baselines.BASELINES.items()}
    assert {name for name, weights in named.items() if weights} == {
        "segnet",
        "deeplabv3plus",
        "segformer",
        "unetplusplus",
    }

"""How a run picks its device."""

import pytest
import torch

from utils.device import resolve_device
from utils.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that torch sees this many GPUs."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def test_auto_takes_a_gpu_where_there_is_one(gpus):
    gpus(0)
    assert resolve_device("auto") == CPU
    gpus(1)
    assert resolve_device("auto") == torch.device("cuda", 0)


def test_named_devices(gpus):
    gpus(2)
    assert resolve_device("cpu") == CPU
    assert resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_cuda_where_there_is_none_is_refused(gpus, name):
    gpus(0)
    with pytest.raises(ConfigError, match=f"device: '{name}' asks for CUDA"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda:2", "cuda:10"])
def test_a_gpu_that_does_not_exist_is_refused(gpus, name):
    gpus(2)
    with pytest.raises(ConfigError, match=f"'{name}' does not exist, this machine has cuda:0 to cuda:1"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "CUDA", "cpu:0", "cuda:", "cuda:-1", "cuda:a", "cuda:1:2", "cuda0", "mps"])
def test_nonsense_names_are_refused(gpus, name):
    gpus(2)
    with pytest.raises(ConfigError) as caught:
        resolve_device(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)

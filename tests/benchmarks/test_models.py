"""The benchmarks of whole models at tiny sizes: the ways compared are the same function, and results are written."""

import json
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial

import pytest
import torch

import adapters
from benchmarks import inference, startup, step
from benchmarks.naive import naive, peft
from benchmarks.peak_memory import KEEP_FREED, in_new_process
from benchmarks.step import COMMAND, TABLE1, Job
from model import build_model
from utils.config import load_config

NANO = ("sam.sam_type=nano", "ft.svd_rank_linear=16", "ft.svd_rank_conv2d=16", "ft.r_lora=4")


def model_of(row, *overrides, strategy=None, size=64):
    torch.manual_seed(0)
    options = [*NANO, "sam.weights=random", f"sam.img_size={size}", "ft.lora_dropout=0", *overrides]
    return build_model(load_config(TABLE1 / f"{row}.yaml", None, options, strategy), encode_text=False).train()


def randomize(model):
    """Adapters away from their start, so that what they do shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapters.adapter_parameters(model).values():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("row", ["salt_4", "ssam", "lora_4"])
def test_the_plain_way_is_the_same_function(row):
    ours, plain = model_of(row), model_of(row)
    for model in (ours, plain):
        randomize(model)
    naive(plain)
    images = torch.randn(2, 3, 64, 64)
    gradients = []
    for model in (ours, plain):
        out = model.embed_image(images)
        gradients.append([out, *torch.autograd.grad(out.square().mean(), trained(model))])
    for first, second in zip(*gradients, strict=True):
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-5)


def trained(model):
    encoder = model.image_encoder
    return [*adapters.adapter_parameters(model).values(), encoder.pos_embed, *encoder.blocks[0].norm1.parameters()]


def test_pefts_lora_adapts_and_trains_what_ours_does():
    ours = model_of("lora_4")
    bare = model_of("lora_4", "ft.type=null", strategy="none")
    theirs = peft(bare, bare.default_targets("lora"), 4, 0.0).train()
    assert adapters.count_parameters(ours)[0] == adapters.count_parameters(theirs)[0]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():  # both start as the untouched model
        assert torch.allclose(theirs.embed_image(images), ours.embed_image(images), atol=1e-4)


@pytest.mark.parametrize("how", ["ours", "naive"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_trains(how, precision):
    job = Job(f"{how} salt_4 {precision}", 1, 32, NANO).step()
    model = job.__closure__[[*job.__code__.co_freevars].index("objective")].cell_contents.model
    before = [p.detach().clone() for p in adapters.adapter_parameters(model).values()]
    job()
    after = adapters.adapter_parameters(model).values()
    assert sum(not torch.equal(first, second) for first, second in zip(before, after, strict=True)) > len(before) / 2


CHOSEN = ["naive salt_4 fp32", "ours salt_4 bf16"]
COMMANDS = {
    "step": (step.main, ["--ways", *CHOSEN, "--size", "32", "--batch", "1", "2", "--keep-freed"], 2),
    "inference": (inference.main, ["--sizes", "32", "64"], 2),
    "startup": (startup.main, ["--sam_type", "nano", "--size", "32"], 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_writes_its_table_and_json(name, tmp_path, monkeypatch, capsys):
    command, arguments, cases = COMMANDS[name]
    monkeypatch.setattr(step, "in_new_process", lambda command: 2**20 * len(command))
    environments = []

    def in_this_process(make, environment):  # the real one: tests/benchmarks/test_benchmarks.py
        environments.append(environment)
        return nullcontext(make())

    monkeypatch.setattr(step, "in_own_process", in_this_process)
    command([*arguments, "--rounds", "2", "--output", str(tmp_path), "--set", *NANO])
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert capsys.readouterr().out.startswith((tmp_path / f"{name}.md").read_text())
    assert record["cpu"].keys() >= {"cpu_name", "amx_bf16"}
    assert len(record["comparisons"]) == cases
    for comparison in record["comparisons"]:
        assert comparison["rounds"] == 2
        assert len(comparison["ways"]) >= 2
        for way in comparison["ways"].values():
            assert way["ms"] > 0
            assert ("peak_mib" in way) == (name == "step")
    if name == "step":
        assert all(comparison["keep_freed"] for comparison in record["comparisons"])
        assert environments == 2 * len(CHOSEN) * [KEEP_FREED]
        assert all(list(comparison["ways"]) == CHOSEN for comparison in record["comparisons"])


def test_a_cpu_without_instructions_for_bf16_is_not_made_to_time_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(step, "in_new_process", lambda command: 2**20)
    monkeypatch.setattr(step, "in_own_process", lambda make, environment: nullcontext(make()))
    options = ["--rounds", "1", "--output", str(tmp_path), "--set", *NANO]
    step.main(["--groups", "rank_256_bf16", "salt_4", "--size", "32", *options])
    inference.main(["--sizes", "32", *options])
    found = [json.loads((tmp_path / f"{name}.json").read_text())["comparisons"] for name in ("step", "inference")]
    assert [[*case["ways"]] for cases in found for case in cases] == [
        ["naive salt_4 fp32", "ours salt_4 fp32"],
        ["stock fp32", "ours fp32"],
    ]
    assert capsys.readouterr().err.count("bf16 is left out: torch has no fast bf16 matrix products on this CPU") == 2


def test_different_embeddings_are_an_error(monkeypatch):
    real = inference.encoders

    def spoiled(*arguments):
        found = real(*arguments)
        with torch.no_grad():
            found["ours"].pos_embed.add_(1)
        return found

    monkeypatch.setattr(inference, "encoders", spoiled)
    with pytest.raises(ValueError, match="size 32: the embeddings differ by"):
        inference.compare(32, 1, 1, NANO)


@pytest.mark.slow
def test_the_plain_way_takes_more_memory():
    """Each in a process of its own, as the benchmark measures it."""
    measure = partial(Job, batch=1, size=256, overrides=NANO)
    ours, plain = (
        in_new_process([*COMMAND, "--peak", json.dumps(asdict(measure(way)))])
        for way in ("ours salt_4 fp32", "naive salt_4 fp32")
    )
    assert 2**20 < ours < plain

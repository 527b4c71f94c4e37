"""Accelerate against plain torch, mixed precision, the parts of a step, and what saves memory."""

import shutil
from functools import partial

import pytest
import torch
from accelerate.utils import AutocastKwargs
from short_runs import MODELS, config_of, largest_difference, records, run, signal_at_step

import adapters
import train
from checkpointing.weights_file import read_weights, trained_state
from datasets.data import EpochSampler, GeneralDataset
from model import build_model
from networks.encoder_options import checkpoint_blocks, compile_encoder
from training.batch_norm import frozen_batch_norm
from training.optimizer import build_optimizer
from training.processes import Processes
from training.run import Objective
from training.signals import StoppedError
from training.weight_average import WeightAverage
from utils.determinism import seed_everything
from utils.errors import ConfigError, UserError
from utils.losses import SegmentationLoss

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_one_process_in_fp32_is_plain_torch_to_the_bit(workspace):
    """The loop as a textbook has it, without Accelerate: clipping, dropout and regularization included."""
    for strategy in ("lora", "salt"):
        overrides = ("training.clip_grad_norm=0.1", "training.schedular=constant")
        run(workspace, f"{strategy}/m.safetensors", *overrides, strategy=strategy)
        config = config_of(workspace, *overrides, strategy=strategy)
        training = config.training
        seed_everything(config.seed)
        data, model = GeneralDataset(config, "train", train=True, seed=config.seed), build_model(config)
        sampler, loss, optimizer = EpochSampler(data, config.seed), SegmentationLoss(), build_optimizer(model, training)
        for epoch in (1, 2):
            sampler.set_epoch(epoch)
            model.train()
            own = torch.Generator()
            for batch in torch.utils.data.DataLoader(data, training.batch_size, sampler=sampler, generator=own):
                total = loss(model(batch["image"], batch["label"]), batch["mask"])
                total = total + training.reg_multiplier * adapters.regularization_loss(model)
                optimizer.zero_grad()
                total.backward()
                torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 0.1)
                optimizer.step()
        expected = trained_state(model, everything=True)
        saved = read_weights(workspace.folder / strategy / "m.safetensors").tensors
        assert set(saved) == set(expected)
        assert all(torch.equal(saved[key], expected[key]) for key in saved)


def test_bf16_rounds_the_model_and_not_the_loss_the_core_or_the_weights(workspace, monkeypatch):
    seen = {}

    def note(name, function):
        def noted(*arguments, **options):
            result = function(*arguments, **options)
            seen.setdefault(name, set()).add(result.dtype)
            return result

        return noted

    patch = monkeypatch.setattr
    patch(adapters.SALTLayer, "rest_block", note("core", adapters.SALTLayer.rest_block))
    patch(adapters.SALTLayer, "_adapted_forward", note("layer", adapters.SALTLayer._adapted_forward))
    patch(adapters.SALTLayer, "regularization", note("regularization", adapters.SALTLayer.regularization))
    patch(SegmentationLoss, "dice", note("loss", SegmentationLoss.dice))
    results = run(workspace, "r/m.safetensors", "training.precision=bf16", strategy="salt")
    full, half = {torch.float32}, {torch.bfloat16}
    assert seen == {"core": full, "layer": half, "regularization": full, "loss": full}
    weights = read_weights(workspace.folder / "r" / "m.safetensors").tensors
    assert all(t.dtype == torch.float32 for key, t in weights.items() if key.endswith((".alpha", ".X", "pos_embed")))
    assert (results.precision, results.processes, results.skipped_steps) == ("bf16", 1, 0)
    line = records(workspace.folder / "r")[0]
    assert (line["precision"], line["processes"], line["skipped_steps"]) == ("bf16", 1, 0)
    run(workspace, "full/m.safetensors", strategy="salt")
    assert 0 < largest_difference(workspace.folder / "r", workspace.folder / "full") < 0.01


def test_cores_and_regularization_are_computed_in_full_precision_under_autocast(workspace, monkeypatch):
    """Their values, since a sum with float32 hides that its other half was rounded."""
    model = build_model(config_of(workspace, "ft.salt_init=normal", strategy="salt"))
    objective = Objective(model, SegmentationLoss(), 0.01)
    exact_block, cores = adapters.SALTLayer.rest_block, []

    def rest_block(layer):
        block = exact_block(layer)
        with torch.autocast("cpu", enabled=False):
            cores.append(torch.equal(block, exact_block(layer)))
        return block

    monkeypatch.setattr(adapters.SALTLayer, "rest_block", rest_block)
    with torch.autocast("cpu", torch.bfloat16):
        _, parts = objective(torch.randn(1, 3, 32, 32), ["Bar"], torch.zeros(1, 32, 32))
        for _, layer in adapters.adapted_layers(model):
            layer.factorized_forward(torch.randn(1, layer.weight_shape[1], *(2, 2)[: 2 * layer.is_conv]))
    assert cores
    assert all(cores)
    assert torch.equal(parts["regularization"], adapters.regularization_loss(model))


def test_fp16_needs_a_gpu(workspace):
    with pytest.raises(ConfigError, match=r"training.precision = fp16: needs a GPU; on a CPU use bf16 or fp32"):
        run(workspace, "r/m.safetensors", "training.precision=fp16")
    assert not (workspace.folder / "r").exists()


def test_bf16_on_a_cpu_without_instructions_for_it_gets_a_warning(monkeypatch, caplog):
    said = []
    for precision, supported in (("bf16", False), ("bf16", True), ("fp32", False)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda supported=supported: supported)
        caplog.clear()
        Processes(torch.device("cpu"), precision)
        said.append(
            caplog.text.count("precision = bf16: torch has no fast bf16 matrix products on this CPU; fp32 is faster")
        )
    assert said == [1, 0, 0]


@pytest.fixture
def scaled(monkeypatch):
    """Gives every run a gradient scaler on the CPU, as fp16 has on a GPU, that starts at the given scale."""

    def scale_at(scale):
        def init(self, device, precision="fp32", accumulate_steps=1, init=Processes.__init__):
            init(self, device, "fp32", accumulate_steps)
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
            self.accelerator.native_amp = True
            self.accelerator.state._mixed_precision = "fp16"
            self.accelerator.autocast_handler = AutocastKwargs(enabled=False)
            self.precision = "fp16"

        monkeypatch.setattr(Processes, "__init__", init)

    return scale_at


def test_the_scaler_skips_steps_that_overflow_and_they_are_counted(workspace, scaled, monkeypatch):
    """The scale is halved until no gradient is infinite; then the run goes on."""
    original = SegmentationLoss.parts

    def large(self, logits, masks):
        parts = original(self, logits, masks)
        return {**parts, "total": parts["total"] * 2.0**20}

    monkeypatch.setattr(SegmentationLoss, "parts", large)
    overrides = ("training.num_epochs=15", "training.ema_decay=0.5")
    scaled(2.0**127)
    results = run(workspace, "whole/m.safetensors", *overrides)
    lines = records(workspace.folder / "whole")
    assert 2 < results.skipped_steps < 28
    assert sum(line["skipped_steps"] for line in lines) == results.skipped_steps
    assert (lines[0]["skipped_steps"], lines[0]["loss"]["total"]) == (2, None)
    assert lines[-1]["skipped_steps"] == 0
    assert lines[-1]["loss"]["total"] > 2**15

    signal_at_step(monkeypatch, 3)  # the scale is taken up, too
    with pytest.raises(StoppedError):
        run(workspace, "cut/m.safetensors", *overrides)
    run(workspace, "cut/m.safetensors", *overrides, resume=True)
    assert records(workspace.folder / "cut") == lines
    assert largest_difference(workspace.folder / "cut", workspace.folder / "whole") == 0


def test_a_run_whose_every_step_overflows_ends(workspace, scaled, monkeypatch):
    scaled(2.0**16)
    original = SegmentationLoss.parts

    def poisoned(self, logits, masks):
        parts = original(self, logits, masks)
        return {**parts, "total": parts["total"] * float("inf")}

    monkeypatch.setattr(SegmentationLoss, "parts", poisoned)
    monkeypatch.setattr(train, "MAX_SKIPPED_IN_A_ROW", 3)
    with pytest.raises(UserError, match=r"epoch 2, step 1: fp16 skipped 3 steps in a row; set training.precision"):
        run(workspace, "r/m.safetensors", "training.val_every=2")


def test_a_step_in_parts_is_the_step_in_one(workspace, monkeypatch):
    for name, parts in (("one", 1), ("two", 2)):
        forwards = []
        original = Objective.forward
        monkeypatch.setattr(Objective, "forward", lambda *a, f=original, n=forwards: n.append(1) or f(*a))
        overrides = ("training.batch_size=4", f"training.accumulate_steps={parts}")
        run(workspace, f"{name}/m.safetensors", *overrides, strategy="salt")
        monkeypatch.setattr(Objective, "forward", original)
        assert len(forwards) == 2 * parts
    assert 0 < largest_difference(workspace.folder / "one", workspace.folder / "two") < 1e-5


def test_samples_that_do_not_fill_the_parts_are_padded_and_the_padding_counts_for_nothing(workspace):
    """4 samples in steps of 6, and of 8: the second part has one sample, and only padding."""
    run(workspace, "one/m.safetensors", "training.batch_size=4", strategy="salt")
    for size in (6, 8):
        overrides = (f"training.batch_size={size}", "training.accumulate_steps=2")
        run(workspace, f"{size}/m.safetensors", *overrides, strategy="salt")
        assert largest_difference(workspace.folder / "one", workspace.folder / str(size)) < 1e-5


def test_padding_does_not_enter_batch_norms_statistics():
    norm = torch.nn.Sequential(torch.nn.BatchNorm1d(3)).train()
    before = [buffer.clone() for buffer in norm.buffers()]
    with frozen_batch_norm(norm, True):
        norm(torch.randn(4, 3))
    assert all(torch.equal(buffer, old) for buffer, old in zip(norm.buffers(), before, strict=True))
    with frozen_batch_norm(norm, False):
        norm(torch.randn(4, 3))
    assert not torch.equal(next(norm.buffers()), before[0])
    assert norm[0].training


def test_parts_must_divide_the_batch(workspace):
    with pytest.raises(ConfigError, match=r"training.accumulate_steps = 3: must divide batch_size = 2"):
        config_of(workspace, "training.accumulate_steps=3")


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("strategy", ["lora", "salt", "full"])
def test_gradient_checkpointing_computes_blocks_twice_and_gives_equal_gradients(workspace, model, strategy):
    config = config_of(workspace, *model, strategy=strategy)
    images = torch.randn(2, 3, 32, 32)
    gradients, calls = [], []
    for checkpointed in (False, True):
        seed_everything(0)
        net = build_model(config).train()
        block = next(iter(net.encoder_blocks()))
        count = []
        block.attn.proj.register_forward_hook(lambda *_, count=count: count.append(1))
        if checkpointed:
            checkpoint_blocks(net)
        net(images, ["Bar", "Bar"]).square().mean().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
        calls.append(len(count))
    assert calls == [1, 2]
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_the_options_reach_the_model(workspace, monkeypatch):
    """training.gradient_checkpointing and training.compile act on a run's own model, in training alone."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda forward: compiled.append(1) or partial(_counted, compiled, forward))
    run(workspace, "r/m.safetensors", "training.compile=true", "training.gradient_checkpointing=true")
    assert len(compiled) == 1 + 4  # made once, called at each of the 4 steps, and in no evaluation


def _counted(calls, forward, *arguments):
    calls.append(1)
    return forward(*arguments)


@pytest.mark.slow
def test_the_compiled_encoder_gives_the_same_gradients(workspace):
    if not shutil.which("g++"):
        pytest.skip("torch.compile on a CPU needs g++, which is not installed")
    config = config_of(workspace, strategy="salt")
    images, gradients = torch.randn(2, 3, 32, 32), []
    for compiled in (False, True):
        seed_everything(0)
        net = build_model(config).train()
        net.image_encoder.blocks = net.image_encoder.blocks[1:3]  # one with windows, one without; sooner compiled
        if compiled:
            compile_encoder(net)
        net(images, ["Bar", "Bar"]).square().mean().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        assert torch.allclose(expected, gradients[1][name], rtol=1e-3, atol=1e-5), name


@torch.no_grad()
def test_the_average_of_the_weights_follows_its_formula():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.fill_(1.0)
    average = WeightAverage(model, 0.15)
    expected = 1.0
    for step, value in enumerate((2.0, 3.0, 5.0)):
        model.weight.fill_(value)
        average.update()
        decay = min(0.15, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert float(model.weight) == pytest.approx(expected)
    assert float(model.weight) == 5.0


def test_a_run_with_an_average_validates_and_keeps_it(workspace, monkeypatch):
    validated = []

    def validate(current, original=train.validate):
        average = current.average.state_dict()["average"]
        parameters = dict(current.model.named_parameters())
        assert all(torch.equal(parameters[name], average[name]) for name in average)
        validated.append(average)
        return original(current)

    monkeypatch.setattr(train, "validate", validate)
    overrides = ("training.num_epochs=1", "training.lr=0.01")
    results = run(workspace, "on/m.safetensors", "training.ema_decay=0.9", *overrides)
    assert results.ema_decay == 0.9
    for name in ("m", "best_val"):
        saved = read_weights(workspace.folder / "on" / f"{name}.safetensors").tensors
        assert all(torch.equal(saved[key], average) for key, average in validated[0].items())
    monkeypatch.undo()
    assert run(workspace, "off/m.safetensors", *overrides).ema_decay is None
    assert largest_difference(workspace.folder / "on", workspace.folder / "off") > 1e-4


def test_deterministic_kernels_are_on_in_the_steps_and_off_afterwards(workspace, monkeypatch):
    seen = []
    original = train.train_step

    def step(*arguments):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return original(*arguments)

    monkeypatch.setattr(train, "train_step", step)
    run(workspace, "on/m.safetensors", "training.deterministic=true")
    assert not torch.are_deterministic_algorithms_enabled()
    run(workspace, "off/m.safetensors")
    assert seen == [True] * 4 + [False] * 4

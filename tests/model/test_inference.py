"""Prepared encoders give the features of the plain ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tsp_core.config import Precision
from tsp_core.errors import ConfigError
from tsp_core.model import fusion, inference
from tsp_core.model.fusion import FusedConv, fold_batch_norms
from tsp_core.model.inference import PreparedEncoder, forward_features, prepare_for_inference
from tsp_core.model.weights import open_encoder


def trained_looking(name: str) -> nn.Module:
    """An encoder whose batch normalisation has statistics, as a trained one's has."""
    encoder = open_encoder("random:0", name=name).encoder
    generator = torch.Generator().manual_seed(1)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm3d):
            for values in (module.weight, module.running_var):
                values.data.uniform_(0.5, 1.5, generator=generator)
            for values in (module.bias, module.running_mean):
                values.data.normal_(0, 0.2, generator=generator)
    return encoder


@pytest.mark.parametrize(
    "name", ["r2plus1d_tiny", "r2plus1d_18", "r3d_18", "mc3_18", "r2plus1d_34"]
)
def test_features_stay_within_the_tolerances(name: str) -> None:
    encoder = trained_looking(name)
    clips = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        plain = encoder(clips)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    exact = forward_features(prepare_for_inference(encoder, device="cpu", precision="fp32"), clips)
    assert ((exact - plain).norm(dim=1) / plain.norm(dim=1)).max() <= 1e-5
    coarse = forward_features(prepare_for_inference(encoder, device="cpu", precision="bf16"), clips)
    assert coarse.dtype == exact.dtype == torch.float32
    assert torch.cosine_similarity(coarse, plain).min() >= 0.999
    after = encoder.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["r2plus1d_18", "r3d_18", "r2plus1d_34"])
def test_features_are_those_of_the_released_code(name: str, shared: Path) -> None:
    reference = shared / "reference"
    with np.load(reference / "released_code_clip3_v_ZNVhz7ctTq0.npz") as file:
        clip = torch.from_numpy(file[file.files[0]])[None]
    with np.load(reference / "released_code_features.npz") as file:
        expected = torch.from_numpy(file[f"v_ZNVhz7ctTq0/{name}/stride16"][3])
    encoder = open_encoder("random:0", name=name).encoder
    exact, coarse = (
        forward_features(prepare_for_inference(encoder, device="cpu", precision=precision), clip)[0]
        for precision in ("fp32", "bf16")
    )
    assert (exact - expected).norm() / expected.norm() <= 1e-5
    assert torch.cosine_similarity(coarse, expected, dim=0) >= 0.999


def layers(prepared: PreparedEncoder) -> list[nn.Module]:
    assert isinstance(prepared.module, nn.Module)
    return list(prepared.module.modules())


@pytest.mark.parametrize("name", ["r2plus1d_tiny", "r2plus1d_18", "r3d_18"])
def test_convolutions_do_the_work_of_the_layers_after_them(name: str) -> None:
    encoder = trained_looking(name)
    num_convolutions = sum(isinstance(module, nn.Conv3d) for module in encoder.modules())
    modules = layers(prepare_for_inference(encoder, device="cpu", precision="fp32"))
    assert not any(isinstance(m, nn.BatchNorm3d | nn.ReLU | nn.Conv3d) for m in modules)
    assert sum(isinstance(module, FusedConv) for module in modules) == num_convolutions


def test_without_fused_kernels_the_features_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = trained_looking("r2plus1d_tiny")
    clips = torch.randn(3, 3, 8, 32, 32)
    prepared = prepare_for_inference(encoder, device="cpu", precision="fp32")
    assert fusion.has_fused_kernels(torch.float32)
    fused = forward_features(prepared, clips)
    monkeypatch.setattr(fusion, "has_fused_kernels", lambda dtype: False)
    assert torch.allclose(forward_features(prepared, clips), fused, atol=1e-5)


def test_the_work_is_cut_to_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = trained_looking("r2plus1d_tiny")
    clips = torch.randn(7, 3, 8, 32, 32)
    whole = forward_features(prepare_for_inference(encoder, device="cpu", precision="fp32"), clips)
    largest = 16 * 8 * 32 * 32 * 4  # bytes of a clip's activations, 16 channels, at full resolution
    monkeypatch.setattr(fusion, "_ACTIVATION_BYTES", 3 * largest + 1)
    monkeypatch.setattr(fusion, "_ACTIVATION_BYTES_PER_THREAD", 0)
    prepared = prepare_for_inference(encoder, device="cpu", precision="fp32")
    parts = [module for module in layers(prepared) if isinstance(module, fusion.CacheSized)]
    seen: list[list[int]] = [[] for _ in parts]
    for part, sizes in zip(parts, seen, strict=True):
        part.part.register_forward_pre_hook(lambda _, args, sizes=sizes: sizes.append(len(args[0])))
    assert torch.allclose(forward_features(prepared, clips), whole, atol=1e-5)
    assert seen == [[3, 3, 1], [3, 3, 1], [7], [7]]  # the second part's input is as large


def test_overlapping_clips_are_not_written_to() -> None:
    encoder = trained_looking("r2plus1d_tiny")
    frames = torch.randn(11, 16, 16, 3)
    steps = (frames.stride(0), *frames.stride())
    clips = frames.as_strided((4, 8, 16, 16, 3), steps).permute(0, 4, 1, 2, 3)
    before = frames.clone()
    found = forward_features(prepare_for_inference(encoder, device="cpu", precision="fp32"), clips)
    assert torch.equal(frames, before)
    with torch.inference_mode():
        assert torch.allclose(found, encoder(clips.contiguous()), atol=1e-5)


class Odd(nn.Module):
    """An encoder of another kind: no layers of a ResNet, a path that depends on the numbers."""

    feature_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0), padding_mode="replicate")
        self.frames = nn.Conv2d(4, 4, 3)
        self.fc = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.frames(self.stem(x).movedim(2, 1).flatten(0, 1))
        found = found if found.mean() > 0 else -found
        return self.fc(found.unflatten(0, (len(x), -1)).mean((1, 3, 4)))


class OddResNet(Odd):
    """One that torch cannot trace although it has the parts of a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = self.layer2 = self.layer3 = self.layer4 = nn.Identity()
        self.layer2 = _Untraceable()


class _Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.mean() > 0 else -x


@pytest.mark.parametrize("kind", [Odd, OddResNet])
def test_encoders_of_another_kind_run_as_they_are(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    encoder = kind().eval()
    clips = torch.randn(2, 3, 5, 8, 8)
    found = forward_features(prepare_for_inference(encoder, device="cpu", precision="fp32"), clips)
    with torch.inference_mode():
        torch.testing.assert_close(found, encoder(clips))


def on_a_processor(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


def test_a_processor_without_bf16_computes_fp32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_a_processor(monkeypatch, avx2=True, avx512_bf16=False)
    encoder, clips = trained_looking("r2plus1d_tiny"), torch.randn(2, 3, 8, 16, 16)
    exact = prepare_for_inference(encoder, device="cpu", precision="fp32")
    assert not caplog.messages
    coarse = prepare_for_inference(encoder, device="cpu", precision="bf16")
    assert "this processor lacks the instructions; fp32 is computed instead" in caplog.text
    assert coarse.dtype == torch.float32
    assert torch.equal(forward_features(coarse, clips), forward_features(exact, clips))


def test_a_processor_with_bf16_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    on_a_processor(monkeypatch, avx2=True, avx512_bf16=True)
    encoder, clips = trained_looking("r2plus1d_tiny"), torch.randn(2, 3, 8, 16, 16)
    coarse = prepare_for_inference(encoder, device="cpu", precision="bf16")
    assert not caplog.messages
    assert coarse.dtype == torch.bfloat16
    with torch.inference_mode():
        plain = encoder(clips)
    assert torch.cosine_similarity(forward_features(coarse, clips), plain).min() >= 0.999


@pytest.mark.parametrize("has_it", [False, True])
def test_older_releases_of_torch_tell_of_bf16_too(
    monkeypatch: pytest.MonkeyPatch, has_it: bool
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert inference.has_bf16_instructions() == has_it


@pytest.mark.parametrize(("batch", "length", "side"), [(1, 8, 16), (3, 5, 17), (1, 1, 16)])
def test_any_clip_shape_works(batch: int, length: int, side: int) -> None:
    encoder = trained_looking("r2plus1d_tiny")
    clips = torch.randn(batch, 3, length, side, side)
    prepared = prepare_for_inference(encoder, device="cpu", precision="fp32")
    with torch.inference_mode():
        assert torch.allclose(forward_features(prepared, clips), encoder(clips), atol=1e-5)


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="precision: 'fp16' needs a GPU; use 'bf16' or 'fp32'"):
        prepare_for_inference(trained_looking("r2plus1d_tiny"), device="cpu", precision="fp16")


class Compiler:
    """Stands in for torch.compile: counts the shapes that it sees, or refuses."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sizes: list[int] = []
        self.layouts: set[bool] = set()
        self.error = error

    def __call__(self, module: nn.Module, *, dynamic: bool) -> Callable[..., torch.Tensor]:
        assert not dynamic

        def run(clips: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(clips))
            last = torch.channels_last_3d
            self.layouts.add(clips.is_contiguous(memory_format=last))
            if self.error is not None:
                raise self.error
            return module(clips)

        return run


def compiled_features(
    monkeypatch: pytest.MonkeyPatch, compiler: Compiler, clips: torch.Tensor
) -> list[torch.Tensor]:
    """Features of 4, 2 and 4 clips by an encoder that is compiled as on a GPU."""
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "unused")
    module = inference._Compiled(fold_batch_norms(trained_looking("r2plus1d_tiny")))
    prepared = PreparedEncoder(module=module, device=torch.device("cpu"), dtype=torch.float32)
    return [forward_features(prepared, clips[:count]) for count in (4, 2, 4)]


def test_compiled_encoders_see_one_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = torch.randn(4, 3, 8, 16, 16)
    compiler = Compiler()
    found = compiled_features(monkeypatch, compiler, clips)
    assert compiler.sizes == [4, 4, 4]
    assert compiler.layouts == {True}  # else it is compiled once more
    with torch.inference_mode():
        expected = trained_looking("r2plus1d_tiny")(clips)
    for features, count in zip(found, (4, 2, 4), strict=True):
        assert torch.allclose(features, expected[:count], atol=1e-5)


def test_without_a_compiler_the_encoder_runs_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clips = torch.randn(4, 3, 8, 16, 16)
    compiler = Compiler(RuntimeError("no C compiler"))
    found = compiled_features(monkeypatch, compiler, clips)
    assert [len(features) for features in found] == [4, 2, 4]
    assert compiler.sizes == [4]
    assert caplog.text.count("it runs uncompiled: no C compiler") == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_gpus_give_the_same_features(precision: Precision, compiled: bool) -> None:
    encoder = trained_looking("r2plus1d_18")
    clips = torch.randn(5, 3, 16, 112, 112)
    with torch.inference_mode():
        plain = encoder(clips)
    prepared = prepare_for_inference(encoder, device="cuda", precision=precision, compiled=compiled)
    found = torch.cat([forward_features(prepared, part).cpu() for part in clips.split(3)])
    if precision == "fp32":
        assert ((found - plain).norm(dim=1) / plain.norm(dim=1)).max() <= 1e-4
    assert torch.cosine_similarity(found, plain).min() >= 0.999

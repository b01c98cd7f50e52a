"""A pretrained network trains, keeps its frozen parts, exports and serves; errors name the way on.

The networks are tiny and written here in Hugging Face's format.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from {{ cookiecutter.package_name }} import cli
from {{ cookiecutter.package_name }}.config import UserError
from {{ cookiecutter.package_name }}.release import export
from {{ cookiecutter.package_name }}.task import model, pretrained
from {{ cookiecutter.package_name }}.task.contract import Contract
from {{ cookiecutter.package_name }}.task.settings import Settings
from {{ cookiecutter.package_name }}.training import fit

from .conftest import CONFIG, FORCE

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZE = 32
SHAPES: dict[str, dict[str, Any]] = {
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "ConvNext": {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "ViT": {
        "image_size": SIZE,
        "patch_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    },
}
STAGES = {"ResNet": "encoder.stages", "ConvNext": "encoder.stages", "ViT": "layers"}
PROCESSOR = {
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
CONTRACT = Contract(labels=["dark", "light"], size=(SIZE, SIZE), color=True)


def write_network(folder: Path, kind: str = "ResNet") -> Path:
    """Write a network with random weights and its preprocessor's settings."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SHAPES[kind])
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def settings(folder: Path, frozen: int | str = 0, **train: Any) -> Settings:
    return Settings.model_validate(
        {
            "name": "x",
            "model": {"pretrained": str(folder), "frozen": frozen},
            "train": {"epochs": 2, "batch_size": 8, "lr": 0.01, **train},
        }
    )


def split(count: int, color: bool = True) -> dict[str, np.ndarray]:
    """Make dark and light images with noise."""
    rng, labels = np.random.default_rng(count), np.arange(count) % 2
    noise = rng.uniform(0, 0.4, (count, 3 if color else 1, SIZE, SIZE))
    images = noise + 0.6 * labels[:, None, None, None]
    return {"image": images.astype(np.float32), "label": labels}


def train_network(chosen: Settings, folder: Path, stop_after: int = 10**9) -> nn.Module:
    """Train on 24 images; resume if the folder has a checkpoint."""
    data, steps = split(24), iter(range(stop_after))
    built: list[nn.Module] = []

    def build() -> nn.Module:
        built.append(model.build(chosen, CONTRACT))
        return built[-1]

    stage = fit.Stage(
        name="test",
        train=chosen.train,
        data=data,
        build=build,
        loss=lambda n, batch: nn.functional.cross_entropy(n(batch["image"]), batch["label"]),
        measure=lambda n: {"accuracy": 0.0},
        primary_metric="accuracy",
        higher_is_better=True,
    )
    folder.mkdir(exist_ok=True)
    fit.fit(stage, 0, folder, stop=lambda: next(steps, None) is None)
    return built[-1]


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("frozen", [0, 1, "all"])
@pytest.mark.parametrize("kind", SHAPES)
def test_frozen_parts_and_their_statistics_stay_and_the_rest_is_trained(
    tmp_path: Path, kind: str, frozen: int | str
) -> None:
    chosen = settings(write_network(tmp_path / "network", kind), frozen)
    before = weights(model.build(chosen, CONTRACT))
    after = weights(train_network(chosen, tmp_path / "run"))
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    body = {name.removeprefix("body.") for name in changed if name.startswith("body.")}
    later = {name for name in body if name.startswith(f"{STAGES[kind]}.1.")}
    assert any(name.startswith("head.") for name in changed)
    assert bool(later) is (frozen != "all")
    if frozen == 0:
        assert any(name.startswith("embed") for name in body)
    else:
        assert not {name for name in body - later if name.startswith(("embed", STAGES[kind]))}


@pytest.mark.parametrize(("kind", "color"), [*((kind, True) for kind in SHAPES), ("ResNet", False)])
def test_exported_network_answers_like_the_original(tmp_path: Path, kind: str, color: bool) -> None:
    contract = CONTRACT.model_copy(update={"color": color})
    network = model.build(settings(write_network(tmp_path, kind)), contract)
    images, file = split(70, color), tmp_path / "model.onnx"
    export.export_onnx(network, images, file)
    export.check_parity(network, images, onnxruntime.InferenceSession(file))


@pytest.mark.parametrize("frozen", [0, 1])
def test_interrupted_fine_tuning_resumes_to_bit_identical_weights(
    tmp_path: Path, frozen: int
) -> None:
    chosen = settings(write_network(tmp_path / "network"), frozen)
    expected = weights(train_network(chosen, tmp_path / "whole"))
    with pytest.raises(fit.Interrupted):
        train_network(chosen, tmp_path / "parts", stop_after=4)
    resumed = weights(train_network(chosen, tmp_path / "parts"))
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())


def test_images_are_normalised_as_the_preprocessor_does(tmp_path: Path) -> None:
    network: Any = model.build(settings(write_network(tmp_path)), CONTRACT)
    image = torch.rand(1, 3, SIZE, SIZE)
    processor = transformers.ViTImageProcessorPil(**PROCESSOR, do_resize=False)
    pixels = (image[0] * 255).round().to(torch.uint8)
    expected = processor(pixels.permute(1, 2, 0).numpy(), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close((pixels / 255) * network.scale + network.shift, expected[0])
    raw = {**PROCESSOR, "do_rescale": False, "do_normalize": False}
    scale, shift = pretrained._normalisation(raw)
    assert (float(scale), float(shift)) == (255, 0)


def test_grey_images_become_three_equal_channels(tmp_path: Path) -> None:
    folder = write_network(tmp_path)
    grey = CONTRACT.model_copy(update={"color": False})
    networks = [model.build(settings(folder), contract).eval() for contract in (grey, CONTRACT)]
    networks[0].load_state_dict(networks[1].state_dict())
    image = torch.rand(2, 1, SIZE, SIZE)
    torch.testing.assert_close(networks[0](image), networks[1](image.expand(-1, 3, -1, -1)))


def test_description_names_the_network_that_was_trained(tmp_path: Path) -> None:
    folder = write_network(tmp_path)
    sentence = model.describe(model.build(settings(folder, "all"), CONTRACT))
    assert sentence.startswith(f"ResNetModel from {folder}, pretrained")
    assert "of which 66 were trained here" in sentence  # 2 × 16 and 2 × 17
    assert model.describe(nn.Linear(2, 3)) == "A network (Linear) with 9 parameters."


def test_commands_work_from_images_to_a_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "network")
    for image, label in zip(split(60)["image"], split(60)["label"], strict=True):
        pixels = Image.fromarray((image * 255).astype(np.uint8).transpose(1, 2, 0))
        folder = tmp_path / "images" / CONTRACT.labels[label]
        folder.mkdir(parents=True, exist_ok=True)
        pixels.save(folder / f"{len(list(folder.iterdir()))}.png")
    command = ["--config", str(CONFIG.with_name("pretrained.yaml"))]
    overrides = [f"data.path={tmp_path / 'images'}", f"data.size={SIZE}"]
    overrides += [f"model.pretrained={tmp_path / 'network'}"]
    overrides += ["train.epochs=1", "train.seeds=[0]", "model.frozen=1"]
    assert cli.main(["train", *command, *overrides]) == 0
    (run,) = tmp_path.glob("runs/*")
    assert cli.main(["evaluate", *command, "--run", run.name]) == 0
    assert cli.main(["deploy", *command, "--run", run.name, *FORCE]) == 0
    capsys.readouterr()
    assert cli.main(["predict", "images/dark/0.png"]) == 0
    assert '"probabilities"' in capsys.readouterr().out


def test_what_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write_network(tmp_path / "network")

    def refusal(frozen: int | str = 0, size: int = SIZE) -> str:
        contract = CONTRACT.model_copy(update={"size": (size, size)})
        with pytest.raises(UserError) as caught:
            model.build(settings(folder, frozen), contract)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "model.frozen=3: the network has 2 stages" in refusal(frozen=3)
    (folder / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json" in refusal()
    (folder / "config.json").write_text("{}")
    assert "cannot load the network" in refusal()
    folder = write_network(tmp_path / "vit", "ViT")
    assert "cannot read images of 40 × 40 (data.size)" in refusal(size=40)
    folder = tmp_path / "nowhere"
    assert "nowhere: cannot load the network" in refusal()
    folder = tmp_path / "text"
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    transformers.BertModel(transformers.BertConfig(vocab_size=9, **shape)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    assert "is no network for images" in refusal()
    for name in [name for name in sys.modules if name.startswith("transformers")]:
        monkeypatch.setitem(sys.modules, name, None)
    assert 'needs the extra "pretrained": pip install -e' in refusal()


def test_weights_that_the_file_lacks_are_not_replaced_by_random_ones(tmp_path: Path) -> None:
    folder = write_network(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    deeper = {**config, "depths": [2, 1]}
    (folder / "config.json").write_text(json.dumps(deeper))
    with pytest.raises(UserError, match=r"lacks \d+ weights, the first is encoder\.stages\.0"):
        model.build(settings(folder), CONTRACT)

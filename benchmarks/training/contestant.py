"""Train the digits network once, with one library; print the CPU seconds as JSON.

    python contestant.py NAME (memory | stream) ROWS EPOCHS DEVICE

Runs with the project's `src` on the path. All contestants have the same network, data, batch size
and loss; each is written as its documentation does it, without progress bars and loggers.
"""

import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digit_reader.arrays import LazyArray
from digit_reader.config import load_settings
from digit_reader.interfaces import Stage
from digit_reader.task import data, model, objective
from digit_reader.task.settings import Settings
from torch.utils.data import DataLoader, Dataset

NAME, MODE = sys.argv[1:3]
ROWS, EPOCHS = map(int, sys.argv[3:5])
DEVICE = sys.argv[5]
BATCH = 64
STEPS = -(-ROWS // BATCH)  # in an epoch
LR = 1e-3

torch.set_num_threads(1)
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
settings = load_settings(Settings, None, ["name=bench", f"train.device={DEVICE}"])
digits = data.load(settings.data)
order = np.arange(ROWS) % len(digits.train["label"])
pixels = (digits.train["image"][order] * 255).astype(np.uint8)
images, labels = digits.train["image"][order], digits.train["label"][order]

marks: list[float] = []  # CPU seconds of the process before each step, and at the end


def loss_of(network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The project's loss, augmentation included; every contestant calls it once a step."""
    marks.append(time.process_time())
    return objective.loss(settings, network, batch)


class Streamed(LazyArray):
    """Our rows that are made when they are needed."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape = rows, (len(rows), *pixels.shape[1:])
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return pixels[self.rows[rows]].astype(np.float32) / 255

    def take(self, rows: np.ndarray) -> "Streamed":
        return Streamed(self.rows[rows])


class Rows(Dataset[dict[str, Any]]):
    """What a DataLoader reads: a row at a time, as the documentation of PyTorch does it."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> dict[str, Any]:
        image = images[row] if MODE == "memory" else pixels[row].astype(np.float32) / 255
        return {"image": torch.from_numpy(image), "label": int(labels[row])}


def loader() -> DataLoader[dict[str, Any]]:
    return DataLoader(Rows(), BATCH, shuffle=True)


class Trained(torch.nn.Module):
    """The network with its loss, for trainers that call a module."""

    def __init__(self) -> None:
        super().__init__()
        self.network = model.build(settings, digits.contract)

    def forward(self, image: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": loss_of(self.network, {"image": image, "label": labels})}


def ours(folder: Path) -> None:
    """The generated project's loop: it also validates and checkpoints after each epoch."""
    from digit_reader.training.fit import fit, training_stage

    train = settings.train.model_copy(
        update={"epochs": EPOCHS, "batch_size": BATCH, "lr": LR, "patience": EPOCHS}
    )
    changed = settings.model_copy(update={"train": train})
    stage = vars(training_stage(changed, digits))
    arrays = {"image": images if MODE == "memory" else Streamed(np.arange(ROWS)), "label": labels}
    fit(Stage(**stage | {"data": arrays, "loss": loss_of}), 0, folder)


def bare(folder: Path) -> None:
    """The loop of a tutorial: nothing but the steps."""
    network = model.build(settings, digits.contract).to(DEVICE)
    optimizer = torch.optim.AdamW(network.parameters(), LR)
    for _ in range(EPOCHS):
        for batch in loader():
            on_device = {name: tensor.to(DEVICE) for name, tensor in batch.items()}
            loss = loss_of(network, on_device)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def accelerate(folder: Path) -> None:
    """Hugging Face Accelerate, a checkpoint after each epoch."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=DEVICE == "cpu")
    network = model.build(settings, digits.contract)
    optimizer = torch.optim.AdamW(network.parameters(), LR)
    network, optimizer, rows = accelerator.prepare(network, optimizer, loader())
    for _ in range(EPOCHS):
        for batch in rows:
            optimizer.zero_grad()
            accelerator.backward(loss_of(network, batch))
            accelerator.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        accelerator.save_state(str(folder))


def lightning(folder: Path) -> None:
    """Lightning's Trainer, with the checkpoint after each epoch that it writes by default."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.trained = Trained()

        def training_step(self, batch: dict[str, Any], place: int) -> torch.Tensor:
            return self.trained(batch["image"], batch["label"])["loss"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), LR)

    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator=DEVICE,
        devices=1,
        gradient_clip_val=1.0,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), loader())


def transformers(folder: Path) -> None:
    """Hugging Face's Trainer, a checkpoint after each epoch."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=LR,
        save_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        use_cpu=DEVICE == "cpu",
        dataloader_pin_memory=DEVICE != "cpu",
    )
    Trainer(Trained(), arguments, train_dataset=Rows()).train()


CONTESTANTS: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (ours, bare, accelerate, lightning, transformers)
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        wall = time.perf_counter()
        CONTESTANTS[NAME](Path(name))
        marks.append(time.process_time())
        wall = time.perf_counter() - wall
    assert len(marks) == EPOCHS * STEPS + 1, f"{len(marks) - 1} steps"
    # The first epoch warms up. The mean has the work between two epochs, the median step has not.
    step = float(np.median(np.diff(marks[STEPS:])))
    mean = (marks[-1] - marks[STEPS]) / (len(marks) - 1 - STEPS)
    print(json.dumps({"start": marks[0], "step": step, "mean": mean, "wall": wall}))

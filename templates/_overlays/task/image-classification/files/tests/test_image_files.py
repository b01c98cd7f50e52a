"""Every kind of picture becomes the levels that a person sees, alike in training and serving."""

import base64
import threading
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from {{ cookiecutter.package_name }}.interfaces import InvalidItem
from {{ cookiecutter.package_name }}.task import contract, pixels
from {{ cookiecutter.package_name }}.task.contract import Contract, Item

CONTRACT = Contract(labels=["a", "b"], size=(8, 8), color=True, background="white")
RED, ORANGE = (255, 0, 0), (255, 128, 0)


def levels(file: bytes, **changes: Any) -> np.ndarray:
    """Read a file's levels (channel, row, column) with other fields of the contract."""
    spec = CONTRACT.model_copy(update=changes).spec
    return pixels.read_picture(BytesIO(file), spec).levels


def facts(file: bytes, **changes: Any) -> set[str]:
    spec = CONTRACT.model_copy(update=changes).spec
    return set(pixels.read_picture(BytesIO(file), spec).facts)


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def plain(mode: str, color: Any) -> Image.Image:
    return Image.new(mode, (8, 8), color)


def grey(value: float, dtype: type) -> Image.Image:
    return Image.fromarray(np.full((8, 8), value, dtype))


def palette(transparent: bool) -> Image.Image:
    """Fill an image by the second of two palette entries, of which the first is transparent."""
    image = Image.new("P", (8, 8), 0 if transparent else 1)
    image.putpalette([0, 0, 255, *ORANGE])
    return image


KINDS = [
    ("rgb.png", saved(plain("RGB", ORANGE)), ORANGE),
    ("rgb.jpg", saved(plain("RGB", ORANGE), "JPEG", quality=100), ORANGE),
    ("rgb.webp", saved(plain("RGB", ORANGE), "WEBP", lossless=True), ORANGE),
    ("rgb.bmp", saved(plain("RGB", ORANGE), "BMP"), ORANGE),
    ("rgb.tif", saved(plain("RGB", ORANGE), "TIFF", compression="tiff_lzw"), ORANGE),
    ("rgb.ppm", saved(plain("RGB", ORANGE), "PPM"), ORANGE),
    ("palette.png", saved(palette(transparent=False)), ORANGE),
    ("palette.gif", saved(palette(transparent=False), "GIF"), ORANGE),
    ("grey.png", saved(plain("L", 77)), (77, 77, 77)),
    ("grey.jpg", saved(plain("L", 77), "JPEG", quality=100), (77, 77, 77)),
    ("bit-black.png", saved(plain("1", 0)), (0, 0, 0)),
    ("bit-white.png", saved(plain("1", 1)), (255, 255, 255)),
    ("bit.tif", saved(plain("1", 1), "TIFF", compression="group4"), (255, 255, 255)),
    ("deep.png", saved(grey(32768, np.uint16)), (128, 128, 128)),
    ("deep.tif", saved(grey(65535, np.uint16), "TIFF"), (255, 255, 255)),
    ("deep.pgm", b"P5 8 8 65535\n" + grey(32768, np.uint16).tobytes()[::-1], (128, 128, 128)),
    ("float.tif", saved(grey(0.5, np.float32), "TIFF"), (128, 128, 128)),
    ("cmyk.jpg", saved(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=100), RED),
    ("cmyk.tif", saved(plain("CMYK", (0, 255, 255, 0)), "TIFF"), RED),
    ("clear.png", saved(plain("RGBA", (0, 0, 0, 0))), (255, 255, 255)),
    ("opaque.png", saved(plain("RGBA", (*ORANGE, 255))), ORANGE),
    ("half.webp", saved(plain("RGBA", (*RED, 127)), "WEBP", lossless=True), (255, 128, 128)),
    ("half-grey.png", saved(plain("LA", (0, 127))), (128, 128, 128)),
    ("half.tif", saved(plain("RGBA", (*RED, 127)), "TIFF"), (255, 128, 128)),
    ("clear.gif", saved(palette(True), "GIF", transparency=0), (255, 255, 255)),
    ("clear-palette.png", saved(palette(True), transparency=0), (255, 255, 255)),
    ("half-palette.png", saved(palette(True), transparency=b"\x80\xff"), (127, 127, 255)),
    ("key.png", saved(plain("RGB", RED), transparency=RED), (255, 255, 255)),
    ("grey-key.png", saved(plain("L", 7), transparency=7), (255, 255, 255)),
]


@pytest.mark.parametrize(
    ("file", "expected"), [kind[1:] for kind in KINDS], ids=[k[0] for k in KINDS]
)
def test_every_kind_of_file_has_the_levels_that_a_person_sees(
    tmp_path: Path, file: bytes, expected: tuple[int, int, int]
) -> None:
    read = levels(file)
    assert (read.shape, read.dtype) == ((3, 8, 8), np.uint8)
    np.testing.assert_allclose(read.reshape(3, -1).T - np.array(expected, int), 0, atol=2)
    brightness = np.dot(expected, (0.299, 0.587, 0.114))
    np.testing.assert_allclose(levels(file, color=False), brightness, atol=3)
    # the server
    path = tmp_path / "any name"
    path.write_bytes(file)
    item = Item.model_validate(contract.item_from_file(path))
    served = CONTRACT.encode([item])["image"][0]
    np.testing.assert_array_equal(served, contract.scaled(read))


def test_only_pictures_that_are_transparent_somewhere_are_told() -> None:
    assert facts(saved(plain("RGBA", (*RED, 254)))) == {"transparent"}
    assert facts(saved(plain("RGBA", (*RED, 255)))) == set()
    assert facts(saved(plain("LA", (9, 255)))) == {"grey"}


def test_transparent_parts_get_the_background_and_solid_ones_do_not() -> None:
    image = plain("RGBA", (0, 0, 0, 0))
    image.putpixel((0, 0), (10, 20, 30, 255))
    for background, expected in (("black", (0, 0, 0)), ("#123456", (0x12, 0x34, 0x56))):
        read = levels(saved(image), background=background)
        assert tuple(read[:, 0, 0]) == (10, 20, 30)
        assert tuple(read[:, 5, 5]) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_upright_by_their_exif(format: str, orientation: int) -> None:
    upright = np.zeros((60, 40, 3), np.uint8)
    upright[:30, :20], upright[:30, 20:], upright[30:, :20] = 255, 160, 80
    stored = Image.fromarray(upright)
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    if orientation > 1:
        turn = pixels.TURNS[orientation]
        stored = stored.transpose(back.get(orientation, turn))
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = orientation
    options = {"exif": exif, **({"quality": 100} if format == "JPEG" else {})}
    if format == "WEBP":
        options["lossless"] = True
    read = levels(saved(stored, format, **options), color=False)[0]
    corners = [read[1, 1], read[1, 6], read[6, 1], read[6, 6]]
    np.testing.assert_allclose(np.array(corners, int), [255, 160, 80, 0], atol=4)


@pytest.mark.filterwarnings("ignore:.*EXIF")  # pytest has its own filters
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0x" * 20]
)
def test_broken_exif_costs_no_picture(exif: bytes) -> None:
    file = saved(plain("RGB", ORANGE), "JPEG", exif=exif, quality=100)
    np.testing.assert_allclose(levels(file)[:, 4, 4].astype(int), ORANGE, atol=2)


def test_cmyk_without_adobe_marker_is_not_inverted() -> None:
    file = saved(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=100)
    start = file.index(b"\xff\xee")
    size = int.from_bytes(file[start + 2 : start + 4])
    assert b"Adobe" in file[start : start + 2 + size]
    stripped = file[:start] + file[start + 2 + size :]
    # The stored bytes are Adobe's complement, so plain CMYK sees them as cyan under black.
    np.testing.assert_allclose(levels(stripped)[:, 4, 4], 0, atol=2)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_is_taken_and_told(format: str) -> None:
    frames = [plain("RGB", ORANGE), plain("RGB", "blue"), plain("RGB", "green")]
    options = {"lossless": True} if format == "WEBP" else {}
    file = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_allclose(levels(file)[:, 4, 4].astype(int), ORANGE, atol=4)
    assert "frames" in facts(file)


def test_preview_that_a_telephone_appends_is_no_second_frame() -> None:
    file = saved(plain("RGB", ORANGE), "MPO", save_all=True, append_images=[plain("RGB", "blue")])
    np.testing.assert_allclose(levels(file)[:, 4, 4].astype(int), ORANGE, atol=4)
    assert facts(file) == set()


def test_value_range_says_what_is_black_and_white_of_deep_pictures() -> None:
    for image in (grey(1000, np.uint16), grey(1000, np.int32), grey(1000, np.float32)):
        read = levels(saved(image, "TIFF"), value_range=(-1000, 3000))
        np.testing.assert_array_equal(read, 128)
        assert levels(saved(image, "TIFF"), value_range=(0, 500)).min() == 255
    np.testing.assert_array_equal(levels(saved(plain("L", 77)), value_range=(0, 4000)), 77)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (saved(grey(12.5, np.float32), "TIFF"), r"values from 12.5 to 12.5; .*data.value_range=\["),
        (saved(grey(-0.5, np.float32), "TIFF"), r"data.value_range=\["),
        (saved(grey(70_000, np.int32), "TIFF"), r"data.value_range=\[70000"),
        (saved(grey(np.nan, np.float32), "TIFF"), "no numbers"),
        (saved(grey(np.inf, np.float32), "TIFF"), "no numbers"),
        (b"", "is not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is not an image"),
        (saved(plain("RGB", RED))[:50], "is a broken image"),
        (saved(Image.effect_noise((90, 90), 99), "JPEG")[:900], "is a broken image"),
        (saved(Image.effect_noise((90, 90), 99), "TIFF")[:900], "is a broken image"),
        (saved(Image.effect_noise((90, 90), 99), "WEBP")[:900], "image"),
    ],
)
def test_unusable_files_are_refused_in_one_line(file: bytes, expected: str) -> None:
    item = Item(image=base64.b64encode(file).decode())
    for read in (lambda: levels(file), lambda: CONTRACT.encode([item])):
        with pytest.raises(ValueError, match=expected) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_only_decoders_of_pixels_are_used() -> None:
    for format in ("EPS", "ICNS", "PDF", "PSD", "WMF", "FITS"):
        assert format not in pixels.FORMATS


def test_server_refuses_larger_pictures_and_training_says_so() -> None:
    file = saved(Image.new("L", (40, 30)))
    small = CONTRACT.model_copy(update={"max_pixels": 1199})
    with pytest.raises(InvalidItem, match="has 1,200 pixels, more than 1,199"):
        small.encode([Item(image=base64.b64encode(file).decode())])
    assert "large" in facts(file, max_pixels=1199)
    assert "large" not in facts(file, max_pixels=1200)


def drawing() -> Image.Image:
    """Draw thirds: black, red, white, 48 wide and 16 high."""
    image = np.zeros((16, 48, 3), np.uint8)
    image[:, 16:32], image[:, 32:] = RED, 255
    return Image.fromarray(image)


@pytest.mark.parametrize("turned", [False, True])
def test_oblong_pictures_are_squeezed_cropped_or_padded(turned: bool) -> None:
    image = drawing().transpose(Image.Transpose.TRANSPOSE) if turned else drawing()

    def read(resize: str) -> np.ndarray:
        row = levels(saved(image), size=(24, 24), resize=resize, background="blue")
        return row.transpose(2, 1, 0) if turned else row.transpose(1, 2, 0)

    squeezed, cropped, padded = read("squeeze"), read("crop"), read("pad")
    assert [tuple(squeezed[12, x]) for x in (3, 12, 21)] == [(0, 0, 0), RED, (255, 255, 255)]
    assert {tuple(cropped[12, x]) for x in (3, 12, 20)} == {RED}
    assert [tuple(padded[12, x]) for x in (3, 12, 21)] == [(0, 0, 0), RED, (255, 255, 255)]
    assert {tuple(padded[y, 12]) for y in (1, 6, 17, 22)} == {(0, 0, 255)}


def test_line_of_one_pixel_can_be_padded() -> None:
    assert levels(saved(Image.new("L", (900, 1), 200)), resize="pad").shape == (3, 8, 8)
    assert levels(saved(Image.new("L", (1, 900), 200)), resize="crop").min() == 200


@pytest.mark.parametrize("color", [False, True])
def test_large_jpeg_is_read_quickly_to_nearly_the_same_levels(color: bool) -> None:
    gradient = np.linspace(0, 255, 1200)[None, :, None] * np.linspace(0.2, 1, 900)[:, None, None]
    image = Image.fromarray((gradient * (1, 0.5, 0.2)).astype(np.uint8))
    jpeg, png = (levels(saved(image, kind), color=color).astype(int) for kind in ("JPEG", "PNG"))
    np.testing.assert_allclose(jpeg, png, atol=3)


def test_reading_can_move_to_worker_processes() -> None:
    import pickle

    spec = pickle.loads(pickle.dumps(CONTRACT.spec))
    assert spec == CONTRACT.spec
    assert pickle.loads(pickle.dumps(pixels.read_picture)) is pixels.read_picture


def test_contract_of_an_older_bundle_loads(tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_text('{"labels": ["a", "b"], "size": [8, 8], "color": true}')
    older = Contract.load(tmp_path)
    assert (older.resize, older.background, older.max_pixels) == ("squeeze", "black", 16_000_000)
    # Such a bundle was trained on what transparent pixels hide, mostly black.
    file = BytesIO(saved(plain("RGBA", (0, 0, 0, 0))))
    assert pixels.read_picture(file, older.spec).levels.max() == 0


def test_request_item_of_an_image_keeps_every_level() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3).transpose(2, 0, 1)
    wide = Contract(labels=["a", "b"], size=(16, 16), color=True)
    image = contract.scaled(every)
    again = wide.encode([Item.model_validate(wide.item(image))])["image"][0]
    np.testing.assert_array_equal(again, image)


def text(file: bytes) -> str:
    return base64.b64encode(file).decode()


def test_large_pictures_are_known_by_their_header() -> None:
    flat = saved(Image.new("L", (4000, 4000)))
    assert len(flat) < 30_000
    seconds = CONTRACT.encoding_seconds(Item(image=text(flat)))
    assert 0.1 < seconds < 1
    assert CONTRACT.encoding_seconds(Item(image=text(flat)[:8000])) > 0.1
    photo = saved(Image.effect_noise((4000, 3000), 50), "JPEG", quality=20)
    assert 0.05 < CONTRACT.encoding_seconds(Item(image=text(photo))) < seconds
    assert CONTRACT.encoding_seconds(Item(image=text(saved(plain("RGB", RED))))) < 0.001
    assert CONTRACT.encoding_seconds(Item(pixels=[[0.5]])) == 0


def test_what_is_refused_before_it_is_decoded_takes_no_time() -> None:
    huge = saved(Image.new("1", (5000, 5000)))
    for item in (Item(image=text(huge)), Item(image="no base64"), Item(image="AAAA"), Item()):
        assert CONTRACT.encoding_seconds(item) < 0.001
        with pytest.raises(InvalidItem):
            CONTRACT.encode([item])


@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_memory_for_a_large_picture_is_bounded(mode: str) -> None:
    """The decoded file and one copy; strips of it are converted at a time."""
    if mode == "RGBA":
        image = Image.new("RGBA", (2000, 2000), (*RED, 128))
    else:
        image = Image.fromarray(np.full((2000, 2000), 900, np.uint16))
    file, contract = saved(image), CONTRACT
    tracemalloc.start()  # NumPy's arrays; Pillow's own memory is one image at a time
    try:
        contract.encode([Item(image=text(file))])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * image.width * image.height


def test_server_decodes_large_pictures_in_a_worker_and_small_ones_inline(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def watched(*arguments: Any) -> pixels.Picture:
        threads.append(threading.current_thread().name)
        return pixels.read_picture(*arguments)

    monkeypatch.setattr(contract, "read_picture", watched)
    for image in (Image.new("L", (8, 8)), Image.new("L", (2000, 2000))):
        answer = client.post("/v1/predict", json={"items": [{"image": text(saved(image))}]})
        assert answer.status_code == 200, answer.text
    inline = client.get("/v1/models").json()["models"][0]["engine"] == "inline"
    assert [name.startswith("worker") for name in threads] == [not inline, True]
    many = [{"image": text(saved(Image.new("L", (4000, 4000))))}] * 20
    assert client.post("/v1/predict", json={"items": many}).status_code == 413
    assert len(threads) == 2, "nothing of it was decoded"

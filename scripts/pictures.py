"""Take screenshots of the demos for README and gallery; needs Chromium.

    make demo TASK=image-classification && make demo TASK=forecasting … && make pictures

Writes docs/images/: the results section of every demo as a browser shows it, the server's page to
try its model, and the plot of its loop, if make loop was run there. make gallery does all of it.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import demo
from markdown_it import MarkdownIt
from PIL import Image, ImageChops
from playwright.sync_api import Page, sync_playwright

TEMPLATE = Path(__file__).parents[1]
IMAGES = TEMPLATE / "docs" / "images"
STYLE = """
body { font: 15px/1.5 "Noto Sans", "DejaVu Sans", sans-serif; margin: 24px; width: 880px }
table { border-collapse: collapse; font-size: 13px } td, th { border: 1px solid #d0d7de;
padding: 5px 10px; text-align: left } img { max-width: 880px } code { background: #eff1f3 }
"""
FIVE = [
    *((0.68, 0.14), (0.36, 0.14), (0.34, 0.46), (0.52, 0.42), (0.66, 0.54), (0.66, 0.72)),
    *((0.52, 0.86), (0.32, 0.8)),
]
CHROMIUM = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--virtual-time-budget=8000"),
]


def main() -> int:
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    if browser is None:
        sys.exit("error: no Chromium found; on Debian: apt-get install chromium")
    IMAGES.mkdir(parents=True, exist_ok=True)
    slugs = {task: title.lower().replace(" ", "-") for task, title in demo.NAMES.items()}
    projects = {task: TEMPLATE / "build" / "demo" / slug for task, slug in slugs.items()}
    made = {task: path for task, path in projects.items() if (path / "deployment").is_dir()}
    if not made:
        sys.exit(f"error: {TEMPLATE / 'build' / 'demo'} contains no demo; run make demo first")
    for task, project in made.items():
        page = project / "docs" / "results.html"
        try:
            page.write_text(results(project / "README.md"), encoding="utf-8")
            screenshot(browser, page.as_uri(), IMAGES / f"{task}.png", 930, 4000)
        finally:
            page.unlink()
        with demo.server(project, project / ".venv" / "bin" / project.name) as url:
            photograph_page(browser, url, task, IMAGES / f"page-{task}.png")
        if (loop := project / "docs" / "experiments" / "loop.png").exists():
            shutil.copyfile(loop, IMAGES / f"loop-{task}.png")
    return 0


def photograph_page(browser: str, url: str, task: str, picture: Path) -> None:
    """Save the page to try the model: a drawn digit, the forecast in dark, the others' examples."""
    scheme = "dark" if task == "forecasting" else "light"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1040, "height": 800}, color_scheme=scheme)
        page.goto(url, wait_until="networkidle")
        if task == "image-classification":
            draw(page, FIVE)
        page.wait_for_timeout(1000)
        page.screenshot(path=picture, full_page=True)
        chromium.close()
    with Image.open(picture) as image:
        colours = image.convert("RGB")
    colours.quantize(128).save(picture, optimize=True)
    print(f"written: {picture.relative_to(TEMPLATE)}")


def draw(page: Page, stroke: list[tuple[float, float]]) -> None:
    """Draw a stroke on an empty canvas, in shares of its width and height."""
    page.get_by_role("button", name="Clear").click()
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=10)
    page.mouse.up()


def results(readme: Path) -> str:
    """Render the results section of a README as a page."""
    text = readme.read_text(encoding="utf-8")
    section = text.partition("<!-- results:begin")[2].partition("-->")[2]
    section = section.partition("<!-- results:end")[0]
    section = section.replace("](docs/", "](")  # the page lies in docs/
    html = MarkdownIt("commonmark").enable("table").render(section)
    return f"<!doctype html><meta charset='utf-8'><style>{STYLE}</style><h2>Results</h2>{html}"


def screenshot(browser: str, address: str, picture: Path, width: int, height: int) -> None:
    """Save a page as PNG, without the empty space below its content."""
    with tempfile.TemporaryDirectory() as profile:
        arguments = [f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        command = [browser, *CHROMIUM, *arguments, f"--screenshot={picture}", address]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    with Image.open(picture) as image:
        colours = image.convert("RGB")
    empty = Image.new("RGB", colours.size, colours.getpixel((width - 1, height - 1)))
    *_, bottom = ImageChops.difference(colours, empty).getbbox() or (0, 0, width, height)
    colours = colours.crop((0, 0, width, min(bottom + 24, height)))
    colours.quantize(128).save(picture, optimize=True)
    print(f"written: {picture.relative_to(TEMPLATE)}")


if __name__ == "__main__":
    sys.exit(main())

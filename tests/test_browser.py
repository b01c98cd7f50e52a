"""The page to try the model, in a real browser: `apt-get install chromium`, or Chrome.

make test ARGS="-m slow tests/test_browser.py"
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import demo
import pytest
from conftest import TASKS
from PIL import Image

library = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; on Debian: apt-get install chromium"),
]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1100, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1100, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
}
# Texts with too little contrast (WCAG AA: 4.5), and controls without a name
FAULTS = """() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (color) => {
    pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1);
    const linear = [...pen.getImageData(0, 0, 1, 1).data].map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const faults = [];
  for (const element of document.querySelectorAll("body *")) {
    const { color, fill } = getComputedStyle(element);
    if (!element.checkVisibility()) continue;
    if ([...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) {
      const below = [];
      for (let part = element; part; part = part.parentElement) below.unshift(part);
      const back = below.map((part) => paint(getComputedStyle(part).backgroundColor)).at(-1);
      const front = paint(element instanceof SVGElement ? fill : color);
      const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
      if (ratio < 4.5) faults.push(`${element.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
    }
    if (element.matches("button, input, select, textarea, summary, a, [tabindex]")) {
      const name = element.ariaLabel || element.labels?.[0]?.innerText || element.innerText;
      if (!name?.trim()) faults.push(`no name: ${element.outerHTML.slice(0, 60)}`);
    }
  }
  return faults;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    library.expect.set_options(timeout=30_000)  # as everything else waits: machines may be busy
    with library.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module", params=TASKS)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, environment: Path
) -> tuple[str, Path, Path]:
    """A task's name, its demo project with a quickly trained model, and its program."""
    project = demo.bake(tmp_path_factory.mktemp("page"), request.param)
    package = next((project / "src").iterdir()).name
    program = project / "program"
    run = f'PYTHONPATH=src OMP_NUM_THREADS=1 exec "{environment / "python"}" -m {package}.cli "$@"'
    program.write_text(f'#!/bin/sh\ncd "{project}"\n{run}\n', encoding="utf-8")
    program.chmod(0o755)
    code = "import json; from tests.quick import QUICK; print(json.dumps(QUICK))"
    variables = {**os.environ, "PYTHONPATH": f"src{os.pathsep}."}
    python = [environment / "python", "-c", code]
    quick = json.loads(subprocess.check_output(python, cwd=project, env=variables))
    force = ["--force", "--reason", "trained for seconds"]
    for command in (["train", *quick], ["evaluate"], ["deploy", *force]):
        done = subprocess.run([program, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return request.param, project, program


@pytest.fixture(scope="module")
def site(trained: tuple[str, Path, Path]) -> Iterator[tuple[str, str]]:
    """A task's name and the address of its server."""
    task, project, program = trained
    with demo.server(project, program) as url:
        yield task, url


def opened(browser: Any, url: str, look: str = "light") -> Any:
    """The page with the example's prediction; whatever its scripts complain of fails."""
    page = browser.new_context(**LOOKS[look]).new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.problems = problems
    page.goto(url)
    page.locator("#summary:not(:empty)").wait_for()
    return page


def close(page: Any) -> None:
    assert page.problems == []
    page.context.close()


@pytest.mark.parametrize("look", LOOKS)
def test_the_example_is_predicted_at_once_and_everything_can_be_read(
    browser: Any, site: tuple[str, str], look: str, tmp_path: Path
) -> None:
    _, url = site
    page = opened(browser, url, look)
    for summary in page.locator("summary").all():
        summary.click()
    assert re.search(
        r"ms round trip · .* ms in the model · .*version \S+, champion", text(page, "timing")
    )
    assert '"predictions"' in text(page, "exchange")
    assert page.locator("#metrics dd").count() >= 1
    assert page.evaluate(FAULTS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= LOOKS[look]["viewport"]["width"]
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as picture:
        corner = picture.convert("L").getpixel((2, 2))
    assert corner < 60 if look == "dark" else corner > 200
    close(page)


def text(page: Any, name: str) -> str:
    return page.locator(f"#{name}").text_content()


def answered(page: Any, act: Callable[[], Any]) -> None:
    """Do something that makes the page ask for a prediction, and wait until it shows it."""
    before = text(page, "exchange")
    act()
    library.expect(page.locator("#exchange")).not_to_have_text(before)
    assert page.locator("#error").is_hidden()


def draw_line(page: Any) -> None:
    page.locator("#input canvas").scroll_into_view_if_needed()
    box = page.locator("#input canvas").bounding_box()
    center = box["x"] + box["width"] / 2
    page.mouse.move(center, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(center, box["y"] + box["height"] - 40, steps=5)
    page.mouse.up()


def by_mouse(page: Any, task: str, folder: Path) -> None:
    if task == "image-classification":
        answered(page, lambda: draw_line(page))
        library.expect(page.get_by_role("img", name="The picture in the model's")).to_be_visible()
        Image.new("RGB", (40, 20), "red").save(folder / "red.png")
        field = page.get_by_label("Choose a picture")
        answered(page, lambda: field.set_input_files(folder / "red.png"))
        answered(page, lambda: draw_line(page))
        middle = "document.querySelector('canvas').getContext('2d').getImageData(9, 140, 1, 1).data"
        assert page.evaluate(f"[...{middle}]") == [0, 0, 0, 255], "the file is still there"
    elif task == "text-classification":
        page.get_by_label("Text").fill("path : The name of a file, a string of letters")
        answered(page, page.get_by_role("button", name="Classify").click)
        assert page.locator("mark").count() >= 1
    elif task == "forecasting":
        page.get_by_label("demand").fill("1 2 three")
        page.get_by_role("button", name="Forecast").click()
        assert page.evaluate("document.getElementById('values').validationMessage")
        page.get_by_label("demand").fill("\n".join(f"{4 + hour % 24 / 24}" for hour in range(300)))
        answered(page, page.get_by_role("button", name="Forecast").click)
        page.locator(".chart svg").hover(position={"x": 100, "y": 100})
        assert "forecast" not in page.locator(".chart output").inner_text()
    else:
        chips = page.locator(".chips li")
        count = chips.count()
        answered(page, page.get_by_role("button", name=re.compile("^Add .")).first.click)
        library.expect(chips).to_have_count(count + 1)
        answered(page, page.get_by_role("button", name=re.compile("^Remove ")).first.click)
        library.expect(chips).to_have_count(count)
        page.get_by_label("Add an item").fill("never heard of")
        answered(page, page.get_by_role("button", name="Add", exact=True).first.click)
        assert "ignored: never heard of" in text(page, "output")


def test_a_person_asks_by_mouse_and_gives_feedback(
    browser: Any, site: tuple[str, str], tmp_path: Path
) -> None:
    task, url = site
    page = opened(browser, url)
    by_mouse(page, task, tmp_path)
    if task == "forecasting":
        page.get_by_label("Actual values").fill("4.5, 4.25")
    else:
        page.locator("#truth select").select_option(index=1)
    page.get_by_role("button", name="Send feedback").click()
    library.expect(page.locator("#thanks")).to_have_text(re.compile("Thank you"))
    close(page)


def tab_to(page: Any, selector: str) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached by Tab")


def by_keyboard(page: Any, task: str) -> None:
    press = page.keyboard.press
    if task == "image-classification":
        tab_to(page, "canvas")
        for key in ["Space"] + ["ArrowDown"] * 9:
            press(key)
        answered(page, lambda: press("Space"))
    elif task == "text-classification":
        tab_to(page, "textarea")
        press("Control+a")
        page.keyboard.type("verbose : whether to print more")
        answered(page, lambda: press("Control+Enter"))
    elif task == "forecasting":
        tab_to(page, "textarea")
        press("Control+End")
        page.keyboard.type(" 5.5")
        tab_to(page, "button.primary")
        answered(page, lambda: press("Enter"))
        tab_to(page, "#step")
        before = page.locator(".chart output").inner_text()
        press("ArrowRight")
        assert page.locator(".chart output").inner_text() != before
    else:
        tab_to(page, "#name")
        page.keyboard.type("json")
        answered(page, lambda: press("Enter"))
        tab_to(page, ".bars button")
        answered(page, lambda: press("Enter"))
        assert page.evaluate("document.activeElement.matches('.bars button')"), "the focus is lost"


def test_a_person_asks_by_keyboard_and_gives_feedback(browser: Any, site: tuple[str, str]) -> None:
    task, url = site
    page = opened(browser, url)
    by_keyboard(page, task)
    tab_to(page, "#truth select, #truth input")
    if task == "forecasting":
        page.keyboard.type("4.5 4.25")
    else:
        page.keyboard.press("ArrowDown")
    tab_to(page, "#truth button")
    page.keyboard.press("Enter")
    library.expect(page.locator("#thanks")).to_have_text(re.compile("Thank you"))
    close(page)


def test_the_page_asks_for_a_key_and_keeps_it_in_its_tab(
    browser: Any, trained: tuple[str, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, project, program = trained
    monkeypatch.setenv("APP_API_KEYS", "first-key")
    with demo.server(project, program) as url:
        page = browser.new_context().new_page()
        page.goto(url)
        for key in ("wrong", "first-key"):
            page.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
            if key == "wrong":
                library.expect(page.locator("#key-problem")).to_contain_text("refused this key")
        page.locator("#summary:not(:empty)").wait_for()
        page.reload()
        page.locator("#summary:not(:empty)").wait_for()
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        other = page.context.new_page()
        other.goto(url)
        other.get_by_label("Key", exact=True).wait_for()
        page.get_by_role("button", name="Forget the API key").click()
        page.get_by_label("Key", exact=True).wait_for()
        page.keyboard.press("Escape")
        library.expect(page.locator("#error")).to_contain_text("needs an API key")
        page.context.close()

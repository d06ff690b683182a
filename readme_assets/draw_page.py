"""Pictures of the page of `explore.py`, taken by a headless Chromium.

    python readme_assets/draw_page.py

Needs Playwright and an installed Chromium, as `make test-browser` does.
"""

import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from PIL import Image
from playwright.sync_api import sync_playwright

from storage import disk
from test_browser import BROWSER, Server, Visitor

HERE = Path(__file__).parent


def shot(visitor, name):
    """Writes what a visitor sees."""
    visitor.page.mouse.move(4, 4)
    visitor.page.wait_for_timeout(800)
    picture = Image.open(io.BytesIO(visitor.page.screenshot())).convert("RGB")
    with disk.replacing(HERE / f"{name}.png") as temporary:
        picture.quantize(256, kmeans=2).save(temporary, "png", optimize=True)  # half the bytes


def digits(visitor):
    """A path over four digits, before the map of thumbnails."""
    points, _ = visitor.points()
    x, y = points.T
    visitor.tab("Paths")
    for row in (x.argmin(), (y - x).argmax(), (x - y).argmax(), y.argmin()):
        visitor.page.mouse.click(*points[row])
        visitor.page.wait_for_timeout(500)
        visitor.press("Add chosen image")
    visitor.press("Thumbnails")
    visitor.until(lambda: "frame 1 of" in visitor.text("path-image"))
    visitor.page.locator(".noUi-handle:visible").first.focus()
    for _ in range(18):
        visitor.page.keyboard.press("ArrowRight")


def phantom(visitor):
    """The direction of a hernia with its evidence."""
    points, _ = visitor.points()
    visitor.page.mouse.click(*points[100])
    visitor.page.wait_for_timeout(500)
    visitor.tab("Directions")
    visitor.press("Find")
    visitor.until(lambda: "AUC" in visitor.text("evidence"), seconds=120)


def main():
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for name, words, act in (
            ("explore_digits", ["readme_assets/digits_run", "--data", "all"], digits),
            ("explore_phantom", ["readme_assets/phantom_run"], phantom),
        ):
            server = Server(*words)
            visitor = Visitor(browser, server.url)
            act(visitor)
            shot(visitor, name)
            visitor.context.close()
            server.stop()
        browser.close()


if __name__ == "__main__":
    main()

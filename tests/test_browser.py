"""The page of a run in a real browser: opened, hovered, clicked, slid, lassoed, saved, measured.

`make test-browser`. The browser is Debian's or another installed Chromium (`CHROMIUM` names it),
never one that Playwright downloads. Times are printed with `-s`; they are held against the targets
times the number of processes that wait for each core, since other work on the machine counts too.
"""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import explore
from spots import blobs

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs Playwright: make test-browser installs it"
)
pytest.importorskip("bokeh", reason="the page needs Bokeh, the extra `explore`")

ROOT = Path(__file__).parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
if BROWSER is None:
    pytest.skip("needs an installed Chromium: apt-get install chromium", allow_module_level=True)

LONG = "ATLAS_LONG" in os.environ
SECONDS = 600 if LONG else 30  # of scripted clicking
# Where the map's points are on the screen, and its frame.
POINTS = """() => {
  const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name("plot"))
  const at = view.canvas_view.el.getBoundingClientRect(), frame = view.frame
  const data = view.model.renderers[0].data_source.data
  const across = Array.from(data.x, (x) => at.left + frame.x_scale.compute(x))
  const down = Array.from(data.y, (y) => at.top + frame.y_scale.compute(y))
  const box = [at.left + frame.bbox.left, at.top + frame.bbox.top, frame.bbox.width,
               frame.bbox.height]
  return {across, down, box}
}"""
# Notes when a key went down and when the image that it asked for was on the screen.
WATCH = """() => {
  window.moves = []
  const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name("slider-image"))
  let begun = null, shown = view.shadow_el.querySelector("img").src
  document.addEventListener("keydown", () => { begun = performance.now() }, true)
  new MutationObserver(async () => {
    const image = view.shadow_el.querySelector("img")
    if (!image || image.src === shown || begun === null) return
    shown = image.src
    const since = begun
    begun = null
    await image.decode()
    requestAnimationFrame(() => window.moves.push(performance.now() - since))
  }).observe(view.shadow_el, {childList: true, subtree: true})
}"""


def slack():
    """How much longer everything takes because others use the machine."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Server:
    """`explore.py` in a process of its own."""

    def __init__(self, *words):
        command = [sys.executable, "explore.py", *words, "--port", "0", "--no-browser"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if found := re.match(r"(http://\S+)", line):
                self.url = found[1]
                return
        raise AssertionError("explore.py did not start")

    def memory(self):
        """Bytes that the server has in memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


def serving(*words):
    @pytest.fixture(scope="module")
    def served():
        server = Server(*words)
        yield server
        server.stop()

    return served


digits = serving("readme_assets/digits_run", "--data", "all")
phantom = serving("readme_assets/phantom_run")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visitor:
    """A page in a browser of its own, with what went wrong in it."""

    def __init__(self, browser, url):
        self.context = browser.new_context(viewport={"width": 1280, "height": 800})
        self.page = self.context.new_page()
        self.wrong, self.asked = [], []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "console", lambda told: self.wrong.append(told.text) if told.type == "error" else None
        )
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.began = time.monotonic()
        self.page.goto(url)
        self.page.wait_for_selector("figure img")
        self.page.wait_for_function(
            "() => Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name('plot')) !== null"
        )
        self.seconds = time.monotonic() - self.began

    def property(self, name, of):
        """A property of a model, as the browser has it."""
        return self.page.evaluate(
            "([name, of]) => (Bokeh.documents[0].get_model_by_name(name) ?? {})[of]", [name, of]
        )

    def text(self, name):
        """The text of a piece; empty if it is not there yet."""
        return self.property(name, "text") or ""

    def until(self, condition, seconds=30):
        """Waits until a function of no arguments is true."""
        until = time.monotonic() + seconds * slack()
        while not condition():
            assert time.monotonic() < until, "it did not happen"
            self.page.wait_for_timeout(30)

    def tab(self, title):
        self.page.locator(".bk-tab", has_text=title).click()

    def press(self, label):
        self.page.get_by_role("button", name=label, exact=True).click()

    def points(self):
        found = self.page.evaluate(POINTS)
        return np.stack([found["across"], found["down"]], axis=1), np.array(found["box"])

    def tool(self, title):
        """Takes a tool of the map's toolbar."""
        self.page.locator(f'.bk-ToolButton[title*="{title}"], [title*="{title}"]').first.click()

    def save(self, label, path):
        with self.page.expect_download(timeout=60_000) as waited:
            self.press(label)
        waited.value.save_as(path)
        return path


@pytest.fixture
def visit(browser):
    open_ones = []

    def opened(server):
        open_ones.append(Visitor(browser, server.url))
        return open_ones[-1]

    yield opened
    for each in open_ones:
        each.context.close()  # once more does nothing
        assert each.wrong == []


def test_it_opens_in_time_and_asks_nobody_else(visit, digits):
    visit(digits)  # the browser's own start is not the page's
    seconds = []
    for _ in range(3):
        visitor = visit(digits)
        seconds.append(visitor.seconds)
        own = (digits.url, "data:", "blob:", digits.url.replace("http", "ws"))
        assert [each for each in visitor.asked if not each.startswith(own)] == []
    print(f"\nfirst paint, 1,797 images: {np.median(seconds):.2f} s (load {slack():.1f})")
    assert np.median(seconds) < 3 * slack()
    assert "1,797 images: axes" in visitor.text("map-title")


def test_ten_thousand_images_open_in_time_and_of_more_a_part_is_shown(visit, monkeypatch):
    images, labels = blobs(25_000, shape=(32, 32, 1))
    many = explore.data.from_arrays(images, labels, name="spots", label="half")
    monkeypatch.setattr(explore.data, "images_of", lambda run: many)
    atlas = explore.opened(ROOT / "readme_assets" / "digits_run", "all")
    served = explore.Served(atlas, "")
    visit(served)
    seconds = [visit(served).seconds for _ in range(3)]
    visitor = visit(served)
    print(f"\nfirst paint, 10,000 images: {np.median(seconds):.2f} s (load {slack():.1f})")
    assert np.median(seconds) < 6 * slack()
    assert "10,000 of 25,000 images, drawn at random" in visitor.text("map-title")
    visitor.context.close()
    served.stop()


def test_a_notebook_shows_the_page_in_a_frame(browser):
    page = explore.view(ROOT / "readme_assets" / "digits_run")
    tab = browser.new_page()
    tab.set_content(page._repr_html_())
    tab.frame_locator("iframe").locator("figure img").first.wait_for()
    tab.close()
    page.stop()


def test_a_hovered_point_shows_its_thumbnail_and_a_clicked_one_its_image(visit, digits):
    visitor = visit(digits)
    points, _ = visitor.points()
    row = int(points[:, 1].argmin())  # the highest, so that nothing covers it
    visitor.page.mouse.move(*(points[row] + 40))
    visitor.page.mouse.move(*points[row], steps=5)
    picture = visitor.page.locator(f'img[src="thumb/{row}"]')
    picture.wait_for()
    visitor.until(lambda: picture.evaluate("(image) => image.naturalWidth") > 0)
    visitor.page.mouse.click(*points[row])
    visitor.until(lambda: f"Image {row} of" in visitor.text("image-head"))
    before = visitor.text("image")
    visitor.page.keyboard.press("ArrowRight")
    visitor.until(lambda: f"Image {row + 1} of" in visitor.text("image-head"))
    assert visitor.text("image") != before


def test_an_empty_place_is_decoded_and_said_to_be_one(visit, digits):
    visitor = visit(digits)
    _, (left, top, _, _) = visitor.points()
    visitor.page.mouse.click(left + 15, top + 15)
    visitor.until(lambda: "A place of the map" in visitor.text("image-head"))
    assert "The decoder at this very place" in visitor.text("image-scale")


def test_a_picture_of_a_neighbour_can_be_clicked(visit, digits):
    visitor = visit(digits)
    picture = visitor.page.locator("figure.eighth img").first
    row = picture.get_attribute("data-row")
    picture.click()
    visitor.until(lambda: f"Image {row} of" in visitor.text("image-head"))


def test_zoomed_in_the_points_are_thumbnails(visit, digits):
    visitor = visit(digits)
    _, (left, top, wide, high) = visitor.points()

    def marks():
        return visitor.page.evaluate(
            "() => Bokeh.documents[0].get_model_by_name('plot').renderers[1].data_source"
            ".data.x.length"
        )

    assert marks() == 0
    visitor.page.mouse.move(left + wide / 2, top + high / 2)
    for _ in range(4):
        visitor.page.mouse.wheel(0, -200)
        visitor.page.wait_for_timeout(150)
    visitor.until(lambda: marks() > 5)


def test_a_slider_gives_another_image_in_time(visit, phantom):
    visitor = visit(phantom)
    visitor.tab("Sliders")
    handle = visitor.page.locator(".noUi-handle:visible").first
    handle.focus()
    visitor.page.evaluate(WATCH)
    for number in range(110):
        key = "ArrowRight" if number % 40 < 20 else "ArrowLeft"
        visitor.page.keyboard.press(key)
        visitor.until(lambda wanted=number + 1: visitor.page.evaluate("moves.length") >= wanted)
    moves = np.array(visitor.page.evaluate("moves"))[10:]
    middle, late = np.median(moves), np.quantile(moves, 0.95)
    print(f"\nslider to picture: median {middle:.0f} ms, 95 % {late:.0f} ms (load {slack():.1f})")
    assert middle < 100 * slack() and late < 200 * slack()


def test_a_dragged_slider_ends_at_the_image_of_its_last_value(visit, phantom):
    visitor = visit(phantom)
    visitor.tab("Sliders")
    box = visitor.page.locator(".noUi-handle:visible").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    visitor.page.mouse.move(x, y)
    visitor.page.mouse.down()
    visitor.page.mouse.move(x + 70, y, steps=40)
    visitor.page.mouse.up()
    visitor.until(lambda: "1 axis moved" in visitor.text("slider-image"))
    value = visitor.property("slider-0", "value")
    visitor.until(lambda: f"{value:g}" in visitor.text("line"))
    visitor.press("Reset")
    visitor.until(lambda: "moved" not in visitor.text("slider-image"))


def test_two_lassoed_groups_give_a_direction_with_its_caution(visit, digits):
    visitor = visit(digits)
    _, (left, top, wide, high) = visitor.points()
    visitor.tab("Directions")
    visitor.page.locator("select:visible").filter(has_text="two groups").select_option(
        "two groups of the lasso"
    )
    visitor.tool("Lasso")
    for share, side in ((0.02, "A = lasso"), (0.55, "B = lasso")):
        x, y = left + share * wide, top + 0.1 * high
        corners = [(x, y), (x + 0.4 * wide, y), (x + 0.4 * wide, y + 0.8 * high),
                   (x, y + 0.8 * high), (x, y)]  # fmt: skip
        visitor.page.mouse.move(*corners[0])
        visitor.page.mouse.down()
        for corner in corners[1:]:
            visitor.page.mouse.move(*corner, steps=8)
        visitor.page.mouse.up()
        visitor.until(lambda: "within the lasso" in visitor.text("status"))
        visitor.press(side)
        visitor.page.wait_for_timeout(300)
    visitor.press("Find")
    visitor.until(lambda: "two groups" in visitor.text("effect"))
    visitor.until(lambda: "AUC" in visitor.text("evidence"), seconds=120)
    assert "chosen on the map" in visitor.text("evidence")


def test_what_is_seen_can_be_saved(visit, digits, tmp_path):
    visitor = visit(digits)
    picture = Image.open(visitor.save("PNG", tmp_path / "seen.png"))
    assert picture.size[0] > 500 and len(np.unique(np.asarray(picture))) > 50
    table = pd.read_csv(visitor.save("CSV", tmp_path / "all.csv"))
    assert len(table) == 1797 and {"digit", "ssim", "z_0", "z_1"} <= set(table)
    visitor.tab("Paths")
    visitor.press("Add chosen image")
    visitor.tab("Image")
    visitor.page.locator("figure.eighth img").last.click()
    visitor.tab("Paths")
    visitor.press("Add chosen image")
    visitor.until(lambda: "frame 1 of 40" in visitor.text("path-image"))
    visitor.press("Play")
    visitor.until(lambda: "frame 40 of 40" in visitor.text("path-image"))
    film = Image.open(visitor.save("Save GIF", tmp_path / "path.gif"))
    assert film.n_frames == 40 and film.size[0] >= 256


def test_two_visitors_see_their_own_page(visit, digits):
    one, other = visit(digits), visit(digits)
    for _ in range(3):
        one.page.keyboard.press("ArrowRight")
    one.until(lambda: "Image 3 of" in one.text("image-head"))
    assert "Image 0 of" in other.text("image-head")
    other.tab("Samples")
    other.until(lambda: "36 samples" in other.text("samples"))
    assert one.property("tabs", "active") == 0


def test_a_page_of_another_origin_cannot_talk_to_it(browser, digits):
    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<p>another page</p>")

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    answer = page.evaluate(
        """async (url) => {
          const socket = new Promise((done) => {
            const made = new WebSocket(url.replace("http", "ws") + "ws", ["bokeh", "x"])
            made.onopen = () => done("open")
            made.onerror = () => done("refused")
          })
          const picture = new Promise((done) => {
            const image = new Image()
            image.onload = () => done("shown")
            image.onerror = () => done("refused")
            image.src = url + "thumb/3"
          })
          const text = fetch(url).then(() => "read", () => "refused")
          return Promise.all([socket, picture, text])
        }""",
        digits.url.replace("localhost", "127.0.0.1"),
    )
    page.close()
    server.shutdown()
    # The picture is refused to other sites; another port of this machine is the same site.
    assert answer[0] == "refused" and answer[2] == "refused"


@pytest.mark.slow
def test_memory_stays_flat_while_it_is_clicked(visit, digits):
    visitor = visit(digits)
    points, (left, top, wide, high) = visitor.points()
    random = np.random.default_rng(0)
    inside = np.flatnonzero((points > (left, top)).all(axis=1))
    tabs = ("Image", "Sliders", "Samples", "Paths", "Outliers")

    def click(seconds):
        until, clicks = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            visitor.page.mouse.click(*points[random.choice(inside)])
            visitor.page.mouse.click(left + wide * random.random(), top + high * random.random())
            visitor.tab(tabs[clicks % len(tabs)])
            if tabs[clicks % len(tabs)] == "Sliders":
                visitor.press("Random")
            if tabs[clicks % len(tabs)] == "Samples":
                visitor.press("Other samples")
            visitor.page.wait_for_timeout(40)
            clicks += 1
        return clicks

    click(SECONDS / 3)  # what is made once, is made
    before = digits.memory()
    clicks = click(SECONDS)
    grown = (digits.memory() - before) / 2**20
    print(f"\n{clicks} rounds of clicks in {SECONDS} s: memory grew by {grown:.1f} MiB")
    assert grown < 40

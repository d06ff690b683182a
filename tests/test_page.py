"""The page of a run as its server makes it, without a browser: what it answers, and to whom."""

import asyncio
import base64
import json
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

pytest.importorskip("bokeh", reason="the page needs Bokeh, the extra `explore`")

from concurrent.futures import Future

from bokeh.document import Document
from bokeh.models import Div
from tornado.httpclient import HTTPClientError
from tornado.httpclient import HTTPRequest as Request
from tornado.websocket import websocket_connect

import explore
import train
from analysis import page_map
from analysis.atlas import Atlas
from analysis.directions import Direction
from analysis.page import Page
from sources.splits import Split

HOSTILE = "<img src=x onerror=alert(1)>"


class AtOnce:
    """Runs background work where it is asked for."""

    def submit(self, function):
        function()
        return Future()


@pytest.fixture
def atlas(run, spots, monkeypatch):
    monkeypatch.setattr(explore.data, "images_of", lambda run: spots)
    return explore.opened(run, "all")


def page_of(atlas):
    """A page whose next ticks run at once."""
    doc = Document()
    doc.add_next_tick_callback = lambda function: function()
    return Page(atlas, doc, "explore.opened('run')", AtOnce())


def view(page, title):
    """A tab, opened."""
    page.tabs.active = [each.title for each in page.tabs.tabs].index(title)
    return page.view


def tap(page, x, y):
    event = page_map.Tap(None, x=x, y=y)
    page.map._on_tap(event)


# --- what it shows -------------------------------------------------------------------------------


def test_a_click_on_a_point_chooses_it_and_one_beside_all_decodes_the_place(atlas):
    page = page_of(atlas)
    tap(page, *page.map.points[7])
    assert page.session.row == 7 and "Image 7 of 96" in view(page, "Image").head.text
    assert page.views[0].call() == ("of_image", {"row": 7})
    tap(page, page.map.x.end, page.map.y.end)
    name, arguments = page.views[0].call()
    assert name == "at_place" and arguments["point"] == (page.map.x.end, page.map.y.end)
    assert "at this very place" in page.views[0].scale.text and page.session.row == 7


def test_keys_and_clicked_pictures_choose_and_nonsense_does_not(atlas):
    session = page_of(atlas).session
    for row, key, wanted in ((-1, "ArrowRight", 1), (-1, "ArrowLeft", 0), (12, "", 12)):
        session.picked.data = {"row": [row], "key": [key], "turn": [0.1]}
        assert session.row == wanted
    for row, key in ((1e9, ""), ("<b>", ""), (None, ""), (-1, "Delete")):
        session.picked.data = {"row": [row], "key": [key], "turn": [0.2]}
        assert session.row == 12


def test_a_slider_changes_the_image_by_its_axis_and_reset_takes_it_back(atlas):
    page = page_of(atlas)
    sliders = view(page, "Sliders")
    before = sliders.shown.text
    sliders.sliders[0].value = 2.5
    assert sliders.shown.text != before
    axis = atlas.axes[0].name
    assert sliders.call() == ("sliders", {"values": {axis: 2.5}})
    sliders._reset()
    assert sliders.shown.text == before and sliders.call()[1] == {"values": {}}


def test_a_random_latent_has_its_prior_and_seed_and_the_next_is_another(atlas):
    sliders = view(page_of(atlas), "Sliders")
    sliders._random()
    first, prior = sliders.shown.text, sliders.prior_of.value
    assert prior == atlas.own_prior and f"from {prior}, seed 0" in first
    assert sliders.call()[1] == {"values": {}, "prior": prior, "seed": 0}
    sliders._random()
    assert sliders.call()[1]["seed"] == 1 and sliders.shown.text != first


def test_a_found_direction_shows_its_effect_and_its_evidence(atlas, monkeypatch):
    told = atlas.evidence("half==1")
    monkeypatch.setattr(atlas, "evidence", lambda *words, progress: told)
    page = page_of(atlas)
    directions = view(page, "Directions")
    assert (directions.column.value, directions.compare.value) == ("half", "is yes")
    directions.compare.value, directions.value.value = "==", "1"
    directions._find()
    assert f"{told.auc:.2f}" in directions.proof.text and "+2.0 along half==1" in (
        directions.shown.text
    )
    assert directions.call()[1]["label"] == "half==1"
    directions._keep()
    assert "half==1" in directions.saved.options and (atlas.run / "directions").is_dir()


def test_groups_of_the_lasso_are_tested_with_the_caution_that_they_are_circular(atlas):
    page = page_of(atlas)
    directions = view(page, "Directions")
    directions.column.value = "two groups of the lasso"
    order = np.argsort(page.map.points[:, 0]).tolist()
    for number, rows in enumerate((order[:30], order[-30:])):
        page.map.source.selected.indices = rows
        directions._take(number)
    directions._find()
    assert "no evidence that anything else tells them apart" in directions.proof.text
    assert directions.found.images == (30, 30)
    page.map.source.selected.indices = order[:31]
    directions._take(1)
    directions._find()
    assert "30 images are in both groups" in page.session.status.text


def test_a_path_is_played_to_its_end_and_saved_as_gif(atlas):
    page = page_of(atlas)
    paths = view(page, "Paths")
    assert paths.call() is None
    for row in (3, 8):
        page.session.choose(row)
        paths._add()
    assert paths.call() == ("path", {"rows": [3, 8], "kind": "spherical"})
    paths._play()
    for _ in range(50):
        paths._step()
    assert paths.at.value == 39 and paths.playing is None and "100% of the way" in paths.shown.text
    paths._gif()
    assert page.session.out.data["kind"] == ["image/gif"]
    assert page.session.out.data["body"][0].startswith("R0lGOD")  # "GIF8" in base 64


def test_figures_and_the_selection_are_handed_to_the_browser(atlas):
    page = page_of(atlas)
    page._save()
    assert page.session.out.data["name"] == [f"{atlas.called}_of_image.png"]
    page.map.source.selected.indices = [4, 9]
    page._save_table()
    lines = base64.b64decode(page.session.out.data["body"][0]).decode().splitlines()
    assert len(lines) == 3 and lines[0].endswith("z_0,z_1,z_2")


def test_two_visitors_do_not_disturb_each_other(atlas):
    one, other = page_of(atlas), page_of(atlas)
    tap(one, *one.map.points[7])
    one.map.plane.value = "axes"
    view(one, "Sliders").sliders[0].value = 3.0
    assert other.session.row == 0 and other.map.kind == "pca" and other.tabs.active == 0
    assert view(other, "Sliders").call()[1] == {"values": {}}


def test_column_names_cells_and_files_are_shown_as_text(run, spots):
    table = spots.test.table.assign(**{HOSTILE: HOSTILE + np.arange(len(spots.test)).astype(str)})
    table["file"] = HOSTILE + table["file"]
    table[f"{HOSTILE}2"] = np.where(np.arange(len(table)) % 2, HOSTILE, "b")
    atlas = Atlas(run, train.load(run), Split(spots.test.images, table), HOSTILE)
    atlas.directions[HOSTILE] = Direction(HOSTILE, np.eye(3)[0], 1.0)
    page = page_of(atlas)
    page.map.colour.value = f"{HOSTILE}2"
    for title in ("Sliders", "Samples", "Paths", "Outliers", "About"):
        view(page, title)
    directions = view(page, "Directions")
    directions.saved.value = HOSTILE
    page.session.say(HOSTILE)
    pieces = [each.text for each in page.session.doc.select({"type": Div})]
    assert len(pieces) > 20 and not [each for each in pieces if "<img src=x" in each]
    assert any("&lt;img src=x" in each for each in pieces)


def test_every_tool_of_a_run_without_a_model_says_why(run):
    (run / "model.weights.h5").unlink()
    page = page_of(explore.opened(run))
    assert page.view.title == "About" and "cannot be opened" in page.view.layout.children[0].text
    for title in ("Image", "Sliders", "Samples", "Directions", "Paths"):
        view(page, title)
    text = json.dumps(page.session.doc.to_json().content)
    assert text.count("see the page About") >= 5
    assert page.csv.disabled and page.png.disabled


def test_t_sne_comes_in_the_background_and_the_map_before_it_stays(atlas):
    page = page_of(atlas)
    waiting = []
    page.session.workers.submit = waiting.append
    before = page.map.points
    page.map.plane.value = "tsne"
    assert page.map.points is before and "is computed" in page.session.status.text
    waiting.pop()()
    np.testing.assert_allclose(page.map.points, atlas.map.plane("tsne").points)
    assert "t-SNE" in page.map.title.text


# --- to whom it answers --------------------------------------------------------------------------


@pytest.fixture
def served(atlas):
    page = explore.Served(atlas, "explore.opened('run')")
    yield page
    page.stop()


def connected(url, origin, subprotocols=None):
    async def connect():
        request = Request(url.replace("http", "ws") + "ws", headers={"Origin": origin})
        (await websocket_connect(request, subprotocols=subprotocols)).close()

    asyncio.run(connect())


def token_of(url):
    """What a page's own script sends along: its session's token."""
    text = urllib.request.urlopen(url).read().decode()
    return text.split('"token":"')[1].split('"')[0]


def test_a_foreign_page_cannot_drive_it(served):
    own = served.url.rstrip("/")
    protocols = ["bokeh", token_of(served.url)]
    connected(served.url, own, protocols)
    port = own.rsplit(":")[-1]
    for origin in ("http://example.org", f"http://example.org:{port}", "http://localhost:1"):
        with pytest.raises(HTTPClientError, match="403"):
            connected(served.url, origin, protocols)


def test_thumbnails_are_its_own_and_only_for_its_own_name(served, atlas):
    answer = urllib.request.urlopen(f"{served.url}thumb/3")
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.read().startswith(b"\x89PNG")
    for path, headers in (("thumb/96", {}), ("thumb/3", {"Host": "rebound.example.org"})):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(urllib.request.Request(served.url + path, headers=headers))


def test_it_listens_on_this_machine_alone(served):
    sockets = list(served.server._http._sockets.values())
    assert sockets and {each.getsockname()[0] for each in sockets} == {"127.0.0.1"}


def test_everything_it_loads_comes_from_itself(served):
    text = urllib.request.urlopen(served.url).read().decode()
    assert 'src="static/js/bokeh.min.js' in text
    assert "https://" not in text and "http://" not in text


def test_a_taken_port_is_told_and_a_stopped_page_answers_no_more(atlas, served):
    port = int(served.url.rstrip("/").rsplit(":")[-1])
    with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 cannot be used"):
        explore.Served(atlas, "", port=port)
    other = explore.Served(atlas, "")
    assert other.url in other._repr_html_()
    other.stop()
    with pytest.raises(OSError):
        urllib.request.urlopen(other.url, timeout=2)


def test_a_session_without_a_visitor_is_forgotten(atlas, monkeypatch):
    monkeypatch.setattr(explore, "UNUSED", 2000)
    served = explore.Served(atlas, "explore.opened('run')")
    urllib.request.urlopen(served.url).read()
    sessions = served.server.get_sessions
    assert len(sessions("/")) == 1
    begun = time.monotonic()
    while sessions("/") and time.monotonic() - begun < 30:
        time.sleep(0.2)
    assert not sessions("/")
    served.stop()

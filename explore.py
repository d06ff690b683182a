"""A page to explore a trained run in: its map, sliders, samples, directions and paths.

    python explore.py RUN [--data test] [--port N]
    python explore.py RUN --data FOLDER            # images of a folder instead of the run's own

It opens in the browser and serves this machine alone unless told otherwise. In Jupyter,
`explore.view("RUN")` shows the same page. It needs the extra `explore` (Bokeh), whose JavaScript it
serves itself, so that everything works offline.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import config

SPLITS = ("test", "validation", "train", "all")
PORT = 5010
MISSING = "the page needs Bokeh: pip install -r requirements.txt, or pip install 'bokeh>=3.8'"


def parsed(words=None):
    """The arguments of the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument(
        "--data",
        default="test",
        metavar="SPLIT",
        help=f"{', '.join(SPLITS)}, or a folder of images; default: test",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"0: any; default: {PORT}")
    parser.add_argument("--most", type=int, metavar="N", help="images shown; default: 10000")
    parser.add_argument(
        "--address", default="127.0.0.1", help="to listen on; default: this machine alone"
    )
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="another name by which browsers may call the page",
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    arguments = parser.parse_args(words)
    if not 0 <= arguments.port < 65536:
        parser.error(f"--port {arguments.port}: give a number from 0 to 65535")
    if arguments.most is not None and arguments.most < 3:
        parser.error(f"--most {arguments.most}: give 3 or more")
    if importlib.util.find_spec("bokeh") is None:
        parser.error(MISSING)
    return arguments


if __name__ == "__main__":
    parsed()  # help and errors come before TensorFlow, whose import takes seconds
    config.import_quietly()

import asyncio
import html
import threading
import time
import webbrowser
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

import data
import train
from analysis.atlas import MOST, Atlas, chosen
from sources.splits import Split
from storage import runs

BROKEN = (ValueError, OSError, LookupError, TypeError)  # what a damaged run can raise
SCORES = "anomaly/images.csv"
THUMBNAIL = r"/thumb/(\d+)"
UNUSED = 10_000  # milliseconds after which a page that nobody looks at is forgotten


def opened(run, split="test", most=MOST) -> Atlas:
    """A run with the images of a split, and with sentences on what it lacks.

    Args:
        run: Run folder.
        split: One of `SPLITS`, or a folder of images.
        most: Most images; of more, so many are drawn at random (seed 0).

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if the split is not one, or the folder of images cannot be read.
    """
    run = Path(run)
    if not run.is_dir():
        raise FileNotFoundError(f"{run} is not a folder; give the folder of a trained run")
    if split not in SPLITS and not Path(split).is_dir():
        raise ValueError(f"data = {split}: give {', '.join(SPLITS)}, or a folder of images")
    try:
        model = train.load(run)
    except BROKEN as error:
        return Atlas(run, None, lacks=[f"The model cannot be opened: {error}"])
    if not model.has_latent:
        said = f"A {type(model).__name__} has no latent, so there is no map of it: see anomaly.py."
        return Atlas(run, None, lacks=[said])
    if split not in SPLITS:
        return _of_folder(run, model, Path(split), most)
    try:
        images = data.images_of(run)
    except BROKEN as error:
        return Atlas(run, model, lacks=[f"The run's images cannot be opened: {error}"])
    if images.image_shape != model.image_shape:
        said = f"The images have the shape {images.image_shape}, the model {model.image_shape}."
        return Atlas(run, model, lacks=[said])
    names = list(images.splits) if split == "all" else [split]
    shown, total = _joined({name: images.splits[name] for name in names}, most)
    lacks = [] if images.label else [f"The images of {images.name} have no label."]
    lacks += _changes(run, images)
    if images.embedded:
        lacks.append(f"Embedded images: {images.note}.")
    name = images.name if split == "all" else f"{images.name} ({split})"
    table, found = with_scores(shown.table, run)
    shown = Split(shown.images, table, shown.digests)
    return Atlas(run, model, shown, name, total, images.label, images.classes, lacks + found)


def _changes(run, images):
    """Whether the images are those of the training, as a list of sentences."""
    try:
        changed = runs.changed(run, images)
    except ValueError:
        return [f"{runs.SPLIT} cannot be read, so which images it was trained on is unknown."]
    return [f"These are not all images that it was trained on: {changed}."] if changed else []


def _joined(parts, most):
    """One split of several, at most so many images: `(split, images in all)`."""
    counts = [len(each) for each in parts.values()]
    kept = {
        name: each.only(rows)
        for (name, each), rows in zip(parts.items(), chosen(counts, most), strict=True)
    }
    if len(kept) == 1:
        (only,) = kept.values()
        return only, sum(counts)
    tables = [each.table.assign(split=name) for name, each in kept.items()]
    images = np.concatenate([np.asarray(each.images[:]) for each in kept.values()])
    return Split(images, pd.concat(tables, ignore_index=True)), sum(counts)


def _of_folder(run, model, folder, most):
    """The run with the images of a folder."""
    whole = data.of_folder(run, folder)
    (rows,) = chosen([len(whole)], most)
    said = f"Images of the folder {folder.name}, which have no label."
    return Atlas(run, model, whole.only(rows), folder.name, len(whole), lacks=[said])


def with_scores(table, run):
    """A table with the anomaly scores of a run, if it has some: `(table, sentences)`.

    They are the columns `score...` of `RUN/anomaly/images.csv`, found by `file`, and by `slice` if
    both tables have it.
    """
    path = Path(run) / SCORES
    if not path.is_file():
        return table, []
    try:
        scores = pd.read_csv(path)
        keys = ["file", *(["slice"] if "slice" in table and "slice" in scores else [])]
        names = [name for name in scores if name.startswith("score")]
        scores = scores[[*keys, *names]].drop_duplicates(keys)
        return table.merge(scores, on=keys, how="left"), []
    except (*BROKEN, pd.errors.ParserError) as error:
        return table, [f"{path} cannot be read as scores: {error}"]


class Served:
    """A page that is being served, in a thread of its own.

    Attributes:
        url: Its address.
    """

    def __init__(self, atlas, opening, address="127.0.0.1", port=0, origins=(), height=800):
        self.height = height
        self._workers = ThreadPoolExecutor(2, thread_name_prefix="explore")
        started, self._problem = threading.Event(), None
        arguments = (atlas, opening, address, port, tuple(origins), started)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()
        started.wait()
        if self._problem is not None:
            raise OSError(
                f"port {port} of {address} cannot be used ({self._problem}); choose another"
            )

    def _run(self, atlas, opening, address, port, origins, started):
        asyncio.set_event_loop(asyncio.new_event_loop())
        try:
            self.server = server_of(atlas, opening, self._workers, address, port, origins)
        except OSError as error:
            self._problem = error
            started.set()
            return
        host = "localhost" if address in ("127.0.0.1", "0.0.0.0", "") else address
        self.url = f"http://{host}:{self.server.port}/"
        self.server.start()
        self._loop = self.server.io_loop
        started.set()
        self._loop.start()

    def stop(self):
        """Ends the page; its address answers no more."""
        if self._thread.is_alive():
            self._loop.add_callback(self._end)
            self._thread.join()

    def _end(self):
        self.server.stop()
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._loop.stop()

    def _repr_html_(self):
        """The page within a notebook."""
        return (
            f'<iframe src="{html.escape(self.url)}" width="100%" height="{self.height}" '
            'style="border:1px solid #ddd;border-radius:8px"></iframe>'
        )


def server_of(atlas, opening, workers, address="127.0.0.1", port=0, origins=()):
    """Bokeh's server of an atlas, not started.

    Args:
        atlas: `atlas.Atlas`.
        opening: Python that opens the run as here.
        workers: `ThreadPoolExecutor` for what takes longer than a click may.
        address: To listen on.
        port: 0 takes a free one.
        origins: `"host:port"` by which a page may call it, besides this machine's own names. A page
            of another origin is refused.
    """
    from bokeh.application import Application
    from bokeh.application.handlers import FunctionHandler
    from bokeh.document import Document
    from bokeh.server.server import Server
    from bokeh.server.util import bind_sockets
    from tornado.web import HTTPError, RequestHandler

    from analysis import pictures
    from analysis.page import Page

    sockets, port = bind_sockets(address or "127.0.0.1", port)
    for each in sockets:
        each.close()
    names = {"localhost", "127.0.0.1"} | ({address} - {"", "0.0.0.0"})
    allowed = [*sorted(f"{name}:{port}" for name in names), *origins]

    class Thumbnail(RequestHandler):
        """A small picture of one image, for the page's own hover."""

        def get(self, row):
            if self.request.host not in allowed or int(row) >= len(atlas):
                raise HTTPError(404)
            self.set_header("Content-Type", "image/png")
            self.set_header("Cross-Origin-Resource-Policy", "same-origin")
            self.set_header("X-Content-Type-Options", "nosniff")
            self.write(pictures.png(atlas.image(int(row)), pictures.THUMBNAIL))

    # What is computed once is there before the first visitor.
    Page(atlas, Document(), opening, workers)
    application = Application(FunctionHandler(lambda doc: Page(atlas, doc, opening, workers)))
    return Server(
        {"/": application},
        address=address or "127.0.0.1",
        port=port,
        allow_websocket_origin=allowed,
        extra_patterns=[(THUMBNAIL, Thumbnail)],
        check_unused_sessions_milliseconds=UNUSED // 2,
        unused_session_lifetime_milliseconds=UNUSED,
    )


def _opening(run, split, most):
    words = [repr(str(run)), repr(str(split)), *([] if most == MOST else [f"most={most}"])]
    return f"explore.opened({', '.join(words)})"


def view(run, split="test", most=MOST, height=800) -> Served:
    """The page of a run inside Jupyter, as the value of a cell.

    Args:
        run, split, most: See `opened`.
        height: Of the page, in pixels.

    Returns:
        `Served`: its `url` opens in any browser of this machine, `stop()` ends it.
    """
    if importlib.util.find_spec("bokeh") is None:
        raise ImportError(MISSING)
    return Served(opened(run, split, most), _opening(run, split, most), height=height)


def main(words=None):
    arguments = parsed(words)
    import matplotlib

    matplotlib.use("agg")  # figures are drawn for files, also on a machine with a screen
    began, most = time.monotonic(), arguments.most or MOST
    try:
        atlas = opened(arguments.run, arguments.data, most)
        page = Served(
            atlas,
            _opening(arguments.run, arguments.data, most),
            arguments.address,
            arguments.port,
            arguments.origin,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"explore.py: {error}")
    for text in atlas.lacks:
        print(text)
    seconds = time.monotonic() - began
    print(f"{atlas.about()}; opened in {seconds:.1f} s, after TensorFlow's import")
    print(f"{page.url}  (Ctrl+C ends it)", flush=True)
    if not arguments.no_browser:
        webbrowser.open(page.url)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        page.stop()


if __name__ == "__main__":
    main()

"""Applies a trained run to a folder of new images.

    python apply.py RUN FOLDER [--out DIR] [--direction FILE --strength 2] [--between A B]
    python apply.py RUN FOLDER --to latents.parquet [--direction FILE ...] [--address HOST:PORT]
    python apply.py RUN FOLDER [--vary 0.5] [--holes MASKS] [--between A B --path noise]
    python apply.py RUN FOLDER --change Hernia=1 --change age=+10 [--known TABLE]
    python apply.py RUN --generate 1000 --to NEW_FOLDER
    python apply.py RUN --find Hernia [--method fisher] [--adjust age sex]

The second encodes an archive of any size into a table of latents, in parts so that it can be
resumed, on a Ray cluster if requested (`archive.py`). The third needs a flow prior of the run
(`prior.py RUN --kind flow`): variations of each image, holes filled, a path through noise. The
fourth needs a conditional model: each image under another condition. The fifth makes images: a
folder of them with a table, each with its label where the model knows labels, which the folder
source reads back.

Every file is checked as in training. The first's output folder gets `latents.csv` (one row per
image: its file, the error of its reconstruction, its latent), `reconstructions/` (the denoised
images where the run is a denoiser), `map.png`, and what else is asked for.
"""

import argparse
import sys
from pathlib import Path

import config

TABLES = ("csv", "parquet")
METHODS = ("mean", "fisher", "logistic")
WAYS = {  # to call it, and the options that mean something there
    "FOLDER": (
        *("out", "table", "direction", "strength"),
        *("between", "frames", "path", "skip_bad_files"),
        *("change", "known", "vary", "holes", "draws"),
        *("seed", "prior", "condition", "guidance", "evaluations"),
    ),
    "--to": ("to", "direction", "address"),
    "--generate": ("to", "label", "seed", "prior", "condition", "guidance", "evaluations"),
    "--find": ("method", "adjust"),
}
OF_A_FLOW = ("vary", "holes", "between")
USED_BY = {  # options of other options, of a folder
    "known": ("change",),
    "strength": ("direction",),
    "frames": ("between",),
    "path": ("between",),
    "draws": ("vary", "holes"),
    **dict.fromkeys(("seed", "prior", "condition", "guidance", "evaluations"), OF_A_FLOW),
}


def parsed(words=None):
    """The arguments of the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("folder", type=Path, nargs="?", help="folder of images")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/applied")
    parser.add_argument("--table", choices=TABLES, default="csv")
    parser.add_argument(
        "--direction",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a file from Direction.save; with --to several are allowed, and those in "
        "RUN/directions are always used",
    )
    parser.add_argument("--strength", type=float, default=2.0, help="in standard deviations")
    parser.add_argument(
        "--between", nargs=2, metavar=("A", "B"), help="interpolate between two files of the folder"
    )
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--path", choices=("lerp", "slerp", "data", "noise"), default="slerp")
    parser.add_argument(
        "--vary",
        type=float,
        metavar="STRENGTH",
        help="variations of every image: 0 leaves it, 1 draws anew",
    )
    parser.add_argument(
        "--holes",
        type=Path,
        metavar="MASKS",
        help="fill holes, the pixels above 0 of a mask: one file for all images, or a folder with "
        "masks of the images' names",
    )
    parser.add_argument(
        "--change",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="every image under another condition; +10 or -10 is added to its own",
    )
    parser.add_argument(
        "--known",
        type=Path,
        metavar="TABLE",
        help="CSV with the images' own conditions and their names in a column file; without it "
        "they count as missing",
    )
    parser.add_argument("--draws", type=int, default=4, help="of --vary and --holes; default: 4")
    parser.add_argument("--skip-bad-files", action="store_true", help="rather than stop")
    parser.add_argument(
        "--generate", type=int, metavar="N", help="generate this many images instead"
    )
    parser.add_argument(
        "--to", type=Path, help="output: a .parquet file for an archive, a folder for --generate"
    )
    parser.add_argument(
        "--find",
        metavar="LABEL",
        help="find the direction of a column of the run's images (Hernia) or of a comparison "
        "(digit==3, age>60), with the evidence for it",
    )
    parser.add_argument("--method", choices=METHODS, default="fisher", help="default: fisher")
    parser.add_argument(
        "--adjust", nargs="+", default=[], metavar="COLUMN", help="columns to adjust for"
    )
    parser.add_argument("--address", help="of a Ray cluster, or local; default: no Ray")
    parser.add_argument("--label", help="generate this class only: its name, or its number")
    parser.add_argument(
        "--prior", metavar="NAME", help="of the run; default: its own; normal: N(0, I)"
    )
    parser.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="of a prior that was fitted with it, or of a conditional model",
    )
    parser.add_argument(
        "--guidance",
        type=float,
        help="of a flow prior with a condition: above 1 more typical images, and less varied ones",
    )
    parser.add_argument(
        "--evaluations", type=int, help="of a flow prior's network, for each draw; default: 32"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is generated")
    arguments = parser.parse_args(words)
    chosen = [arguments.folder, arguments.generate, arguments.find]
    if sum(each is not None for each in chosen) != 1:
        parser.error("give a FOLDER of images, or --generate N, or --find LABEL")
    way = "--to" if arguments.to else "FOLDER"
    if arguments.folder is None:
        way = "--find" if arguments.find is not None else "--generate"
    for name in sum(WAYS.values(), ()):
        if name not in WAYS[way] and getattr(arguments, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} cannot be used with {way}")
    if way == "FOLDER":
        for name, uses in USED_BY.items():
            given = getattr(arguments, name) != parser.get_default(name)
            if given and not any(getattr(arguments, each) not in (None, []) for each in uses):
                among = ", ".join(f"--{each}" for each in uses)
                parser.error(f"--{name} is an option of {among}; give both")
    for name, least in {"draws": 1, "frames": 2, "evaluations": 2}.items():
        value = getattr(arguments, name)
        if value is not None and value < least:
            parser.error(f"--{name} {value}: give {least} or more")
    if arguments.vary is not None and not 0.0 <= arguments.vary <= 1.0:
        parser.error(f"--vary {arguments.vary:g}: give a number from 0 to 1")
    return arguments


if __name__ == "__main__":
    parsed()  # help and errors come before TensorFlow, whose import takes seconds
    config.import_quietly()


import dataclasses
from functools import partial

import numpy as np
import pandas as pd

import archive
import config
import data
import train
from analysis import (
    anomaly,
    counterfactual,
    directions,
    evidence,
    filling,
    folders,
    latent,
    plots,
    reconstruction,
)
from families import flow_matching, priors
from nn.batches import in_batches
from sources import decoding, files, masks
from storage import checkpoints, disk, runs

THUMBNAILS = 2000  # at most, on a map
FLAT = 1e-3  # added to the variance of an image, so that flat ones have a score
STRENGTHS = (-4, -2, 0, 2, 4)  # of a sweep, in standard deviations
SWEPT = 6  # images in it
SHOWN = 8  # images in a figure of draws
NO_DIRECTIONS = (
    "whose decoder needs a class in addition to the latent: directions and interpolations are not "
    "available. Use a VAE or a SemiSupervisedVAE for these"
)


def load_images(run, folder, on_bad_file="stop"):
    """All images of a folder in the shape that a run was trained on.

    Args:
        run: Run folder.
        folder: With images of any kind that `files` reads, nested or not.
        on_bad_file: `"stop"` with a list of names and reasons, or `"skip"`.

    Returns:
        `(images, table)`, as from `data.of_folder`.

    Raises:
        ValueError: if there is nothing to read, or something that cannot be read.
    """
    split = data.of_folder(run, folder, on_bad_file=on_bad_file)
    return split.images, split.table


def encode(model, images, table, mixture=None):
    """Latents of images, and the error of each reconstruction.

    Args:
        model: A trained model.
        images: uint8, shape `(n, height, width, channels)`.
        table: One row per image, from `load_images`.
        mixture: `densities.Mixture` fitted on the model's latents (`mixture_of`), or None.

    Returns:
        `(latents, reconstructions)`: a table of n rows with `file`, `slice`, `error` (mean squared
        error in squared grey levels), `ssim`, `unexplained` (the error in units of the image's own
        variance, high for outliers: of flat images the error alone may be small), with a mixture
        `unfamiliar` (`anomaly.unfamiliarity`, in nats), and `z_0`, `z_1`, ...; and floats in
        [0, 1], shape as the images'.
    """
    z_mean, _, made = in_batches(model.describe, images, batch_size=128)
    pixels = np.asarray(images[:]) / np.float32(255)
    like = reconstruction.likeness(pixels, made)
    known = table[["file", "slice"]].reset_index(drop=True)
    known = known.assign(error=like["mse"], ssim=like["ssim"])
    known["unexplained"] = like["mse"] / (pixels.var(axis=(1, 2, 3)) + FLAT)
    if mixture is not None:
        known["unfamiliar"] = anomaly.unfamiliarity(z_mean, mixture)
    axes = pd.DataFrame(z_mean, columns=[f"z_{axis}" for axis in range(z_mean.shape[1])])
    return pd.concat([known, axes], axis=1), made


def mixture_of(run):
    """The run's own prior if it is a mixture of several Gaussians, or None."""
    try:
        prior = priors.of_run(run)
    except ValueError as error:
        print(f"no column unfamiliar: {error}")
        return None
    return prior if prior is not None and prior.clustered else None


def coordinates(latents) -> np.ndarray:
    """The latent columns of a table, from `encode` or of an archive; float32 `(n, latent_dim)`."""
    if "z_mean" in latents:  # of an archive of latent maps
        return np.stack(latents["z_mean"]).astype(np.float32)
    return latents.filter(regex=r"^z_(mean_)?\d+$").to_numpy(np.float32)


def between(model, latents, start, end, frames=60, kind="slerp", flow=None, **options):
    """Images of the interpolation from one file to another.

    Args:
        model: A trained model.
        latents: From `encode`.
        start, end: Names in its column `file`.
        frames: Images on the path, both ends included.
        kind: `"lerp"`, `"slerp"`, `"data"`: over the folder's own images, or `"noise"`: the slerp
            of the noises that a flow carries to the two latents.
        flow, **options: For `"noise"`, a `flow_matching.Flow` and options of its draws.

    Returns:
        Floats in [0, 1], shape `(frames, height, width, channels)`.
    """
    z, rows = coordinates(latents), []
    for name in (start, end):
        found = np.flatnonzero(latents["file"] == name)
        if not len(found):
            some = ", ".join(latents["file"].head(3))
            raise ValueError(f"there is no file {name!r}; the folder has {some}, ...")
        rows.append(found[0])
    if kind == "data":
        path = latent.along(z[latent.through_data(z, *rows)], frames)
    elif kind == "noise":
        path = flow.of_noise(latent.slerp(*flow.noise_of(z[rows], **options), frames), **options)
    else:
        path = {"lerp": latent.lerp, "slerp": latent.slerp}[kind](z[rows[0]], z[rows[1]], frames)
    return in_batches(model.decode, path.astype(np.float32), batch_size=128)


def flow_of(run, arguments):
    """The run's flow prior, or the one named, and the options of its draws."""
    own = runs.own_prior(run) or ""
    if arguments.prior is None and not own.startswith(flow_matching.Flow.kind):
        arguments.prior = flow_matching.Flow.kind
    asked = train.prior_of(run, arguments)
    known = isinstance(asked, priors.Asked)
    flow, options = (asked.prior, asked.options) if known else (asked, {})
    if not isinstance(flow, flow_matching.Flow):
        raise ValueError(
            f"--vary, --holes and --path noise need a flow prior, {arguments.prior} is none; fit "
            f"one: python prior.py {run} --kind flow"
        )
    return flow, options


def read_holes(run, folder, path, table):
    """The holes of images: booleans `(n, height, width)`, True where a mask is above 0.

    Args:
        run, folder: As for `load_images`.
        path: A mask, for all images; or a folder with masks of the images' names, where an image
            without a mask has no hole.
        table: From `load_images`.
    """
    reading, folder = archive.reading_of(run), Path(folder)
    if not path.is_file():
        return masks.gather(path, folder, table, reading, config.CACHE_DIR, "--holes")[..., 0] > 0
    for name in table["file"].unique():
        ours, theirs = decoding.size(folder / name), decoding.size(path)
        if ours != theirs:
            raise ValueError(f"--holes: {path} has {theirs} pixels, and the image {name} {ours}")
    reading = dataclasses.replace(reading, mask=True, image_shape=(*reading.image_shape[:2], 1))
    hole, _ = files.gather(path.parent, [path.name], reading, config.CACHE_DIR)
    return np.broadcast_to(hole[:1, ..., 0] > 0, (len(table), *hole.shape[1:3]))


def known_conditions(model, table, path=None):
    """The conditions of images: a table of their rows, in their order.

    Args:
        model: A conditional model.
        table: From `load_images`.
        path: CSV with a column `file` and the conditions; None: all are missing.
    """
    names = model.conditions.names
    if path is None:
        return pd.DataFrame({name: [None] * len(table) for name in names}, dtype=object)
    # As in training only an empty cell is missing: "NA" may be a category.
    rows = data.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    if "file" not in rows:
        raise ValueError(f"--known {path}: there is no column 'file'")
    if not set(names) & set(rows):
        raise ValueError(f"--known {path}: there is no column of {', '.join(names)}")
    rows = rows.reindex(columns=["file", *names])
    if rows["file"].duplicated().any():
        twice = rows["file"][rows["file"].duplicated()].iloc[0]
        raise ValueError(f"--known {path}: {twice} has several rows")
    found = table[["file"]].merge(rows, on="file", how="left")
    unknown = ~table["file"].isin(rows["file"])
    if unknown.any():
        print(f"{path}: {unknown.sum()} of {len(table)} images have no row; theirs are missing")
    return found[names]


def under_change(model, images, table, arguments):
    """Images under other conditions: `(kept, made)`, see `counterfactual.decoded`."""
    if model.conditions is None:
        raise ValueError(
            f"--change needs a conditional model, and the run's is a {type(model).__name__}: train "
            "with --model ConditionalVAE --set conditions=COLUMN"
        )
    changes = dict(map(train.parse_change, arguments.change))
    known = known_conditions(model, table, arguments.known)
    labels = runs.labels_of(arguments.run)
    if labels.column in known:
        code = partial(labels.coded, labels.column)
        known[labels.column] = known[labels.column].map(code, "ignore")
    for name, value in changes.items():
        if str(value)[0] not in "+-":
            changes[name] = labels.coded(name, value)
    both = known, counterfactual.changed(known, changes)
    return counterfactual.decoded(model, images, *map(model.conditions, both))


def drawn_anew(model, images, latents, arguments, flow, options, holes=None):
    """Draws of a flow for each image: a dictionary of names to a list of arrays."""
    seeds, made = [arguments.seed + draw for draw in range(arguments.draws)], {}
    if arguments.vary is not None:
        z = coordinates(latents)
        varied = (flow.varied(z, arguments.vary, seed, **options) for seed in seeds)
        made["variations"] = [in_batches(model.decode, each) for each in varied]
    if holes is not None:
        floats = np.asarray(images[:]) / np.float32(255)
        made["filled"] = [
            filling.filled(model, flow, floats, holes, seed, **options) for seed in seeds
        ]
    return made


def write(run, folder, out, arguments):
    """Everything that the command line asks for."""
    if len(arguments.direction) > 1:
        raise ValueError("--direction: one at a time, unless for a table (--to)")
    model, direction = train.load(run), None
    if not model.has_latent:
        raise ValueError(
            f"{run}: a {type(model).__name__} has no latent; see python anomaly.py {run} {folder}"
        )
    if Path(out).resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(f"--out: {out} lies in {folder} and would be read as images; move it")
    for path in arguments.direction:
        weights = checkpoints.digest_of(run)
        direction = directions.Direction.load(path, model.latent_dim, weights)
    if model.needs_class and (direction is not None or arguments.between is not None):
        raise ValueError(f"{run} is an M2, {NO_DIRECTIONS}")
    images, table = load_images(run, folder, "skip" if arguments.skip_bad_files else "stop")
    flow, options, holes = None, {}, None
    if arguments.holes or arguments.vary is not None or arguments.path == "noise":
        flow, options = flow_of(run, arguments)
    if arguments.holes:
        holes = read_holes(run, folder, arguments.holes, table)
    latents, made = encode(model, images, table, mixture_of(run))
    draws = (
        {} if flow is None else drawn_anew(model, images, latents, arguments, flow, options, holes)
    )
    change = under_change(model, images, table, arguments) if arguments.change else None
    frames = None
    if arguments.between is not None:
        path = (arguments.frames, arguments.path, flow)
        frames = between(model, latents, *arguments.between, *path, **options)
    out.mkdir(parents=True, exist_ok=True)
    if direction is not None:
        place = latents.columns.get_loc("z_0")
        along = direction.project(coordinates(latents))
        latents.insert(place, f"along {direction.name}", along)
        moved = directions.sweep(
            model.decode, coordinates(latents), direction, [arguments.strength]
        )[0]
        name = disk.file_name(direction.name)
        folders.save_images(moved, table, out / f"{name}_{arguments.strength:g}")
    folders.save_table(latents, out / f"latents.{arguments.table}")
    folders.save_images(made, table, out / "reconstructions")
    for name, sets in draws.items():
        for number, pictures in enumerate(sets):
            folders.save_images(pictures, table, out / name / f"{number + 1}")
        first = {"image": images[:SHOWN], "reconstruction": made[:SHOWN]}
        first |= {f"draw {number + 1}": each[:SHOWN] for number, each in enumerate(sets)}
        plots.save(plots.image_rows(first), out / f"{name}.png")
    if change is not None:
        kept, other = change
        whole = counterfactual.added(images, kept, other)
        folders.save_images(whole, table, out / "changed")
        title = ", ".join(arguments.change)
        rows = {"image": images, "changed": whole, "change": plots.coloured(other - kept)}
        first = {name: each[:SHOWN] for name, each in rows.items()}
        plots.save(plots.image_rows(first, title=title), out / "changed.png")
    if len(latents) > 2 and model.latent_dim > 1:
        shown = np.linspace(0, len(latents) - 1, min(len(latents), THUMBNAILS)).astype(int)
        points, share = latent.plane(coordinates(latents))
        title = (
            f"{len(shown)} of {len(latents)} images by their latents ({share:.0%} of the variance)"
        )
        plots.save(plots.thumbnails(points[shown], images[shown], title=title), out / "map.png")
    if frames is not None:
        plots.save_gif(frames, out / "between.gif", scale=None)
    print(f"{len(latents)} images of {folder}, written to {out}")
    if "unfamiliar" in latents:
        print(f"least familiar latents (nats): {highest(latents, 'unfamiliar', '.1f')}")
    listed = highest(latents, "unexplained", ".3f")
    print(f"least like their reconstructions (error over variance): {listed}")


def highest(latents, column, form) -> str:
    """The three files where a column is highest, in words."""
    first = latents.nlargest(3, column)
    return ", ".join(
        f"{name} {value:{form}}" for name, value in zip(first["file"], first[column], strict=True)
    )


def keep(run, folder, arguments):
    """`--to`: the table of an archive."""
    if arguments.to.suffix != ".parquet":
        raise ValueError(f"--to {arguments.to}: name a file that ends in .parquet")
    saved = sorted((run / "directions").glob("*.json"))
    chosen = tuple(str(path) for path in [*saved, *arguments.direction])
    task = archive.Task(str(run), str(folder), chosen)
    rows, bad = archive.encode(task, arguments.to, arguments.address)
    print(f"{rows} images of {folder}, written to {arguments.to}")
    if len(bad):
        print(f"left out {len(bad)} files, listed in a .bad.csv file next to it:")
        print(bad.head(files.NAMED).to_string(index=False, header=False))


def make(run, arguments):
    """`--generate`: images by the run's model, with their labels."""
    model, folder = train.load(run), arguments.to or run / "generated"
    if arguments.label is not None and not model.uses_labels:
        raise ValueError(f"--label: the model of {run} does not learn from labels")
    if arguments.generate < 1:
        raise ValueError(f"--generate {arguments.generate}: ask for at least one image")
    labels = runs.labels_of(run)
    options = {"classes": labels.classes if model.uses_labels else ()}
    if arguments.label is not None:
        code = labels.coded(labels.column, arguments.label)
        if not str(code).isdigit():
            raise ValueError(f"--label {code}: give the number of a class, from 0")
        options["label"] = int(code)
    prior = train.prior_of(run, arguments, model)
    options |= {"seed": arguments.seed, "prior": prior}
    table = folders.generate(model, arguments.generate, folder, **options)
    normal = prior is None or prior.kind == priors.NORMAL
    name = "N(0, I)" if normal else f"the run's prior {arguments.prior or prior.kind}"
    print(f"{len(table)} images of {name} written to {folder}")
    if "label" in table:
        counts = table["label"].value_counts().sort_index()
        print("labels: " + ", ".join(f"{label}: {count}" for label, count in counts.items()))


def find(run, label, method="fisher", adjust=()):
    """Finds the direction of a label, with the evidence for it, and draws what it does.

    The direction is fitted on the training subjects, and tested on the test subjects
    (`evidence.confirm`).

    Args:
        run: Run folder.
        label: See `directions.labelled`.
        method: One of `directions.METHODS`.
        adjust: Columns of the table to adjust for.

    Returns:
        `(direction, evidence)`; saved in `RUN/directions/` and, as figures, in
        `RUN/directions/LABEL/`.

    Raises:
        ValueError: if a split has too few images with or without the label, or the model's latent
            has no directions.
    """
    model, images = train.load(run), data.images_of(run)
    if model.needs_class:
        raise ValueError(f"{run} is an M2, {NO_DIRECTIONS}")
    found = {}
    for name in ("train", "test"):
        split = images.splits[name]
        has = directions.labelled(_named(split.table, images, label), label)
        known = split.only(has.notna().to_numpy())
        table = known.table.assign(**{label: has.dropna().to_numpy(bool)})
        if table[label].nunique() < 2:
            count = int(table[label].sum())
            raise ValueError(
                f"--find {label}: {count} of {len(table)} {name} images have it; a direction needs "
                "images with it and without"
            )
        found[name] = latent.encode(model, known)[0], table
    z, table = found["train"]
    source = f"{Path(run).name}: {len(table)} training images of {images.name}"
    direction = directions.Direction.of(z, table, label, method, adjust, source)
    sides = [
        (
            z,
            table[label].to_numpy(bool),
            table["subject"].to_numpy(),
            directions.design(table, adjust),
        )
        for z, table in found.values()
    ]
    seen = evidence.confirm(direction, *sides)
    z, has = sides[1][:2]
    name = disk.file_name(label)
    folder = Path(run) / "directions"
    weights = checkpoints.digest_of(run)
    direction.save(folder / f"{name}.json", weights)
    without = np.flatnonzero(~has)
    rows = without[:: max(1, len(without) // SWEPT)][:SWEPT]
    moved = np.asarray(directions.sweep(model.decode, z[rows], direction, STRENGTHS))
    heads = [f"{strength:+g}" if strength else "0" for strength in STRENGTHS]
    title = f"test images moved along {label}, in standard deviations"
    sheet = {f"{number + 1}": moved[:, number] for number in range(len(rows))}
    plots.save(plots.image_rows(sheet, heads=heads, title=title), folder / name / "sweep.png")
    changes = plots.difference_maps(moved[:, 0], heads)
    plots.save(changes, folder / name / "differences.png")
    return direction, seen


def _named(table, images, text):
    """The table with the names of the classes for their numbers, if a comparison asks for them."""
    label, names = images.label, images.classes
    if label is None or not names or not set(text) & set("=<>"):
        return table
    if not pd.api.types.is_integer_dtype(table[label]):
        return table
    numbers = pd.to_numeric(pd.Series(names), errors="coerce")
    names = names if numbers.isna().any() else numbers
    return table.assign(**{label: table[label].map(dict(enumerate(names)))})


def main(words=None):
    arguments = parsed(words)
    try:
        if arguments.generate is not None:
            make(arguments.run, arguments)
            return
        if arguments.find is not None:
            direction, seen = find(
                arguments.run, arguments.find, arguments.method, arguments.adjust
            )
            print(f"{direction.name}, on the test subjects: {seen}")
            folder = arguments.run / "directions"
            name = disk.file_name(direction.name)
            print(f"Saved: {folder / name}.json; figures in {folder / name}")
            return
        if arguments.to is not None:
            keep(arguments.run, arguments.folder, arguments)
            return
        out = arguments.out or arguments.run / "applied"
        write(arguments.run, arguments.folder, out, arguments)
    except KeyboardInterrupt:
        print("\napply.py: stopped; --to is resumed by the same command", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"apply.py: {error}")


if __name__ == "__main__":
    main()

"""Maps of what is abnormal in images, and alarms whose false rate holds for new subjects.

    python anomaly.py RUN [FOLDER] [--masks FOLDER] [--alarm 0.05] --out OUT

Without a FOLDER the run's own test images are looked at. OUT gets a table per image and per
subject, an overlay of every image on one fixed scale, a figure of the most abnormal ones, and,
where there are masks, a table of measures with simple baselines beside the model's score. Maps are
kept in OUT, so that a run that was interrupted goes on.

Alarms are set on validation subjects that choose nothing else. Images unlike the training images
(another scanner, inverted grey levels) are refused: they get maps, but no alarms.
"""

import argparse
import sys
from pathlib import Path

import config

# Those that cost one reconstruction; the best on validation subjects is the default.
CHEAP = ("signed", "absolute", "squared", "ssim", "signed-surprise", "absolute-surprise")
SCORES = (*CHEAP, "gradient", "restoration", "flow")
# Of coarse noise, over which a denoiser is averaged; and its strength in units of that in training,
# chosen on validation patients (FLAIR slices): without noise large lesions are not taken out.
DRAWS, STRENGTH = 4, 1.4


def parsed(words=None):
    """The arguments of the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("folder", type=Path, nargs="?", help="of images; default: the test images")
    parser.add_argument("--masks", type=Path, metavar="FOLDER", help="of lesions, by image name")
    parser.add_argument(
        "--alarm",
        type=float,
        default=0.05,
        metavar="RATE",
        help="nominal rate of false alarms per subject, default: 0.05; 0: maps alone",
    )
    parser.add_argument(
        "--score",
        choices=SCORES,
        help=f"default: of {', '.join(CHEAP)} the best on validation subjects with masks; without "
        "masks: absolute",
    )
    parser.add_argument("--z", action="store_true", help="in standard deviations of healthy maps")
    parser.add_argument(
        "--margin",
        type=int,
        metavar="PIXELS",
        help="at the head's edge that are left out; default: the whole image counts",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="OUT")
    parser.add_argument("--skip-bad-files", action="store_true", help="rather than stop")
    arguments = parser.parse_args(words)
    if arguments.masks and not arguments.folder:
        parser.error("--masks belongs to a FOLDER; the run's own images have their own masks")
    if not 0.0 <= arguments.alarm < 1.0:
        parser.error("--alarm: a rate from 0 to below 1")
    if arguments.margin is not None and arguments.margin < 0:
        parser.error("--margin: pixels are counted from 0")
    return arguments


if __name__ == "__main__":
    parsed()  # help and errors come before TensorFlow, whose import takes seconds
    config.import_quietly()

import hashlib
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
import pandas as pd

import data
import train
from analysis import alarms, anomaly, detection, plots
from families import priors
from sources.masks import LESION_PIXELS
from storage import checkpoints, disk, runs

PART = 256  # images whose maps are kept in one file
REMEMBERED = 2**28  # bytes of reconstructions
FEWEST_TO_CHOOSE = 3  # subjects
SHOWN = 8  # images in the figure
LIMIT = 0.999  # quantile of healthy pixels, at half of the scale of all maps


class Looked(NamedTuple):
    """Images of one split or folder, as every score gets them.

    Attributes:
        split: `data.Split`.
        region: Pixels that count, `(n, height, width)`.
        mark: Hash of the images.
    """

    split: data.Split
    region: np.ndarray
    mark: str

    @classmethod
    def of(cls, split, margin):
        images = np.asarray(split.images[:]) / np.float32(255)
        mark = hashlib.sha256("".join(split.hashes()).encode()).hexdigest()
        return cls(split, anomaly.regions(images, margin), mark)

    @property
    def subjects(self):
        return self.split.table["subject"].astype(str).to_numpy()

    @property
    def ill(self):
        """Whether each image has a lesion; nobody, without masks."""
        if self.split.masks is None:
            return np.zeros(len(self.split), bool)
        return (self.split.table[LESION_PIXELS] > 0).to_numpy()

    def only(self, rows):
        mark = hashlib.sha256(f"{self.mark} {rows.tolist()}".encode()).hexdigest()
        return Looked(self.split.only(rows), self.region[rows], mark)


def scores_of(model, run) -> dict:
    """The scores that a model has, of those in `SCORES`.

    Args:
        model: A trained model.
        run: Its folder, for its flow prior.

    Returns:
        Dictionary of names to functions from images, floats in [0, 1], to maps.
    """
    noise = noise_of(model)
    sure = getattr(model, "gives_spread", False)
    network = model.expected if sure else model.reconstruct
    expected = remembered(partial(anomaly.denoised, network, noise=noise))

    def made(images):
        return expected(images)[..., : model.image_shape[-1]]

    found = {
        kind: lambda images, kind=kind: anomaly.residual(images, made(images), kind)
        for kind in anomaly.RESIDUALS
    }
    found["ssim"] = lambda images: anomaly.ssim_residual(images, made(images))
    if sure:
        for kind in ("signed", "absolute"):
            found[f"{kind}-surprise"] = lambda images, kind=kind: anomaly.surprise(
                images, expected(images), kind
            )
    if getattr(model, "stochastic", False) and not model.needs_class:
        bound = anomaly.bound_of(model)
        found["gradient"] = lambda images: anomaly.gradient(bound, images)
        found["restoration"] = lambda images: anomaly.residual(
            images, anomaly.restored(bound, images)
        )
    if model.has_latent and model.latent_map and (runs.prior_folder(run, "flow")).is_dir():
        flow = priors.of_run(run, "flow")
        found["flow"] = lambda images: anomaly.residual(images, anomaly.flowed(model, flow, images))
    return found


def noise_of(model):
    """The coarse noise that a denoiser's scores are averaged over; None for other models."""
    if model.has_latent or model.corrupt != "coarse":
        return None
    level = STRENGTH * model.corrupt_level
    return anomaly.coarse_noise(level, DRAWS, knots=model.corrupt_knots)


def remembered(function, most=REMEMBERED):
    """A function of arrays that computes nothing twice: several scores share reconstructions.

    Args:
        function: From an array to an array.
        most: Bytes of results that are remembered; what is beyond is computed again.
    """
    known, held = {}, [0]

    def called(array):
        key = hashlib.sha256(np.ascontiguousarray(array)).digest()
        if key in known:
            return known[key]
        made = function(array)
        if held[0] + made.nbytes <= most:
            known[key], held[0] = made, held[0] + made.nbytes
        return made

    return called


class Maps:
    """Maps of images by any score, kept on disk part by part.

    Args:
        folder: That they are kept in.
        mark: What the scores depend on beside the images.
        told: Whether to show how far long ones are.
    """

    def __init__(self, folder, mark, told=False):
        self.folder, self.mark, self.told = Path(folder), mark, told
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name, score, looked):
        """Maps `(n, height, width)`, median-filtered, 0 where pixels do not count.

        Args:
            name: Of the score; with the mark it must say which function it is.
            score: Function from images to maps.
            looked: `Looked`.
        """
        key = hashlib.sha256(f"{self.mark} {name} {looked.mark}".encode()).hexdigest()[:16]
        made, images = [], looked.split.images
        bar = keras.utils.Progbar(
            len(images), unit_name="image", verbose=self.told and len(images) > PART
        )
        for first in range(0, len(images), PART):
            path, rows = self.folder / f"{key}-{first}.npy", slice(first, first + PART)
            region = looked.region[rows]
            part = self._read(path, region.shape)
            if part is None:
                pixels = np.asarray(images[rows]) / np.float32(255)
                part = anomaly.smoothed(score(pixels), region)
                with disk.replacing(path) as temporary, open(temporary, "wb") as file:
                    np.save(file, part)
            made.append(part)
            bar.update(min(len(images), first + PART))
        return np.concatenate(made)

    def _read(self, path, shape):
        try:
            part = np.load(path)
        except (OSError, ValueError, EOFError):
            return None
        return part if part.shape == shape else None


# --- who calibrates ------------------------------------------------------------------------------


def divided(looked, rate):
    """Validation images that choose, and images of other subjects that calibrate.

    Subjects without a lesion calibrate, the others choose. Where there are too few of those, half
    of all subjects give their lesion-free images to calibrate.

    Args:
        looked: `Looked` of the validation images.
        rate: Of false alarms.

    Returns:
        `(choosing, calibrating, healthy)`: two `Looked`, the first None where nothing can be
        chosen; and what the calibrating subjects are, in words.

    Raises:
        ValueError: if there are too few subjects for the rate.
    """
    subjects, ill = looked.subjects, looked.ill
    names = sorted(set(subjects), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    sick = set(subjects[ill])
    healthy = [name for name in names if name not in sick]
    needed = alarms.fewest(rate) if rate else 1
    if len(healthy) >= needed:
        rows, what = np.isin(subjects, healthy), "healthy subjects"
    else:
        healthy = names[: max(needed, len(names) // 2)]
        rows = np.isin(subjects, healthy) & ~ill
        what = "subjects with a lesion elsewhere, by their lesion-free images alone"
    count = len(set(subjects[rows]))
    if count < needed:
        raise ValueError(
            f"{count} validation subjects can calibrate, and {needed} are needed for false alarms "
            f"at {rate:.2%}: give more of them, a higher --alarm, or --alarm 0 for maps alone"
        )
    others = ~np.isin(subjects, healthy)
    choosing = looked.only(np.flatnonzero(others)) if (others & ill).any() else None
    if choosing is not None and len(set(choosing.subjects)) < FEWEST_TO_CHOOSE:
        choosing = None
    return choosing, looked.only(np.flatnonzero(rows)), what


def chosen(scores, maps, looked):
    """Name of the score with the best average precision, on images that choose."""
    found = {
        name: float(
            detection.average_precision(
                detection.Counts.of(maps(name, score, looked), looked.split.masks, looked.subjects)
            )
        )
        for name, score in scores.items()
    }
    for name, value in found.items():
        print(f"  {name}: average precision {value:.3f} on validation subjects that choose")
    return max(found, key=found.get)


def measures(scores, maps, looked, choosing) -> pd.DataFrame:
    """One row for each score, every number with its interval.

    Args:
        scores: Dictionary of names to functions.
        maps: `Maps`.
        looked: `Looked` with masks.
        choosing: Images that choose the pixel threshold, or None.
    """
    rows = []
    for name, score in scores.items():
        found, threshold = maps(name, score, looked), None
        if choosing is not None:
            known = maps(name, score, choosing)
            counts = detection.Counts.of(known, choosing.split.masks, choosing.subjects)
            threshold = float(detection.best_dice(counts)[1])
        masks, subjects = looked.split.masks, looked.subjects
        told = detection.measured(found, anomaly.of_images(found), masks, subjects, threshold)
        row = {"score": name}
        for key, each in told.items():
            row |= {key: each.value, f"{key}_low": each.low, f"{key}_high": each.high}
        rows.append(row)
    return pd.DataFrame(rows)


# --- what is written -----------------------------------------------------------------------------


def overlay(image, scores, limit):
    """An image in grey with its map in red, from 0 to `limit`; floats `(height, width, 3)`."""
    grey = np.repeat(np.asarray(image, np.float32).mean(axis=-1, keepdims=True), 3, axis=-1)
    strength = np.clip(scores / limit, 0.0, 1.0)[..., None]
    return grey * (1.0 - 0.8 * strength) + 0.8 * strength * np.array([1.0, 0.15, 0.05])


def write(arguments):
    """Everything that the command line asks for."""
    run, out, rate = arguments.run, arguments.out, arguments.alarm
    model = train.load(run)
    images = data.images_of(run)
    moved = runs.changed(run, images)
    if moved:
        raise ValueError(
            f"the images of {run} are not those that it was trained on ({moved}); put them back, "
            "or set their path in config.py"
        )
    margin = arguments.margin
    choosing, calibrating, healthy = divided(Looked.of(images.validation, margin), rate)
    if arguments.folder is None:
        looked, whose = Looked.of(images.test, margin), "the run's test images"
    else:
        bad = "skip" if arguments.skip_bad_files else "stop"
        split = data.of_folder(run, arguments.folder, arguments.masks, bad)
        looked, whose = Looked.of(split, margin), str(arguments.folder)

    weights = checkpoints.digest_of(run)
    maps = Maps(out / "maps", f"{weights} {margin} {DRAWS} {STRENGTH}", told=True)
    own = scores_of(model, run)
    name = arguments.score
    if name is None:
        cheap = {each: own[each] for each in CHEAP if each in own}
        name = "absolute" if choosing is None else chosen(cheap, maps, choosing)
    elif name not in own:
        raise ValueError(
            f"--score {name}: {run} cannot be scored so; it has {', '.join(own)} (gradient and "
            "restoration need a VAE, flow a latent map with a flow prior, surprise a Denoiser with "
            'reconstruction="pixel-gaussian")'
        )
    score = own[name]
    if arguments.z:
        if choosing is None or not (~choosing.ill).sum() > 1:
            raise ValueError("--z needs validation subjects that do not calibrate; there are none")
        usual = anomaly.Usual.of(maps(name, score, choosing.only(np.flatnonzero(~choosing.ill))))
        plain, name = score, f"{name} z"
        own[name] = score = lambda pixels: usual.z(plain(pixels))
    print(f"Score: {name}. Maps of {len(looked.split)} images of {whose}")
    found, known = maps(name, score, looked), maps(name, score, calibrating)
    of_images = anomaly.of_images(found)
    calibration = detection.of_subjects(anomaly.of_images(known), calibrating.subjects)
    for each in (looked, calibrating):
        if not each.region.any():
            raise ValueError(
                "no pixel is left inside the margin of the images' regions; give a smaller --margin"
            )
    limit = 2.0 * max(1e-6, float(np.quantile(known[calibrating.region], LIMIT)))

    kind = alarms.Kind(images.train.images[:].mean(axis=0) / 255.0)
    reason, alarm = "", None
    if rate:
        reason = alarms.unlike(numbers(kind, calibrating, known), numbers(kind, looked, found))
        alarm = alarms.Alarm.of(calibration, rate)
        print(
            f"Alarm: above {alarm.threshold:.4g}, set on {alarm.subjects} {healthy}, for false "
            f"alarms in {rate:.1%} of such subjects"
        )
        if reason:
            print(f"No alarms. These images are unlike the training images: {reason}")
            alarm = None
    subjects = tables(out, looked, of_images, calibration, alarm)
    if alarm is not None:
        told = alarms.by_group(
            subjects[~subjects["lesion"]], subjects["alarm"][~subjects["lesion"]]
        )
        save(told, out / "false_alarms.csv")
        print(f"{int(subjects['alarm'].sum())} of {len(subjects)} subjects are alarmed")
    pictures(out, looked, found, limit, own, model, name)
    groups = {f"calibration: {healthy}": calibration.to_numpy()}
    for each, mark in (("with a lesion", True), ("without", False)):
        values = subjects["score"][subjects["lesion"] == mark].to_numpy()
        if len(values):
            groups[each if looked.split.masks is not None else "new"] = values
    curves = None
    if looked.ill.any():
        base = anomaly.Baselines(images.train.images[:])
        kind_of = "signed" if name.startswith("signed") else "absolute"
        others = {  # by these names their maps are kept
            each if each == "brightness" else f"{each}, {kind_of}": function
            for each, function in base.scores(kind_of).items()
        }
        table = measures({name: score} | others, maps, looked, choosing)
        save(table, out / "measures.csv")
        shown = table[["score", *(each for each in table if each.count("_") == 1)]]
        print(shown.round(3).to_string(index=False))
        beaten(name, others, maps, looked, found)
        curves = {name: of_images} | {
            each: anomaly.of_images(maps(each, function, looked))
            for each, function in others.items()
        }
        curves = {each: (values, looked.ill) for each, values in curves.items()}
    plots.save(
        plots.alarm(groups, curves, None if alarm is None else alarm.threshold), out / "alarm.png"
    )
    disk.write_json(
        out / "alarm.json",
        {
            "score": name,
            "rate": rate,
            "threshold": None if alarm is None else alarm.threshold,
            "calibration": {"subjects": len(calibration), "what": healthy},
            "refused": reason,
            "scale": limit,
        },
    )
    print(f"Tables, overlays and figures: {out}")


def numbers(kind, looked, maps):
    """`alarms.Kind` of images."""
    pixels = np.asarray(looked.split.images[:]) / np.float32(255)
    return kind(pixels, maps, looked.subjects)


def beaten(name, others, maps, looked, found):
    """Says which baselines the score beats, by the interval of the difference."""
    lost = []
    for each, function in others.items():
        other = maps(each, function, looked)
        gap = detection.difference(found, other, looked.split.masks, looked.subjects)
        if not gap.low > 0.0:
            lost.append(f"{each} (difference {gap})")
    if lost:
        print(f"{name} is not shown to beat {', '.join(lost)}")
    else:
        print(f"{name} beats every baseline in average precision; all intervals are above 0")


def tables(out, looked, scores, calibration, alarm) -> pd.DataFrame:
    """Writes `images.csv` and `subjects.csv`; returns the latter."""
    names = [each for each in ("file", "slice", "subject") if each in looked.split.table]
    table = looked.split.table[names].assign(score=scores)
    if looked.split.masks is not None:
        table[LESION_PIXELS] = looked.split.table[LESION_PIXELS].to_numpy()
    save(table, out / "images.csv")
    first = looked.split.table.assign(subject=looked.subjects, lesion=looked.ill, score=scores)
    grouped = first.groupby("subject", sort=False)
    known = [each for each in ("age", "sex", "view") if each in first]
    subjects = grouped[known].first() if known else pd.DataFrame(index=grouped.size().index)
    subjects = subjects.assign(
        images=grouped.size(), score=grouped["score"].max(), lesion=grouped["lesion"].any()
    )
    higher = (calibration.to_numpy()[None] >= subjects["score"].to_numpy()[:, None]).sum(axis=1)
    subjects["p"] = (1 + higher) / (1 + len(calibration))
    if alarm is not None:
        subjects["alarm"] = alarm(subjects["score"])
    subjects = subjects.reset_index()
    save(subjects, out / "subjects.csv")
    return subjects


def save(table, path):
    """Writes a table as CSV."""
    with disk.replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")


def pictures(out, looked, maps, limit, scores, model, name):
    """Overlays of all images, and a figure of the most abnormal ones of different subjects."""
    table, masks = looked.split.table, looked.split.masks
    files = disk.file_names([f"{row:05d}-{each}" for row, each in enumerate(table["file"])])
    for row, file in enumerate(files):
        pixels = overlay(looked.split.images[row] / np.float32(255), maps[row], limit)
        path = out / "overlays" / f"{file}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        plots.save_image(pixels, path)
    order = np.argsort(-anomaly.of_images(maps), kind="stable")
    _, first = np.unique(looked.subjects[order], return_index=True)
    rows = order[np.sort(first)][:SHOWN]
    pixels = looked.split.images[rows] / np.float32(255)
    figure = plots.anomalies(
        pixels,
        anomaly.denoised(model.reconstruct, pixels, noise_of(model)),
        maps[rows],
        limit,
        None if masks is None else masks[rows],
        label=name,
    )
    plots.save(figure, out / "most_abnormal.png")


def main(words=None):
    arguments = parsed(words)
    try:
        write(arguments)
    except KeyboardInterrupt:
        print("\nanomaly.py: stopped; the same command goes on from its maps", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(f"anomaly.py: {error}")


if __name__ == "__main__":
    main()

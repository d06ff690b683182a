"""Looks for copies of training images among a run's samples, before anything is shared.

    python audit.py RUN [--prior NAME ...] [--samples N]

Compares samples with the training images and with held-out ones (validation and test), subject by
subject: does the model put its samples where the training subjects are, and not where others are?
Writes `RUN/audit/`: a page `index.html` with the tests, the figures and the most copied subjects,
and these as tables; and adds its numbers to `RUN/metrics.json`.

That nothing is found does not prove that nothing is copied: parts of images, mirrored or moved
copies are not looked for.
"""

import argparse
import sys
from pathlib import Path

import config

SAMPLES = 5000


def parsed(words=None):
    """The arguments of the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument(
        "--prior",
        nargs="+",
        default=["own"],
        metavar="NAME",
        help="samples of these priors of the run; default: own, the one that it got in training; "
        "normal: N(0, I)",
    )
    parser.add_argument(
        "--samples", type=int, default=SAMPLES, metavar="N", help=f"default: {SAMPLES}"
    )
    arguments = parser.parse_args(words)
    if arguments.samples < 1:
        parser.error("--samples: samples are counted from 1")
    return arguments


if __name__ == "__main__":
    parsed()  # help and errors come before TensorFlow, whose import takes seconds
    config.import_quietly()

import html

import numpy as np
import pandas as pd

import data
import evaluate
import train
from analysis import copies, latent, plots, samples
from families import priors
from storage import checkpoints, disk, runs

FOLDER = "audit"
SHOWN = 6  # subjects in the figure
LISTED = 20  # and in the page's table
MARKS = {"flagged": "#b00020", "not flagged": "#1b6e3c", "undecided": "#8a6d00"}
TOLD = 0.6  # share of pairs above which samples are said to give training subjects away


def membership(run, images) -> copies.Known:
    """The images of a run with whether each was trained on, as the run's `split.csv` records it.

    Images are recognised by the digests of their pixels, so that files may have moved, and a split
    may have changed since.

    Args:
        run: Run folder.
        images: `data.ImageData`.

    Raises:
        ValueError: if no training image, or no held-out one, is among them.
    """
    written = runs.written_split(run)
    split_of = written.sort_values("split", key=lambda names: names != "train")
    split_of = split_of.drop_duplicates("digest").set_index("digest")["split"]
    splits, trained, found, unknown = [], [], set(), 0
    for split in images.splits.values():
        places = split_of.reindex(split.hashes())
        rows = places.notna().to_numpy()
        unknown += int((~rows).sum())
        if not rows.any():
            continue
        was = (places == "train").to_numpy()[rows]
        found.update(places.index[rows])
        splits.append(split.only(rows))
        trained.append(was)
    notes = []
    for kind, of_it in (("training", split_of == "train"), ("held-out", split_of != "train")):
        missing, count = (~split_of.index[of_it].isin(found)).sum(), of_it.sum()
        if missing == count:
            raise ValueError(f"{run}: none of its {count} {kind} images is found. {_left(written)}")
        if missing:
            notes.append(f"{missing} of {count} {kind} images are missing")
    if unknown:
        notes.append(f"{unknown} images are not of this run and are left out")
    return copies.Known.of(splits, trained, notes)


def _left(written):
    """What can be told from the digests alone."""
    train = written[written["split"] == "train"]
    twice = len(train) - train["digest"].nunique()
    leaked = set(train["digest"]) & set(written.loc[written["split"] != "train", "digest"])
    return (
        f"Its split.csv records {len(train)} training images of {train['subject'].nunique()} "
        f"subjects; {twice} are identical to others (images that occur often are copied first) "
        f"and {len(leaked)} are also held out. Samples can only be compared with the images "
        "themselves: put them back where the run found them, or set the path in config.py"
    )


def tests(audit, found) -> pd.DataFrame:
    """All tests of an audit, a row each.

    Args:
        audit: `copies.Audit`.
        found: Its `samples`.
    """
    known = audit.known
    trained, held_out = audit.ssim[known.trained], audit.ssim[~known.trained]
    rows = []
    for space, each in found.items():
        rows.append(
            {
                "test": f"training subjects that are copied ({space})",
                "value": f"{each.count} of {len(each.copied)}",
                "p": float(each.copied["q"].iloc[0]),
                "without copying": f"0; at most {copies.RATE:.0%} of those found are false",
            }
        )
        rows.append(_share(f"samples are nearer to training subjects ({space})", each.samples))
    for space, each in found.items():
        rows.append(
            {
                "test": f"C_T, samples against reconstructions ({space})",
                "value": f"{each.c_t:.1f}",
                "p": each.p,
                "without copying": "about 0; positive where samples are poor",
            }
        )
    rows.append(
        _share("reconstructions of training subjects are better", audit.reconstructions)
        | {
            "without copying": f"50 %. SSIM {trained.mean():.3f} of training images, "
            f"{held_out.mean():.3f} of held-out ones"
        }
    )
    return pd.DataFrame(rows)


def _share(name, each):
    return {
        "test": name,
        "value": f"{each.auc:.1%} of pairs ({each.low:.0%} to {each.high:.0%})",
        "p": each.p,
        "without copying": "50 %",
    }


def worst_space(found) -> str:
    """The space in which an audit found most."""
    return max(found, key=lambda name: (found[name].count, found[name].samples.auc))


def verdict(audit, found) -> tuple[str, list[str]]:
    """Whether a set of samples is flagged (a key of `MARKS`), and why, in sentences."""
    space = worst_space(found)
    each = found[space]
    sentences, told = [], audit.reconstructions
    if each.count:
        worst = ", ".join(map(str, each.copied["subject"][: min(3, each.count)]))
        sentences.append(
            f"{each.count} of {len(each.copied)} training subjects are copied (in {space}): "
            f"samples crowd around them as around no held-out subject; first {worst}. The pictures "
            "show what is copied of them."
        )
    else:
        sentences.append(
            f"No single one of {len(each.copied)} training subjects is found to be copied."
        )
    sentences.append(
        f"Of a training subject and a held-out one, samples are nearer to the former in "
        f"{each.samples.auc:.0%} of pairs ({each.samples.low:.0%} to {each.samples.high:.0%}, "
        f"chance 50 %, p = {each.samples.p:.2g})."
    )
    sentences.append(
        f"Whoever has the model can tell them apart by their reconstructions in {told.auc:.0%} of "
        f"pairs ({told.low:.0%} to {told.high:.0%}, p = {told.p:.2g})."
    )
    if each.samples.least > copies.RATE:
        sentences.append(
            f"With so few subjects no p can be lower than {each.samples.least:.2g}: these images "
            "cannot show whether the model copies."
        )
    if each.count or (each.samples.low > TOLD and each.samples.p < copies.RATE):
        return "flagged", sentences
    return "undecided" if each.samples.least > copies.RATE else "not flagged", sentences


def most_copied(audit, space, found, made):
    """The training images around which samples crowd most, and a held-out one for comparison.

    Args:
        audit: `copies.Audit`.
        space: One of its spaces, `"pixels"` or `"features"`.
        found: `copies.Found` in that space.
        made: The samples.
    """
    known, real = audit.known, audit.real[space]
    chosen = found.copied["image"][:SHOWN].to_numpy()
    samples_near, _ = latent.nearest(real[chosen], found.made)
    others = np.flatnonzero(~known.trained)
    beside, _ = latent.nearest(found.made[samples_near], real[others])
    rows = {
        "training image": known.images[chosen] / np.float32(255),
        "nearest sample": made[samples_near],
        "held-out image\nnearest to it": known.images[others[beside]] / np.float32(255),
    }
    return plots.image_rows(rows, title="Is the sample the image above it, or only like it?")


def crowds(known, found):
    """Histogram of how closely samples crowd around training and held-out images."""
    z = (found.scores - found.scores[~known.trained].mean()) / found.scores[~known.trained].std()
    return plots.projections(
        z,
        {"held-out images": ~known.trained, "training images": known.trained},
        "crowding of samples, in standard deviations of held-out images (low: crowded)",
        width=6.5,
    )


def rows_of_metrics(audit, found, prior, weights) -> dict:
    """Rows for `metrics.json`, as `evaluate.report` has them.

    Args:
        audit: `copies.Audit`.
        found: Its `samples`.
        prior: Name of the prior.
        weights: Digest of the weights, by which `evaluate.write` knows whether they still hold.
    """
    trained, held_out = audit.known.counts.values()
    suffix = "" if prior == priors.NORMAL else f"@{prior}"
    common = {
        "split": "train and held out",
        "n": trained + held_out,
        "weights": weights,
        "better": "lower",
    }
    worst = max(found.values(), key=lambda each: each.count)
    nearest = max((each.samples for each in found.values()), key=lambda each: each.auc)
    told = audit.reconstructions
    subjects = f"{trained} training and {held_out} held-out subjects"
    return {
        f"copied_subjects{suffix}": common
        | {
            "value": worst.count,
            "standard_error": None,
            "unit": "subjects",
            "protocol": f"audit.py: training subjects around which samples crowd as around no "
            f"held-out one, false discovery rate {copies.RATE}; {subjects}",
        },
        f"sample_membership{suffix}": common
        | {
            "value": float(nearest.auc),
            "standard_error": float((nearest.high - nearest.low) / 3.92),
            "unit": "share",
            "protocol": "audit.py: share of pairs in which samples crowd more around the training "
            f"subject, pixels or features, whichever is higher; {subjects}",
        },
        "reconstruction_membership": common
        | {
            "value": float(told.auc),
            "standard_error": float((told.high - told.low) / 3.92),
            "unit": "share",
            "protocol": "audit.py: share of pairs in which the training subject is reconstructed "
            f"better; {subjects}",
        },
    }


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Audit of {run}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #222 }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
th, td {{ text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #ddd }}
img {{ max-width: 100% }}
</style></head><body><h1>Audit of {run}</h1>
<p>{what}</p>{parts}
<p>That nothing is found does not prove that nothing is copied. Parts of images, and mirrored or
moved copies, are not looked for. Tests and their sources: <code>analysis/copies.py</code>.</p>
</body></html>
"""


def part(name, mark, sentences, table, subjects):
    """The part of the page on one prior."""
    listed = subjects.head(LISTED)[["subject", "z", "q"]]
    return (
        f'<h2>Prior {html.escape(name)}: <span style="color: {MARKS[mark]}">{mark}</span></h2>'
        + "".join(f"<p>{html.escape(each)}</p>" for each in sentences)
        + table.to_html(index=False, float_format="{:.2g}".format)
        + f'<p><img src="most_copied-{disk.file_name(name)}.png" alt="most copied subjects"></p>'
        + f'<p><img src="crowds-{disk.file_name(name)}.png" alt="crowding of samples"></p>'
        + f"<h3>The training subjects around which samples crowd most (z in standard deviations of "
        f"held-out images; q below {copies.RATE}: copied)</h3>"
        + listed.to_html(index=False, float_format="{:.2g}".format)
    )


def write(run, audit, results):
    """The folder `audit` of a run, and its rows of `metrics.json`.

    Args:
        run: Run folder.
        audit: `copies.Audit`.
        results: Dictionary of names of priors to `(found, made)`.

    Returns:
        Dictionary of names of priors to their `verdict`.
    """
    run, known = Path(run), audit.known
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    weights, parts, verdicts, rows = checkpoints.digest_of(run), [], {}, {}
    for name, (found, made) in results.items():
        verdicts[name] = verdict(audit, found)
        table, short = tests(audit, found), disk.file_name(name)
        space = worst_space(found)
        worst = found[space]
        plots.save(most_copied(audit, space, worst, made), folder / f"most_copied-{short}.png")
        plots.save(crowds(known, worst), folder / f"crowds-{short}.png")
        for path, each in (("tests", table), ("subjects", worst.copied.drop(columns="image"))):
            with disk.replacing(folder / f"{path}-{short}.csv") as temporary:
                each.to_csv(temporary, index=False)
        parts.append(part(name, *verdicts[name], table, worst.copied))
        rows |= rows_of_metrics(audit, found, name, weights)
    count = len(next(iter(results.values()))[1])
    kinds = list(known.counts.values())
    what = " ".join(
        (
            f"{count} samples, {known.trained.sum()} training images of {kinds[0]} subjects and "
            f"{(~known.trained).sum()} held-out images of {kinds[1]}.",
            *(f"{each}." for each in known.notes),
        )
    )
    page = PAGE.format(run=html.escape(run.name), what=html.escape(what), parts="".join(parts))
    with disk.replacing(folder / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    evaluate.add(rows, run)
    return verdicts


def main(words=None):
    arguments = parsed(words)
    run = arguments.run
    try:
        model = train.load(run)
        try:
            images = data.images_of(run)
        except FileNotFoundError as error:
            raise ValueError(f"{error}. {_left(runs.written_split(run))}") from error
        known = membership(run, images)
        for note in known.notes:
            print(note)
        audit = copies.Audit(model, known)
        own = runs.own_prior(run) or priors.NORMAL
        results = {}
        for name in [own if name == "own" else name for name in arguments.prior]:
            made = samples.drawn(model, arguments.samples, priors.of_run(run, name))
            results[name] = audit.samples(made), made
        verdicts = write(run, audit, results)
    except KeyboardInterrupt:
        print("\naudit.py: stopped; nothing is written", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(f"audit.py: {error}")
    for name, (mark, sentences) in verdicts.items():
        print(f"Prior {name}: {mark.upper() if mark == 'flagged' else mark}")
        print("\n".join(f"  {each}" for each in sentences))
    print(f"Tests, figures and the most copied subjects: {run / FOLDER / 'index.html'}")


if __name__ == "__main__":
    main()

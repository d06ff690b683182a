"""Images from any source as `ImageData`: three splits, each pairing images with a table.

`load(settings)` uses the source that the settings select. `splits.py` defines `ImageData` and how
images are split.
"""

import os
import re
import socket
from dataclasses import fields, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from skimage.transform import resize
from sklearn.datasets import load_digits

import config
from sources import decoding, files, heads, masks, phantoms, splits
from sources.splits import ImageData, Split, as_uint8, from_arrays, from_table
from storage import runs
from storage.runs import Origin

__all__ = ["ImageData", "Origin", "Split", "as_uint8", "from_arrays", "from_table", "load"]


def load(settings, origin=None) -> ImageData:
    """The images that `settings.dataset` names, in `settings.image_shape`.

    Args:
        settings: `config.Settings`.
        origin: `Origin`; None: the paths of `config.py` and the environment. A run keeps its own
            (`images_of`).

    Raises:
        ValueError: for a wrong setting or file, which is named, and what to do.
        FileNotFoundError: if a path does not exist.
    """
    here = Origin(config.paths(settings.dataset)) if origin is None else origin
    images = SOURCES[settings.dataset](settings, here)
    if images.embedded and origin is None and not config.EMBEDDED:
        _ask_what_was_meant(settings.dataset)
    if images.image_shape != settings.image_shape:
        raise ValueError(
            f"settings: image_shape = {settings.image_shape}, but the images of {images.name} are "
            f"{images.image_shape}; set image_shape to that"
        )
    for name, split in images.splits.items():
        if not len(split) and not here.whole:
            raise ValueError(
                f"{images.name}: the {name} split is empty; give more images or another split_seed"
            )
    if settings.lesion_free:
        images = splits.without_lesions(images)
    if settings.labels_per_class:
        images = splits.few_labels(images, settings.labels_per_class, settings.label_seed)
    if images.embedded:
        print(f"Embedded images: {images.note}")
    # A path that was found without a setting, such as MNIST in Keras' cache, is added by the
    # source.
    return replace(images, paths={**here.paths, **(images.paths or {})})


def images_of(run) -> ImageData:
    """The images that a run was trained on, from its own paths.

    A different path in `config.py` or the environment is reported, and used only if the run's own
    does not exist any more. A run that does not record its paths, such as those that come with this
    project, uses those of `config.py`.

    Raises:
        ValueError, FileNotFoundError: See `load`.
    """
    settings, origin = runs.load_settings(run), runs.origin_of(run)
    here = config.paths(settings.dataset)
    if origin is None:
        places = ", ".join(f"{name} = {path}" for name, path in here.items())
        print(f"{run} does not record its images' paths; using {places or 'the embedded images'}")
        return load(settings)
    for name in config.PATHS_OF[settings.dataset]:
        own, other = origin.paths.get(name), here.get(name)
        if other is None or (own is not None and own == other.absolute()):
            continue
        if own is None or own.exists():
            lay = "the embedded images" if own is None else own
            print(f"{run} was trained on {lay}; {name} = {other} is not used")
        else:
            print(f"{own}, which {run} was trained on, is missing; using {name} = {other}")
            origin.paths[name] = other
    return load(settings, origin)


def others_of(run, path) -> ImageData:
    """Other images, to measure a run on: in its form, and with the numbers of its classes.

    Of a folder (dataset `gallery`) all are test images, and the training images are the run's own,
    if they are there; a dataset that comes with a split keeps it.

    Args:
        run: Run folder.
        path: Of the images, in place of the run's own.

    Raises:
        ValueError, FileNotFoundError: See `load`.
    """
    settings, origin = runs.load_settings(run), runs.origin_of(run)
    names = config.PATHS_OF[settings.dataset]
    if not names:
        raise ValueError(
            f"--images: {run} is of the embedded {settings.dataset}, which have no path"
        )
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"--images: there is no {path}")
    # A table or masks in the environment are those of the other images.
    paths = (origin.paths if origin else {}) | config.paths(settings.dataset) | {names[0]: path}
    here, own = Origin(paths, origin.bits if origin else 0), None
    if settings.dataset == "gallery":
        try:
            own = images_of(run)
        except (ValueError, OSError) as error:
            print(f"{run}: its own images are not there; {path} is split instead ({error})")
    images = load(settings, here._replace(whole=own is not None))
    labels = runs.labels_of(run)
    if labels.classes and images.label == labels.column:
        images = _with_classes(images, labels.classes)
    if own is not None:
        images = replace(images, train=own.train, validation=own.validation)
    return images


def _with_classes(images, classes):
    """The images with the numbers that a run gave to its classes; another class is no label."""
    new = [name for name in images.classes if name not in classes]
    if new:
        print(
            f"{images.name}: {', '.join(new)} are none of the run's classes "
            f"({', '.join(classes)}); these images count as unlabelled"
        )
    if images.classes == classes:
        return images
    codes = {at: classes.index(name) for at, name in enumerate(images.classes) if name in classes}

    def coded(split):
        labels = split.table[images.label].map(codes).astype("Int32")
        return replace(split, table=split.table.assign(**{images.label: labels}))

    splits = {name: coded(split) for name, split in images.splits.items()}
    return replace(images, classes=classes, **splits)


def of_folder(run, folder, masks_folder=None, on_bad_file="stop") -> Split:
    """New images as a run was trained on: in its shape, with its grey levels and its subjects.

    Args:
        run: Run folder.
        folder: Of images of any kind that `files` reads, nested or not.
        masks_folder: Of masks of lesions under the images' names, or None.
        on_bad_file: `"stop"` with a list of names and reasons, or `"skip"`.

    Raises:
        ValueError, FileNotFoundError: for what is wrong with the folders, which are named.
    """
    settings, origin = runs.load_settings(run), runs.origin_of(run)
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    names = files.listed(folder)
    if not names:
        raise ValueError(f"{folder} contains no image; looked for {', '.join(files.KINDS)}")
    reading = decoding.Reading.of(settings, origin.bits if origin else 0)
    reading = files.with_bits(folder, names, reading, config.CACHE_DIR)
    images, table = files.gather(folder, names, reading, config.CACHE_DIR, on_bad_file)
    subjects = subjects_of(folder, table["file"], settings)
    table["subject"] = subjects.mask(subjects == "", table["file"])
    found = None
    if masks_folder is not None:
        known = (masks_folder, folder, table, reading, config.CACHE_DIR)
        found = masks.gather(*known, name="--masks")
        table[masks.LESION_PIXELS] = masks.lesion_pixels(found)
    return Split(prepared(images, table, settings), table, masks=found)


def prepared(images, table, settings):
    """Images of files with the grey levels that `settings.normalize` asks for.

    Args:
        images: uint8, `(n, height, width, channels)`.
        table: One row per image, with its `subject`.
        settings: `config.Settings`.
    """
    if settings.normalize == "none":
        return images
    change = {"subject": heads.normalized, "image": heads.standardized}[settings.normalize]
    return change(images, table["subject"])


def _ask_what_was_meant(dataset):
    """Refuses to use embedded images if a variable looks like a misspelt path."""
    for name, meant in config.misspelt(dataset).items():
        raise ValueError(
            f"the environment variable {name} is not used; did you mean {meant}? Rename it, or "
            "unset it to use the embedded images"
        )


def load_labelled(settings):
    """The images of the settings, or the embedded digits if those have no labels.

    For analyses that need classes. A replacement is reported in one line.

    Returns:
        `(settings, images)`: those of `config.EXPERIMENTS["digits"]` if the images have no label
            with at least two classes.
    """
    images = load(settings)
    if images.label is not None and len(images.classes) > 1:
        return settings, images
    print(f"{images.name} has no labels, which are needed here; using the embedded digits")
    settings = config.settings("digits")
    return settings, load(settings)


# --- embedded digits and MNIST -------------------------------------------------------------------


def digits(settings, origin) -> ImageData:
    """scikit-learn's 1,797 handwritten digits (8x8, real, by 43 people), enlarged to 32x32."""
    bunch = load_digits()
    # The digits touch the border; add a margin of one pixel, as in MNIST.
    small = np.pad(bunch.images / 16.0, ((0, 0), (1, 1), (1, 1)))
    height, width, _ = settings.image_shape
    large = resize(small, (len(small), height, width), order=3, mode="edge", anti_aliasing=False)
    return from_arrays(
        np.clip(large, 0.0, 1.0),
        bunch.target,
        name="digits",
        label="digit",
        seed=settings.split_seed,
        note=(
            "scikit-learn's 1,797 handwritten digits, 8x8 and a margin of one pixel, enlarged "
            f"bicubically to {height}x{width}; 70 / 15 / 15 % split, stratified by digit, "
            f"split seed {settings.split_seed}"
        ),
        embedded=True,
    )


def mnist(settings, origin) -> ImageData:
    """MNIST from MNIST_PATH, Keras' cache or a download; its own test set is kept."""
    file = _mnist_file(origin.paths.get("MNIST_PATH"))
    with np.load(file, allow_pickle=False) as arrays:
        missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays.files)
        if missing:
            raise ValueError(
                f"MNIST_PATH: {file} lacks {', '.join(sorted(missing))}; "
                "give the mnist.npz that Keras distributes"
            )
        x_train, y_train = arrays["x_train"], arrays["y_train"]
        x_test, y_test = arrays["x_test"], arrays["y_test"]
    images = from_arrays(
        x_train,
        y_train,
        test_images=x_test,
        test_labels=y_test,
        name="mnist",
        label="digit",
        fractions=(1.0 / 12.0,),
        seed=settings.split_seed,
        note=(
            "MNIST, 55,000 training and 5,000 validation images split from its 60,000 "
            f"(stratified by digit, split seed {settings.split_seed}), its 10,000 test images"
        ),
    )
    return replace(images, paths={"MNIST_PATH": file})


def _mnist_file(path) -> Path:
    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(
                f"MNIST_PATH: there is no file {path}; correct the path in config.py "
                'or the environment, or take EXPERIMENT = "digits", which is embedded'
            )
        return path
    cached = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets/mnist.npz"
    if not cached.is_file() and not config.EMBEDDED:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(20)  # a firewall that drops packets would block without limit
        try:
            keras.datasets.mnist.load_data()
        except Exception as error:  # Keras raises a bare Exception for a failed download
            cause = f"the download failed ({str(error).splitlines()[0]})"
            raise FileNotFoundError(_no_mnist(cached, cause)) from error
        finally:
            socket.setdefaulttimeout(before)
    if not cached.is_file():
        raise FileNotFoundError(_no_mnist(cached, "ATLAS_EMBEDDED=1 forbids the download"))
    return cached


def _no_mnist(cached, cause):
    return (
        f"MNIST is neither at MNIST_PATH (not set) nor at {cached}, and {cause}. Put mnist.npz "
        'there or set MNIST_PATH in config.py; or take EXPERIMENT = "digits", which is embedded'
    )


# --- files ---------------------------------------------------------------------------------------


def _read(root, names, settings, origin):
    """Images and table of the named files, read, checked and cached by the settings; and bits.

    The bits are those of `Origin`; they are found from the files if they are not given.
    """
    reading = decoding.Reading.of(settings, origin.bits)
    reading = files.with_bits(root, names, reading, config.CACHE_DIR)
    images, table = files.gather(root, names, reading, config.CACHE_DIR, settings.on_bad_file)
    return images, table, reading.bits


def _folder(name, path, layout):
    """The folder of a setting, or an error with the expected layout."""
    if not path.is_dir():
        raise FileNotFoundError(
            f"{name}: there is no folder {path}; correct it in config.py or the environment, or "
            f"unset it to use the embedded images. Expected layout: {layout}"
        )
    return path


def _stratified(table, column, seed):
    """Splits by subject, stratified by a column's label."""
    if column not in table:
        allowed = ", ".join(table)
        raise ValueError(f"settings: stratify = {column!r} is not a column; allowed: {allowed}")
    values = table[column]
    if not pd.api.types.is_numeric_dtype(values):  # text; missing values are -1
        values = pd.Series(pd.factorize(values)[0], index=values.index)
    return splits.by_group(table["subject"], values.astype("Int32").fillna(-1), seed)


OASIS_LAYOUT = (
    "keras_png_slices_train, keras_png_slices_validate and keras_png_slices_test, "
    "with files such as case_001_slice_0.nii.png"
)


def brain(settings, origin) -> ImageData:
    """OASIS slices from OASIS_DIR; if it is not set, slices of a brain template."""
    if "OASIS_DIR" not in origin.paths:
        images, table = phantoms.brains(settings.image_shape[0], seed=settings.split_seed)
        places = splits.by_hash(table["subject"], settings.split_seed)
        return from_table(
            images, table, places, "brain template", note=phantoms.BRAIN_NOTE, embedded=True
        )
    root = _folder("OASIS_DIR", origin.paths["OASIS_DIR"], OASIS_LAYOUT)
    inside = ("", "slices", "keras_png_slices_data", "keras_png_slices_data/slices")
    levels = [root / each for each in inside if (root / each / "keras_png_slices_train").is_dir()]
    if not levels:
        raise FileNotFoundError(f"OASIS_DIR: {root} does not hold {OASIS_LAYOUT}")
    names, rows, strange = [], [], 0
    for folder, place in zip(("train", "validate", "test"), splits.NAMES, strict=True):
        here = _folder("OASIS_DIR", levels[0] / f"keras_png_slices_{folder}", OASIS_LAYOUT)
        for file in files.listed(here, decoding.PICTURES):
            parts = re.fullmatch(r"case_(\d+)_slice_(\d+)(\.nii)?\.png", file)
            if parts is None:
                strange += 1
                continue
            names.append(f"{here.name}/{file}")
            rows.append((names[-1], parts[1], int(parts[2]), place))
    if strange:
        print(f"{root}: skipped {strange} files without a name like case_001_slice_0.nii.png")
    if not names:
        raise FileNotFoundError(f"OASIS_DIR: {root} does not hold {OASIS_LAYOUT}")
    images, read, bits = _read(levels[0], names, settings, origin)
    known = pd.DataFrame(rows, columns=["file", "subject", "slice", "split"])
    table = read[["file", "digest"]].merge(known, on="file", how="left", validate="one_to_one")
    places = table.pop("split").to_numpy()
    note = "OASIS-1 axial T1 slices in the split they come with, by subject"
    return from_table(images, table, places, "OASIS", note=note, bits=bits)


def brain_lesions(settings, origin) -> ImageData:
    """Slices of the brain template, some of them with a lesion whose mask is known."""
    images, masks, table = phantoms.brains_with_lesions(
        settings.image_shape[0], subjects=200, seed=settings.split_seed
    )
    # Many subjects validate: those without a lesion calibrate alarms, the others choose.
    places = splits.by_hash(table["subject"], settings.split_seed, shares=(0.3, 0.2))
    note = phantoms.LESION_NOTE
    name = "brain template with lesions"
    return from_table(images, table, places, name, note=note, masks=masks, embedded=True)


FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "No Finding",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
CHEST_LAYOUT = (
    "images/ (or images_001/images ... images_012/images) and Data_Entry_2017.csv or "
    "Data_Entry_2017_v2020.csv"
)


def chest(settings, origin) -> ImageData:
    """NIH ChestX-ray14 from CHEST_DIR; if it is not set, a chest phantom."""
    if "CHEST_DIR" not in origin.paths:
        return chest_phantom(settings.image_shape[0], settings.split_seed)
    root = _folder("CHEST_DIR", origin.paths["CHEST_DIR"], CHEST_LAYOUT)
    found = {
        Path(name).name: name
        for name in files.listed(root, decoding.PICTURES)
        if Path(name).parent.name == "images"
    }
    entries = sorted(root.glob("Data_Entry_2017*.csv"))
    if not found or not entries:
        raise FileNotFoundError(f"CHEST_DIR: {root} does not hold {CHEST_LAYOUT}")
    table = nih_table(entries[-1])
    absent = ~table["file"].isin(found)
    unlabelled = len(set(found) - set(table["file"]))
    if absent.any() or unlabelled:
        print(
            f"{root}: {absent.sum():,} rows of {entries[-1].name} have no file and "
            f"{unlabelled:,} files no row; both are left out"
        )
    table = table[~absent & _selected(table, settings)].reset_index(drop=True)
    if table.empty:
        raise ValueError(
            f"settings: findings = {settings.findings}, views = {settings.views} select no image "
            f"of {root}"
        )
    table["file"] = table["file"].map(found)
    images, read, bits = _read(root, list(table["file"]), settings, origin)
    table = read[["file", "digest"]].merge(table, on="file", how="left", validate="one_to_one")

    rare = settings.stratify or "Hernia"
    places = _stratified(table, rare, settings.split_seed)
    how = f"60 / 20 / 20 % by patient, stratified by {rare}"
    given = root / "test_list.txt"
    if given.is_file():
        tested = set(given.read_text().split())
        held_out = table["file"].map(lambda file: Path(file).name in tested).to_numpy()
        places = np.where(places == "test", "train", places)
        places[held_out] = "test"
        how = f"the test list that comes with it; 20 % of the other patients, stratified by {rare}"
    note = f"NIH ChestX-ray14 from {root.name}, split {how} (split seed {settings.split_seed})"
    names = ("no", "yes")
    return from_table(images, table, places, "NIH chest X-rays", rare, names, note, bits=bits)


def chest_phantom(size, seed=0, subjects=600, images=3, confound=0.0, aging=0.0) -> ImageData:
    """Simulated chests with known factors, split by subject; see `phantoms.chests`.

    The masks are those of the hernias.
    """
    pictures, table = phantoms.chests(size, subjects, images, seed, confound, aging)
    hernias = np.zeros_like(pictures)
    ill = table["Hernia"].to_numpy(bool)
    hernias[ill] = phantoms.hernia_twins(table[ill], size)[1]
    return from_table(
        pictures,
        table,
        splits.by_hash(table["subject"], seed),
        "chest phantom",
        "Hernia",
        ("no", "yes"),
        phantoms.CHEST_NOTE,
        hernias,
        embedded=True,
        factors=phantoms.CHEST_FACTORS,
    )


def nih_table(path) -> pd.DataFrame:
    """One row per image of NIH's Data_Entry CSV, with a boolean column for each finding.

    Its header has unquoted commas, so columns are selected by name. Findings are separated by `|`
    and compared regardless of case; an image without any entry has no label, which is not the same
    as "No Finding". Ages beyond 120 are known errors of the set and become missing.
    """
    columns = {
        "Image Index": "file",
        "Patient ID": "subject",
        "Patient Age": "age",
        "Patient Gender": "sex",
        "View Position": "view",
        "Finding Labels": "findings",
    }
    read = read_csv(path, usecols=lambda name: name in columns, dtype=str).rename(columns=columns)
    missing = {"file", "subject", "findings"} - set(read.columns)
    if missing:
        lacking = ", ".join(name for name, ours in columns.items() if ours in missing)
        raise ValueError(f"{path}: has no column {lacking}; is it NIH's Data_Entry_2017 CSV?")
    read = read.drop_duplicates("file").reset_index(drop=True)
    if "age" in read:
        age = pd.to_numeric(read["age"].str.rstrip("Yy"), errors="coerce")
        read["age"] = age.where(age <= 120)
    found = read.pop("findings").fillna("").str.split("|")
    found = found.map(lambda labels: {each.strip().casefold() for each in labels} - {""})
    known = {name.casefold() for name in FINDINGS}
    strange = sorted(set().union(*found) - known)
    if strange:
        raise ValueError(f"{path}: unknown findings {strange}; known: {', '.join(FINDINGS)}")
    for name in FINDINGS:
        has = found.map(lambda labels, name=name: name.casefold() in labels).astype("boolean")
        read[name] = has.where(found.map(len) > 0)
    return read


def _selected(table, settings):
    """The rows that the settings' findings (any of them) and views select."""
    keep = pd.Series(True, index=table.index)
    if settings.findings:
        lacking = set(settings.findings) - set(FINDINGS)
        if lacking:
            allowed = ", ".join(FINDINGS)
            raise ValueError(f"settings: findings = {sorted(lacking)}; allowed: {allowed}")
        keep &= table[list(settings.findings)].fillna(False).any(axis=1)
    if settings.views:
        keep &= table["view"].isin(settings.views)
    return keep


def gallery(settings, origin) -> ImageData:
    """Any folder of images, IMAGES_DIR; if it is not set, crops of colour photos."""
    if "IMAGES_DIR" not in origin.paths:
        height, width, channels = settings.image_shape
        images, table = phantoms.photos(height, width, channels, seed=settings.split_seed)
        places = table.pop("split").to_numpy()
        return from_table(images, table, places, "photos", note=phantoms.PHOTO_NOTE, embedded=True)
    layout = f"images ({', '.join(files.KINDS)}), nested or not"
    root = _folder("IMAGES_DIR", origin.paths["IMAGES_DIR"], layout)
    names, inside = files.listed(root), origin.paths.get("MASKS_DIR")
    if inside is not None and inside.absolute().is_relative_to(root.absolute()):
        below = inside.absolute().relative_to(root.absolute()).as_posix()
        names = [name for name in names if not name.startswith(f"{below}/")]
    if not names:
        raise FileNotFoundError(f"IMAGES_DIR: there are no images in {root}. Expected: {layout}")
    images, table, bits = _read(root, names, settings, origin)
    table["subject"] = subjects_of(root, table["file"], settings)
    label, classes = None, ()
    _require_table(settings)
    if settings.labels == "folders":
        folders = table["file"].map(lambda name: str(Path(name).parent))
        classes = tuple(sorted(set(folders)))
        label, table["folder"] = "folder", folders.map(classes.index)
    elif settings.labels == "csv":
        table, label, classes = _with_csv(table, settings, origin.paths.get("LABELS_CSV"))
    nobody = table["file"][table["subject"] == ""].unique()
    if len(nobody):
        raise ValueError(
            f'subjects = "patients": {len(nobody)} of {len(names)} files have no PatientID in a '
            f"DICOM header, {nobody[0]} for example; put a folder for each patient and set "
            'subjects = "folders", or name a column with subject_column'
        )
    if origin.whole:
        places, how = np.full(len(table), "test"), "all of them test images"
    elif settings.split_column:
        places, how = _given_split(table, settings, origin.paths.get("LABELS_CSV"))
    elif settings.stratify:
        places = _stratified(table, settings.stratify, settings.split_seed)
        how = f"60 / 20 / 20 % by subject, stratified by {settings.stratify}"
    else:
        places = splits.by_hash(table["subject"], settings.split_seed)
        how = "70 / 15 / 15 % in expectation, by a hash of the subject or file"
    note = f"{len(table):,} images of {root.name}, split {how} (split seed {settings.split_seed})"
    found = None
    if inside is not None:
        reading = decoding.Reading.of(settings, bits)
        found = masks.gather(inside, root, table, reading, config.CACHE_DIR)
    if settings.normalize != "none":
        images = prepared(images, table, settings)
        table = table.drop(columns="digest")  # of the pixels as they were
        note += f"; grey levels by {settings.normalize}, black outside of the head"
    known = {"masks": found, "bits": bits}
    return from_table(images, table, places, root.name, label, classes, note, **known)


COLUMNS = ("file_column", "label_column", "subject_column")


def _require_table(settings):
    """Refuses columns of LABELS_CSV without `labels = "csv"`: subjects would not stay together."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.name in COLUMNS and settings.labels != "csv" and value != each.default:
            raise ValueError(
                f'settings: {each.name} = {value!r} is a column of LABELS_CSV; set labels = "csv"'
            )


def subjects_of(root, names, settings):
    """Subject of each file of a folder, as `settings.subjects` says, as text.

    Args:
        root: The folder.
        names: Of the files, a pandas series.
        settings: `config.Settings`.

    Returns:
        A series; nothing ("") where a header should name the patient and does not.
    """
    if settings.subjects == "folders":
        return names.map(lambda name: name.split("/")[0])
    if settings.subjects == "patients":
        return names.map({name: decoding.patient(root / name) for name in names.unique()})
    return names


def _given_split(table, settings, path):
    """The split that a column of LABELS_CSV gives, and how it is told."""
    column = settings.split_column
    if settings.labels != "csv" or column not in table:
        raise ValueError(
            f'settings: split_column = {column!r} needs labels = "csv" and such a column in '
            f"LABELS_CSV ({path})"
        )
    places = table[column].to_numpy()
    wrong = sorted({str(each) for each in places} - {*splits.NAMES})
    if wrong:
        raise ValueError(
            f"{path}: column {column} has {wrong[0]!r}; give {', '.join(splits.NAMES)} for every "
            "file"
        )
    return places, f"by the column {column} of {path.name}"


def read_csv(path, **options):
    """A CSV file as a table; an error names the file."""
    try:
        return pd.read_csv(path, **options)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8; save it as CSV in UTF-8") from None
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} cannot be read as a table: {error}") from None
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty; it needs a header and a row for each file") from None


def _without_repeats(table, path):
    """The table with one row for each file; contradictory rows are refused."""
    once = table.drop_duplicates()
    twice = once["file"][once["file"].duplicated()]
    if len(twice):
        some = ", ".join(twice.unique()[:3])
        raise ValueError(
            f"{path}: {twice.nunique()} files have contradictory rows: {some}; keep one row for "
            "each"
        )
    return once


def _with_csv(table, settings, path):
    """The table with the columns of LABELS_CSV, joined by file."""
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f'LABELS_CSV: labels="csv" needs a file, and there is none at {path}'
        )
    texts = {settings.file_column: str, settings.subject_column or "subject": str}
    # Only an empty cell is missing: "NA" may be a label.
    read = read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
    named = {settings.file_column: "the file", settings.label_column: "the label"}
    subjects = settings.subject_column or ("subject" if "subject" in read else "")
    if subjects:
        named[subjects] = "the subject"
    for column, what in named.items():
        if column not in read:
            allowed = ", ".join(read)
            raise ValueError(f"{path}: no column {column!r} for {what}; it has: {allowed}")
    read = read.rename(columns={settings.file_column: "file"})
    if subjects:  # a copy: it may also be the label or a condition
        read["subject"] = read["file" if subjects == settings.file_column else subjects]
    ours = {name: f"{name} in {path.name}" for name in ("slice", "digest") if name in read}
    read = _without_repeats(read.rename(columns=ours).dropna(subset="file"), path)
    if subjects:
        table = table.drop(columns="subject")
    known = set(table["file"])
    without_file, without_row = len(set(read["file"]) - known), len(known - set(read["file"]))
    if without_file or without_row:
        print(
            f"{path}: {without_file:,} rows have no file and are skipped; {without_row:,} files "
            "have no row and stay without a label"
        )
    table = table.merge(read, on="file", how="left", validate="many_to_one")
    if subjects:
        table["subject"] = table["subject"].astype(object).fillna(table["file"]).astype(str)
    values = table[settings.label_column]
    classes = sorted(values.dropna().unique().tolist())
    codes = {value: number for number, value in enumerate(classes)}
    table[settings.label_column] = values.map(codes).astype("Int32")
    return table, settings.label_column, tuple(map(str, classes))


SOURCES = {
    "digits": digits,
    "mnist": mnist,
    "brain": brain,
    "brain-lesions": brain_lesions,
    "chest": chest,
    "gallery": gallery,
}

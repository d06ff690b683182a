"""Cost of reading image files: the first pass, later epochs, and memory.

    python benchmarks/pipeline.py [--torch-python PYTHON]

1. First pass over 2,000 PNGs of 256x256: `files.gather` (check, decode, cache) against a PyTorch
   `DataLoader` with two workers and Pillow on the same files, if a Python with torch is given.
2. Training throughput from the disk cache compared with an array in memory, alternating. 3.
Resident memory while training from 20,000 such PNGs through the disk cache.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
import numpy as np
import pandas as pd
import psutil  # comes with ipykernel
from PIL import Image

import config
import train
from families import registry
from sources import decoding, files, phantoms, splits

SHAPE = (256, 256, 1)
SETTINGS = config.Settings(
    image_shape=SHAPE, widths=(16, 32, 64, 128, 128), latent_dim=64, batch_size=16
)

LOADER = """
import sys, time
from pathlib import Path
import numpy as np, torch
from PIL import Image
class Pictures(torch.utils.data.Dataset):
    def __init__(self, folder): self.paths = sorted(Path(folder).glob("*.png"))
    def __len__(self): return len(self.paths)
    def __getitem__(self, row):
        return torch.from_numpy(np.array(Image.open(self.paths[row]).convert("L")))
loader = torch.utils.data.DataLoader(Pictures(sys.argv[1]), batch_size=64, num_workers=2)
start = time.perf_counter()
n = sum(len(batch) for batch in loader)
print(n / (time.perf_counter() - start))
"""


def write_pictures(folder, n):
    """Writes PNGs of brain-template slices with noise, so that no two are equal."""
    slices, _ = phantoms.brains(256, subjects=20, slices=8)

    def write(number):
        noise = np.random.default_rng(number).integers(0, 4, (256, 256), np.uint8)
        picture = np.minimum(slices[number % len(slices), ..., 0], 250) + noise
        Image.fromarray(picture).save(folder / f"{number:06d}.png", compress_level=1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(n)))


def first_pass(folder, torch_python):
    names = files.listed(folder)
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        files.gather(folder, names, decoding.Reading(SHAPE), cache)
        ours = len(names) / (time.perf_counter() - start)
    if torch_python is None:
        return ours, None
    done = subprocess.run(
        [torch_python, "-c", LOADER, str(folder)], capture_output=True, text=True, check=True
    )
    return ours, float(done.stdout)


def throughput(split, model, steps=30):
    batches = split.batches(SETTINGS.batch_size, shuffle=True)
    start = time.perf_counter()
    model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False)
    return steps * SETTINGS.batch_size / (time.perf_counter() - start)


def memory(folder, cache):
    """Trains from the disk cache in this process and prints the largest resident size, in MB."""
    images, table = files.gather(folder, files.listed(folder), decoding.Reading(SHAPE), cache)
    model = registry.from_settings(SETTINGS)
    train.compile_model(model, SETTINGS, 1)
    split, most = splits.Split(images, table), [0.0]

    def look(batch, logs):
        most[0] = max(most[0], psutil.Process().memory_info().rss / 2**20)

    model.fit(
        split.batches(SETTINGS.batch_size, shuffle=True),
        steps_per_epoch=100,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=look)],
        verbose=0,
        shuffle=False,
    )
    print(f"{type(images).__name__} {len(images)} {most[0]:.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="a Python that has torch, numpy and Pillow")
    parser.add_argument("--many", type=int, default=20_000, help="pictures of the memory test")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        memory(*arguments.memory_of)
        return
    with tempfile.TemporaryDirectory() as place:
        few, many = Path(place, "few"), Path(place, "many")
        few.mkdir(), many.mkdir()
        write_pictures(few, 2000)
        rounds = [first_pass(few, arguments.torch_python) for _ in range(3)]
        ours = median(each[0] for each in rounds)
        print(f"first pass: {ours:.0f} images/s", end="")
        if arguments.torch_python:
            ratios = [one / other for one, other in rounds]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f", {median(ratios):.2f} times the DataLoader's ({spread})")
        else:
            print()

        cache = Path(place, "cache")
        names, reading = files.listed(few), decoding.Reading(SHAPE)
        table = pd.DataFrame({"file": names})
        on_disk, _ = files.gather(few, names, reading, cache, in_memory=0)
        model = registry.from_settings(SETTINGS)
        train.compile_model(model, SETTINGS, 1)
        lying, held = splits.Split(on_disk, table), splits.Split(on_disk[:], table)
        throughput(lying, model), throughput(held, model)
        ratios = [throughput(lying, model) / throughput(held, model) for _ in range(7)]
        print(
            f"training from the disk cache: {median(ratios):.3f} times the throughput of an array "
            f"in memory ({min(ratios):.3f} to {max(ratios):.3f})"
        )

        write_pictures(many, arguments.many)
        done = subprocess.run(
            [sys.executable, __file__, "--memory-of", str(many), str(cache)],
            capture_output=True,
            text=True,
            check=True,
        )
        kind, n, megabytes = done.stdout.split()[-3:]
        print(f"training from {n} pictures ({kind}): at most {megabytes} MB resident")


if __name__ == "__main__":
    main()

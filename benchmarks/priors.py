"""Priors fitted on one model's latents, ours and pythae's, in one run.

    python benchmarks/priors.py RUN [--seeds 2] [--steps 4000] [--to FILE.csv]

Both sides get the same draws of the posteriors of the training images of RUN, and what they draw is
decoded by the same decoder and compared with the test images by the same metrics. Networks are
trained for the same number of steps of 256 latents; otherwise each side has its own defaults. The
order of the sides changes with the seed, one process at a time. Compare times as ratios only.

pythae's VAMP sampler needs a model that was trained with pseudo-inputs, and is left out; so is its
IAF sampler, whose training inverts the flow axis by axis (4,000 steps did not end in eight CPU
minutes). PyTorch and pythae have their own environment, see `rivals.py`.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd
from rivals import PYTHAE, environment
from rows import resumable

import data
import prior
import train
from analysis import judges, samples
from families import priors
from nn.batches import in_batches

HERE = Path(__file__).parent
BATCH = 256
OURS = {
    "one Gaussian": ("gaussian", {}),
    "mixture of 10": ("mixture", {"components": 10}),
    "mixture, components found": ("mixture", {}),
    "two-stage": ("two-stage", None),
    "coupling": ("coupling", None),
    "flow matching": ("flow", None),
}
THEIRS = {"mixture of 10": "mixture", "two-stage": "two-stage", "MAF": "MAF"}


def fitted_here(name, z, count, steps, seed):
    """Draws of one of our priors, and the wall-clock and CPU seconds of its fit."""
    kind, options = OURS[name]
    wall, cpu = time.perf_counter(), sum(os.times()[:2])
    found = priors.KINDS[kind].fitted(z, seed, **({"steps": steps} if options is None else options))
    spent = {"clock": time.perf_counter() - wall, "cpu": sum(os.times()[:2]) - cpu}
    return found.sample(count, seed=1), spent


def fitted_there(python, name, z, count, steps, seed):
    """The same of one of pythae's samplers."""
    with tempfile.TemporaryDirectory() as folder:
        latents, drawn = Path(folder) / "z.npy", Path(folder) / "drawn.npy"
        np.save(latents, z)
        words = [THEIRS[name], latents, drawn, count, steps, BATCH, seed]
        command = [str(each) for each in (python, HERE / "priors_torch.py", *words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise RuntimeError(f"pythae, {name}: {done.stderr[-2000:]}")
        return np.load(drawn), json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--to", type=Path, default=Path("priors.csv"))
    arguments = parser.parse_args()
    python, version = environment()
    images, model = data.images_of(arguments.run), train.load(arguments.run)
    judge = judges.judge(images) if images.label else None
    z, _ = priors.draws(model, images.train)
    known, count = samples.Compared(model, images, images.test, judge, None), len(images.test)
    print(f"PyTorch {version}, pythae {PYTHAE}; {len(z):,} latents of {z.shape[1]} axes\n")

    def measure(key):
        if key["side"] == "limits":
            if key["prior"] == prior.RECONSTRUCTIONS:
                made = in_batches(model.reconstruct, images.test.images)
            else:
                made = samples.drawn(model, count)
            return prior.measured(made, known)
        whose = (z, count, arguments.steps, key["seed"])
        if key["side"] == "ours":
            drawn, spent = fitted_here(key["prior"], *whose)
        else:
            drawn, spent = fitted_there(python, key["prior"], *whose)
        made = in_batches(model.decode, np.asarray(drawn, np.float32))
        return spent | prior.measured(made, known)

    todo = [
        {"side": "limits", "prior": each, "seed": 0} for each in (prior.OWN, prior.RECONSTRUCTIONS)
    ]
    for seed in range(arguments.seeds):
        sides = [{"side": "ours", "prior": each, "seed": seed} for each in OURS]
        sides += [{"side": "pythae", "prior": each, "seed": seed} for each in THEIRS]
        todo += random.Random(seed).sample(sides, len(sides))
    found = resumable(arguments.to, todo, measure).drop(columns="seed")
    groups = found.groupby(["side", "prior"], sort=False)
    with pd.option_context("display.width", None, "display.max_columns", None):
        print(groups.mean().round(3).to_string(), groups.std().round(3).to_string(), sep="\n\n")


if __name__ == "__main__":
    main()

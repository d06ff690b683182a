"""Training speed compared with other projects, on the same networks and images, in one run.

    python benchmarks/rivals.py [--work small middle large colour] [--rounds 3] [--seconds 4]

Every side runs in its own process and waits for its turn; the order changes every round, so that
other work on the machine affects all sides equally. Compare ratios only. PyTorch (CPU) and pythae
have their own environment, `benchmarks/.rivals`, which the first run makes. Pixels are random: the
cost of a step does not depend on their values.

Sides: our step under Keras' `fit` and in a bare loop, both with the TensorFlow allocator that the
Makefile sets, and `fit` without it; the step of keras.io's VAE example with the same networks;
pythae's model, trainer and loader with the same networks; PyTorch eager, with channels last, with
glibc set to keep pages (its fastest variant), and under `torch.compile`. For bfloat16, ours and
PyTorch's have separate rows.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import config

HERE = Path(__file__).parent
RIVALS = HERE / ".rivals"
TORCH, PYTHAE = "2.13.0", "0.1.2"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# By default glibc returns large blocks to the system and requests them again at every step; with
# these settings it keeps them.
KEPT_PAGES = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}
BASE = config.Settings(learning_rate=1e-3)
WORK = {
    "small": ("28x28, batch 128, VAE", replace(BASE, image_shape=(28, 28, 1), widths=(32, 64),
              dense_widths=(16,), latent_dim=2, batch_size=128)),
    "middle": ("64x64, batch 64, dropout, VAE", replace(BASE, image_shape=(64, 64, 1),
               widths=(64, 64, 64, 64), dropout=0.25, latent_dim=128, batch_size=64)),
    "large": ("256x256, batch 16, InfoVAE", replace(BASE, model="InfoVAE",
              image_shape=(256, 256, 1), widths=(16, 32, 64, 128, 128), latent_dim=128,
              batch_size=16)),
    "colour": ("64x64x3, batch 64, batch norm, VAE", replace(BASE, image_shape=(64, 64, 3),
               widths=(32, 64, 128, 256, 512), batch_norm=True, latent_dim=128, batch_size=64)),
}  # fmt: skip
OURS = ("fit", "bare", "fit, plain allocator", "recipe", "fit, bfloat16")
# TensorFlow's own setting against the same problem; the Makefile sets it.
KEPT_BY_TENSORFLOW = {"TF_CPU_ALLOCATOR_USE_BFC": "1"}
THEIRS = (
    "pythae",
    "eager",
    "channels-last",
    "channels-last, kept pages",
    "torch.compile",
    "channels-last, kept pages, bfloat16",
)
NAMES = {
    "fit": "**ours, `fit`**",
    "bare": "ours, bare loop",
    "fit, plain allocator": "ours, `fit`, without `TF_CPU_ALLOCATOR_USE_BFC`",
    "recipe": "keras.io's VAE example",
    "fit, bfloat16": "ours, `fit`, bfloat16",
    "pythae": f"pythae {PYTHAE}",
}


@dataclass
class Side:
    """One process that trains on request."""

    name: str
    process: subprocess.Popen
    start_up: float

    def train(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return json.loads(_line(self))


def _line(side):
    line = side.process.stdout.readline()
    if not line:
        raise RuntimeError(f"{side.name} ended: {side.process.stderr.read()[-2000:]}")
    return line


def environment():
    """Python of the rivals' environment, which is made if it is missing."""
    python = RIVALS / "bin" / "python"
    if not (RIVALS / "ready").exists():
        print(f"making {RIVALS}: PyTorch for the CPU, pythae", file=sys.stderr)
        venv.create(RIVALS, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        own = ["--index-url", CPU_INDEX, "--retries", "0", "--timeout", "10"]
        if subprocess.run([*pip, *own, f"torch=={TORCH}"], stderr=subprocess.DEVNULL).returncode:
            subprocess.run([*pip, f"torch=={TORCH}"], check=True)
        subprocess.run([*pip, f"pythae=={PYTHAE}"], check=True)
        (RIVALS / "ready").touch()
    asked = "import torch; print(torch.__version__, torch.version.cuda)"
    told = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout
    version, cuda = told.split()
    if cuda != "None":
        raise RuntimeError(f"{RIVALS} contains PyTorch {version} for CUDA {cuda}; the CPU build is "
                           f"needed: delete the folder and install from {CPU_INDEX}")  # fmt: skip
    return python, version


def torch_command(name, settings, pixels, python):
    """Words that start a side of PyTorch, with the networks of the settings."""
    described = subprocess.run(
        [sys.executable, HERE / "rivals_ours.py", "describe", json.dumps(asdict(settings))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    info = "info" if settings.model == "InfoVAE" else "plain"
    command = [python, HERE / "rivals_torch.py", name, described.splitlines()[-1]]
    return [*command, pixels, str(settings.batch_size), info]


def started(name, settings, pixels, python):
    """The process of one side, ready to train."""
    extra = {}
    if name in OURS:
        own = replace(settings, precision="bfloat16") if "bfloat16" in name else settings
        command = [sys.executable, HERE / "rivals_ours.py", name.split(",")[0]]
        command += [json.dumps(asdict(own)), pixels]
        if name not in ("fit, plain allocator", "recipe"):
            extra = KEPT_BY_TENSORFLOW
    else:
        command = torch_command(name, settings, pixels, python)
        if "kept pages" in name:
            extra = KEPT_PAGES
    others = {key: told for key, told in os.environ.items() if key not in KEPT_BY_TENSORFLOW}
    begun = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=tempfile.TemporaryFile("w+"),
        text=True,
        env=others | extra,
    )
    side = Side(name, process, 0.0)
    _line(side)  # ready: it has trained one step
    side.start_up = time.perf_counter() - begun
    return side


def measured(settings, rounds, seconds, python):
    """Images per second of every side in every round, start-up times and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "pixels.npy"
        count = 16 * settings.batch_size
        shape = (count, *settings.image_shape)
        np.save(pixels, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        sides = []
        try:
            for name in (*OURS, *THEIRS):
                sides.append(started(name, settings, pixels, python))
            steps = {}
            for side in sides:  # warm up, and find the number of steps of a turn
                side.train(4)
                steps[side.name] = max(4, round(4 * seconds / side.train(4)["clock"]))
            speed, told = {side.name: [] for side in sides}, {}
            order = random.Random(0)  # another order in every round
            for _ in range(rounds):
                for side in order.sample(sides, len(sides)):
                    told[side.name] = side.train(steps[side.name])
                    images = steps[side.name] * settings.batch_size
                    speed[side.name].append(
                        (images / told[side.name]["clock"], images / told[side.name]["cpu"])
                    )
        finally:
            for side in sides:
                side.process.kill()
    start_up = {side.name: side.start_up for side in sides}
    return speed, start_up, {name: each["peak_mb"] for name, each in told.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="per turn of a side")
    arguments = parser.parse_args()
    python, version = environment()
    print(f"PyTorch {version}, pythae {PYTHAE}, Python {platform.python_version()}\n")
    for work in arguments.work:
        title, settings = WORK[work]
        speed, start_up, memory = measured(settings, arguments.rounds, arguments.seconds, python)
        print(f"### {title}\n")
        print("| | images/s | ours is faster, times | the same per CPU second | "
              "start to first step, s | peak memory, MB |")  # fmt: skip
        print("|---|---|---|---|---|---|")
        for name, rounds in speed.items():
            first = "fit, bfloat16" if "bfloat16" in name else "fit"
            ratios = [
                [one[kind] / other[kind] for one, other in zip(speed[first], rounds, strict=True)]
                for kind in (0, 1)
            ]
            cells = [f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in ratios]
            shown = NAMES.get(name, f"PyTorch, {name}")
            print(
                f"| {shown} | {median(each for each, _ in rounds):,.0f} | {' | '.join(cells)} | "
                f"{start_up[name]:.1f} | {memory[name]:,.0f} |",
                flush=True,
            )
        print()


if __name__ == "__main__":
    main()

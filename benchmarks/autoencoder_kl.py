"""Our VAE with a latent map beside diffusers' AutoencoderKL: the same images, loss and time.

    python benchmarks/autoencoder_kl.py [--minutes 10] [--size 64] [--rates 2e-3 1e-3 5e-4]
        [--sides ours "ours, Muon" "ours, bfloat16" diffusers] [--to FILE.csv]

Both have a latent of a map of 8 channels at an eighth of the image's size, numbers of weights
within a tenth of each other, group norm, Adam with a cosine schedule (one side: Muon), batches of
32, the likelihood `N(x; reconstruction, sigma)` and the KL with the same weight, no other term. A
side is a process of its own that trains for so many minutes of processor time. Of the learning
rates, the best counts for each side. diffusers is installed into the environment of rivals.py.
Can be interrupted and resumed.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import config

HERE = Path(__file__).parent
DIFFUSERS = "0.42.1"
POINTS, LEVEL = 20, 0.85  # of the time; the SSIM whose time is told
SIDES = ("ours", "ours, Muon", "ours, bfloat16", "diffusers")
NETWORK = {  # its encoder and decoder have one stage without a stride, ours has not
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [24, 32, 48, 56],
    "layers_per_block": 1,
    "latent_channels": 8,
    "norm_num_groups": 8,
}


def settings_of(size, side="ours"):
    return config.Settings(
        dataset="brain",
        image_shape=(size, size, 1),
        widths=(32, 64, 96),
        latent_map=(size // 8, size // 8, 8),
        residual=True,
        group_norm=True,
        reconstruction="gaussian",
        sigma=0.05,
        beta=0.005,
        batch_size=32,
        optimizer="muon" if "Muon" in side else "adam",
        precision="bfloat16" if "bfloat16" in side else "float32",
    )


def ours(training, test, out, told):
    """Our side, in a process of its own, with the arguments and the output of the other."""
    import numpy as np
    import tensorflow as tf
    from prepared import prepared

    from nn.batches import in_batches

    told, test = json.loads(told), np.load(test)
    model, batches = prepared(config.Settings.from_dict(told["settings"]), np.load(training))
    batches = iter(batches)
    step = tf.function(lambda: model.train_step(next(batches)))
    weights = model.encoder.count_params() + model.decoder.count_params()
    spent, taken = 0.0, 0
    for point in range(1, told["points"] + 1):
        start = time.process_time()
        while (now := spent + time.process_time() - start) < told["seconds"] * point / told[
            "points"
        ]:
            share = min(1.0, now / told["seconds"])
            cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * share))
            model.optimizer.learning_rate = told["rate"] * cosine
            step()
            taken += 1
        spent += time.process_time() - start
        np.save(Path(out) / f"{point}.npy", in_batches(model.reconstruct, test))
        print(json.dumps({"seconds": spent, "steps": taken, "weights": weights}), flush=True)


def trained(side, rate, arguments, folder):
    """Steps, weights, and SSIM and PSNR of the test images by time, of one side."""
    import numpy as np
    from rivals import KEPT_PAGES, environment

    from analysis import reconstruction

    settings = settings_of(arguments.size, side)
    told = {"seconds": 60.0 * arguments.minutes, "points": POINTS, "rate": rate}
    told |= {"batch": settings.batch_size, "sigma": settings.sigma, "beta": settings.beta}
    told |= {"seed": 0, "network": NETWORK, "threads": len(os.sched_getaffinity(0))}
    told |= {"settings": settings.to_dict()}
    if side == "diffusers":
        python, _ = environment()
        asked = [python, "-m", "pip", "install", "--quiet", f"diffusers=={DIFFUSERS}"]
        subprocess.run(asked, check=True)
        command, extra = [python, HERE / "autoencoder_kl_torch.py"], KEPT_PAGES
    else:
        command, extra = [sys.executable, __file__, "--one-side"], {}
    with tempfile.TemporaryDirectory() as out:
        words = (folder / "training.npy", folder / "test.npy", out, json.dumps(told))
        done = subprocess.run(
            [str(each) for each in (*command, *words)],
            capture_output=True,
            text=True,
            env=os.environ | extra,
        )
        if done.returncode:
            raise RuntimeError(f"{side}: {done.stderr[-2000:]}")
        points = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]
        real = np.load(folder / "test.npy") / np.float32(255)
        for number, point in enumerate(points, 1):
            like = reconstruction.likeness(real, np.load(Path(out) / f"{number}.npy"))
            point |= {name: float(like[name].mean()) for name in ("ssim", "psnr")}
    reached = [point["seconds"] for point in points if point["ssim"] >= LEVEL]
    last = points[-1]
    return {
        "weights": last["weights"],
        "steps": last["steps"],
        "ssim": last["ssim"],
        "psnr": last["psnr"],
        f"seconds_to_{LEVEL}": reached[0] if reached else math.inf,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of processor time")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 1e-3, 5e-4])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--to", type=Path, default=Path("autoencoder_kl.csv"))
    parser.add_argument("--one-side", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_side:
        ours(*arguments.one_side)
        return

    import numpy as np
    from rows import resumable

    import data

    images = data.load(settings_of(arguments.size))
    with tempfile.TemporaryDirectory() as folder:
        for name, split in (("training", images.train), ("test", images.test)):
            np.save(Path(folder) / f"{name}.npy", split.images[:])
        todo = [
            {"side": side, "rate": rate} for rate in arguments.rates for side in arguments.sides
        ]
        rows = resumable(
            arguments.to, todo, lambda key: trained(**key, arguments=arguments, folder=Path(folder))
        )
    print(rows.round(3).to_string(index=False))


if __name__ == "__main__":
    main()

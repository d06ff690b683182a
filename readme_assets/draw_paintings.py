"""The figure and numbers of paintings in docs/results.md, from a run of an introspective model.

    IMAGES_DIR=... python readme_assets/draw_paintings.py RUN

Only outputs of the model are shown, no painting of the folder.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import data
import train
from analysis import latent, plots
from nn import losses, metrics
from nn.batches import in_batches

HERE = Path(__file__).parent
SHOWN = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    images, model = data.images_of(run), train.load(run)
    parts = [images.validation.images[:], images.test.images[:]]
    held_out = np.concatenate(parts) / np.float32(255)
    z_mean, z_log_var, again = in_batches(model.describe, held_out, batch_size=16)
    ends = model.encode(images.train.images[:4])[0].numpy()
    ways = [latent.slerp(ends[at], ends[at + 1], SHOWN) for at in (0, 2)]
    made = in_batches(model.decode, np.concatenate(ways), batch_size=16)
    samples = model.sample(len(held_out), seed=1).numpy()
    rows = {
        "reconstructions (held out)": again[:SHOWN],
        "interpolation 1": made[:SHOWN],
        "interpolation 2": made[SHOWN:],
        "random samples": samples[:SHOWN],
        "more": samples[SHOWN : 2 * SHOWN],
    }
    plots.save(plots.image_rows(rows, width=9.0), HERE / "paintings.png")

    sharp = metrics.sharpness(held_out).mean()
    generated = in_batches(model.encode, samples, batch_size=16)
    numbers = {
        "PSNR of held-out paintings, dB": metrics.psnr(held_out, again).numpy().mean(),
        "sharpness of reconstructions / held-out paintings": metrics.sharpness(again).mean()
        / sharp,
        "sharpness of samples / held-out paintings": metrics.sharpness(samples).mean() / sharp,
        "KL of held-out paintings, nats": kl(z_mean, z_log_var),
        "KL of samples, nats": kl(*generated),
    }
    real = images.train.images[: len(held_out)] / np.float32(255)
    for what, others in {"samples": samples, "real paintings": real}.items():
        for level, value in metrics.sliced_wasserstein(held_out, others, seed=0).items():
            numbers[f"sliced Wasserstein {level}, held-out paintings and {what}"] = value
    text = [f"{len(images.train)} training paintings, {len(held_out)} held out.", ""]
    text += [
        "| | |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in numbers.items()),
    ]
    (HERE / "paintings.md").write_text("\n".join(["# Paintings", "", *text, ""]))
    print(*text, sep="\n")


def kl(z_mean, z_log_var):
    """Mean KL from the prior, nats."""
    return losses.kl_to_standard_normal(z_mean, z_log_var).numpy().mean()


if __name__ == "__main__":
    main()

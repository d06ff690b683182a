"""The figure of paintings in the README, and its numbers, from a trained run.

    IMAGES_DIR=... python readme_assets/draw_paintings.py RUN

Nothing but what the model drew is shown: no painting of the folder.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pandas as pd

import data
import latent
import metrics
import plots
import train

HERE = Path(__file__).parent
SHOWN = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    images, model = data.load(train.load_settings(run)), train.load(run)
    parts = [images.validation.images[:], images.test.images[:]]
    held_out = np.concatenate(parts) / np.float32(255)
    again = latent.in_batches(model.reconstruct, held_out, batch_size=16)
    z, _ = latent.encode(model, images.train)
    ways = np.concatenate([latent.slerp(z[0], z[1], SHOWN), latent.slerp(z[2], z[3], SHOWN)])
    made = latent.in_batches(model.decode, ways, batch_size=16)
    samples = model.sample(len(held_out), seed=1).numpy()
    rows = {
        "held out, drawn again": again[:SHOWN],
        "from one to another": made[:SHOWN],
        "likewise": made[SHOWN:],
        "random points": samples[:SHOWN],
        "more": samples[SHOWN : 2 * SHOWN],
    }
    plots.save(plots.image_rows(rows, width=9.0), HERE / "paintings.png")

    sharp = metrics.sharpness(held_out).mean()
    levels = metrics.sliced_wasserstein(held_out, samples, seed=0)
    history = pd.read_csv(run / "history.csv").iloc[-1]
    numbers = {
        "PSNR of held-out paintings, dB": metrics.psnr(held_out, again).numpy().mean(),
        "sharpness of reconstructions": metrics.sharpness(again).mean() / sharp,
        "sharpness of samples": metrics.sharpness(samples).mean() / sharp,
        "KL of real paintings, nats": history["kl"],
        "KL of generated ones, nats": history["kl_generated"],
    } | {f"sliced Wasserstein {level}": value for level, value in levels.items()}
    print(f"{len(images.train)} paintings to learn from, {len(held_out)} held out")
    print(pd.Series(numbers).round(3).to_string())


if __name__ == "__main__":
    main()

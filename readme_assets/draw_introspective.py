"""Table and figures of introspective models in docs/results.md, of benchmarks/introspective.py.

    python readme_assets/draw_introspective.py FOLDER

FOLDER is the one that the benchmark filled. Samples are of the last seed on paintings, and none
is chosen.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pandas as pd
from tables import markdown, over_seeds

import train
from analysis import plots

HERE = Path(__file__).parent
PANELS = {  # of each set: what is plotted against PSNR
    "mnist": {"Frechet": "Frechet distance", "sharpness of samples": "samples / real images"},
    "paintings": {
        "sliced Wasserstein 64": "sliced Wasserstein distance, finest level",
        "sharpness of samples": "samples / real images",
    },
}
TITLES = {"mnist": "MNIST", "paintings": "paintings"}


def samples_of(rows, name, folder):
    """The first samples of every model of the last seed, by model."""
    last = rows[(rows["seed"] == rows["seed"].max()) & rows["epochs"].notna()]
    drawn = {}
    for row in last.itertuples():
        kind = row.model.split(",")[0]
        model = train.load(folder / f"{name}-{kind}-{row.epochs:.0f}-{row.seed}")
        drawn[row.model] = model.sample(10).numpy()
    return drawn


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    panels, text = {}, []
    for name, measured in PANELS.items():
        path = folder / f"{name}.csv"
        if not path.exists():
            print(f"{path} is missing and left out")
            continue
        rows = pd.read_csv(path)
        shutil.copy(path, HERE / f"introspective_{name}.csv")
        text += [f"## {TITLES[name]}", "", *markdown(over_seeds(rows), "model"), ""]
        models = rows[rows["model"] != "real images"]
        for column, label in measured.items():
            what = "sharpness" if column.startswith("sharpness") else "distance"
            pair = (("psnr", "PSNR of reconstructions, dB"), (column, label))
            panels[f"{TITLES[name]}: {what}"] = (models, *pair)
        if name == "paintings":
            drawn = plots.image_rows(samples_of(rows, name, folder), width=9.0)
            plots.save(drawn, HERE / "introspective_samples.png")
    plots.save(plots.trade(panels, width=4.2 * len(panels)), HERE / "introspective_trade.png")
    text = ["# Introspective models compared with a VAE", "", *text]
    (HERE / "introspective.md").write_text("\n".join(text))
    print(f"written: {HERE / 'introspective.md'}, {HERE / 'introspective_trade.png'}")


if __name__ == "__main__":
    main()

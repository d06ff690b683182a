"""Says how to use the project: it is a folder to work in, not a library to install."""

import sys

sys.exit(
    "Latent Atlas is a folder to work in, not a library to install. In this folder: "
    "pip install -r requirements.txt, then jupyter notebook run.ipynb, or python train.py digits"
)

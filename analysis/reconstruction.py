"""How like images are to their reconstructions, and what PCA reaches without a network."""

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from nn import metrics
from nn.batches import in_batches

LIKENESS = {
    "ssim": metrics.ssim,
    "ssim_foreground": metrics.ssim_foreground,
    "psnr": metrics.psnr,
    "mse": metrics.mse,
}


def likeness(images, made) -> dict:
    """Similarity of every image to its reconstruction, by each measure of `LIKENESS`.

    Args:
        images, made: Floats in [0, 1], both `(n, height, width, channels)`.

    Returns:
        Arrays `(n,)` by name.
    """
    parts = in_batches(measured, images, made, batch_size=128)
    return dict(zip(LIKENESS, parts, strict=True))


def measured(images, made):
    """`likeness` as a tuple, of tensors of one batch."""
    return tuple(each(images, made) for each in LIKENESS.values())


def baselines(images, components, split="test", most=3000) -> pd.DataFrame:
    """Likeness of `without_network`'s images.

    Args:
        images, components, split, most: See there.

    Returns:
        One row per baseline, one column per measure of `LIKENESS`; means over images.
    """
    pixels = images.splits[split].images[:] / np.float32(255)
    rows = {
        name: {key: float(each.mean()) for key, each in likeness(pixels, made).items()}
        for name, made in without_network(images, components, split, most).items()
    }
    return pd.DataFrame(rows).T


def without_network(images, components, split="test", most=3000) -> dict:
    """Baselines: the mean training image, and PCA with as many components as latent axes.

    Args:
        images: `data.ImageData`.
        components: Components of PCA; at most one fewer than images, or as many as pixels.
        split: Which split is reconstructed.
        most: Most training images for the fit of PCA.

    Returns:
        Dictionary of names to the split's images as each reconstructs them, floats in [0, 1].
    """
    chosen = np.random.default_rng(0).permutation(len(images.train))[:most]
    train_pixels = images.train.images[np.sort(chosen)].reshape(len(chosen), -1) / np.float32(255)
    pixels = images.splits[split].images[:] / np.float32(255)
    flat = pixels.reshape(len(pixels), -1)
    components = min(components, max(1, len(train_pixels) - 1), train_pixels.shape[1])
    pca = PCA(components, svd_solver="randomized", random_state=0).fit(train_pixels)
    drawn = {
        "mean image": np.broadcast_to(pca.mean_, flat.shape),
        f"PCA, {components} components": pca.inverse_transform(pca.transform(flat)),
    }
    return {
        name: np.clip(made, 0.0, 1.0).astype(np.float32).reshape(pixels.shape)
        for name, made in drawn.items()
    }

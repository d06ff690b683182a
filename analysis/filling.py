"""Holes of images, filled by a model with a latent map and a flow prior."""

import numpy as np
from scipy.ndimage import maximum_filter
from sklearn.decomposition import PCA

from nn.batches import as_float, in_batches

COMPONENTS = 200


def known_places(holes, latent_map, margin):
    """Which numbers of a latent map are known, if pixels of the image are not.

    Args:
        holes: Booleans, `(n, height, width)`, True where a pixel is unknown.
        latent_map: `(height, width, channels)`; its sides divide those of the image.
        margin: How many places beside an unknown one are unknown too.

    Returns:
        Booleans, `(n, height * width * channels)`.
    """
    rows, columns, channels = latent_map
    n, height, width = holes.shape
    blocks = holes.reshape(n, rows, height // rows, columns, width // columns)
    reach = 2 * margin + 1
    touched = maximum_filter(blocks.any(axis=(2, 4)), size=(1, reach, reach))
    return np.repeat(~touched[..., None], channels, axis=-1).reshape(n, -1)


def filled(model, flow, images, holes, seed=0, **options):
    """Images whose holes are filled with what the flow finds likely there.

    The holes are closed with the mean of each image's other pixels and encoded, and the places of
    the map that have unknown pixels are drawn anew (`Flow.completed`). The encoder looks beyond the
    pixels of a place, so this is done twice: first the places beside a hole, which saw the mean,
    are drawn too; then the image with this first draw in its holes is encoded, and they are kept.
    Only the holes are taken from the result.

    Args:
        model: A trained model with a latent map.
        flow: Its `families.flow_matching.Flow`.
        images: Floats in [0, 1], `(n, height, width, channels)`.
        holes: Booleans, `(n, height, width)`, or one such array for all.
        seed: Of the draws; another one fills differently.
        **options: Of `Flow.completed`.

    Returns:
        Floats in [0, 1], of the images' shape.

    Raises:
        ValueError: if the model's latent is a vector, the holes have another size, or an image has
            no known place.
    """
    images, holes = np.asarray(images, np.float32), np.asarray(holes, bool)
    if not model.latent_map:
        raise ValueError("holes can be filled by a model with a latent_map; this one has a vector")
    if holes.shape[-2:] != images.shape[1:3]:
        raise ValueError(
            f"the holes have {holes.shape[-2:]} pixels, the images {images.shape[1:3]}"
        )
    holes = np.broadcast_to(holes, images.shape[:3])
    known, far = (known_places(holes, model.latent_map, margin) for margin in (0, 1))
    if not known.any(axis=1).all():
        row = int(np.flatnonzero(~known.any(axis=1))[0])
        raise ValueError(f"image {row}: nothing of its latent map is known outside the hole")
    left = ~holes[..., None]

    def drawn(closed, known, **options):
        z, _ = in_batches(model.encode, np.where(left, images, closed))
        return in_batches(model.decode, flow.completed(z, known, seed=seed, **options))

    mean = (images * left).sum(axis=(1, 2), keepdims=True) / left.sum(axis=(1, 2), keepdims=True)
    first = drawn(mean, far, **options | {"rounds": 1})
    return np.where(left, images, drawn(first, known, **options))


def by_gaussian(training, images, holes, components=COMPONENTS):
    """Images whose holes are filled with what a Gaussian expects there: a baseline.

    The Gaussian has the principal components of the training images and equal noise in every pixel
    (probabilistic PCA). Each hole is its posterior mean, given the image's other pixels.

    Args:
        training: uint8, or floats in [0, 1], `(m, height, width, channels)`.
        images: Floats in [0, 1], `(n, height, width, channels)`.
        holes: Booleans, `(n, height, width)`, or one such array for all.
        components: Most principal components.

    Returns:
        Floats in [0, 1], of the images' shape.

    References: [Tipping & Bishop, 1999](https://doi.org/10.1111/1467-9868.00196), Section 3.2
    """
    known = np.asarray(as_float(np.asarray(training))).reshape(len(training), -1)
    most = min(len(known) - 1, known.shape[1] - 1)  # what is left is the noise
    pca = PCA(min(components, most), random_state=0).fit(known)
    loads = pca.components_.T * np.sqrt(pca.explained_variance_ - pca.noise_variance_)
    holes, made = np.broadcast_to(holes, images.shape[:3])[..., None], np.empty_like(images)
    for number, (image, hole) in enumerate(zip(images, holes, strict=True)):
        outside = ~np.broadcast_to(hole, image.shape).ravel()
        seen, left = loads[outside], image.ravel()[outside] - pca.mean_[outside]
        inner = seen.T @ seen + pca.noise_variance_ * np.eye(seen.shape[1])
        whole = loads @ np.linalg.solve(inner, seen.T @ left) + pca.mean_
        made[number] = whole.reshape(image.shape)
    return np.where(holes, np.clip(made, 0.0, 1.0), images)

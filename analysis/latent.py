"""Tools for latent spaces. They take and return arrays."""

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import shortest_path
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from nn import losses
from nn.batches import in_batches, rows_at_a_time
from storage import disk

PLANES = ("axes", "pca", "tsne", "umap")


def encode(model, split, batch_size=None, cache=None):
    """Posteriors of a split's images, row by row with its table.

    Args:
        model: Anything with `encode(images) -> (z_mean, z_log_var)`.
        split: Anything with `images`; with a cache, `splits.Split`.
        batch_size: Images per call; default: `batches.rows_at_a_time`.
        cache: Path of an `.npz` file, as in a run folder: read if it has the latents of these
            images by this model, else written.

    Returns:
        `(z_mean, z_log_var)`, float32 arrays of shape `(n, latent_dim)`.
    """
    batch_size = batch_size or rows_at_a_time(split.images.shape)
    if cache is None:
        return in_batches(model.encode, split.images, batch_size=batch_size)
    cache, mark = Path(cache), _mark(model, split)
    if cache.is_file():
        try:
            with np.load(cache) as kept:
                if str(kept["mark"]) == mark:
                    return kept["z_mean"], kept["z_log_var"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            print(f"{cache} is damaged; the images are encoded again")
    z_mean, z_log_var = in_batches(model.encode, split.images, batch_size=batch_size)
    with disk.replacing(cache) as temporary:
        np.savez(temporary, mark=mark, z_mean=z_mean, z_log_var=z_log_var)
    return z_mean, z_log_var


def _mark(model, split):
    """Hash of the inputs of latents: all weights and all images."""
    content = hashlib.sha256()
    for weight in model.get_weights():
        content.update(np.ascontiguousarray(weight))
    for digest in split.hashes():
        content.update(digest.encode())
    return content.hexdigest()


# --- maps ----------------------------------------------------------------------------------------


def plane(z, kind=None, seed=0):
    """Coordinates of each latent in a plane, for figures.

    Args:
        z: Shape `(n, latent_dim)`, latent_dim at least 2.
        kind: `"axes"` (the first two), `"pca"`, `"tsne"` (keeps neighbours, not distances) or
            `"umap"` (also keeps neighbours; needs umap-learn); None: the axes of a 2-D latent, else
            PCA.
        seed: Of t-SNE and UMAP.

    Returns:
        `(points, share)`: shape `(n, 2)`, and the share of the variance that they show, in [0, 1]
            (NaN for t-SNE and UMAP, where it is not defined).
    """
    z = np.asarray(z)
    if z.shape[1] < 2:
        raise ValueError("a plane needs a latent of at least 2 axes")
    kind = kind or ("axes" if z.shape[1] == 2 else "pca")
    if kind == "axes":
        return z[:, :2], float(z[:, :2].var(axis=0).sum() / z.var(axis=0).sum())
    if kind == "pca":
        pca = PCA(n_components=2, random_state=0)
        return pca.fit_transform(z), float(pca.explained_variance_ratio_.sum())
    if kind == "tsne":
        perplexity = min(30.0, (len(z) - 1) / 3)
        made = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(z)
        return made, float("nan")
    if kind == "umap":
        try:
            from umap import UMAP
        except ImportError:
            raise ValueError('kind="umap" needs umap-learn: pip install umap-learn') from None
        return UMAP(random_state=seed).fit_transform(z), float("nan")
    raise ValueError(f"kind = {kind!r} is not valid; allowed: {', '.join(PLANES)}")


def manifold(side, extent=2.0):
    """Latents on a square grid of a 2-D latent, row by row from the top left.

    Args:
        side: Points on each side.
        extent: The grid spans [-extent, extent], in standard deviations of the prior.

    Returns:
        Shape `(side * side, 2)`; the first axis grows to the right, the second upwards.
    """
    axis = np.linspace(-extent, extent, side, dtype=np.float32)
    across, up = np.meshgrid(axis, axis[::-1])
    return np.stack([across.ravel(), up.ravel()], axis=1)


def by_kl(z_mean, z_log_var):
    """Latent axes, the most informative first.

    Args:
        z_mean, z_log_var: From `encode`; for a `z_log_var` of minus infinity (no variance) the
            order is by the variance of the means.

    Returns:
        `(axes, nats)`: numbers of the axes, and the mean KL of each from N(0, 1), in that order.
    """
    z_mean, z_log_var = np.asarray(z_mean, np.float64), np.asarray(z_log_var, np.float64)
    if np.isneginf(z_log_var).all():
        nats = np.full(z_mean.shape[1], np.inf)
        return np.argsort(-z_mean.var(axis=0), kind="stable"), nats
    nats = losses.kl_per_axis(z_mean, z_log_var).numpy().mean(axis=0)
    axes = np.argsort(-nats, kind="stable")
    return axes, nats[axes]


def traversal(z, axis, values):
    """One latent with one of its axes set to each value; `(values, latent_dim)`."""
    made = np.repeat(np.asarray(z, np.float32)[None], len(values), axis=0)
    made[:, axis] = values
    return made


def nearest(points, among):
    """For each point its nearest neighbour in another set, by Euclidean distance.

    With images as points it detects memorisation: a sample that is a training image has a neighbour
    at distance 0.

    Args:
        points: Shape `(n, ...)`.
        among: Shape `(m, ...)`.

    Returns:
        `(rows, distances)`: shape `(n,)` each; the rows are those of `among`.
    """
    points, among = (np.asarray(each, np.float32) for each in (points, among))
    search = NearestNeighbors(n_neighbors=1, algorithm="brute")
    found = search.fit(among.reshape(len(among), -1))
    distances, rows = found.kneighbors(points.reshape(len(points), -1))
    return rows[:, 0], distances[:, 0]


# --- paths ---------------------------------------------------------------------------------------


def lerp(start, end, steps):
    """Linear interpolation between two latents, both ends included; `(steps, latent_dim)`."""
    share = np.linspace(0.0, 1.0, steps, dtype=np.float32)[:, None]
    return (1.0 - share) * np.asarray(start) + share * np.asarray(end)


def slerp(start, end, steps):
    """Spherical interpolation between two latents, both ends included.

    `sin((1 - t) a) / sin(a) start + sin(t a) / sin(a) end`, with `a` the angle between them
    ([White, 2016](https://arxiv.org/abs/1609.04468)): it keeps the length that latents of the prior
    have, while a linear path passes through the sparse centre. If the formula is not defined
    (parallel, opposite or zero vectors), the path is linear.

    Returns:
        float32 `(steps, latent_dim)`.
    """
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    lengths = np.linalg.norm(start) * np.linalg.norm(end)
    angle = np.arccos(np.clip(start @ end / lengths, -1.0, 1.0)) if lengths else 0.0
    if np.sin(angle) < 1e-6:
        return lerp(start, end, steps).astype(np.float32)
    share = np.linspace(0.0, 1.0, steps)[:, None]
    path = np.sin((1.0 - share) * angle) * start + np.sin(share * angle) * end
    return (path / np.sin(angle)).astype(np.float32)


def through_data(z, start, end, neighbours=8):
    """Rows of the shortest path from one latent to another through other latents.

    The graph joins every latent with its nearest neighbours; an edge costs its squared length, so
    that many short edges are preferred to a long one across an empty region.

    Args:
        z: Shape `(n, latent_dim)`.
        start, end: Rows of z.
        neighbours: Number of neighbours of each latent.

    Returns:
        Rows of z, from `start` to `end`.

    Raises:
        ValueError: if the two are in unconnected parts of the graph.
    """
    z = np.asarray(z, np.float64)
    graph = kneighbors_graph(z, min(neighbours, len(z) - 1), mode="distance")
    graph.data **= 2
    _, before = shortest_path(
        graph, method="D", directed=False, indices=start, return_predecessors=True
    )
    if start != end and before[end] < 0:
        raise ValueError(
            f"no path joins rows {start} and {end} over {neighbours} neighbours; use more "
            "neighbours"
        )
    rows = [int(end)]
    while rows[-1] != start:
        rows.append(int(before[rows[-1]]))
    return np.array(rows[::-1])


def along(points, steps):
    """A path through some latents in equal steps: `steps` points at equal distances along it.

    Args:
        points: Shape `(k, latent_dim)`, k at least 1.
        steps: Number of points, both ends included.

    Returns:
        float32 `(steps, latent_dim)`.
    """
    points = np.asarray(points, np.float64)
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    reached = np.concatenate([[0.0], np.cumsum(lengths)])
    wanted = np.linspace(0.0, reached[-1], steps)
    made = [np.interp(wanted, reached, axis) for axis in points.T]
    return np.stack(made, axis=1).astype(np.float32)


def analogy(a, b, c):
    """`a - b + c`: adds the difference between a and b to c."""
    return np.asarray(a) - np.asarray(b) + np.asarray(c)


# --- draws ---------------------------------------------------------------------------------------


def posterior_draws(z_mean, z_log_var, seed=0):
    """One draw of every posterior; float32 of the same shape."""
    noise = np.random.default_rng(seed).normal(size=np.shape(z_mean))
    return (z_mean + np.exp(0.5 * np.asarray(z_log_var)) * noise).astype(np.float32)

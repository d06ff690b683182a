"""Maps of latents: images as points of a plane, and what stands for a place without an image."""

from typing import NamedTuple

import numpy as np

from analysis import latent

NEIGHBOURS = 5  # whose mean stands for an empty place of a map that cannot be inverted
NAMES = {"tsne": "t-SNE", "umap": "UMAP"}


class Plane(NamedTuple):
    """A map of latents.

    Attributes:
        points: Shape `(n, 2)`.
        names: Of its two axes.
        title: What it shows, in words.
        inverse: Function from a point to a latent `(latent_dim,)`, or None if there is none.
    """

    points: np.ndarray
    names: tuple[str, str]
    title: str
    inverse: object


class Planes:
    """The maps of some latents, each computed when it is first asked for and then kept.

    Args:
        z, z_log_var: Posteriors, shape `(n, latent_dim)`.
    """

    def __init__(self, z, z_log_var):
        self.z = z
        self.order = latent.by_kl(z, z_log_var)[0]
        self._known = {}

    def has(self, kind, seed=0):
        """Whether a map is there without waiting."""
        return (kind, seed) in self._known

    def plane(self, kind="pca", seed=0) -> Plane:
        """A map.

        Args:
            kind: One of `latent.PLANES`; `"axes"` are the two of the highest KL.
            seed: Of t-SNE and UMAP.
        """
        if not self.has(kind, seed):  # two visitors may both compute it: it is the same
            self._known[kind, seed] = self._made(kind, seed)
        return self._known[kind, seed]

    def _made(self, kind, seed):
        centre, (first, second) = self.z.mean(axis=0), self.order[:2]
        source = self.z[:, self.order] if kind == "axes" else self.z
        points, share = latent.plane(source, kind, seed)
        if kind == "axes":

            def inverse(point):
                z = centre.copy()
                z[[first, second]] = point
                return z

            title = f"axes z_{first} and z_{second}, {share:.0%} of the variance"
            return Plane(points, (f"z_{first}", f"z_{second}"), title, inverse)
        if kind == "pca":
            # The plane is linear in the latents, so least squares gives back its two vectors.
            vectors = np.linalg.lstsq(self.z - centre, points, rcond=None)[0]
            title = f"two principal components, {share:.0%} of the variance"
            return Plane(
                points, ("PC 1", "PC 2"), title, lambda point: centre + vectors @ np.asarray(point)
            )
        name = NAMES[kind]
        title = f"{name} keeps neighbours, not distances (seed {seed})"
        return Plane(points, (f"{name} 1", f"{name} 2"), title, None)

    def at(self, kind, point, seed=0):
        """What stands for a place of the map.

        Returns:
            `(z, sentence)`: the latent of that very place where the map can be inverted, else the
            mean of the images nearest to it; and which of the two it is.
        """
        plane = self.plane(kind, seed)
        if plane.inverse is None:
            away = np.linalg.norm(plane.points - np.asarray(point), axis=1)
            rows = np.argsort(away, kind="stable")[:NEIGHBOURS]
            said = (
                f"This map cannot be inverted: the decoder at the mean latent of the {len(rows)} "
                "images nearest to this place."
            )
            return self.z[rows].mean(axis=0), said
        others = "axes" if kind == "axes" else "components"
        rest = f", the other {others} at their mean" if self.z.shape[1] > 2 else ""
        said = f"{plane.names[0]} = {point[0]:.2f}, {plane.names[1]} = {point[1]:.2f}{rest}"
        z = np.asarray(plane.inverse(point), np.float32)
        return z, f"The decoder at this very place: {said}."

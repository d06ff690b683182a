"""U-Nets: the velocity of a flow on latent maps, which is told a vector; a denoiser of images."""

import keras

from nn import networks
from nn.networks import Layers

LEAST_SIDE = 4  # of the lowest level's maps
MOST_LEVELS = 3
HEADS = 4


def unet(maps, told, width=96, seed=0, precision="float32"):
    """U-Net with residual blocks, group norm, and attention at its lowest level.

    Each level halves the sides and has another `width` more filters. There is at least one level,
    and at most as many as leave whole sides of `LEAST_SIDE` or more.

    Args:
        maps: Tensor of a functional model, `(batch, height, width, channels)`.
        told: Tensor `(batch, numbers)` that every block gets, such as a time and conditions.
        width: Filters of the first level.
        seed, precision: See `networks.encoder`.

    Returns:
        float32 tensor of the shape of `maps`, 0 before it is trained.

    References: [Ronneberger et al., 2015](https://arxiv.org/abs/1505.04597);
        [Ho et al., 2020](https://arxiv.org/abs/2006.11239), Appendix B
    """
    layers = Layers("unet", seed, precision, group_norm=True)
    # This dense layer mixes what is told; each block has one of its own after it.
    mixed = layers.activate(layers.dense(4 * width)(told), norm=False)
    widths = [width * (level + 1) for level in range(_levels(maps.shape[1:]))]

    x, skips = layers.conv(width, 3)(maps), []
    for level, filters in enumerate(widths):
        if level:
            x = layers.conv(filters, 3, stride=2)(x)
        x = _block(layers, x, filters, mixed)
        skips.append(x)
    x = _block(layers, _attention(layers, x), widths[-1], mixed)
    for filters, skip in reversed(list(zip(widths[:-1], skips[:-1], strict=True))):
        x = layers.enlarge(x, filters, 3, 2, "nearest")
        x = keras.layers.Concatenate(dtype=layers.dtype)([x, skip])
        x = _block(layers, x, filters, mixed)
    return layers.map_head(maps.shape[-1], 3, "velocity", "zeros")(layers.activate(x))


def denoiser(
    image_shape,
    widths=(24, 48, 96, 128),
    residual=False,
    dropout=0.0,
    spread=False,
    seed=0,
    precision="float32",
):
    """U-Net from corrupted images to logits of clean ones, for any image size.

    Each level has two convolutions with group norm and LeakyReLU on the way down, and two on the
    way up, where the maps of the way down are put beside its own. They carry every detail: nothing
    is squeezed through a latent, and without corruption the network would learn to copy.

    Args:
        image_shape: `(height, width, channels)`.
        widths: Filters of the levels; each after the first halves the sides.
        residual: Whether the two convolutions of a level have a skip connection.
        dropout, seed, precision: See `networks.encoder`.
        spread: Whether it gives beside each logit the log of a standard deviation, 0 before it is
            trained.

    Returns:
        Functional model: float32 `(batch, height * width * channels)`, the images as vectors, to
        float32 logits `(batch, *image_shape)`; with `spread` of twice the channels, the logs last.

    References: [Ronneberger et al., 2015](https://arxiv.org/abs/1505.04597)
    """
    layers = Layers("denoiser", seed, precision, group_norm=True, dropout=dropout)
    pad = networks.padding(image_shape, (2,), len(widths) - 1)

    def level(x, filters):
        inner = layers.activate(layers.conv(filters, 3)(x))
        inner = layers.activate(layers.conv(filters, 3)(inner))
        return layers.residual(inner, filters, 3) if residual else inner

    pixels = keras.Input((image_shape[0] * image_shape[1] * image_shape[2],), name="z")
    x = keras.layers.Reshape(image_shape, dtype=layers.dtype, name=networks.MAP)(pixels)
    if any(map(any, pad)):
        x = keras.layers.ZeroPadding2D(pad, dtype=layers.dtype)(x)
    skips = []
    for filters in widths[:-1]:
        x = level(x, filters)
        skips.append(x)
        x = keras.layers.AveragePooling2D(2, dtype=layers.dtype)(x)
    x = level(x, widths[-1])
    for filters, skip in zip(reversed(widths[:-1]), reversed(skips), strict=True):
        x = layers.enlarge(x, filters, 2, 2, "transpose")
        x = level(keras.layers.Concatenate(dtype=layers.dtype)([x, skip]), filters)
    made = layers.map_head(image_shape[2], 3, "logits")(x)
    if spread:
        logs = layers.map_head(image_shape[2], 3, "log_sigma", "zeros")(x)
        made = keras.layers.Concatenate(dtype="float32")([made, logs])
    if any(map(any, pad)):
        made = keras.layers.Cropping2D(pad, dtype="float32")(made)
    return keras.Model(pixels, made, name="decoder")


def whole(image_shape):
    """The encoder of a model without a latent: the image itself as a vector.

    Returns:
        Functional model: `(batch, *image_shape)` to `(batch, height * width * channels)`.
    """
    images = keras.Input(image_shape, name="images")
    flat = keras.layers.Flatten(name="z_mean", dtype="float32")(images)
    return keras.Model(images, flat, name="encoder")


def _levels(shape):
    """How many levels maps of this shape have."""
    sides, levels = shape[:2], 1
    while levels < MOST_LEVELS and all(side % 2 == 0 and side // 2 >= LEAST_SIDE for side in sides):
        sides, levels = [side // 2 for side in sides], levels + 1
    return levels


def _block(layers, x, width, told):
    """Two convolutions, the vector added between them, and a skip connection; starts as that."""
    inner = layers.conv(width, 3)(layers.activate(x))
    added = keras.layers.Reshape((1, 1, width), dtype=layers.dtype)(layers.dense(width)(told))
    inner = keras.layers.Add(dtype=layers.dtype)([inner, added])
    inner = layers.conv(width, 3, initializer="zeros")(layers.activate(inner))
    skip = x if x.shape[-1] == width else layers.conv(width, 1)(x)
    return keras.layers.Add(dtype=layers.dtype)([skip, inner])


def _attention(layers, x):
    """Every place of a map looks at all others."""
    height, width, channels = x.shape[1:]
    places = keras.layers.Reshape((height * width, channels), dtype=layers.dtype)
    seen = places(layers.norm(channels)(x))
    start = keras.initializers.GlorotUniform(seed=next(layers.seeds))
    attention = keras.layers.MultiHeadAttention(
        HEADS, channels // HEADS, kernel_initializer=start, dtype=layers.dtype
    )
    back = keras.layers.Reshape((height, width, channels), dtype=layers.dtype)
    return keras.layers.Add(dtype=layers.dtype)([x, back(attention(seen, seen))])

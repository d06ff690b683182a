"""Builders of encoders, decoders and classifiers for any image size."""

import itertools
import math
import zlib

import keras
import tensorflow as tf

from nn.layers import (
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    Dropout,
    GroupNormalization,
    LeakyReLU,
)

# exp(-20 / 2) is a posterior 20,000 times narrower than the prior, exp(4 / 2) one 7 times wider: no
# useful posterior is outside, and exp cannot overflow inside.
LOG_VAR_RANGE = (-20.0, 4.0)
# For the likelihood of vectors of about unit variance: without a lower limit of the variance a
# density is unbounded.
VECTOR_LOG_VAR_RANGE = (-8.0, 4.0)
LEAK = 0.2  # slope of LeakyReLU below zero
# Of batch norm's running averages: with Keras' 0.99 they lag for hundreds of steps, and evaluation,
# which uses them, lags behind training.
MOMENTUM = 0.9
GROUPS = 8  # most groups of group norm
MAP = "latent_map"  # the decoder's layer that has the latent as a map


class Layers:
    """Makes the layers of one network, with its precision, seeds, and optional batch or group norm
    and dropout."""

    def __init__(self, name, seed, precision, batch_norm=False, group_norm=False, dropout=0.0):
        self.name = name
        self.seed = seed
        self.dtype = keras.DTypePolicy("mixed_bfloat16" if precision == "bfloat16" else "float32")
        self.group_norm = group_norm
        self.normed = batch_norm or group_norm
        self.dropout = dropout
        # Every layer of a run has its own seed, and the global seed is not used.
        self.seeds = itertools.count(zlib.crc32(f"{name}/{seed}".encode()))
        self.dropouts = itertools.count(1)

    def _options(self, initializer="he_normal"):
        chosen = {
            "he_normal": keras.initializers.HeNormal,
            "glorot": keras.initializers.GlorotNormal,
            "zeros": lambda seed: keras.initializers.Zeros(),
        }
        return {
            "kernel_initializer": chosen[initializer](seed=next(self.seeds)),
            "dtype": self.dtype,
        }

    def conv(self, width, kernel_size, stride=1, transpose=False, initializer="he_normal"):
        kind = Conv2DTranspose if transpose else Conv2D
        # The norm that follows has its own offset.
        return kind(
            width,
            kernel_size,
            strides=stride,
            padding="same",
            use_bias=not self.normed,
            **self._options(initializer),
        )

    def norm(self, width):
        if self.group_norm:
            return GroupNormalization(math.gcd(GROUPS, width), epsilon=1e-5, dtype=self.dtype)
        # With several replicas it uses the statistics of the whole batch.
        shared = tf.distribute.get_strategy().num_replicas_in_sync > 1
        return BatchNormalization(momentum=MOMENTUM, synchronized=shared, dtype=self.dtype)

    def enlarge(self, x, width, kernel_size, stride, upsampling):
        """The inverse of a strided convolution: enlarges a map."""
        if upsampling == "transpose":
            return self.conv(width, kernel_size, stride, transpose=True)(x)
        x = keras.layers.UpSampling2D(stride, interpolation="nearest", dtype=self.dtype)(x)
        return self.conv(width, kernel_size)(x)

    def dense(self, width):
        return keras.layers.Dense(width, **self._options())

    def denses(self, x, widths):
        for width in widths:
            x = self.activate(self.dense(width)(x), norm=False)
        return x

    def head(self, width, name):
        """A linear output in float32, for any precision of its input."""
        options = self._options("glorot") | {"dtype": "float32"}
        return keras.layers.Dense(width, name=name, **options)

    def heads(self, latent_dim, latent_map=()):
        """A function from features and a name to an output of the latent's shape."""
        if not latent_map:
            return lambda x, name: self.head(latent_dim, name)(x)

        def flat(x, name):
            x = self.map_head(latent_map[-1], 1, f"{name}_{MAP}")(x)
            return keras.layers.Flatten(name=name, dtype="float32")(x)

        return flat

    def map_head(self, channels, kernel_size, name, initializer="glorot"):
        """`head` at each place of a map."""
        options = self._options(initializer) | {"dtype": "float32"}
        return Conv2D(channels, kernel_size, padding="same", name=name, **options)

    def gaussian(self, x, head):
        """A diagonal Gaussian, `[z_mean, z_log_var]`, each made by `head(x, name)`."""
        z_mean, z_log_var = head(x, "z_mean"), head(x, "z_log_var")
        # The gradient ignores the clipping: the first steps may push a posterior out of the range,
        # and a plain clip, whose gradient is 0 there, would keep it out permanently.
        value = keras.ops.stop_gradient(keras.ops.clip(z_log_var, *LOG_VAR_RANGE))
        zero = z_log_var - keras.ops.stop_gradient(z_log_var)
        return [z_mean, value + zero]

    def activate(self, x, norm=True):
        """Norm if requested, LeakyReLU, dropout if requested."""
        if norm and self.normed:
            x = self.norm(x.shape[-1])(x)
        x = LeakyReLU(LEAK, dtype=self.dtype)(x)
        if self.dropout:
            name = f"{self.name}_dropout_{next(self.dropouts)}"  # sets the stream of its masks
            x = Dropout(self.dropout, seed=self.seed, name=name, dtype=self.dtype)(x)
        return x

    def patches(self, x, patch):
        """A map in which every place has a patch of pixels as its channels."""
        height, width, channels = x.shape[1:]
        apart = (height // patch, patch, width // patch, patch, channels)
        joined = (height // patch, width // patch, patch * patch * channels)
        return _regrouped(x, apart, joined, self.dtype)

    def pixels(self, x, patch):
        """The inverse of `patches`, in float32 (Shi et al., 2016: sub-pixel convolution)."""
        height, width, channels = x.shape[1:]
        channels //= patch * patch
        apart = (height, width, patch, patch, channels)
        joined = (height * patch, width * patch, channels)
        return _regrouped(x, apart, joined, "float32")

    def tell(self, x, given, scale=False):
        """Adds a function of conditions `(batch, width)` to each map, after scaling it if requested
        ([Perez et al., 2018](https://arxiv.org/abs/1709.07871), Eq. 2); starts as the identity."""

        def value():
            each = keras.layers.Dense(x.shape[-1], **self._options("zeros"))(given)
            return keras.layers.Reshape((1, 1, x.shape[-1]), dtype=self.dtype)(each)

        if scale:
            scaled = keras.layers.Multiply(dtype=self.dtype)([x, value()])
            x = keras.layers.Add(dtype=self.dtype)([x, scaled])
        return keras.layers.Add(dtype=self.dtype)([x, value()])

    def residual(self, x, width, kernel_size):
        """Two convolutions with a skip connection (He et al., 2016).

        Without a norm the second starts at 0, so that the block starts as the identity and a
        deep network is stable at its first step (Zhang et al., 2019: Fixup).
        """
        inner = self.activate(self.conv(width, kernel_size)(x))
        start = "he_normal" if self.normed else "zeros"
        inner = self.conv(width, kernel_size, initializer=start)(inner)
        if self.normed:
            inner = self.norm(width)(inner)
        return self.activate(keras.layers.Add(dtype=self.dtype)([x, inner]), norm=False)


def _regrouped(x, apart, joined, dtype):
    """A map as five axes, the middle two of the first four exchanged, as three axes again."""
    x = keras.layers.Reshape(apart, dtype=dtype)(x)
    x = keras.layers.Permute((1, 3, 2, 4, 5), dtype=dtype)(x)
    return keras.layers.Reshape(joined, dtype=dtype)(x)


def stages(widths, kernel_sizes, strides):
    """One `(width, kernel_size, stride)` per stage; a single number is used for all stages."""
    sizes = kernel_sizes * len(widths) if len(kernel_sizes) == 1 else kernel_sizes
    steps = strides * len(widths) if len(strides) == 1 else strides
    return list(zip(widths, sizes, steps, strict=True))


def padding(image_shape, strides, stages, patch=1):
    """Rows and columns to add so that patches divide the image, and every stride its map.

    Returns:
        `((top, bottom), (left, right))`, all 0 if the sides are multiples already.
    """
    factor = patch * math.prod(strides * stages if len(strides) == 1 else strides)
    extra = [-side % factor for side in image_shape[:2]]
    return tuple((each // 2, each - each // 2) for each in extra)


def _convolutions(layers, x, widths, kernel_sizes, strides, residual, patch=1, tell=None):
    pad = padding(x.shape[1:], strides, len(widths), patch)
    if any(map(any, pad)):
        x = keras.layers.ZeroPadding2D(pad, dtype=layers.dtype)(x)
    if patch > 1:
        x = layers.patches(x, patch)
    for number, (width, kernel_size, stride) in enumerate(stages(widths, kernel_sizes, strides)):
        x = layers.activate(layers.conv(width, kernel_size, stride)(x))
        if tell:
            x = tell(x, number)
        if residual:
            x = layers.residual(x, width, kernel_size)
    return x


def _features(
    name,
    image_shape,
    widths=(32, 64),
    kernel_sizes=(3,),
    strides=(2,),
    dense_widths=(),
    patch=1,
    residual=False,
    batch_norm=False,
    group_norm=False,
    dropout=0.0,
    seed=0,
    precision="float32",
    told=None,
    told_in="input",
):
    """Input and features of an encoder, without its heads.

    Args:
        told: Tensor of conditions `(batch, numbers)`, or None.
        others: See `encoder`.

    Returns:
        `(layers, images, maps, features)`: a `Layers` for more layers, the input tensor, the maps
            of the last stage, and the features, a tensor `(batch, units)`.
    """
    layers = Layers(name, seed, precision, batch_norm, group_norm, dropout)
    images = keras.Input(image_shape, name="images")
    tell = _telling(layers, told, told_in)
    maps = _convolutions(layers, images, widths, kernel_sizes, strides, residual, patch, tell)
    x = keras.layers.Flatten(dtype=layers.dtype)(maps)
    return layers, images, maps, layers.denses(x, dense_widths)


def _telling(layers, told, told_in):
    """Function from the maps of a stage and its number to maps that were told; or None."""
    if told is None:
        return None
    if told_in == "stages":
        return lambda x, number: layers.tell(x, told, scale=True)
    return lambda x, number: x if number else layers.tell(x, told)


def encoder(image_shape, latent_dim, stochastic=True, latent_map=(), told=0, **stages):
    """Network from images to the posterior's parameters.

    Strided convolutions with LeakyReLU, each followed by a residual block if requested, then dense
    layers. A side that the strides do not divide is padded with zeros inside; `decoder` crops it.

    Args:
        image_shape: `(height, width, channels)`, any size.
        latent_dim: Axes of the latent.
        stochastic: Whether there is a posterior variance.
        latent_map: `(height, width, channels)` of a latent that is a map: that of the last stage,
            as a vector of `latent_dim = height * width * channels` numbers.
        told: Numbers of the conditions that it is told; default: 0.
        told_in: Where: `"input"`, added to the maps of the first stage, which is about what further
            channels of the image would do, at a fraction of their cost; or `"stages"`, a scale and
            a shift of the maps of every stage. Default: `"input"`.
        widths: Filters of each stage; default: `(32, 64)`.
        kernel_sizes, strides: One for each stage, or one for all; default: `(3,)`, `(2,)`.
        dense_widths: Units of dense layers between the convolutions and the latent; default: none.
        patch: Side of the squares of pixels that are the channels of one place of the first map;
            default: 1. The network then works at that fraction of the image's size, at which
            convolutions of many channels are fast.
        residual, batch_norm, group_norm, dropout: Additions to every stage; default: none. Group
            norm has at most `GROUPS` groups.
        seed: Seed of the initial weights and of the dropout masks; default: 0.
        precision: `"float32"`, the default, or `"bfloat16"` (the heads stay float32).

    Returns:
        Functional model: float32 `(batch, *image_shape)` in [0, 1], with `told` a list of these and
        the conditions `(batch, told)`, to `[z_mean, z_log_var]`, or to `z_mean` alone, each
        `(batch, latent_dim)`; `z_log_var` lies in `LOG_VAR_RANGE`.
    """
    given = keras.Input((told,), name="conditions") if told else None
    layers, images, maps, x = _features("encoder", image_shape, **stages, told=given)
    head, x = layers.heads(latent_dim, latent_map), maps if latent_map else x
    outputs = layers.gaussian(x, head) if stochastic else head(x, "z_mean")
    return keras.Model([images, given] if told else images, outputs, name="encoder")


def decoder(
    image_shape,
    latent_dim,
    widths=(32, 64),
    kernel_sizes=(3,),
    strides=(2,),
    dense_widths=(),
    patch=1,
    residual=False,
    batch_norm=False,
    group_norm=False,
    dropout=0.0,
    seed=0,
    precision="float32",
    upsampling="transpose",
    latent_map=(),
    told=0,
    told_in="input",
):
    """Network from latents to logits of pixels: the mirrored encoder of the same arguments.

    A residual block comes after its stage has enlarged a map, or before, if the latent is a map:
    the maps are sharp, and blocks at the size of the image would take most of the time.

    Args:
        latent_map: See `encoder`; without a stage's stride a convolution keeps the map's size.
        told, told_in: See `encoder`. At the input the conditions are concatenated to the latent, or
            added to its first maps.
        upsampling: `"transpose"`, transposed convolutions, fast; or `"nearest"`, repeated pixels
            and then a convolution, without checkerboard artefacts in sharp images
            ([Odena et al., 2016](https://distill.pub/2016/deconv-checkerboard/)).
        others: See `encoder`.

    Returns:
        Functional model: float32 `(batch, latent_dim)`, with `told` a list of these and the
        conditions `(batch, told)`, to float32 logits `(batch, *image_shape)`; the images are their
        sigmoid.
    """
    layers = Layers("decoder", seed, precision, batch_norm, group_norm, dropout)
    pad = padding(image_shape, strides, len(widths), patch)
    each_stage = stages(widths, kernel_sizes, strides)
    factor = patch * math.prod(stride for _, _, stride in each_stage)
    small = [(side + sum(each)) // factor for side, each in zip(image_shape[:2], pad, strict=True)]

    z = keras.Input((latent_dim,), name="z")
    given = keras.Input((told,), name="conditions") if told else None
    tell = _telling(layers, given, told_in)
    if latent_map:
        x = keras.layers.Reshape(latent_map, dtype=layers.dtype, name=MAP)(z)
        x = layers.activate(layers.conv(widths[-1], each_stage[-1][1])(x))
        x = tell(x, 0) if told else x
    else:
        x = keras.layers.Concatenate(dtype=layers.dtype)([z, given]) if told else z
        x = layers.denses(x, (*reversed(dense_widths), math.prod(small) * widths[-1]))
        x = keras.layers.Reshape((*small, widths[-1]), dtype=layers.dtype)(x)
    outputs_of = [
        widths[0],
        *widths[:-1],
    ]  # the inverse of stage i outputs the input width of stage i
    for (own, kernel_size, stride), width in reversed(
        list(zip(each_stage, outputs_of, strict=True))
    ):
        if residual and latent_map:
            x = layers.residual(x, own, kernel_size)
        x = layers.activate(layers.enlarge(x, width, kernel_size, stride, upsampling))
        if told and told_in == "stages":
            x = tell(x, 1)
        if residual and not latent_map:
            x = layers.residual(x, width, kernel_size)
    channels = image_shape[2] * patch * patch
    logits = layers.map_head(channels, each_stage[0][1], name="logits")(x)
    if patch > 1:
        logits = layers.pixels(logits, patch)
    if any(map(any, pad)):
        logits = keras.layers.Cropping2D(pad, dtype="float32")(logits)
    return keras.Model([z, given] if told else z, logits, name="decoder")


def classifier(image_shape, classes, widths=(32, 64), dense_width=128, dropout=0.3, seed=0):
    """Convolutional classifier of images, used by `analysis.judges`.

    Returns:
        Functional model: float32 `(batch, *image_shape)` in [0, 1] to logits `(batch, classes)`.
        Its last but one layer, `"features"`, has `dense_width` units.
    """
    layers = Layers("classifier", seed, "float32", batch_norm=True)
    images = keras.Input(image_shape, name="images")
    x = _convolutions(layers, images, widths, (3,), (2,), residual=True)
    x = keras.layers.Flatten()(x)
    x = LeakyReLU(LEAK, name="features")(layers.dense(dense_width)(x))
    x = Dropout(dropout, seed=seed, name="classifier_dropout")(x)
    return keras.Model(images, layers.head(classes, "logits")(x), name="classifier")


def patch_critic(image_shape, widths=(32, 64), seed=0, precision="float32"):
    """Convolutional network that judges each patch of an image, used by `families.critic`.

    Args:
        image_shape: `(height, width, channels)`.
        widths: Filters of its stages, each of which halves the sides.
        seed, precision: See `encoder`.

    Returns:
        Functional model: float32 `(batch, *image_shape)` in [0, 1] to float32
        `(batch, height, width, 1)`, one number per patch; with two stages, a patch has 18 pixels.

    References: [Isola et al., 2017](https://arxiv.org/abs/1611.07004), Section 3.2.2
    """
    layers = Layers("critic", seed, precision, group_norm=True)
    images = x = keras.Input(image_shape, name="images")
    for number, width in enumerate(widths):
        x = layers.activate(layers.conv(width, 4, stride=2)(x), norm=number > 0)
    return keras.Model(images, layers.map_head(1, 3, "opinion")(x), name="critic")


def untrained(image_shape, seed=0, widths=(32, 64, 128), least=4):
    """Convolutional network with random weights, used by `analysis.features`.

    Every stage has two convolutions and halves the sides, until the shorter one has about `least`
    pixels.

    Args:
        image_shape: `(height, width, channels)`.
        seed: Of the weights.
        widths: Filters of the stages; further stages have as many as the last.
        least: Height or width of the last map, whichever is shorter, in pixels.

    Returns:
        Functional model: float32 `(batch, *image_shape)` in [0, 1] to `(batch, units)`.
    """
    layers = Layers("untrained", seed, "float32")
    images = x = keras.Input(image_shape, name="images")
    count = max(1, round(math.log2(min(image_shape[:2]) / least)))
    for stage in range(count):
        width = widths[min(stage, len(widths) - 1)]
        x = layers.activate(layers.conv(width, 3)(x))
        x = layers.activate(layers.conv(width, 3, stride=2)(x))
    return keras.Model(images, keras.layers.Flatten()(x), name="untrained")


def maps(network, layers):
    """The frozen network with the feature maps of some of its layers as outputs.

    Args:
        network: Any functional Keras model of images.
        layers: Names of its layers.

    Returns:
        Functional model from the network's input to a list of the layers' outputs.

    Raises:
        ValueError: if a layer is missing; the existing ones are named.
    """
    there = [layer.name for layer in network.layers]
    for name in layers:
        if name not in there:
            raise ValueError(f"{network.name} has no layer {name!r}; it has {', '.join(there)}")
    outputs = [network.get_layer(name).output for name in layers]
    cut = keras.Model(network.input, outputs, name=f"{network.name}_maps")
    cut.trainable = False
    return cut


# --- with labels ---------------------------------------------------------------------------------


def latent_classifier(latent_dim, classes, widths=(), dropout=0.0, seed=0, precision="float32"):
    """Classifier of latents.

    Args:
        latent_dim: Axes of the latent.
        classes: How many the label has.
        widths: Units of dense layers before the logits; with none it is linear.
        dropout, seed, precision: See `encoder`.

    Returns:
        Functional model: float32 `(batch, latent_dim)` to float32 logits `(batch, classes)`.
    """
    layers = Layers("latent_classifier", seed, precision, dropout=dropout)
    z = keras.Input((latent_dim,), name="z")
    logits = layers.head(classes, "logits")(layers.denses(z, widths))
    return keras.Model(z, logits, name="latent_classifier")


def class_encoder(image_shape, classes, **stages):
    """The convolutions shared by q(y|x) and q(z|x, y), computed once for all classes.

    Args:
        classes: How many the label has.
        **stages: See `encoder`.

    Returns:
        Functional model: float32 `(batch, *image_shape)` in [0, 1] to `[features, logits]`, of
        shapes `(batch, units)` and `(batch, classes)`; the logits are float32.
    """
    layers, images, _, x = _features("class_encoder", image_shape, **stages)
    return keras.Model(images, [x, layers.head(classes, "logits")(x)], name="class_encoder")


def class_posterior(features, classes, latent_dim, widths=(256,), seed=0, precision="float32"):
    """q(z|x, y): a latent from an image's features and a class.

    Args:
        features: Number of features of an image.
        classes: How many the label has.
        latent_dim: Axes of the latent.
        widths: Units of the dense layers.
        seed, precision: See `encoder`.

    Returns:
        Functional model: `[(batch, features), one-hot (batch, classes)]` to `[z_mean, z_log_var]`.
    """
    layers = Layers("class_posterior", seed, precision)
    inputs = [keras.Input((features,), name="features"), keras.Input((classes,), name="y")]
    x = layers.denses(keras.layers.Concatenate(dtype=layers.dtype)(inputs), widths)
    heads = layers.gaussian(x, layers.heads(latent_dim))
    return keras.Model(inputs, heads, name="class_posterior")


def vector_class_encoder(units, classes, widths=(256,), dropout=0.0, seed=0):
    """`class_encoder` of vectors: the vector itself is its features.

    Returns:
        Functional model: float32 `(batch, units)` to `[vector, logits (batch, classes)]`.
    """
    layers = Layers("vector_class_encoder", seed, "float32", dropout=dropout)
    vector = keras.Input((units,), name="vector")
    logits = layers.head(classes, "logits")(layers.denses(vector, widths))
    return keras.Model(vector, [vector, logits], name="vector_class_encoder")


def vector_decoder(units, latent_dim, widths=(256,), seed=0):
    """Network from latents to the Gaussian distribution of a vector.

    Returns:
        Functional model: float32 `(batch, latent_dim)` to `(batch, 2, units)`: means, then
        log-variances, which lie in `VECTOR_LOG_VAR_RANGE`.
    """
    layers = Layers("vector_decoder", seed, "float32")
    z = keras.Input((latent_dim,), name="z")
    x = layers.denses(z, tuple(reversed(widths)))
    means, log_var = layers.head(units, "means")(x), layers.head(units, "log_var")(x)
    # Soft limits as in Chua et al. (2018): a constant axis moves its variance to the lower limit,
    # and there the gradient should vanish.
    low, high = VECTOR_LOG_VAR_RANGE
    log_var = low + keras.ops.softplus(log_var - low)
    log_var = high - keras.ops.softplus(high - log_var)
    return keras.Model(z, keras.ops.stack([means, log_var], axis=1), name="vector_decoder")


def layers_of(network):
    """The layers of a functional network, for a diagram.

    Returns:
        List of `(kind, name, output_shape, parameters)` in order, without the batch axis.
    """
    rows = []
    for layer in network.layers:
        shape = layer.output.shape[1:]
        rows.append((type(layer).__name__, layer.name, tuple(shape), layer.count_params()))
    return rows

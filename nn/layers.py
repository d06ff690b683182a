"""Faster versions of Keras' layers of the same names for a CPU."""

import functools
import math

import keras
import tensorflow as tf

from nn import randomness, replicas

MOST_CHANNELS = 3  # output channels up to which the alternatives in `Conv2D` are faster


@keras.saving.register_keras_serializable("latent_atlas")
class Dropout(keras.layers.Layer):
    """Dropout with masks from packed 8-bit random numbers.

    One 32-bit draw is used for four units; Keras draws a float for each. The masks are a function
    of the seed, the layer's name and a counter that is saved with the weights, so a resumed run
    continues with the same masks.

    Args:
        rate: Share of units set to 0, in [0, 1); rounded to a multiple of 1/256; the other units
            are scaled up by the rounded rate.
        seed: Whole number, the run's seed.

    References: [Srivastava et al., 2014](https://jmlr.org/papers/v15/srivastava14a.html)
    """

    def __init__(self, rate, seed=0, **kwargs):
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"rate = {rate!r} is not valid; allowed: from 0 to below 1")
        self.rate = rate
        self.seed = seed
        self.dropped = min(round(256 * rate), 255)  # of 256 bytes

    def build(self, input_shape):
        self.step = self.add_weight(
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            aggregation=replicas.ALIKE,
            name="step",
        )

    def call(self, inputs, training=False):
        if not training or not self.dropped:
            return inputs
        self.step.assign_add(1)
        key = randomness.of_replica(randomness.key(self.seed, self.step, self.name))
        shape = inputs.shape if None not in inputs.shape else tf.shape(inputs)
        kept = randomness.random_bytes(key, shape) >= self.dropped
        scale = 256.0 / (256 - self.dropped)
        # Scaling the mask first saves one pass over the map: only the scaled mask is kept.
        return inputs * (tf.cast(kept, inputs.dtype) * tf.cast(scale, inputs.dtype))

    def get_config(self):
        return super().get_config() | {"rate": self.rate, "seed": self.seed}


@keras.saving.register_keras_serializable("latent_atlas")
class LeakyReLU(keras.layers.LeakyReLU):
    """Keras' layer with a gradient computed from the output instead of the input.

    Both have the same sign, so the gradient is the same. The input is then not needed any more, and
    TensorFlow applies bias and slope during the convolution, in one pass over the map. (With Keras'
    layer TensorFlow's graph optimizer fails here and leaves the graph unchanged.)
    """

    def call(self, inputs, training=False):
        slope = float(self.negative_slope)
        emulated = training and inputs.dtype == tf.bfloat16 and _on_cpu(inputs)
        forward, backward = (
            _compiled(each) if emulated else each for each in (tf.nn.leaky_relu, _leaky_gradient)
        )

        @tf.custom_gradient
        def activated(inputs):
            outputs = forward(inputs, slope)
            return outputs, lambda upstream: backward(upstream, outputs, slope)

        return activated(inputs)


def _leaky_gradient(upstream, outputs, slope):
    return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=outputs, alpha=slope)


def _on_cpu(inputs):
    """Whether maps of a known size are computed on a CPU."""
    return None not in inputs.shape and not tf.config.list_logical_devices("GPU")


@functools.cache
def _compiled(operation):
    """An operation on single values, compiled for this processor by XLA.

    XLA computes a chain of them in one pass over the map. TensorFlow takes one pass for each, and
    for each in bfloat16 twice the time, because it computes them by way of float32.
    """
    return tf.function(operation, autograph=False, jit_compile=True)


@keras.saving.register_keras_serializable("latent_atlas")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer with statistics, normalization and their gradient in one kernel each.

    Keras computes them in about ten passes over the map. The kernel knows one device's part of a
    batch alone, so a `synchronized` layer, and any other than of whole maps with channels last, is
    computed as Keras does. Statistics are float32 at any precision.
    """

    def call(self, inputs, training=None, mask=None):
        plain = not self.synchronized and not self.renorm and self.scale and self.center
        maps = len(inputs.shape) == 4 and self.axis in (-1, 3)
        if not (training and self.trainable and plain and maps and mask is None):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, self.compute_dtype),
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel returns the variance divided by n - 1, Keras keeps that divided by n.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype)
        variance *= (count - 1.0) / count
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1.0 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable("latent_atlas")
class GroupNormalization(keras.layers.GroupNormalization):
    """Keras' layer for maps, with one formula for normalization and one for its gradient.

    Keras reshapes the map to groups and lets TensorFlow derive the gradient, in about twenty passes
    over the map. Here each pass computes sums per image and channel, which are small; groups are
    formed of these. Statistics are float32 at any precision.

    References: [Wu & He, 2018](https://arxiv.org/abs/1803.08494), equations 1, 2, 6 and 7
    """

    def call(self, inputs, training=False):
        if len(inputs.shape) != 4 or self.axis not in (-1, 3) or not (self.scale and self.center):
            return super().call(inputs)
        return _group_normalized(
            tf.cast(inputs, self.compute_dtype),
            tf.convert_to_tensor(self.gamma, tf.float32),
            tf.convert_to_tensor(self.beta, tf.float32),
            self.groups,
            self.epsilon,
            _compiled if training and _on_cpu(inputs) else lambda operation: operation,
        )


def _group_normalized(inputs, scale, offset, groups, epsilon, made):
    height, width, channels = inputs.shape[1:]
    count = float(height * width * (channels // groups))

    def of_group(sums):
        """Means of each channel's group, of the sums of its channels: `(batch, channels)`."""
        apart = tf.reshape(sums, (-1, groups, channels // groups))
        means = tf.reduce_sum(apart, axis=2, keepdims=True) / count
        return tf.reshape(means + tf.zeros_like(apart), (-1, channels))

    @tf.custom_gradient
    def normalized(inputs, scale, offset):
        mean = of_group(_sums_over_pixels(tf.cast(inputs, tf.float32)))
        variance = of_group(_sums_over_pixels(made(_product)(inputs, inputs))) - tf.square(mean)
        inverse = tf.math.rsqrt(tf.maximum(variance, 0.0) + epsilon)
        slope = inverse * scale
        outputs = made(_affine)(inputs, slope, offset - mean * slope)

        def gradient(upstream):
            to_offset = _sums_over_pixels(upstream)
            with_inputs = _sums_over_pixels(made(_product)(upstream, inputs))
            to_scale = inverse * (with_inputs - mean * to_offset)
            # With u = upstream * scale and x the normalized input, of which mean and variance
            # depend on the input too: (u - mean(u) - x mean(u x)) / deviation.
            pull = inverse * of_group(to_scale * scale)
            constant = inverse * (mean * pull - of_group(to_offset * scale))
            to_inputs = made(_affine_of_two)(upstream, slope, inputs, inverse * pull, constant)
            return to_inputs, tf.reduce_sum(to_scale, 0), tf.reduce_sum(to_offset, 0)

        return outputs, gradient

    return normalized(inputs, scale, offset)


def _product(one, other):
    return tf.cast(one, tf.float32) * tf.cast(other, tf.float32)


def _affine(maps, slope, constant):
    """`slope * maps + constant`, with one slope and constant per image and channel."""
    slope, constant = slope[:, None, None], constant[:, None, None]
    return tf.cast(slope * tf.cast(maps, tf.float32) + constant, maps.dtype)


def _affine_of_two(maps, slope, others, other_slope, constant):
    """`slope * maps - other_slope * others + constant`, likewise."""
    slope, other_slope, constant = (each[:, None, None] for each in (slope, other_slope, constant))
    exact = slope * tf.cast(maps, tf.float32) - other_slope * tf.cast(others, tf.float32)
    return tf.cast(exact + constant, maps.dtype)


@keras.saving.register_keras_serializable("latent_atlas")
class Conv2D(keras.layers.Conv2D):
    """Keras' layer, faster on a CPU for few output channels, and for many channels of small maps.

    TensorFlow's kernels compute sixteen channels even for one, as at the end of a decoder. Three
    alternatives compute the same sums. For one output channel: a depthwise convolution, then the
    sum over its channels. For two or three: those of four neighbouring pixels together, by a larger
    kernel. For the gradient of the weights: that of a convolution *from* few channels, in which the
    incoming gradient and the image exchange roles.

    Where a kernel has far more weights than the maps have places, the gradient of the weights is
    one matrix product.
    """

    def convolution_op(self, inputs, kernel):
        if not self._plain or tf.config.list_logical_devices("GPU"):
            return super().convolution_op(inputs, kernel)
        weights = tf.convert_to_tensor(kernel, inputs.dtype)
        odd = all(size % 2 for size in self.kernel_size)  # an even kernel pads asymmetrically
        if self.filters <= MOST_CHANNELS and odd and self.strides == (1, 1):
            return _few_channels(inputs, weights)
        if _is_deep(weights, self.compute_output_shape(inputs.shape)[:3]):
            return _deep(inputs, weights, self.strides)
        return super().convolution_op(inputs, kernel)

    @property
    def _plain(self):
        """Whether the alternatives apply."""
        plain = {"dilation_rate": (1, 1), "groups": 1, "padding": "same"}
        plain["data_format"] = "channels_last"
        return all(getattr(self, name) == value for name, value in plain.items())


@keras.saving.register_keras_serializable("latent_atlas")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """Keras' layer with faster gradients on a CPU: of the bias, and as `Conv2D` of many weights."""

    def call(self, inputs, training=False):
        if not (training and self.data_format == "channels_last" and _on_cpu(inputs)):
            return super().call(inputs)
        outputs = self._enlarged(inputs)
        if self.use_bias:
            outputs = _biased(outputs, tf.convert_to_tensor(self.bias, outputs.dtype))
        return self.activation(outputs)

    def _enlarged(self, inputs):
        kernel = tf.convert_to_tensor(self.kernel, inputs.dtype)
        plain = self.padding == "same" and self.dilation_rate == (1, 1)
        if plain and not self.output_padding and _is_deep(kernel, inputs.shape[:3]):
            return _deep_transpose(inputs, kernel, self.strides)
        return keras.ops.conv_transpose(
            inputs,
            self.kernel,
            strides=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation_rate=self.dilation_rate,
        )


# Weights for each place of a batch's maps, from which on the gradient of the weights is faster as a
# matrix product: 1.4 times in float32, where 4 x 4 maps have 256 channels, 4 times in bfloat16.
DEEP = {tf.float32: 1024, tf.bfloat16: 128}


def _is_deep(kernel, places):
    """Whether a kernel is much larger than its small maps, `places` of batch, height and width."""
    few = None not in places and kernel.dtype in DEEP
    return few and math.prod(kernel.shape) >= DEEP[kernel.dtype] * math.prod(places)


def _deep(inputs, kernel, strides):
    """Convolution with "SAME" padding, of small maps with many channels."""
    options = {"strides": [1, *strides, 1], "padding": "SAME"}

    @tf.custom_gradient
    def convolved(inputs, kernel):
        def gradient(upstream):
            to_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=inputs.shape, filter=kernel, out_backprop=upstream, **options
            )
            return to_inputs, _to_kernel(inputs, upstream, kernel.shape, strides)

        return tf.nn.conv2d(inputs, kernel, **options), gradient

    return convolved(inputs, kernel)


def _deep_transpose(inputs, kernel, strides):
    """The same for a transposed convolution, whose kernel is `(height, width, to, from)`."""
    options = {"strides": [1, *strides, 1], "padding": "SAME"}
    batch, height, width = inputs.shape[:3]
    sizes = (batch, height * strides[0], width * strides[1], kernel.shape[2])

    @tf.custom_gradient
    def enlarged(inputs, kernel):
        def gradient(upstream):
            to_inputs = tf.nn.conv2d(upstream, kernel, **options)
            return to_inputs, _to_kernel(upstream, inputs, kernel.shape, strides)

        outputs = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=sizes, filter=kernel, out_backprop=inputs, **options
        )
        return outputs, gradient

    return enlarged(inputs, kernel)


def _to_kernel(large, small, shape, strides):
    """Gradient of a kernel between a large map and the small one that it makes of it."""
    size, step = [1, *shape[:2], 1], [1, *strides, 1]
    patches = tf.image.extract_patches(large, size, step, [1, 1, 1, 1], "SAME")
    flat = (tf.reshape(each, (-1, each.shape[-1])) for each in (patches, small))
    return tf.reshape(tf.matmul(*flat, transpose_a=True), shape)


@tf.custom_gradient
def _biased(inputs, bias):
    add = _compiled(tf.nn.bias_add) if inputs.dtype == tf.bfloat16 else tf.nn.bias_add

    def gradient(upstream):
        return upstream, tf.cast(tf.reduce_sum(_sums_over_pixels(upstream), 0), bias.dtype)

    return add(inputs, bias), gradient


def _sums_over_pixels(maps):
    """Sums of each image's channels, float32 `(batch, channels)`.

    On a CPU as average pooling, which is 1.2 to 13 times as fast as TensorFlow's sums. In float32:
    without AVX-512 bfloat16 is added in bfloat16, in which a sum of thousands is wrong.
    """
    if tf.config.list_logical_devices("GPU"):
        return tf.reduce_sum(tf.cast(maps, tf.float32), (1, 2))
    size = maps.shape[1:3]
    means = tf.nn.avg_pool(tf.cast(maps, tf.float32), size, size, "VALID")
    return means[:, 0, 0] * float(size[0] * size[1])


@tf.custom_gradient
def _few_channels(inputs, kernel):
    """Convolution of odd kernel, stride 1 and "SAME" padding."""
    options = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    if kernel.shape[-1] == 1:
        apart = tf.nn.depthwise_conv2d(inputs, kernel, **options)
        outputs = tf.reduce_sum(apart, axis=-1, keepdims=True)
    elif all(side and side % 2 == 0 for side in inputs.shape[1:3]):
        outputs = _four_together(inputs, kernel)
    else:
        outputs = tf.nn.conv2d(inputs, kernel, **options)

    def gradient(upstream):
        to_inputs = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, **options
        )
        # sum over pixels of inputs[p + d] upstream[p] = sum of upstream[p - d] inputs[p]
        height, width, channels, filters = kernel.shape
        swapped = tf.raw_ops.Conv2DBackpropFilter(
            input=upstream,
            filter_sizes=(height, width, filters, channels),
            out_backprop=inputs,
            **options,
        )
        return to_inputs, tf.transpose(swapped[::-1, ::-1], (0, 1, 3, 2))

    return outputs, gradient


def _four_together(inputs, kernel):
    """The same convolution of even sides: a pixel's channels beside those of three neighbours."""
    shifts = ([[row, 1 - row], [column, 1 - column]] for row in (0, 1) for column in (0, 1))
    kernels = [tf.pad(kernel, [*shift, [0, 0], [0, 0]]) for shift in shifts]
    outputs = tf.nn.conv2d(inputs, tf.concat(kernels, axis=-1), 2, "SAME")
    return tf.nn.depth_to_space(outputs, 2)


def stock(network):
    """A copy of a network for inference, made of Keras' own layers, without `Dropout`.

    Programs without this project can open it, and it draws no random numbers.
    """

    def call(layer, *inputs, **options):
        return inputs[0] if isinstance(layer, Dropout) else layer(*inputs, **options)

    copy = keras.models.clone_model(network, call_function=call, clone_function=of_keras)
    for layer in copy.layers:
        layer.set_weights(network.get_layer(layer.name).get_weights())
    return copy


def of_keras(layer):
    """A new layer of Keras' own with the settings of one of our layers."""
    kind = type(layer).__base__ if isinstance(layer, OURS) else type(layer)
    return kind.from_config(layer.get_config())


OURS = (LeakyReLU, BatchNormalization, GroupNormalization, Conv2D, Conv2DTranspose)

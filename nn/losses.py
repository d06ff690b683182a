"""Terms of the objective: pure functions, in nats, one value per image.

Every likelihood sums over pixels and channels and every divergence over latent axes, so that
`reconstruction + KL` is the negative evidence lower bound for all sizes. Only functions that
compare whole sets (`mmd`) or are defined on the batch's mean (`free_bits`, `capacity`) take a mean
over the batch; they return a scalar.
"""

import math

import tensorflow as tf

from nn import metrics

LOG_TWO_PI = math.log(2.0 * math.pi)
KERNELS = ("imq", "rbf")
# Widths of the kernels in units of the prior's spread; WAE's choice (Tolstikhin et al., 2018).
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def bernoulli_nll(targets, logits):
    """Negative log-likelihood of pixels under independent Bernoullis, in nats.

    A likelihood if the targets are 0 or 1. For grey values in between it is the cross-entropy:
    usable for training, but bounded below by the entropy of the targets and not a likelihood.

    Args:
        targets: Floats in [0, 1], shape `(batch, height, width, channels)`.
        logits: Log-odds of each pixel, same shape.

    Returns:
        Shape `(batch,)`, summed over pixels and channels.
    """
    terms = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(terms, axis=(1, 2, 3))


def gaussian_nll(targets, means, log_sigma):
    """Negative log-likelihood of pixels under independent Gaussians of equal variance, in nats.

    `sum (x - mean)^2 / (2 sigma^2) + D log sigma + D/2 log(2 pi)` over the image's D values. It is
    a density: it may be negative and cannot be compared with Bernoulli nats. With a learned
    `log_sigma` this is sigma-VAE, [Rybkin et al., 2021](https://arxiv.org/abs/2006.13202), Eq. 4.

    Args:
        targets: Floats, shape `(batch, height, width, channels)`.
        means: Same shape.
        log_sigma: Scalar, log of the standard deviation in units of the images.

    Returns:
        Shape `(batch,)`, summed over pixels and channels.
    """
    pixels = math.prod(targets.shape[1:])
    squares = tf.reduce_sum(tf.square(targets - means), axis=(1, 2, 3))
    constant = pixels * (log_sigma + 0.5 * LOG_TWO_PI)
    return 0.5 * squares * tf.exp(-2.0 * log_sigma) + constant


def pixel_gaussian_nll(targets, means, log_sigma, balance=0.0):
    """Negative log-likelihood of pixels, each under its own Gaussian, in nats.

    Args:
        targets, means: Floats, shape `(batch, height, width, channels)`.
        log_sigma: Logs of the standard deviations in units of the images, same shape.
        balance: Power of its variance that each pixel's gradient is multiplied by, and not its
            value. At 0 a pixel of large variance hardly moves its mean, so that what is difficult
            is given up; at 1 the means learn as under equal variances.

    Returns:
        Shape `(batch,)`, summed over pixels and channels.

    References: [Seitzer et al., 2022](https://arxiv.org/abs/2203.09168), Eq. 5
    """
    nats = 0.5 * tf.square(targets - means) * tf.exp(-2.0 * log_sigma) + log_sigma
    if balance:
        weighted = tf.stop_gradient(tf.exp(2.0 * balance * log_sigma)) * nats
        nats = weighted + tf.stop_gradient(nats - weighted)
    return tf.reduce_sum(nats + 0.5 * LOG_TWO_PI, axis=(1, 2, 3))


def diagonal_gaussian_nll(x, means, log_var):
    """Negative log-likelihood of vectors, each under its own diagonal Gaussian, in nats.

    Args:
        x, means, log_var: Shape `(batch, units)`.

    Returns:
        Shape `(batch,)`, summed over units.
    """
    terms = tf.square(x - means) * tf.exp(-log_var) + log_var + LOG_TWO_PI
    return 0.5 * tf.reduce_sum(terms, axis=-1)


def sigma_from_mse_weight(weight: float, pixels: int) -> float:
    """The Gaussian's sigma for a loss `weight * (mean squared error over pixels) + KL`.

    Many projects use this loss; ours sums over pixels, so `1 / (2 sigma^2) = weight / pixels`.

    Args:
        weight: Factor before the mean squared error (10,000 in one well-known X-ray VAE).
        pixels: Height x width x channels.
    """
    return math.sqrt(pixels / (2.0 * weight))


def mmd_weight_beside_sum(weight: float, pixels: int) -> float:
    """The MMD's weight with a sum over pixels that equals `weight` with a mean over pixels."""
    return weight * pixels


def kl_per_axis(z_mean, z_log_var):
    """KL of each posterior from N(0, 1) on each latent axis, in nats; `(batch, latent_dim)`."""
    return 0.5 * (tf.square(z_mean) + tf.exp(z_log_var) - z_log_var - 1.0)


def kl_to_standard_normal(z_mean, z_log_var):
    """KL divergence of each diagonal Gaussian posterior from N(0, I), in nats.

    Appendix B of [Kingma & Welling, 2014](https://arxiv.org/abs/1312.6114).

    Args:
        z_mean: Posterior means, shape `(batch, latent_dim)`.
        z_log_var: Posterior log-variances, shape `(batch, latent_dim)`.

    Returns:
        One KL per image, shape `(batch,)`, summed over latent axes.
    """
    return tf.reduce_sum(kl_per_axis(z_mean, z_log_var), axis=-1)


def log_normal(z, z_mean, z_log_var):
    """Log-density of diagonal Gaussians on each axis, in nats; the shapes are broadcast."""
    squares = tf.square(z - z_mean) * tf.exp(-z_log_var)
    return -0.5 * (squares + z_log_var + math.log(2.0 * math.pi))


def stratified_log_weights(batch, images):
    """Logarithms of the weights with which a batch represents a whole data set.

    Minibatch stratified sampling, Appendix C.2 of
    [Chen et al., 2018](https://arxiv.org/abs/1802.04942): the posterior of the image itself has the
    weight `1 / N`, one other `(N - M) / (N M)`, the rest `1 / M`, with `M = batch - 1`. Averaged
    over all batches that hold the image, the weighted sum of densities is `q(z)` exactly.

    The weight in a batch of one image (possibly the last one in evaluation) is 1.

    Args:
        batch: Scalar integer.
        images: N, the size of the data set; at least the batch.

    Returns:
        Shape `(batch, batch)`: row i weighs the posteriors for the latent of image i.
    """
    own = tf.eye(batch)
    others = tf.maximum(tf.cast(batch - 1, tf.float32), 1.0)
    images = tf.maximum(tf.cast(images, tf.float32), others + 1.0)
    one = tf.roll(own, 1, axis=1)
    rest = 1.0 - own - one
    weights = own / images + one * (images - others) / (images * others) + rest / others
    return tf.math.log(tf.where(batch > 1, weights, own))


def log_aggregates(z, z_mean, z_log_var, images):
    """Estimates of the aggregated posterior's log-density, and of its marginals' product.

    Args:
        z: A draw of each posterior, shape `(batch, latent_dim)`.
        z_mean, z_log_var: The posteriors, same shape.
        images: N, the size of the data set.

    Returns:
        `(log q(z), log prod_j q(z_j))`, each `(batch,)`, in nats.
    """
    weights = stratified_log_weights(tf.shape(z)[0], images)
    axes = log_normal(z[:, None], z_mean[None], z_log_var[None])  # latent, posterior, axis
    whole = tf.reduce_logsumexp(weights + tf.reduce_sum(axes, axis=-1), axis=1)
    marginals = tf.reduce_logsumexp(weights[:, :, None] + axes, axis=1)
    return whole, tf.reduce_sum(marginals, axis=-1)


def importance_bound(log_weights):
    """Negative importance-weighted bound, in nats, `(batch,)`: `-log mean_k w_k`.

    Eq. 8 of [Burda et al., 2016](https://arxiv.org/abs/1509.00519).

    Args:
        log_weights: `log p(x | z) + log p(z) - log q(z | x)` of draws of the posterior, shape
            `(k, batch)`.
    """
    k = tf.cast(tf.shape(log_weights)[0], log_weights.dtype)
    return tf.math.log(k) - tf.reduce_logsumexp(log_weights, axis=0)


def kl_to_uniform(logits):
    """KL of each categorical distribution from the uniform one, `log K - H`, in nats.

    Args:
        logits: Unnormalised log-probabilities, shape `(batch, classes)`.

    Returns:
        Shape `(batch,)`, from 0 to `log K`.
    """
    log_share = tf.nn.log_softmax(logits)
    return math.log(logits.shape[-1]) + tf.reduce_sum(tf.exp(log_share) * log_share, axis=-1)


def label_nll(labels, logits):
    """`-log q(y|x)` of each image's label, in nats; 0 if it has none.

    Args:
        labels: Whole numbers, shape `(batch,)`; -1: no label.
        logits: Shape `(batch, classes)`.

    Returns:
        Shape `(batch,)`.
    """
    known = labels >= 0
    terms = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.where(known, labels, 0), logits)
    return tf.where(known, terms, 0.0)


def free_bits(kl_axes, floor):
    """KL in which the first `floor` nats of every axis have no penalty, so that axes stay active.

    `sum_j max(floor, mean over the batch of KL_j)`, Eq. 15 of
    [Kingma et al., 2016](https://arxiv.org/abs/1606.04934).

    Args:
        kl_axes: From `kl_per_axis`, shape `(batch, latent_dim)`.
        floor: Nats per axis.

    Returns:
        Scalar: the floor acts on the batch's mean.
    """
    return tf.reduce_sum(tf.maximum(tf.reduce_mean(kl_axes, axis=0), floor))


def capacity(kl, target):
    """Distance of the batch's mean KL from a target: `|KL - C|`, in nats.

    Eq. 8 of [Burgess et al., 2018](https://arxiv.org/abs/1804.03599), without its weight gamma.

    Args:
        kl: One KL per image, shape `(batch,)`.
        target: Scalar C.

    Returns:
        Scalar.
    """
    return tf.abs(tf.reduce_mean(kl) - target)


def mmd(x, y, kernel="imq"):
    """Squared maximum mean discrepancy of two samples, unbiased.

    Eq. 3 of [Gretton et al., 2012](https://jmlr.org/papers/v13/gretton12a.html): the two within-set
    means leave out each point's kernel with itself, so the expectation is 0 if both samples come
    from one distribution, and single values may be negative. The kernel is a sum over `SCALES`;
    with `d2` the squared distance and `C = 2 latent_dim`, its mean between two draws of N(0, I):
    `"imq"` is `sum_s s C / (s C + d2)`
    ([Tolstikhin et al., 2018](https://arxiv.org/abs/1711.01558), Section 4), `"rbf"` is
    `sum_s exp(-d2 / (s C))`.

    Args:
        x: Shape `(m, latent_dim)`.
        y: Shape `(n, latent_dim)`.
        kernel: `"imq"` or `"rbf"`.

    Returns:
        Scalar, no unit, at most `2 * len(SCALES)`: it compares two sets, not images. 0 if one of
        the sets has a single point (possibly the last batch in evaluation), because nothing can be
        estimated.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel = {kernel!r} is not valid; allowed: {', '.join(KERNELS)}")
    widths = 2.0 * x.shape[-1] * tf.constant(SCALES)[:, None, None]

    def similarity(a, b):
        squares = tf.reduce_sum(tf.square(a[:, None, :] - b[None, :, :]), axis=-1)
        if kernel == "imq":
            return tf.reduce_sum(widths / (widths + squares), axis=0)
        return tf.reduce_sum(tf.exp(-squares / widths), axis=0)

    def within(a):
        count = tf.cast(tf.shape(a)[0], a.dtype)
        total = tf.reduce_sum(similarity(a, a)) - count * len(SCALES)  # k(a, a) is 1 at each scale
        return total / (count * tf.maximum(count - 1.0, 1.0))

    value = within(x) + within(y) - 2.0 * tf.reduce_mean(similarity(x, y))
    return tf.where(tf.minimum(tf.shape(x)[0], tf.shape(y)[0]) > 1, value, 0.0)


def hsic(x, y):
    """Hilbert-Schmidt independence criterion of paired samples: 0 if they are independent.

    Eq. 4 of [Gretton et al., 2007](https://papers.nips.cc/paper/3201-a-kernel-statistical-test-of-independence)
    divided as a correlation is, `HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y))`, which is the centred
    kernel alignment of [Cortes et al., 2012](https://jmlr.org/papers/v13/cortes12a.html): it is the
    squared MMD between the pairs and the same samples paired at random. The kernels are
    `exp(-d2 / m)`, with `d2` the squared distance and `m` its mean over the batch.

    Args:
        x: Shape `(batch, axes)`.
        y: Shape `(batch, other axes)`.

    Returns:
        Scalar in [0, 1], no unit; 0 if all rows of one are alike. Of independent samples it is of
        the order of `1 / batch`.
    """

    def centred(a):
        squares = tf.reduce_sum(tf.square(a[:, None, :] - a[None, :, :]), axis=-1)
        kernel = tf.exp(-squares / (tf.stop_gradient(tf.reduce_mean(squares)) + 1e-12))
        kernel -= tf.reduce_mean(kernel, axis=0, keepdims=True)
        return kernel - tf.reduce_mean(kernel, axis=1, keepdims=True)

    first, second = centred(x), centred(y)
    sizes = tf.reduce_sum(tf.square(first)) * tf.reduce_sum(tf.square(second))
    return tf.reduce_sum(first * second) * tf.math.rsqrt(sizes + 1e-12)


def dssim(images, reconstructions):
    """Structural dissimilarity `(1 - SSIM) / 2` of each pair; shape `(batch,)`, in [0, 1].

    It has no unit: in a loss in nats it needs a weight, of the order of the number of pixels.
    """
    return 0.5 * (1.0 - metrics.ssim(images, reconstructions))


def absolute(images, others):
    """Absolute differences of images `(batch, height, width, channels)`, summed; `(batch,)`."""
    return tf.reduce_sum(tf.abs(tf.cast(images - others, tf.float32)), axis=(1, 2, 3))


def perceptual(maps, other_maps, weights=None):
    """Distance of two batches of images in the feature maps of a network.

    At every position of a map the channels are scaled to unit length; squared differences are
    summed over channels and averaged over positions, then summed over maps with their weights: Eq.
    1 of [Zhang et al., 2018](https://arxiv.org/abs/1801.03924), without their learned channel
    weights. It has no unit, and is at most 4 per unit of weight.

    Args:
        maps: List of maps, each `(batch, rows, columns, channels)`, from `judges.feature_maps`.
        other_maps: Maps of the same network on the other images.
        weights: One for each map; default: equal, summing to 1.

    Returns:
        Shape `(batch,)`.
    """
    weights = weights or [1.0 / len(maps)] * len(maps)
    total = 0.0
    for weight, one, other in zip(weights, maps, other_maps, strict=True):
        gaps = _unit(one) - _unit(other)
        total += weight * tf.reduce_mean(tf.reduce_sum(tf.square(gaps), axis=-1), axis=(1, 2))
    return total


def _unit(channels):
    channels = tf.cast(channels, tf.float32)
    squares = tf.reduce_sum(tf.square(channels), axis=-1, keepdims=True)
    return channels * tf.math.rsqrt(squares + 1e-8)


# --- adversarial ---------------------------------------------------------------------------------


def expelbo(error, divergence, weight, pixels):
    """The soft threshold of Soft-IntroVAE: half of `exp(-2 (error + weight * divergence) / D)`.

    Second term of Eq. 5 of [Daniel & Tamar, 2021](https://arxiv.org/abs/2012.13253) with its
    `alpha = 2`. An image that the model explains well, of small energy, is near 1/2; an
    unlikely one is near 0. In nats per image the exponential would underflow, so energies are
    divided by the number of pixel values, as in the authors' code.

    Args:
        error: Reconstruction error in nats above the minimum, shape `(batch,)`.
        divergence: KL or its replacement, in nats, shape `(batch,)`.
        weight: `beta_neg`.
        pixels: D, height x width x channels.

    Returns:
        Shape `(batch,)`, between 0 and 1/2, no unit.
    """
    return 0.5 * tf.exp(-2.0 / pixels * (error + weight * divergence))


def hinge(kl, margin):
    """Nats by which a KL falls short of a margin; 0 beyond it. `(batch,)`.

    `[m - KL]^+` of Eq. 11 of [Huang et al., 2018](https://arxiv.org/abs/1807.06358).
    """
    return tf.nn.relu(margin - kl)


def similarity_distance(means_a, log_vars_a, means_b, log_vars_b):
    """Distance of two sets of diagonal Gaussians: adversarial similarity distance.

    On every latent axis, the squared L2 distance between the mean densities of the two sets, times
    `sqrt(2 pi)`: the mean within `a`, plus within `b`, less twice between, of the kernel
    `k(i, j) = exp(-(m_i - m_j)^2 / (2 (v_i + v_j))) / sqrt(v_i + v_j)`. From
    [Lu et al., 2022](https://arxiv.org/abs/2206.13903), whose code first passes means and
    log-variances through tanh, as here; this bounds the variances from below. Axes are summed like
    the nats of the KL with which it is mixed; their code takes the mean in one turn, and a sum over
    all pairs of images in the other.

    Args:
        means_a, log_vars_a: Shape `(m, latent_dim)`.
        means_b, log_vars_b: Shape `(n, latent_dim)`.

    Returns:
        Scalar, 0 or more: it compares two sets, not images.
    """
    a = tf.tanh(means_a), tf.exp(tf.tanh(log_vars_a))
    b = tf.tanh(means_b), tf.exp(tf.tanh(log_vars_b))

    def overlap(one, other):
        squares = tf.square(one[0][:, None, :] - other[0][None, :, :])
        variances = one[1][:, None, :] + other[1][None, :, :]
        pairs = tf.exp(-0.5 * squares / variances) / tf.sqrt(variances)
        return tf.reduce_sum(tf.reduce_mean(pairs, axis=(0, 1)))

    return overlap(a, a) + overlap(b, b) - 2.0 * overlap(a, b)


def critic_nll(logits, real):
    """Loss of a discriminator, in nats: `-log sigmoid` of its log-odds of being real.

    Args:
        logits: Shape `(batch, 1)`.
        real: The target: whether the inputs should be classified as real.

    Returns:
        Shape `(batch,)`.
    """
    return tf.nn.softplus(-logits[:, 0] if real else logits[:, 0])


def critic_hinge(real, fake):
    """Hinge loss of a critic of patches: real ones should have 1 or more, others -1 or less.

    Args:
        real, fake: The critic's outputs, shape `(batch, height, width, 1)`.

    Returns:
        Shape `(batch,)`, half of the sum of the two means over patches.

    References: [Lim & Ye, 2017](https://arxiv.org/abs/1705.02894), Eq. 4 and 5
    """
    both = tf.nn.relu(1.0 - real) + tf.nn.relu(1.0 + fake)
    return 0.5 * tf.reduce_mean(both, axis=(1, 2, 3))

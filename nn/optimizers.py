"""Muon for networks of convolutions, and the optimizers by name."""

import math

import keras
import tensorflow as tf

# Output layers, which stay with Adam.
HEADS = ("z_mean", "means", "log_var", "logits", "log_sigma", "opinion", "velocity")


@keras.saving.register_keras_serializable("latent_atlas")
class Muon(keras.optimizers.Muon):
    """Keras' optimizer, for the kernels of convolutions too and in half of the time.

    A kernel's momentum is taken as a matrix with one column for each output channel, and its step
    is about the nearest orthogonal matrix: all directions of a kernel are learned alike. Biases,
    norms and the outputs of a network are learned by Adam. The step of a kernel has the size of
    Adam's, so both take the same learning rates.

    Keras orthogonalizes matrices alone, and multiplies the whole matrix in each iteration. Here the
    iterations are those of the smaller Gram matrix, whose polynomials are the same.

    Args:
        learning_rate: Number, or a Keras schedule.
        exclude_layers: Words in the names of layers that are learned by Adam; default: `HEADS`.
        weight_decay, adam_weight_decay: See Keras; default: none.
        **options: See `keras.optimizers.Muon`.

    References: [Jordan et al., 2024](https://kellerjordan.github.io/posts/muon/);
        [Liu et al., 2025](https://arxiv.org/abs/2502.16982) (the size of the step)
    """

    def __init__(
        self,
        learning_rate=0.001,
        exclude_layers=HEADS,
        weight_decay=None,
        adam_weight_decay=None,
        **options,
    ):
        super().__init__(
            learning_rate,
            exclude_layers=list(exclude_layers),
            weight_decay=weight_decay,
            adam_weight_decay=adam_weight_decay,
            **options,
        )

    def _should_use_adamw(self, variable):
        if any(word in variable.path for word in self.exclude_layers):
            return True
        return len(variable.shape) not in (2, 4)

    def lr_adjust(self, x):
        rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
        return x * (self.rms_rate * math.sqrt(max(rows, columns)))

    def zeropower_via_newtonschulz5(self, x, steps):
        """About `U V^T` of a kernel's singular value decomposition `U S V^T`.

        Args:
            x: A kernel `(..., columns)`.
            steps: Iterations of Newton and Schulz.

        Returns:
            A tensor of that shape.
        """
        matrix = tf.reshape(x, (-1, x.shape[-1]))
        tall = matrix.shape[0] > matrix.shape[1]
        gram = tf.matmul(matrix, matrix, transpose_a=tall, transpose_b=not tall)
        norm = tf.sqrt(tf.linalg.trace(gram)) + 1e-7
        gram /= tf.square(norm)
        one = tf.eye(gram.shape[0], dtype=gram.dtype)

        def factor_of(gram):
            return self.muon_a * one + self.muon_b * gram + self.muon_c * tf.matmul(gram, gram)

        # All matrices are polynomials of the first one: they commute.
        factor = product = factor_of(gram)
        for _ in range(steps - 1):
            gram = tf.matmul(factor, tf.matmul(gram, factor))
            factor = factor_of(gram)
            product = tf.matmul(factor, product)
        product /= norm
        turned = tf.matmul(matrix, product) if tall else tf.matmul(product, matrix)
        return tf.reshape(turned, x.shape)


BY_NAME = {"adam": keras.optimizers.Adam, "muon": Muon}

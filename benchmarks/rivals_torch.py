"""The PyTorch sides of benchmarks/rivals.py; started by it in their own environment.

Networks are built layer by layer from what the TensorFlow side describes, so that both have the
same convolutions and the same number of weights. Images are floats in memory and are sliced, not
collated, which is fastest.
"""

import json
import math
import sys

import numpy as np
import torch
import turns
from torch import nn
from torch.nn import functional


class Reshape(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return x.reshape(len(x), *self.shape)


def module(each, shape):
    """A layer, and the shape of its output without the batch, channels first."""
    kind = each["kind"]
    if kind in ("Conv2D", "Conv2DTranspose"):
        size, stride = each["kernel_size"][0], each["strides"][0]
        bias, pad = each["use_bias"], each["kernel_size"][0] // 2
        height, width, channels = each["shape"]
        if kind == "Conv2D":
            made = nn.Conv2d(shape[0], channels, size, stride, pad, bias=bias)
        else:
            made = nn.ConvTranspose2d(shape[0], channels, size, stride, pad, stride - 1, bias=bias)
        return made, (channels, height, width)
    if kind == "BatchNormalization":
        return nn.BatchNorm2d(shape[0]), shape
    if kind == "LeakyReLU":
        return nn.LeakyReLU(each["negative_slope"], inplace=True), shape
    if kind == "Dropout":
        return nn.Dropout(each["rate"]), shape
    if kind == "Flatten":
        return nn.Flatten(), (math.prod(shape),)
    if kind == "Reshape":
        height, width, channels = each["shape"]
        return Reshape(channels, height, width), (channels, height, width)
    if kind == "Dense":
        return nn.Linear(shape[0], each["units"]), (each["units"],)
    raise ValueError(f"there is no PyTorch layer for {kind} in this script")


def chain(described, shape):
    made = []
    for each in described:
        layer, shape = module(each, shape)
        made.append(layer)
    return nn.Sequential(*made), shape


class Encoder(nn.Module):
    def __init__(self, told):
        super().__init__()
        height, width, channels = told["image_shape"]
        self.body, shape = chain(told["encoder"][:-2], (channels, height, width))
        self.mean, self.log_var = (nn.Linear(shape[0], told["latent_dim"]) for _ in range(2))

    def forward(self, x):
        features = self.body(x)
        return self.mean(features), self.log_var(features)


def mmd(z, prior):
    """Unbiased MMD with a sum of inverse multiquadrics, as in our InfoVAE."""
    scales = 2.0 * z.shape[1] * torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])

    def kernel(x, y):
        squares = (x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2.0 * x @ y.T
        return sum(scale / (scale + squares) for scale in scales)

    count = len(z)
    within = [
        (k.sum() - k.diagonal().sum()) / (count * (count - 1))
        for k in (kernel(z, z), kernel(prior, prior))
    ]
    return within[0] + within[1] - 2.0 * kernel(z, prior).mean()


def plain(told, images, batch_size, info, channels_last=False, compiled=False, half=False):
    """An optimized PyTorch training step."""
    encoder = Encoder(told)
    decoder, _ = chain(told["decoder"], (told["latent_dim"],))
    networks = nn.ModuleList([encoder, decoder])
    count = sum(each.numel() for each in networks.parameters())
    if count != told["weights"]:
        raise ValueError(f"{count} weights in PyTorch, {told['weights']} in TensorFlow")
    if channels_last:
        networks = networks.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(networks.parameters(), lr=1e-3, fused=True)

    def objective(batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            mean, log_var = encoder(batch)
            z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
            logits = decoder(z).float()
        mean, log_var, z = mean.float(), log_var.float(), z.float()
        paid = functional.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
        kl = 0.5 * (mean * mean + log_var.exp() - 1.0 - log_var).sum()
        loss = (paid + kl) / len(batch)
        return loss + 1000.0 * mmd(z, torch.randn_like(z)) if info else loss

    if compiled:
        objective = torch.compile(objective)
    networks.train()

    def run(steps):
        order = torch.randperm(len(images))
        for step in range(steps):
            start = step * batch_size % (len(images) - batch_size + 1)
            optimizer.zero_grad(set_to_none=True)
            objective(images[order[start : start + batch_size]]).backward()
            optimizer.step()

    return run


def pythae(told, images, batch_size, info):
    """pythae's model, trainer and loader, around the same networks."""
    import logging
    import tempfile

    from pythae.data.datasets import BaseDataset
    from pythae.models import INFOVAE_MMD, VAE, INFOVAE_MMD_Config, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.INFO)

    class Coder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.inner = Encoder(told)

        def forward(self, x):
            mean, log_var = self.inner(x)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Drawer(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.inner, _ = chain(told["decoder"], (told["latent_dim"],))

        def forward(self, z):
            return ModelOutput(reconstruction=torch.sigmoid(self.inner(z)))

    shape = {"input_dim": tuple(images.shape[1:]), "latent_dim": told["latent_dim"]}
    kind, settings = (INFOVAE_MMD, INFOVAE_MMD_Config) if info else (VAE, VAEConfig)
    model = kind(settings(reconstruction_loss="bce", **shape), Coder(), Drawer())

    def run(steps):
        count = steps * batch_size
        rows = torch.arange(count) % len(images)
        with tempfile.TemporaryDirectory() as folder:
            trainer = BaseTrainer(
                model,
                BaseDataset(images[rows], torch.ones(count)),
                training_config=BaseTrainerConfig(
                    output_dir=folder, num_epochs=1, per_device_train_batch_size=batch_size
                ),
            )
            trainer.prepare_training()
            begun = turns.now()  # preparation is not measured
            trainer.train_step(1)
            return turns.since(begun)

    return run


def profiled(run, steps):
    """Milliseconds per step of every kind of operation, without those that it calls."""
    run(4)
    with torch.profiler.profile() as seen:
        run(steps)
    return {each.key: each.self_cpu_time_total / 1000 / steps for each in seen.key_averages()}


SIDES = {
    "eager": {},
    "channels-last": {"channels_last": True},
    "channels-last, kept pages": {"channels_last": True},  # with KEPT_PAGES in the environment
    "torch.compile": {"compiled": True, "channels_last": True},
    "channels-last, kept pages, bfloat16": {"channels_last": True, "half": True},
}


def main():
    side, told, info = sys.argv[1], json.loads(sys.argv[2]), sys.argv[5] == "info"
    pixels, batch_size = np.load(sys.argv[3]), int(sys.argv[4])
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    if side == "pythae":
        run = pythae(told, images, batch_size, info)
    else:
        run = plain(told, images, batch_size, info, **SIDES[side])
    if len(sys.argv) > 6:
        print(json.dumps(profiled(run, int(sys.argv[6]))))
        return
    turns.take(run)


if __name__ == "__main__":
    main()

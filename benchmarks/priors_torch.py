"""pythae's side of benchmarks/priors.py; started by it in the environment of rivals.py.

    priors_torch.py KIND LATENTS.npy SAMPLES.npy COUNT STEPS BATCH SEED

pythae's samplers take a model and images. Here the images are latents of our model, scaled to the
[0, 1] that pythae asks for; its encoder scales them back and its decoder returns them, so that each
sampler is fitted to exactly the given latents and draws latents.
"""

import json
import sys
import tempfile
import time

import numpy as np
import torch
from pythae import samplers
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainerConfig

KINDS = {
    "mixture": (samplers.GaussianMixtureSampler, samplers.GaussianMixtureSamplerConfig),
    "MAF": (samplers.MAFSampler, samplers.MAFSamplerConfig),
    "two-stage": (samplers.TwoStageVAESampler, samplers.TwoStageVAESamplerConfig),
}


class Scaled(BaseEncoder):
    def __init__(self, low, span):
        super().__init__()
        self.latent_dim = len(low)
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("span", torch.tensor(span))

    def forward(self, x):
        z = self.low + x * self.span
        return ModelOutput(embedding=z, log_covariance=torch.full_like(z, -60.0))


class Same(BaseDecoder):
    def forward(self, z):
        return ModelOutput(reconstruction=z)


def main():
    kind, latents, drawn, count, steps, batch, seed = sys.argv[1:]
    torch.manual_seed(int(seed))
    np.random.seed(int(seed))
    torch.set_num_threads(2)
    z = np.load(latents)
    low, span = z.min(axis=0), np.ptp(z, axis=0)
    images = torch.tensor((z - low) / span).clamp(0.0, 1.0)
    config = VAEConfig(input_dim=(z.shape[1],), latent_dim=z.shape[1])
    model = VAE(config, Scaled(low, span), Same())
    made, settings = KINDS[kind]
    sampler = made(model, settings())
    held = len(images) // 10
    epochs = max(1, round(int(steps) / ((len(images) - held) / int(batch))))
    wall, cpu = time.perf_counter(), time.process_time()
    if kind == "mixture":
        sampler.fit(images)
    else:
        with tempfile.TemporaryDirectory() as folder:
            training = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=epochs,
                per_device_train_batch_size=int(batch),
                per_device_eval_batch_size=1024,
                learning_rate=1e-3,
                seed=int(seed),
            )
            sampler.fit(images[held:], images[:held], training_config=training)
    told = {"clock": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    np.save(drawn, sampler.sample(int(count)).detach().numpy().reshape(int(count), -1))
    print(json.dumps(told))


if __name__ == "__main__":
    main()

"""diffusers' side of benchmarks/autoencoder_kl.py; started by it in the environment of rivals.py.

    autoencoder_kl_torch.py TRAIN.npy TEST.npy OUT JSON

JSON has `seconds` (processor time of the training), `batch`, `rate`, `sigma`, `beta`, `seed`,
`points` (how often test images are reconstructed) and `network` (arguments of `AutoencoderKL`).
OUT gets the reconstructions `NUMBER.npy`; a line of JSON on the output tells each one's time.
"""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL


def main():
    training, test, out, told = sys.argv[1:]
    told, out = json.loads(told), Path(out)
    torch.manual_seed(told["seed"])
    torch.set_num_threads(told["threads"])
    images = {
        name: torch.tensor(np.load(path).transpose(0, 3, 1, 2)).float() / 255
        for name, path in (("training", training), ("test", test))
    }
    model = AutoencoderKL(**told["network"]).to(memory_format=torch.channels_last)
    weights = sum(each.numel() for each in model.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=told["rate"], eps=1e-7)
    order = np.random.default_rng(told["seed"])

    def step(share):
        for group in optimizer.param_groups:
            group["lr"] = told["rate"] * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
        rows = order.integers(0, len(images["training"]), told["batch"])
        x = images["training"][rows]
        x = x.contiguous(memory_format=torch.channels_last)
        posterior = model.encode(x).latent_dist
        # Its output is an image, not logits: the decoder ends without a sigmoid.
        made = model.decode(posterior.sample()).sample
        squared = (made - x).square().sum() / (2 * told["sigma"] ** 2)
        loss = (squared + told["beta"] * posterior.kl().sum()) / len(x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def reconstructed():
        with torch.no_grad():
            parts = images["test"].split(64)
            made = [model.decode(model.encode(x).latent_dist.mode()).sample for x in parts]
        return torch.cat(made).clip(0, 1).numpy().transpose(0, 2, 3, 1)

    spent, taken = 0.0, 0
    for point in range(1, told["points"] + 1):
        start = time.process_time()
        while spent + time.process_time() - start < told["seconds"] * point / told["points"]:
            step(min(1.0, (spent + time.process_time() - start) / told["seconds"]))
            taken += 1
        spent += time.process_time() - start
        np.save(out / f"{point}.npy", reconstructed())
        print(json.dumps({"seconds": spent, "steps": taken, "weights": weights}), flush=True)


if __name__ == "__main__":
    main()

"""Analysis of trained models: latents, directions, judges, likelihood, factors, figures."""

"""What is read off a trained model: latents, directions, judges, likelihood, factors, figures."""

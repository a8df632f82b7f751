"""The recipes, installed as `tfavmae_configs` so that a wheel carries them too."""

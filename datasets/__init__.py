"""TensorFlow Datasets builders; installed as the package `tfavmae_datasets`."""

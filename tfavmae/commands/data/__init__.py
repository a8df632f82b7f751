"""Subcommands of `tfavmae data`: media files to TFRecords, and on to training."""

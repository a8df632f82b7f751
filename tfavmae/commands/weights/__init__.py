"""Subcommands of `tfavmae weights`: published weights, and ours for others."""

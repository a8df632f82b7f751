"""Subcommands of `tfavmae weights`: what published weights hold."""

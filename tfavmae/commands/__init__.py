"""Subcommands of `tfavmae`, one file each: their options and the calls they make.

`add_parser` declares the options and `run` acts on them. Heavy modules are imported
inside `run`, so that `tfavmae --help` answers at once.
"""

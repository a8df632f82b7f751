"""The subcommands: for each its arguments and what they call."""

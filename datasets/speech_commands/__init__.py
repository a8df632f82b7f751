"""speech_commands: 65,000 spoken words in 12 classes."""

from tfavmae_datasets.speech_commands.source import SpeechCommands as Source

__all__ = ["Source"]

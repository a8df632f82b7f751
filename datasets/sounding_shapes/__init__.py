"""SoundingShapes: a generated audio-visual set with known best possible results."""

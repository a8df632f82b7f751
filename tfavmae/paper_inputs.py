"""What the models of each paper read unless told otherwise.

Fields of `AudioInput` and `VideoInput` that differ from CAV-MAE's, which are the
defaults of those classes. A recipe without them means these, too.
"""

PAPER_INPUTS = {
    # Sections 4.1 and 4.2: 8 seconds of sound, 16 frames, pixels in [-1, 1]. The code
    # does not normalise the spectrogram.
    "av_mae": {
        "audio": {"num_frames": 800, "variant": "av_mae", "mean": 0.0, "std": 1.0},
        "video": {
            "num_frames": 16,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "tubelet_size": (2, 16, 16),
        },
    },
    "cav_mae": {"audio": {}, "video": {}},
    # As many pairs of a frame and its sound as CAV-MAE extracts frames.
    "cav_mae_sync": {"audio": {}, "video": {"num_frames": 10}},
    # AudioSet's statistics (Table 9); 8 frames in tubes of 2 (section 4.2).
    "mavil": {
        "audio": {"mean": -4.268, "std": 4.569},
        "video": {"num_frames": 8, "tubelet_size": (2, 16, 16)},
    },
}

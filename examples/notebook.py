# `python website/notebook.py` makes notebooks/tfavmae.ipynb of this script, whose cells
# begin with two percent signs.

# %% [markdown]
# # From clips to answers with tfavmae
#
# Generates small videos with sound, trains a masked autoencoder on them without
# labels, looks at what it reconstructs, fine-tunes a classifier, searches, exports, and
# asks the export. A few minutes on two processor cores; every step is a command of the
# package.

# %%
import json
import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SCALE = os.environ.get("SCALE", "small")  # `tiny` runs in a minute and learns nothing
CLIPS, STEPS, BATCH = {"small": (600, 160, 32), "tiny": (48, 4, 8)}[SCALE]


def command(*words):
    """Runs a command and returns what it printed."""
    whole = [sys.executable, "-m", "tfavmae", *words]
    done = subprocess.run(whole, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


# %% [markdown]
# ## Clips
# Shapes that move and sound: some classes can be told apart only by ear, some only
# by eye.

# %%
clips = ["--set", f"num_train_clips={CLIPS}", "--set", "num_validation_clips=100"]
command(
    "data", "build", "sounding_shapes", "--data-dir", "data", *clips, "--set", "name=nb"
)
DATA = [
    "data.dataset=sounding_shapes/nb",
    "data.data_dir=data",
    f"data.batch_size={BATCH}",
]
LENGTH = [f"trainer.num_steps={STEPS}", f"trainer.steps_per_epoch={STEPS}"]
CHANGES = [word for key in [*DATA, *LENGTH] for word in ("--set", key)]

# %% [markdown]
# ## Pretrain without labels

# %%
RECIPE = "configs/cav_mae/pretrain_sounding_shapes_demo.yaml"
WARM_UP = ["--set", f"optimizer.warmup_steps={STEPS // 8 + 1}"]
print(
    command("pretrain", "--config", RECIPE, "--workdir", "pretrain", *CHANGES, *WARM_UP)
)

# %% [markdown]
# ## What it sees, and what it makes of it
# From left to right: the clip, what is left of it, what the model completes.

# %%
import matplotlib.pyplot as plt

import tfavmae
from tfavmae.report.reconstructions import figure, reconstruct

run = tfavmae.load("pretrain")
batch = next(iter(run.batches(run.open_split())))
image = figure(reconstruct(run.run.model, batch, num_clips=3))
plt.figure(figsize=(14, 4))
plt.imshow(image)
plt.axis("off")
plt.show()

# %% [markdown]
# ## Search: which video belongs to this sound?

# %%
print(command("retrieve", "--workdir", "pretrain", "--gallery", "20"))

# %% [markdown]
# ## Fine-tune a classifier and measure it

# %%
RECIPE = "configs/cav_mae/finetune_audio_video_sounding_shapes_demo.yaml"
words = ["--workdir", "classifier", "--from", "pretrain", *CHANGES, *WARM_UP]
command("finetune", "--config", RECIPE, *words)
figures = json.loads(command("evaluate", "--workdir", "classifier", "--json"))
print(figures["num_clips"], "clips", figures.get("accuracy"))

# %% [markdown]
# ## Export, and ask the export
# The SavedModel needs neither Keras nor this package: `tfavmae serve export/shapes` or
# TensorFlow Serving answers with it over HTTP.

# %%
print(command("export", "--workdir", "classifier", "--directory", "export/shapes"))
print(command("serve-check", "export/shapes"))

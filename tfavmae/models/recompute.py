"""Less memory for more time: blocks that are computed again on the way back."""

from tfavmae.layers.transformer import TransformerBlock


def recompute_blocks(model):
    """Transformer blocks keep their inputs only and recompute the rest going back.

    Not `keras.RematScope`: its layers take no keyword arguments in a TensorFlow graph.
    Only training changes; what is saved of the model does not.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, TransformerBlock):
            layer.recomputes = True

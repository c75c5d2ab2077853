"""How a network is trained: every choice, as a value. An ablation is DEFAULT._replace(average_decay=0)."""

from collections import namedtuple

Recipe = namedtuple(
    "Recipe",
    [
        "name",
        "loss",  # a name of training.LOSSES, over the errors of the 136 outputs
        "heat_share",  # of the cross-entropy of the heat maps, for a network that has some
        # Adam
        "learning_rate",  # at its highest
        "decay_steps",  # between two decays
        "decay_rate",  # factor of a decay
        "warm_steps",  # in which the rate grows from zero
        "anneal_from",  # share of the steps from which on the rate falls to zero along half a cosine; None: never
        "connected_rate",  # share of the rate for the fully connected layers, which have no batch norm
        # Regularisation
        # Times sum(w^2)/2. Batch norm undoes a convolution's scale, so the L2 loss only makes Adam's steps larger
        # beside the weights (van Laarhoven, arXiv:1706.05350): in long runs at 1e-5 many deep outputs end as zero for
        # every face.
        "weight_decay",
        "keep_prob",  # share of the 1,024 units that dropout keeps
        # Averages
        "debias",  # whether batch norm's moving averages forget their initial values
        "average_decay",  # of the weights that are measured and saved as the best
        # Initial values
        "awake",  # whether no ReLU without batch norm starts dead
        "hidden_scale",  # of the 1,024 units at first: times Xavier's weights
        "hidden_mean",  # of the 1,024 units at first: their mean over a batch
        # Faces
        "frontal_share",  # of the faces, at least, that are within 30 degrees of yaw, however many are turned further
        # Augmentation
        "augment",  # whether every crop is cut anew from its photo
        "growth_steps",  # in which all but the mirror grows to its full strength: the first features come sooner so
        "turn",  # degrees, standard deviation of the roll that is added
        "shake",  # standard deviation of each side of the box, in sides of the crop
        # Labels lie this much to the right, in the mirror to the left, in widths of the face: there they are put back.
        "mirror_shift",
    ],
)

DEFAULT = Recipe(
    name="default",
    loss="l1",
    heat_share=0.05,
    learning_rate=0.003,
    decay_steps=1000,
    decay_rate=0.98,
    warm_steps=100,
    anneal_from=0.5,
    connected_rate=0.03,
    weight_decay=1e-6,
    keep_prob=0.8,
    debias=True,
    average_decay=0.999,
    awake=True,
    hidden_scale=12,
    hidden_mean=2,
    frontal_share=0.5,
    augment=True,
    growth_steps=1000,
    turn=12,
    shake=0.05,
    mirror_shift=0.004,
)

# As contract 5 has it, to compare.
ORIGINAL = Recipe(
    name="original",
    loss="l2",
    heat_share=0,
    learning_rate=0.001,
    decay_steps=1000,
    decay_rate=0.98,
    warm_steps=1,
    anneal_from=None,
    connected_rate=1,
    weight_decay=1e-5,
    keep_prob=0.8,
    debias=False,
    average_decay=0,
    awake=False,
    hidden_scale=1,
    hidden_mean=0,
    frontal_share=0,
    augment=False,
    growth_steps=1,
    turn=0,
    shake=0,
    mirror_shift=0,
)

RECIPES = {recipe.name: recipe for recipe in (DEFAULT, ORIGINAL)}

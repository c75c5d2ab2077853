"""How a network is trained: every choice, as a value. An ablation is DEFAULT._replace(ema_decay=0)."""

from collections import namedtuple

# name, the default, and that of the TF-Slim original (landmark/README.md, "Training"), to compare
CHOICES = [
    ("loss", "l1", "l2"),  # a name in training.LOSSES, of the errors of the 136 outputs
    ("heatmap_loss_weight", 0.05, 0),  # of the heat maps' cross-entropy, for a network that has heat maps
    ("gap_loss_weight", 0, 0),  # of the error of the gaps between lids and between lips
    # Adam
    ("learning_rate", 0.003, 0.001),  # its maximum
    ("decay_steps", 1000, 1000),  # between two decays
    ("decay_rate", 0.98, 0.98),  # factor of a decay
    ("warmup_steps", 100, 1),  # in which the rate grows from zero
    ("cosine_start", 0.5, None),  # fraction of the steps after which the rate falls to zero along half a cosine
    ("fc_lr_multiplier", 0.03, 1),  # of the learning rate of fully connected layers, which have no batch norm
    # Regularisation
    # Factor of sum(w^2)/2. Batch norm undoes a convolution's scale, so the L2 loss only makes Adam's steps larger
    # relative to the weights (van Laarhoven, arXiv:1706.05350): in long runs at 1e-5 many deep units end up zero for
    # every face.
    ("weight_decay", 1e-6, 1e-5),
    ("keep_prob", 0.8, 0.8),  # fraction of the 1,024 units that dropout keeps
    # Averages
    ("bn_decay_warmup", True, False),  # whether batch norm's moving averages start fast, to forget their initial values
    ("ema_decay", 0.999, 0),  # of the weights that are tested and saved as the best
    # Initial values
    ("live_start", True, False),  # whether every ReLU without batch norm starts with a gradient: senet.add_live_start
    ("hidden_scale", 12, 1),  # factor of the 1,024 units' Xavier weights
    ("hidden_mean", 2, 0),  # initial mean of the 1,024 units over a batch
    # Faces
    ("frontal_share", 0.5, 0),  # minimum fraction of training faces within 30 degrees of yaw, however few there are
    # Augmentation
    ("augment", True, False),  # whether every crop is cut anew from its photo
    # In which all of it but mirroring grows: the first features form sooner. With --init there is no ramp.
    ("augment_ramp_steps", 1000, 1),
    ("rotation_std", 12, 0),  # degrees, standard deviation of the roll that is added
    ("box_jitter", 0.05, 0),  # standard deviation of each side of the box, in sides of the crop
    ("repainted_share", 0, 0),  # of the crops: their colours and textures are changed by a random convolution
    # Labels lie this far to the right, in widths of the face, and in mirrored faces to the left; mirroring corrects it.
    ("mirror_label_shift", 0.004, 0),
]
Recipe = namedtuple("Recipe", ["name", *(name for name, *_ in CHOICES)])
DEFAULT = Recipe("default", *(default for _, default, _ in CHOICES))
ORIGINAL = Recipe("original", *(original for *_, original in CHOICES))
# For rendered faces: their labels are exact; a network that does not rely on their textures does better on photos.
RENDERED = DEFAULT._replace(name="rendered", mirror_label_shift=0, gap_loss_weight=0.02, repainted_share=0.3)
# For a run that starts from a trained model: a low learning rate that falls from the first step, and three near-frontal
# faces in four, so that these do not get worse.
FINETUNE = DEFAULT._replace(
    name="finetune", gap_loss_weight=0.03, learning_rate=0.001, cosine_start=0, frontal_share=0.75
)
RECIPES = {recipe.name: recipe for recipe in (DEFAULT, ORIGINAL, RENDERED, FINETUNE)}

# Names that run.json files of earlier versions use.
FORMER_NAMES = {
    "label": "landmark_type",
    "heat_share": "heatmap_loss_weight",
    "warm_steps": "warmup_steps",
    "anneal_from": "cosine_start",
    "connected_rate": "fc_lr_multiplier",
    "debias": "bn_decay_warmup",
    "average_decay": "ema_decay",
    "awake": "live_start",
    "growth_steps": "augment_ramp_steps",
    "turn": "rotation_std",
    "shake": "box_jitter",
    "mirror_shift": "mirror_label_shift",
}

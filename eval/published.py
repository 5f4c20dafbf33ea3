"""Tables 9 and 10 of the paper: figures to compare with, never results of ours.

Source: "Exploring Self-attention for Image Recognition", CVPR 2020. Measured
by its authors on ImageNet's validation images; by san.list_models()' names.
"""

NOTE = (
    "published: by the paper's authors, on ImageNet's validation images; not"
    " measured here"
)

# Table 9: top-1 and top-5 in percent on images rotated by none, 90, 180 and 270
# degrees clockwise and on images upside-down; the networks were trained on
# upright ones.
ROTATIONS = {
    "resnet26": (
        *((73.6, 91.7), (49.1, 72.7), (50.6, 75.4)),
        *((49.2, 72.8), (50.5, 75.4)),
    ),
    "san10_pair": (
        *((74.9, 92.1), (51.8, 74.6), (54.7, 78.5)),
        *((51.7, 74.5), (54.7, 78.5)),
    ),
    "san10_patch": (
        *((77.1, 93.5), (53.1, 75.7), (54.6, 78.4)),
        *((53.3, 76.0), (54.7, 78.3)),
    ),
    "resnet38": (
        *((76.0, 93.0), (51.2, 74.2), (52.2, 76.9)),
        *((51.6, 74.6), (52.2, 76.8)),
    ),
    "san15_pair": (
        *((76.6, 93.1), (54.5, 77.1), (57.9, 80.8)),
        *((54.8, 77.0), (58.0, 80.8)),
    ),
    "san15_patch": (
        *((78.0, 93.9), (53.7, 76.1), (56.0, 79.5)),
        *((53.9, 76.2), (56.0, 79.4)),
    ),
    "resnet50": (
        *((76.9, 93.5), (52.6, 75.3), (52.9, 77.4)),
        *((52.6, 75.5), (53.0, 77.3)),
    ),
    "san19_pair": (
        *((76.9, 93.4), (54.7, 77.1), (58.0, 80.4)),
        *((55.0, 77.1), (57.9, 80.4)),
    ),
    "san19_patch": (
        *((78.2, 93.9), (54.2, 76.3), (56.2, 79.5)),
        *((54.1, 76.4), (56.3, 79.5)),
    ),
}

# Table 10: success of the attack and top-1 under it, in percent, after 2 and
# after 4 iterations.
ATTACKS = {
    "resnet26": ((49.0, 26.6), (98.2, 1.0)),
    "san10_pair": ((32.8, 35.3), (90.1, 5.3)),
    "san10_patch": ((24.5, 46.4), (85.8, 9.6)),
    "resnet38": ((32.7, 39.2), (94.1, 3.8)),
    "san15_pair": ((15.5, 47.3), (67.5, 19.6)),
    "san15_patch": ((13.1, 54.8), (65.6, 22.9)),
    "resnet50": ((19.5, 49.3), (82.5, 11.8)),
    "san19_pair": ((13.1, 49.1), (63.7, 21.8)),
    "san19_patch": ((12.1, 55.1), (62.0, 24.8)),
}

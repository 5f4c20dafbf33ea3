"""What each variant of ImageNet is: how many classes and images, by whom."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Variant:
    """A test set for networks that were trained on ImageNet.

    Predictions are compared among the classes that it has, as its authors do.

    Attributes:
      title: what people call it.
      source: who defined it.
      num_classes: class folders it has; None for one of each of the network's
        classes.
      num_images: it was distributed with.
    """

    title: str
    source: str
    num_classes: int | None
    num_images: int


# By the values of --variant.
VARIANTS = {
    "v2": Variant(
        "ImageNetV2",
        'Recht et al., "Do ImageNet Classifiers Generalize to ImageNet?", ICML'
        " 2019",
        None,
        10_000,  # Each of the three: matched frequency, threshold 0.7, top.
    ),
    "a": Variant(
        "ImageNet-A",
        'Hendrycks et al., "Natural Adversarial Examples", CVPR 2021',
        200,
        7_500,
    ),
    "r": Variant(
        "ImageNet-R",
        'Hendrycks et al., "The Many Faces of Robustness", ICCV 2021',
        200,
        30_000,
    ),
    "sketch": Variant(
        "ImageNet-Sketch",
        'Wang et al., "Learning Robust Global Representations by Penalizing'
        ' Local Predictive Power", NeurIPS 2019',
        None,
        50_889,
    ),
}

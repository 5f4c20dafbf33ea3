"""ImageNet-C in tiny folders; what is predicted of an image is its colour's."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from eval.variants import corruption_errors, corruption_report, corruptions
from eval.variants.corruptions import ALEXNET, EXTRA, Corrupted
from san.jobs.processes import Process
from tests.eval import nearest_colour

WNIDS = nearest_colour.synsets(6)

# Errors of AlexNet by severity, as given in hendrycks/robustness, issue 10.
ALEXNET_BY_SEVERITY = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.9487, 0.9872, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.5843, 0.70048, 0.82108, 0.8975, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.9187, 0.94952),
    "frost": (0.6139, 0.79734, 0.8879, 0.89942, 0.9343),
    "fog": (0.67474, 0.7605, 0.84378, 0.8726, 0.945),
    "brightness": (0.4514, 0.48502, 0.54048, 0.62166, 0.7244),
    "contrast": (0.64548, 0.7615, 0.88874, 0.9776, 0.9927),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.5462, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}


@pytest.fixture(autouse=True)
def settings(tmp_path):
    nearest_colour.configure(tmp_path)


@pytest.fixture
def six(tmp_path):
    return nearest_colour.checkpoint(
        tmp_path / "six.pth", 6, classes=WNIDS, epoch=7
    )


def severity_folder(root, name, severity, num_wrong):
    """Two images of each class; some are taken for another."""
    images = {
        f"{wnid}/ILSVRC2012_val_{2 * k + i:08}.JPEG": k
        for k, wnid in enumerate(WNIDS)
        for i in (0, 1)
    }
    for path in list(images)[:num_wrong]:
        images[path] = (images[path] + 1) % 6
    folder = root / name / str(severity)
    return nearest_colour.write(folder, images, side=12)


def whole(root, names=(*ALEXNET, "saturate")):
    """The n-th corruption has n % 3 + severity wrong, of twelve."""
    for place, name in enumerate(names):
        for severity in corruptions.SEVERITIES:
            severity_folder(root, name, severity, place % 3 + severity)
    return root


def tried(checkpoint, root, class_map=None):
    trial = corruption_errors.prepare(
        checkpoint, None, root, class_map, Process()
    )
    return trial, list(corruption_errors.measure(trial, 5))


def error_of(checkpoint, root):
    with pytest.raises(ValueError) as error:
        tried(checkpoint, root)
    assert "\n" not in str(error.value)
    return str(error.value)


def of_errors(errors, digest="same"):
    """What would have been found, with the errors by severity in percent."""
    return [
        Corrupted(
            name,
            dict(zip(corruptions.SEVERITIES, row, strict=False)),
            dict.fromkeys(corruptions.SEVERITIES[: len(row)], 50_000),
            dict.fromkeys(corruptions.SEVERITIES[: len(row)], digest),
        )
        for name, row in errors.items()
    ]


def percent(rows):
    return {name: [100 * e for e in row] for name, row in rows.items()}


def test_denominators_are_the_means_over_the_severities():
    assert list(ALEXNET) == list(ALEXNET_BY_SEVERITY)
    for name, errors in ALEXNET_BY_SEVERITY.items():
        assert ALEXNET[name] == pytest.approx(np.mean(errors), abs=1e-9)


def test_alexnet_has_one_hundred():
    found = of_errors(percent(ALEXNET_BY_SEVERITY))
    for one in found:
        assert one.normalised(1000) == pytest.approx(100)
        assert one.normalised(200) is None
    assert corruptions.mean(found, 1000) == pytest.approx(100)


def test_the_mean_is_of_ratios_and_without_the_extra_ones():
    errors = {name: [20.0, 30.0, 40.0, 50.0, 60.0] for name in ALEXNET}
    expected = np.mean([40 / error for error in ALEXNET.values()])
    with_extra = errors | {name: [100.0] * 5 for name in EXTRA}
    for rows in (errors, with_extra):
        found = of_errors(rows)
        assert corruptions.mean(found, 1000) == pytest.approx(expected)
    assert all(one.normalised(1000) is None for one in found[15:])
    assert all(one.error == pytest.approx(100) for one in found[15:])


def test_what_is_no_mean_corruption_error():
    found = of_errors(percent(ALEXNET_BY_SEVERITY))
    assert corruptions.why_no_mean(found, 1000) is None
    without_snow = [one for one in found if one.name != "snow"]
    short = dict(percent(ALEXNET_BY_SEVERITY))
    short["fog"] = short["fog"][:3]
    fewer = dataclasses.replace(
        found[0], num_images=found[0].num_images | {3: 49_999}
    )
    fewer = dataclasses.replace(fewer, digests=fewer.digests | {3: "less"})
    for one, num_classes, why in (
        (without_snow, 1000, "without snow"),
        (of_errors(short), 1000, "without fog 4 and 5"),
        (
            found,
            200,
            "AlexNet's errors, its denominators, are of 1000 classes, not of"
            " 200",
        ),
        (
            [fewer, *found[1:]],
            1000,
            "the images are not the same everywhere: gaussian_noise 3 has"
            " 49999",
        ),
        (
            [*of_errors(short)[:-1], *of_errors({"snow": [1.0] * 5}, "others")],
            1000,
            "without fog 4 and 5, jpeg_compression",
        ),
        (
            [*found[:-1], *of_errors({"jpeg_compression": [1.0] * 5}, "else")],
            1000,
            "the images are not the same everywhere",
        ),
    ):
        assert corruptions.why_no_mean(one, num_classes) == why
        assert corruptions.mean(one, num_classes) is None


def test_every_figure_by_hand(tmp_path, six, capsys):
    root = whole(tmp_path / "c")
    (root / "clean").mkdir()
    (root / "snow" / "6").mkdir()
    (root / "README.txt").write_text("hello")
    trial, found = tried(six, root)
    assert [one.name for one in found] == [*ALEXNET, "saturate"]
    for place, one in enumerate(found):
        for severity, error in one.errors.items():
            wrong = place % 3 + severity
            assert error == pytest.approx(100 * wrong / 12)
        assert one.error == pytest.approx(100 * (place % 3 + 3) / 12)
        assert one.num_images == dict.fromkeys(range(1, 6), 12)
    assert found[1].normalised(1000) == pytest.approx(100 * 4 / 12 / 0.894468)
    assert found[1].normalised(6) is None
    assert capsys.readouterr().err == (
        f"no corruptions, left out: {root}/clean, {root}/snow/6\n"
    )
    assert " ".join(corruption_report.line(trial, found[0]).split()) == (
        "gaussian_noise 8.33% 16.67% 25.00% 33.33% 41.67% 25.00% -"
    )
    assert corruption_report.line(trial, found[15]).split()[-1] == "-"
    assert corruption_report.tail(trial, found) == (
        "no mean corruption error (mCE): AlexNet's errors, its denominators,"
        " are of 1000 classes, not of 6\n"
        "12 images each, NOT the 50000 that it was distributed with"
    )
    head = corruption_report.head(trial)
    assert "six.pth (epoch 7)\n" in head
    assert "12 x 12 pixels as they are, neither resized nor cropped" in head
    figures = json.loads(corruption_report.as_json(trial, found))
    assert figures["mce"] is None and "1000 classes" in figures["why_no_mce"]
    assert figures["corruptions"]["shot_noise"]["severities"]["2"] == {
        "error": pytest.approx(25),
        "num_images": 12,
    }
    lines = corruption_report.as_csv(found).splitlines()
    assert len(lines) == 1 + 16 * 5
    assert lines[0] == "corruption,severity,num_images,error"
    assert lines[5].startswith("gaussian_noise,5,12,41.6")


def test_a_thousand_classes_have_a_mean(tmp_path):
    """All corruptions, through links to five small folders."""
    wnids = nearest_colour.synsets(1000)
    checkpoint = nearest_colour.checkpoint(tmp_path / "net.pth", 1000)
    images = tmp_path / "images"
    nearest_colour.write(
        images,
        {
            f"{wnid}/{k}.JPEG": (k + (k % 4 == 0)) % 1000
            for k, wnid in enumerate(wnids)
        },
        side=12,
    )
    root = tmp_path / "c"
    for name in ("contrast", "frost"):
        (root / name).mkdir(parents=True)
        for severity in corruptions.SEVERITIES:
            (root / name / str(severity)).symlink_to(images)
    trial, found = tried(checkpoint, root)
    assert [one.error for one in found] == [pytest.approx(25)] * 2
    # 25 / 0.826572, and the same of contrast's 0.853204.
    frost, contrast = (corruption_report.line(trial, one) for one in found)
    assert frost.split()[-2:] == ["25.00%", "30.25%"]
    assert contrast.split()[-2:] == ["25.00%", "29.30%"]
    # What the others would have been, being the same images.
    everywhere = [dataclasses.replace(found[0], name=name) for name in ALEXNET]
    expected = np.mean([25 / error for error in ALEXNET.values()])
    assert corruption_report.tail(trial, everywhere) == (
        f"mCE {expected:.2f}%, the mean of the 15 CE: the error over AlexNet's\n"
        "1000 images each, NOT the 50000 that it was distributed with"
    )
    assert "no mean corruption error (mCE): without gaussian_noise, shot" in (
        corruption_report.tail(trial, found)
    )


def test_groups_as_distributed(tmp_path, six):
    root = tmp_path / "c"
    severity_folder(root / "weather", "snow", 1, 3)
    severity_folder(root / "extra", "spatter", 5, 6)
    severity_folder(root, "fog", 2, 0)
    _, found = tried(six, root)
    assert [(one.name, one.errors) for one in found] == [
        ("snow", {1: pytest.approx(25)}),
        ("fog", {2: 0}),
        ("spatter", {5: pytest.approx(50)}),
    ]
    severity_folder(root / "weather", "fog", 1, 0)
    assert "must hold each corruption once, got fog twice" in (
        error_of(six, root)
    )


def test_what_is_missing_is_said_before_hours_are_spent(tmp_path, six, capsys):
    root = whole(tmp_path / "c")
    shutil.rmtree(root / "frost")
    shutil.rmtree(root / "fog" / "3")
    shutil.rmtree(root / "fog" / "5")
    corruption_errors.prepare(six, None, root, None, Process())
    assert capsys.readouterr().err == (
        "warning: there will be no mean corruption error without frost, fog 3"
        " and 5\n"
    )


def test_images_of_another_size_are_refused(tmp_path, six):
    """Resized from 64 pixels, or to other ones, corruptions are weaker."""
    folder = severity_folder(tmp_path / "c", "snow", 1, 0)
    path = folder / WNIDS[3] / "ILSVRC2012_val_00000006.JPEG"
    Image.new("RGB", (12, 13)).save(path)
    message = error_of(six, tmp_path / "c")
    assert "Data.image_size = 12, since resizing would smooth" in message
    assert f"got 13 x 12 pixels in {path}" in message


def test_pixels_are_as_they_are_in_the_files(tmp_path, six):
    """Neither resized nor cropped, whatever Data.resize_size says."""
    folder = severity_folder(tmp_path / "c", "snow", 1, 0)
    path = folder / WNIDS[0] / "ILSVRC2012_val_00000000.JPEG"
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(noise).save(path, quality=85)
    seen = []
    trial = corruption_errors.prepare(
        six, None, tmp_path / "c", None, Process()
    )
    trial.found.model.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].clone())
    )
    list(corruption_errors.measure(trial, 4))
    decoded = np.asarray(Image.open(path)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(seen[0][0].numpy(), decoded, atol=1e-6)


@pytest.mark.parametrize("severity", [1, 5])
def test_a_class_that_is_missing_anywhere(tmp_path, six, severity):
    root = whole(tmp_path / "c", ["snow"])
    folder = root / "snow" / str(severity)
    shutil.rmtree(folder / WNIDS[4])
    assert error_of(six, root) == (
        "eval: ImageNet-C must have a class folder for each of 6 classes, got 5"
        f" class folders of 5 classes, without {WNIDS[4]} in {folder}"
    )


def test_an_image_that_is_missing_somewhere(tmp_path, six):
    root = whole(tmp_path / "c", ["snow"])
    os.remove(root / "snow" / "2" / WNIDS[4] / "ILSVRC2012_val_00000008.JPEG")
    trial, found = tried(six, root)
    assert found[0].num_images[2] == 11
    assert "11 to 12 images each" in corruption_report.tail(trial, found)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("none", "must be a folder of corruptions, got"),
        ("n01440764", "must hold folders such as gaussian_noise/1/CLASS, got"),
        ("snow/n01440764", "must hold folders such as gaussian_noise/1/CLASS"),
        ("snow/1", "holds no class folders"),
    ],
)
def test_folders_that_hold_no_corruptions(tmp_path, six, folder, message):
    root = tmp_path / "c"
    if folder != "none":
        (root / folder).mkdir(parents=True)
    assert message in error_of(six, root)


def test_no_bits_of_a_network_change(tmp_path, six):
    """It is used again and again."""
    root = whole(tmp_path / "c", ["snow"])
    _, once = tried(six, root)
    _, again = tried(six, root)
    assert once == again


def test_logits_that_overflow_have_no_error(tmp_path, six):
    severity_folder(tmp_path, "snow", 1, num_wrong=0)
    checkpoint = torch.load(six, weights_only=True)
    checkpoint["state_dict"]["fc.weight"].fill_(3e38)
    checkpoint["state_dict"]["fc.bias"].fill_(3.4e38)
    torch.save(checkpoint, tmp_path / "large.pth")
    with pytest.raises(FloatingPointError, match="logits must be finite"):
        tried(tmp_path / "large.pth", tmp_path)

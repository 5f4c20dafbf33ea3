import gin
import pytest

from san.data import Data


def test_defaults_are_the_published_recipe():
    data = Data()
    assert (data.image_size, data.resize_size) == (224, 256)
    assert (data.min_crop_area, data.max_crop_area) == (0.08, 1.0)
    assert (data.min_aspect, data.max_aspect) == (3 / 4, 4 / 3)
    assert data.flip is True
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("image_size", 0, "be an integer of at least 1"),
        ("image_size", 22.4, "be an integer of at least 1"),
        ("image_size", True, "be an integer of at least 1"),
        ("resize_size", 223, "be an integer of at least image_size (224)"),
        ("min_crop_area", 0, "be a number above 0"),
        ("min_crop_area", "0.1", "be a number above 0"),
        ("min_crop_area", float("nan"), "be a number above 0"),
        ("max_crop_area", 0.01, None),
        ("max_crop_area", 1.5, "be at most 1"),
        ("min_aspect", 2, "be at most max_aspect (1.3333333333333333)"),
        ("flip", 1, "be True or False"),
        ("rand_augment_ops", -1, "be an integer of at least 0 and at most 8"),
        ("rand_augment_ops", 2.0, "be an integer of at least 0"),
        ("rand_augment_magnitude", 31, "be an integer of at least 0 and at m"),
        ("random_erasing", 1.1, "be a number of at least 0 and at most 1"),
        ("mean", (0.5, 0.5), "be three numbers"),
        ("mean", 0.5, "be three numbers"),
        ("std", (1, 1, 0), "be three numbers above 0"),
        ("num_threads", 0, "be None or an integer of at least 1"),
        ("exclude", "", "be None or the name of a file"),
        ("source", "digits", "be None or a function reference"),
    ],
)
def test_values_that_are_not_allowed(name, value, rule):
    with pytest.raises(ValueError) as error:
        Data(**{name: value})
    if rule is None:
        expected = "Data: min_crop_area must be at most max_crop_area (0.01)"
        assert str(error.value).startswith(expected)
    else:
        assert str(error.value).startswith(f"Data: {name} must {rule}")
        assert f"got {value!r}" in str(error.value)


def test_gin_fills_it():
    gin.parse_config("Data.image_size = 32\nData.resize_size = 36")
    try:
        data = Data()
    finally:
        gin.clear_config()
    assert (data.image_size, data.resize_size) == (32, 36)
    assert Data().image_size == 224


@pytest.mark.parametrize(
    ("size", "resized"), [(224, 256), (192, 219), (288, 329), (1, 1)]
)
def test_at_another_size_as_much_is_seen(size, resized):
    data = Data(flip=False).at_size(size)
    assert (data.image_size, data.resize_size) == (size, resized)
    assert data.flip is False


def test_no_size_at_all():
    with pytest.raises(ValueError, match="image_size must be an integer"):
        Data().at_size(0)

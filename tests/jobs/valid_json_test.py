import json
import math

import numpy as np

from san.jobs import valid_json


def test_numpys_numbers_are_numbers():
    text = valid_json.text_of({"epoch": np.int64(3), "top1": [np.float32(0.5)]})
    assert json.loads(text) == {"epoch": 3, "top1": [0.5]}


def test_what_is_not_finite_is_null():
    content = {
        "a": math.nan,
        "b": (1.5, {"c": -math.inf}),
        "d": np.float64("inf"),
    }
    text = valid_json.text_of(content)
    assert json.loads(text) == {"a": None, "b": [1.5, {"c": None}], "d": None}
    assert "NaN" not in text and "Infinity" not in text and text.endswith("}\n")


def test_a_line_is_one_line():
    text = valid_json.line_of({"name": "two\nlines", "loss": math.nan})
    assert text == '{"name": "two\\nlines", "loss": null}\n'

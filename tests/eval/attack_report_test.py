"""Outcomes of attacks, as people and programs read them."""

import json
import pathlib

from eval import attack_report, attacks, published
from eval.attacks import Outcome
from eval.subject import Subject


def example(network):
    subject = Subject(
        "one", pathlib.Path("one/best.pth"), None, network, 50, 1000
    )
    outcomes = [
        Outcome(None, 0.0, 74.0),
        Outcome(attacks.PUBLISHED[0], 32.0, 36.0),
        Outcome(attacks.PUBLISHED[1], 90.0, 6.0),
        Outcome(attacks.STRONG, 100.0, 0.0),
    ]
    return subject, outcomes


def test_text_by_hand():
    lines = attack_report.as_text(*example("san10_pair")).splitlines()
    assert lines == [
        "one/best.pth: san10_pair, 50 images of 1000 classes",
        "epsilon    step  iterations  starts  loss            success"
        "     top-1  published",
        "no attack                                              0.00%"
        "    74.00%",
        "8             4           2       1  cross-entropy    32.00%"
        "    36.00%  32.8%, 35.3%",
        "8             2           4       1  cross-entropy    90.00%"
        "     6.00%  90.1%, 5.3%",
        "8             1          50       5  margin          100.00%"
        "     0.00%",
        "chance: a guess among 1000 classes is the target in 0.10%",
        published.NOTE,
    ]
    text = attack_report.as_text(*example(None))
    assert "published" not in text and "san10" not in text


def test_json_has_every_figure():
    pairs = [example("resnet26"), example(None)]
    found = json.loads(attack_report.as_json(pairs, seed=3))
    assert found["seed"] == 3
    assert found["protocol"].startswith("Targeted L-infinity PGD")
    known, unknown = found["networks"]
    assert known["network"] == "resnet26" and known["chance"] == 0.1
    assert known["outcomes"][0] == {
        "attack": None,
        "success": 0,
        "top1": 74,
    }
    assert known["outcomes"][2] == {
        "attack": {
            "epsilon": 8,
            "step": 2,
            "iterations": 4,
            "starts": 1,
            "loss": "cross-entropy",
        },
        "success": 90,
        "top1": 6,
        "published_on_imagenet": {"success": 98.2, "top1": 1.0},
    }
    assert "published_on_imagenet" not in known["outcomes"][3]
    assert not any("published_on_imagenet" in o for o in unknown["outcomes"])

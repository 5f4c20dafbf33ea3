import pytest

from san.jobs import network
from tests.train import jobs


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (
            "Data.image_size = 1",
            "Data: image_size must be large enough .* got 1",
        ),
        ("SAN.num_blocks = 3", "create_model: the network's settings must be"),
    ],
)
def test_a_network_is_tried_first(tmp_path, param, message):
    jobs.configure(tmp_path, param)
    with pytest.raises(ValueError, match=message):
        network.try_network()


@pytest.mark.parametrize(
    ("bound", "name"),
    [
        ("'san10_pairwise'", "san10_pair"),
        ("'table3/patch/san15'", "san15_patch"),
        ("'table4/pair/hadamard'", "table4/pair/hadamard"),
        ("@SAN", None),
    ],
)
def test_the_networks_name(tmp_path, bound, name):
    jobs.configure(tmp_path, f"create_model.name = {bound}")
    assert network.network_name() == name

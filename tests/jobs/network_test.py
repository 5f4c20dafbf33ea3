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

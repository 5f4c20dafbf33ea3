"""The rows of the paper's tables: names, figures, networks."""

from decimal import ROUND_HALF_UP, Decimal

import gin
import pytest
import torch

import san

_PAIR = (10_531_848, 2_155_268_622)
_PATCH = (11_841_124, 1_865_421_568)
# Parameters and MACs.
COSTS = {
    "table3/pair/san10": _PAIR,
    "table3/pair/san15": (14_065_436, 3_022_716_308),
    "table3/pair/san19": (17_596_156, 3_844_152_602),
    "table3/patch/san10": _PATCH,
    "table3/patch/san15": (16_181_310, 2_582_850_560),
    "table3/patch/san19": (20_518_470, 3_258_984_704),
    "table3/conv/resnet26": (13_696_552, 2_361_448_960),
    "table3/conv/resnet38": (19_626_792, 3_241_686_528),
    "table3/conv/resnet50": (25_557_032, 4_121_924_096),
    "table4/pair/summation": _PAIR,
    "table4/pair/subtraction": _PAIR,
    "table4/pair/concatenation": (10_567_896, 2_490_757_902),
    "table4/pair/hadamard": _PAIR,
    "table4/pair/dot": (10_496_292, 1_812_684_289),
    "table4/patch/star": (10_929_828, 1_682_105_267),
    "table4/patch/clique": (11_513_700, 1_914_602_819),
    "table4/patch/concatenation": _PATCH,
    "table5/pair/L": (10_495_328, 1_802_606_606),
    "table5/pair/L-R-L": _PAIR,
    "table5/pair/L-R-L-R-L": (10_567_896, 2_499_344_270),
    "table5/patch/L": (53_498_628, 9_508_546_624),
    "table5/patch/L-R-L": _PATCH,
    "table5/patch/L-R-L-R-L": (12_736_580, 2_032_175_232),
    "table6/pair/phi=psi=beta": (9_515_720, 2_994_374_414),
    "table6/pair/phi=psi": (9_969_712, 2_045_828_494),
    "table6/pair/distinct": _PAIR,
    "table6/patch/phi=psi=beta": (13_413_428, 2_197_110_016),
    "table6/patch/phi=psi": (11_278_988, 1_755_981_440),
    "table6/patch/distinct": _PATCH,
    "table7/conv/3": (13_696_552, 2_361_448_960),
    "table7/conv/5": (22_674_984, 4_005_616_128),
    "table7/conv/7": (36_142_632, 6_471_866_880),
    "table7/pair/3": (10_531_848, 1_683_473_102),
    "table7/pair/5": (10_531_848, 1_872_191_310),
    "table7/pair/7": _PAIR,
    "table7/pair/9": (10_531_848, 2_532_705_038),
    "table7/pair/11": (10_531_848, 3_004_500_558),
    "table7/patch/3": (10_742_564, 1_625_705_728),
    "table7/patch/5": (11_181_988, 1_721_592_064),
    "table7/patch/7": _PATCH,
    "table7/patch/9": (12_719_972, 2_057_194_240),
    "table7/patch/11": (13_818_532, 2_296_910_080),
    "table8/pair/none": (10_530_804, 2_133_935_296),
    "table8/pair/absolute": (10_531_848, 2_154_274_412),
    "table8/pair/relative": _PAIR,
    "table5.3/sasa": (13_861_928, 2_248_703_488),
}
# With the products of relations, which the published MACs leave out: one for
# each relation channel, tap and pixel; of each two taps for the clique.
HONEST_MACS = {
    "table4/pair/dot": 1_821_270_657,
    "table4/patch/star": 1_690_691_635,
    "table4/patch/clique": 2_299_208_131,
    "table5.3/sasa": 2_283_048_960,
}
ROWS = {row.row: row for row in san.paper_rows()}


def printed(value, unit):
    """As the paper rounds: to two decimals, and these to one."""
    figure = Decimal(value) / unit
    for step in ("0.01", "0.1"):
        figure = figure.quantize(Decimal(step), ROUND_HALF_UP)
    return float(figure)


def create(name):
    with torch.device("meta"):
        return san.create_model(name)


@pytest.fixture
def bind():
    """Binds, where another test has locked the bindings too."""
    with gin.unlock_config():
        yield gin.parse_config
        gin.clear_config()


def test_all_rows_are_there():
    assert ROWS.keys() == COSTS.keys()
    assert len(san.paper_rows()) == 46
    row = ROWS["table6/pair/phi=psi"]
    assert (row.table, row.published_top1, row.published_top5) == (
        "6",
        76.3,
        92.6,
    )
    assert {row.table for row in ROWS.values()} == {*"345678", "5.3"}
    assert not ROWS.keys() & set(san.list_models())


@pytest.mark.parametrize("name", COSTS)
def test_parameters_and_macs_to_the_digit_and_as_printed(name):
    cost = san.count_cost(create(name), (3, 224, 224))
    assert cost == COSTS[name]
    parameters, macs = cost
    assert cost.honest_macs == HONEST_MACS.get(name, macs)
    assert printed(parameters, 10**6) == ROWS[name].printed_parameters
    assert printed(macs, 10**9) == ROWS[name].printed_macs


@pytest.mark.parametrize("name", COSTS)
def test_every_parameter_of_a_small_row_gets_a_gradient(bind, name):
    if not name.startswith("table3"):
        bind(SMALL)
    torch.manual_seed(0)
    model = san.create_model(name, num_classes=5)
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


SMALL = """
RowSize.num_blocks = (1, 1)
RowSize.widths = (32, 64)
RowSize.num_conv_blocks = (1, 1, 1, 1)
RowSize.conv_widths = (8, 16, 24, 32)
"""


@pytest.mark.parametrize("name", COSTS)
def test_the_first_stage_keeps_3x3(name):
    model = create(name)
    if "conv" in name:
        assert model.conv1.kernel_size == (7, 7)
        return
    sizes = [layer[0].sam.kernel_size for layer in (model.layer0, model.layer4)]
    table, _, label = name.rpartition("/")
    later = int(label) if table.startswith("table7") else 7
    assert sizes == [3, later]


def test_rows_of_the_main_table_have_a_second_name():
    models = [row.model for row in ROWS.values() if row.model]
    assert sorted(models) == sorted(san.list_models())
    for row in ROWS.values():
        if row.model:
            assert str(create(row.model)) == str(create(row.row))


def test_rows_of_one_network():
    standard = str(create("san10_pair"))
    for name in (
        "table3/pair/san10",
        "table4/pair/subtraction",
        "table5/pair/L-R-L",
        "table6/pair/distinct",
        "table7/pair/7",
        "table8/pair/relative",
    ):
        assert str(create(name)) == standard
    assert str(create("table7/conv/3")) == str(create("resnet26"))


def test_rows_are_smaller_where_it_is_said(bind):
    bind(SMALL)
    model = create("table7/patch/5")
    assert model.num_stages == 2
    assert [len(model.layer0), len(model.layer1)] == [1, 1]
    assert [m.sam.kernel_size for m in (model.layer0[0], model.layer1[0])] == [
        3,
        5,
    ]
    assert model.conv1.out_channels == 64
    model = create("table7/conv/5")
    assert len(model.layer3) == 1
    assert model.layer3[0].conv2.kernel_size == (5, 5)
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)
    assert [stage[0].conv2.out_channels for stage in stages] == [8, 16, 24, 32]
    assert model.conv1.out_channels == 8
    images = torch.empty(2, 3, 32, 32, device="meta")
    assert model(images).shape == (2, 1000)


@pytest.mark.parametrize(
    ("name", "bound", "message"),
    [
        (
            "table4/pair/hadamard",
            "PairwiseAttention.relation = 'dot'",
            "PairwiseAttention.relation must not be bound .*name = 'table4/pair"
            "/hadamard', which says it; bind create_model.name = @SAN and",
        ),
        (
            "table4/pair/hadamard",
            "SAN.kernel_sizes = (3, 3, 3, 3, 3)",
            "SAN.kernel_sizes must not be bound",
        ),
        (
            "table4/patch/star",
            "PairwiseAttention.num_layers = 1",
            "PairwiseAttention.num_layers must not be bound",
        ),
        (
            "table7/conv/5",
            "ResNet.kernel_size = 3",
            "ResNet.kernel_size must not be bound .* = @ResNet and all",
        ),
        (
            "table3/pair/san10",
            "RowSize.widths = (32, 32)",
            "RowSize.widths must be bound beside the name of a row of tables 4"
            " to 8, got create_model.name = 'table3/pair/san10'",
        ),
        (
            "san10_pair",
            "RowSize.num_blocks = (1,)",
            "RowSize.num_blocks must be bound beside .* = 'san10_pair'",
        ),
        (
            san.SAN,
            "RowSize.num_blocks = (1,)",
            "RowSize.num_blocks must be bound beside .* = @SAN",
        ),
        (
            "table7/conv/5",
            "RowSize.num_blocks = (1, 1, 1, 1, 1)",
            "RowSize.conv_widths or RowSize.num_conv_blocks must be bound"
            " beside .* 'table7/conv/5', which does not read RowSize.num_bl",
        ),
        (
            "table7/pair/5",
            "RowSize.num_conv_blocks = (1, 1, 1, 1)",
            "RowSize.num_blocks or RowSize.widths must be bound beside",
        ),
    ],
)
def test_bindings_that_would_make_another_network(bind, name, bound, message):
    bind(bound)
    with pytest.raises(ValueError, match=f"^create_model: {message}"):
        san.create_model(name)


def test_sizes_fit_each_other(bind):
    bind("RowSize.num_blocks = (1, 1)")
    with pytest.raises(
        ValueError, match="RowSize: num_blocks and widths must have one entry"
    ):
        san.create_model("table4/pair/dot")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("table4/pair/hadamrd", "table4/pair/hadamard"),
        ("table8/pair/nun", "table8/pair/none"),
        ("table5.3/sas", "table5.3/sasa"),
    ],
)
def test_unknown_rows_tell_where_they_are_listed(name, nearest):
    with pytest.raises(ValueError) as error:
        san.create_model(name)
    message = str(error.value)
    assert message.startswith("create_model: name must be one of san10_pair, ")
    assert "or of the rows that san.paper_rows() lists" in message
    assert f"got {name!r}; the nearest is {nearest!r}" in message

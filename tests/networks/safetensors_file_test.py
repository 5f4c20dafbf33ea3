"""Files of tensors, beside those of the safetensors package."""

import json
import random

import pytest
import safetensors
import safetensors.torch
import torch

from san import checkpoints, safetensors_file

DTYPES = list(safetensors_file._NAMES)


def tensors():
    """Of every dtype, some of odd sizes and strides."""
    values = torch.arange(-3, 4).repeat(5).reshape(5, 7)
    made = {f"of {dtype}": values.to(dtype) for dtype in DTYPES}
    return made | {
        "number": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "strided": torch.arange(24.0).reshape(4, 6).T[1::2],
        "channels_last": torch.arange(120.0)
        .reshape(2, 3, 5, 4)
        .to(memory_format=torch.channels_last),
        "shared": values[1:2].float(),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "täg ☃": torch.ones(3, dtype=torch.bool),
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert tensor.shape == other[name].shape, name
        bits = [t.contiguous().reshape(-1) for t in (tensor, other[name])]
        assert torch.equal(*(b.view(torch.uint8) for b in bits)), name


def test_the_package_reads_what_is_written(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_file.pack(tensors(), {"format": "pt"}))
    assert_same(safetensors.torch.load_file(path), tensors())
    assert_same(safetensors.torch.load(path.read_bytes()), tensors())
    with safetensors.safe_open(path, "pt") as file:
        assert set(file.metadata()) == {"format", "san.sha256"}
        for name, tensor in tensors().items():
            assert_same({name: file.get_tensor(name)}, {name: tensor})
            if tensor.dim():
                assert_same(
                    {name: file.get_slice(name)[:2]}, {name: tensor[:2]}
                )


def test_what_the_package_writes_is_read():
    theirs = {n: t.contiguous().clone() for n, t in tensors().items()}
    content = safetensors.torch.save(theirs, {"a": "b", "ü": '"\\'})
    made, texts = safetensors_file.unpack(content)
    assert_same(made, theirs)
    assert texts == {"a": "b", "ü": '"\\'}
    assert not safetensors_file.is_damaged(content)
    assert safetensors_file.unpack(safetensors.torch.save({})) == ({}, {})


def test_the_order_and_the_bytes_are_kept():
    content = safetensors_file.pack(tensors(), {"b": "1", "a": "2"})
    assert content == safetensors_file.pack(tensors(), {"b": "1", "a": "2"})
    made, texts = safetensors_file.unpack(content)
    assert list(made) == list(tensors())
    assert list(texts) == ["b", "a"]
    assert safetensors_file.pack(made, texts) == content


def test_wherever_a_bit_flips_it_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    facts = {"format": "pt", "san": json.dumps({"epoch": 3})}
    content = safetensors_file.pack(tensors(), facts)
    path.write_bytes(content)
    assert checkpoints.read_checkpoint(path)["epoch"] == 3
    rng = random.Random(0)
    places = [*range(240), *rng.choices(range(240, len(content)), k=300)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.safetensors"):
            checkpoints.read_checkpoint(path)
    path.write_bytes(content)
    assert checkpoints.read_checkpoint(path)["epoch"] == 3


def test_a_file_that_another_tool_has_changed(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        safetensors_file.pack({"a": torch.zeros(3)}, {"san": "{}"})
    )
    with safetensors.safe_open(path, "pt") as file:
        texts = file.metadata()
    safetensors.torch.save_file({"a": torch.zeros(3) + 1}, path, texts)
    with pytest.raises(ValueError, match="or that another tool has changed"):
        checkpoints.read_checkpoint(path)
    kept = checkpoints.read_checkpoint(path, verify=False)["state_dict"]
    assert_same(kept, {"a": torch.ones(3)})


def file(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return size.to_bytes(8, "little") + text + data


def entry(begin, end, shape, dtype="F32", **more):
    return {
        "dtype": dtype,
        "shape": shape,
        "data_offsets": [begin, end],
        **more,
    }


HEADERS_THAT_LIE = {
    "no bytes": b"",
    "a length alone": (2).to_bytes(8, "little"),
    "a length of more": file({}, length=200),
    "a length of far more": file({}, length=2**62),
    "no JSON": file(b"{'a': 1}"),
    "no UTF-8": file(b'{"\xff": {}}'),
    "a list": file([1]),
    "bytes behind": file({}, b"1234"),
    "too few bytes": file({"a": entry(0, 8, [2])}, b"1234"),
    "a gap": file({"a": entry(4, 8, [1])}, bytes(8)),
    "twice the same bytes": file(
        {"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, bytes(4)
    ),
    "an overlap": file(
        {"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)
    ),
    "one name twice": file(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        b"12",
    ),
    "another shape": file({"a": entry(0, 4, [2])}, bytes(4)),
    "a size below 0": file({"a": entry(0, 4, [-1, -1])}, bytes(4)),
    "backwards": file({"a": entry(4, 0, [1])}, bytes(4)),
    "an overflow": file({"a": entry(0, 4, [2**32, 2**32])}, bytes(4)),
    "a broken number": file({"a": entry(0, 4, [1.0])}, bytes(4)),
    "a truth": file({"a": entry(0, 4, [True])}, bytes(4)),
    "an unknown dtype": file({"a": entry(0, 4, [1], "Q32")}, bytes(4)),
    "no dtype": file({"a": {"shape": [], "data_offsets": [0, 4]}}, bytes(4)),
    "no entry": file({"a": 3}),
    "a number as text": file({"__metadata__": {"a": 3}}),
    "texts that are none": file({"__metadata__": [1]}),
    "texts that are a number": file({"__metadata__": 5}),
    "nested without end": file(b"[" * 100_000),
}


@pytest.mark.parametrize(
    "content", HEADERS_THAT_LIE.values(), ids=HEADERS_THAT_LIE
)
def test_a_header_that_lies(content, tmp_path):
    with pytest.raises(safetensors.SafetensorError):
        safetensors.torch.load(content)
    with pytest.raises(ValueError):
        safetensors_file.unpack(content)
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        checkpoints.read_checkpoint(path)


def test_facts_that_are_nested_without_end(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_file.pack({}, {"san": "[" * 100_000}))
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        checkpoints.read_checkpoint(path)


@pytest.mark.parametrize("shape", [[0, 2**62, 16], [0, 2**64]])
def test_sides_that_nothing_can_have(shape):
    with pytest.raises(ValueError, match="nothing can have"):
        safetensors_file.unpack(file({"a": entry(0, 0, shape)}))


def test_tensors_without_elements():
    nothing = {"a": torch.zeros(0, 3), "b": torch.ones(2, 0, dtype=torch.bool)}
    content = safetensors_file.pack(nothing, {})
    assert_same(safetensors_file.unpack(content)[0], nothing)
    assert_same(safetensors.torch.load(content), nothing)


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.99])
def test_a_file_that_was_cut_off(tmp_path, share):
    path = tmp_path / "x.safetensors"
    content = safetensors_file.pack(tensors(), {})
    path.write_bytes(content[: max(10, int(share * len(content)))])
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        checkpoints.read_checkpoint(path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2).to_sparse(), "dense, got bad"),
        (torch.zeros(2, device="meta"), "dense, got bad"),
        (torch.zeros(2, dtype=torch.complex64), r"bad \(torch.complex64\)"),
    ],
)
def test_what_cannot_be_written(tensor, message):
    with pytest.raises(ValueError, match=message):
        safetensors_file.pack({"good": torch.zeros(1), "bad": tensor}, {})

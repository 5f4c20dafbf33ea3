"""What the report counts, on kernels that nvcc compiles here, and its model."""

import json
import pathlib
import re
import shutil
import subprocess
import types

import pytest
from absl import flags
from absl.testing import flagsaver

import san
from tools.cuda_report import (
    control_flow,
    disassembly,
    eager,
    hardware,
    layers,
    main,
    mix,
    model,
    names,
    trips,
)
from tools.cuda_report.entries import TYPES
from tools.cuda_report.families import patchwise_launch

_SOURCE = pathlib.Path(__file__).with_name("report_kernels.cu")
# From this project's folder in Bazel's runfiles.
_NVCC = "../cuda/site/nvidia/cu13/bin/nvcc"
_BUILT = "cuda_kernels/_kernels.so"

_PTXAS = {
    "kernel": re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)'"),
    "stack": re.compile(r"(\d+) bytes stack frame"),
    "spilled": re.compile(r"(\d+) bytes spill stores"),
    "registers": re.compile(r"Used (\d+) registers"),
    "shared": re.compile(r"(\d+) bytes smem"),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The object for two architectures, and what ptxas said of it."""
    locked = pathlib.Path(__file__).parents[2] / _NVCC
    nvcc = locked if locked.exists() else shutil.which("nvcc")
    assert nvcc, "the CUDA compiler must be there"
    path = tmp_path_factory.mktemp("report") / "kernels.o"
    command = [nvcc, "-c", _SOURCE, "-o", path, "-std=c++17", "-O3"]
    for number in (80, 90):
        command += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
    command += ["-Xptxas", "-v"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return path, done.stderr


@pytest.fixture(scope="module", params=["sm_80", "sm_90"])
def kernels(request, compiled):
    found = disassembly.read([compiled[0]], request.param)
    return disassembly.by_name(found)


def _kernel(kernels, name):
    return kernels[f"report_kernels.{name}"]


def test_all_kernels_have_their_names(kernels):
    assert sorted(kernels) == [
        "report_kernels.copied",
        "report_kernels.multiplied",
        "report_kernels.nested<double>",
        "report_kernels.nested<float>",
        "report_kernels.spilled",
        "report_kernels.unrolled",
    ]


def test_names_keep_what_tells_kernels_apart():
    assert names.readable("_Z3addIfEvPT_") == "add<float>"
    assert names.readable("_ZN3san3addILi3EEEvi") == "add<3>"
    assert names.readable("plain") == "plain"
    moved = names.readable(
        "_ZN3san8pairwise43_GLOBAL__N__01c8935f_10_forward_cu_06db5de56attendIN"
        "S_8bfloat16EEEvT_"
    )
    assert moved == "pairwise.forward.attend<bfloat16>"
    assert names.without_source(moved) == "pairwise.attend<bfloat16>"
    assert names.without_source("report_kernels.nested<float>") == (
        "report_kernels.nested<float>"
    )


def _what_ptxas_said(text):
    said = {}
    for line in text.splitlines():
        for what, pattern in _PTXAS.items():
            match = pattern.search(line)
            if match and what == "kernel":
                key = names.readable(match[1]), match[2]
                said[key] = {"shared": 0}
            elif match:
                said[key][what] = int(match[1])
    return said


def test_resources_are_those_that_ptxas_says(compiled, kernels):
    said = _what_ptxas_said(compiled[1])
    assert len(said) == 12
    for name, kernel in kernels.items():
        expected = said[name, kernel.architecture]
        assert kernel.registers == expected["registers"]
        assert kernel.stack == expected["stack"]
        # ptxas does not count what is reserved from sm_90 on.
        reserved = 1024 * (kernel.architecture == "sm_90")
        assert kernel.shared - expected["shared"] in (0, reserved)
        assert (kernel.spills > 0) == (expected["spilled"] > 0)
    assert _kernel(kernels, "spilled").spills > 0
    assert _kernel(kernels, "copied").shared >= 4096


def test_loops_are_nested_as_in_the_source(kernels):
    root = control_flow.loops(_kernel(kernels, "nested<float>").instructions)
    (outer,) = root.inner
    (inner,) = outer.inner
    assert not inner.inner
    assert mix.count(inner.own)["ffma"] == 1
    assert mix.count(inner.own)["global load"] == 2
    assert mix.count(outer.own)["global store"] == 1
    assert "ffma" not in mix.count(root.own)
    everything = _kernel(kernels, "nested<double>").instructions
    assert mix.count(everything)["float64"] == 1


def test_widths_are_those_of_the_source(kernels):
    found = mix.widths(_kernel(kernels, "copied").instructions)
    assert found == {
        "global load": {128: 1},
        "shared store": {128: 1},
        "shared load": {16: 1},
        "global store": {16: 1},
    }


def test_tensor_instructions_are_counted(kernels):
    root = control_flow.loops(_kernel(kernels, "multiplied").instructions)
    (loop,) = root.inner
    assert mix.count(loop.own)["tensor"] == 1
    (one,) = [i for i in loop.own if mix.class_of(i) == "tensor"]
    assert mix.flops(one) == 2 * 16 * 8 * 16
    assert not mix.of_warp_group(one)


@pytest.mark.parametrize(
    ("opcode", "flops", "wide"),
    [
        ("HMMA.1688.F32.TF32", 2 * 16 * 8 * 8, False),
        ("HGMMA.64x128x16.F32.BF16", 2 * 64 * 128 * 16 // 4, True),
        ("HFMA2.BF16_V2", 128, False),
        ("FFMA.FTZ", 64, False),
        ("IMAD.WIDE.U32", 0, False),
    ],
)
def test_flops_of_instructions(opcode, flops, wide):
    instruction = disassembly.Instruction(0, f"{opcode} R0", opcode)
    assert mix.flops(instruction) == flops
    assert mix.of_warp_group(instruction) == wide


def test_an_unknown_shape_is_an_error():
    instruction = disassembly.Instruction(0, "HMMA.9 R0", "HMMA.9")
    with pytest.raises(ValueError, match=r"known shape, got HMMA\.9"):
        mix.flops(instruction)


def test_an_unknown_opcode_is_named():
    instruction = disassembly.Instruction(0, "ZMMA R0", "ZMMA.1")
    assert mix.class_of(instruction) == "other"
    assert mix.unknown([instruction]) == ["ZMMA"]


# ---- Trips.


def _nested_steps(anchor="ffma"):
    return (
        trips.Steps(
            "rows",
            lambda s: s.rows,
            inner=(trips.Steps("columns", lambda s: s.columns, anchor),),
        ),
    )


def test_runs_are_the_products_of_the_trips(kernels):
    root = control_flow.loops(_kernel(kernels, "nested<float>").instructions)
    matched = trips.match(root.inner, _nested_steps())
    sizes = types.SimpleNamespace(rows=7, columns=11)
    runs = trips.executions(root, matched, sizes)
    assert [(run.what, run.times) for run in runs] == [
        ("", 1),
        ("rows", 7),
        ("columns", 77),
    ]


def test_steps_of_an_unrolled_loop_are_not_iterations(kernels):
    root = control_flow.loops(_kernel(kernels, "unrolled").instructions)
    steps = (
        trips.Steps("sum", lambda s: s, "ffma"),
        trips.Steps("write", lambda s: s, "global store"),
    )
    matched = trips.match(root.inner, steps)
    runs = trips.executions(root, matched, 4099)
    # However it is split: all steps but those after the last whole iteration.
    done = sum(
        run.times * mix.count(run.code).get("ffma", 0)
        for run in runs
        if run.what == "sum"
    )
    assert 4096 <= done <= 4099
    stores = [run.times for run in runs if run.what == "write"]
    assert stores == [4099]


def test_other_loops_than_the_entry_has_are_an_error(kernels):
    root = control_flow.loops(_kernel(kernels, "nested<float>").instructions)
    with pytest.raises(ValueError, match="no loop for 'columns'"):
        trips.match(root.inner, _nested_steps("tensor"))
    with pytest.raises(ValueError, match=r"no entry for the loop at 0x"):
        trips.match(root.inner, ())
    more = (*_nested_steps(), trips.Steps("more", lambda s: 1, "ffma"))
    with pytest.raises(ValueError, match="no loop for 'more': there is none"):
        trips.match(root.inner, more)


# ---- The model.


def test_blocks_of_a_multiprocessor():
    device = hardware.device_of("sm_90")

    def blocks(registers, threads, shared=0):
        return hardware.blocks_per_multiprocessor(
            device, registers, threads, shared
        )

    assert blocks(80, 256) == 3
    assert blocks(128, 256) == 2
    assert blocks(32, 256) == 8
    assert blocks(16, 32) == 32
    assert blocks(32, 256, 100 * 1024) == 2
    assert blocks(32, 256, 227 * 1024) == 1
    assert blocks(32, 256, 228 * 1024) == 0


def test_layers_are_those_of_the_network():
    network = san.create_model("san10_pair")
    stages = [getattr(network, f"layer{i}") for i in range(5)]
    for layer, stage in zip(layers.LAYERS, stages, strict=True):
        attentions = [
            module
            for module in stage.modules()
            if isinstance(module, san.PairwiseAttention)
        ]
        assert len(attentions) == layer.blocks
        state = attentions[0].state_dict()
        rows = {value.shape[0] for value in state.values() if value.dim() == 4}
        assert {layer.R, layer.G, layer.M} <= rows
        assert attentions[0].kernel_size == layer.k


# Of layer 1, MB of an image, counted by hand operator by operator.
@pytest.mark.parametrize(
    ("group", "forward", "training"),
    [
        ("pairwise core", 169, 190 + 313),
        ("patchwise core", 92, 102 + 158),
    ],
)
def test_bytes_of_eager(group, forward, training):
    for passed, expected in (("forward", forward), ("training", training)):
        moved = eager.core_bytes(
            group, passed, layers.LAYERS[1], TYPES["float32"]
        )
        assert moved / layers.BATCH / 1e6 == pytest.approx(expected, rel=0.01)
    assert (
        eager.core_bytes("stem", "forward", layers.LAYERS[1], TYPES["float32"])
        is None
    )


def test_launches_of_patchwise_kernels():
    # By hand, after the launching code.
    first, second, *_, last = layers.LAYERS
    launch = patchwise_launch.core_forward(first, 2)
    assert (launch.jobs, launch.threads, launch.unit) == (64 * 14 * 14, 128, 2)
    # Along an axis, 14 tiles of three taps; two of these see a mirror.
    assert launch.images() == pytest.approx(44 / 42)
    launch = patchwise_launch.core_forward(last, 4)
    assert (launch.jobs, launch.threads, launch.unit) == (64 * 8, 256, 8)
    launch = patchwise_launch.core_weights(first, 2)
    # Nine taps are two steps: four warps share the rows, and leave four sums.
    assert (launch.jobs, launch.partials) == (256, 1024)
    assert launch.busy == pytest.approx(9 / 8 / 8)
    launch = patchwise_launch.hidden_weights(second, 2)
    assert (launch.jobs, launch.partials) == (784, 784)
    assert launch.tiles == 4


def test_the_project_s_kernels():
    architecture = "sm_90"
    path = pathlib.Path(__file__).parents[2] / _BUILT
    kernels = disassembly.by_name(disassembly.read([path], architecture))
    device = hardware.device_of(architecture)
    found = model.launches(kernels, device, 0.6)
    modelled = [launch for launch in found if not launch.problem]
    assert modelled
    assert not {
        f"{launch.kernel}: {launch.problem}"
        for launch in found
        if launch.problem and launch.entry.group == "patchwise core"
    }
    assert not {
        o for k in kernels.values() for o in mix.unknown(k.instructions)
    }
    for launch in modelled:
        assert launch.kernel in kernels
        if launch.layer.number == 2 and launch.entry.group.endswith("core"):
            # Loops that run too seldom would multiply too little.
            assert launch.flops >= 0.9 * launch.work.flops, launch.kernel
        assert launch.time >= launch.work.bytes / device.copy_bandwidth


# ---- The command.


@pytest.fixture
def report(capsys, monkeypatch, tmp_path):
    """Runs the command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("BUILD_WORKING_DIRECTORY", str(tmp_path))

    def call(*arguments):
        capsys.readouterr()
        with flagsaver.flagsaver():
            given = flags.FLAGS(["cuda_report", *map(str, arguments)])
            code = main.main(given)
        return code, *capsys.readouterr()

    return call


def test_report_of_kernels_without_entries(report, compiled):
    code, out, _ = report(compiled[0], "--loops", "--kernel=nested<float>")
    assert code == 0
    assert out.splitlines()[0] == (
        "This is a model, made from machine code: nothing was measured."
    )
    missing = ": there is no such kernel"  # Behind names of any length.
    lines = [line for line in out.splitlines() if not line.endswith(missing)]
    assert max(map(len, lines)) <= 100
    assert "pairwise.attend_narrow<Narrow<float>>: there is no" in out
    assert "report_kernels.nested<T>, 2 of it" in out
    assert "unknown  pairwise cores of SAN10" in out
    assert "spill" in out
    assert "1 ffma" in out
    assert "bits of global load 32: 2" in out


def test_json_and_what_has_changed(report, compiled, tmp_path):
    code, _, _ = report(compiled[0], "--json=one.json")
    assert code == 0
    path = tmp_path / "one.json"
    found = json.loads(path.read_text())
    assert len(found["kernels"]) == 6
    assert found["totals"][0]["seconds"] is None
    code, out, _ = report(compiled[0], "--against=one.json")
    assert code == 0
    assert "nothing differs" in out
    found["kernels"][0]["registers"] += 1
    found["totals"][0]["seconds"] = 0.002
    path.write_text(json.dumps(found))
    code, out, _ = report(compiled[0], "--against=one.json")
    assert "copied: registers" in out
    assert "layer 0: 2.000 -> not modelled" in out
    code, _, error = report(
        compiled[0], "--against=one.json", "--architecture=sm_80"
    )
    assert code == 2
    assert "of the same architecture, got sm_90 beside sm_80" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--architecture=sm_75"], "one of sm_80, sm_90, sm_100, got sm_75"),
        (["--architecture=sm_100"], "for sm_100, got some for sm_80, sm_90"),
        (["--kernel=nothing"], "must match a kernel, got 'nothing'; there are"),
        (["--kernel=("], "must be a regular expression"),
        (["--against=absent.json"], "that --json wrote, got"),
        (["--json=no/folder.json"], "in an existing folder"),
        (["--json=report.txt"], "end in .json"),
        (["--plot=plot.doc"], "end in .png, .svg, .pdf"),
        (["--plot=plot.png"], "a pass that is modelled, got none"),
    ],
)
def test_what_is_wrong_is_said(report, compiled, arguments, said):
    code, _, error = report(compiled[0], *arguments)
    assert code == 2
    assert said in error


def test_files_without_kernels(report, tmp_path):
    (tmp_path / "empty.c").write_text("int nothing;\n")
    subprocess.run(["gcc", "-c", "empty.c"], cwd=tmp_path, check=True)
    code, _, error = report("empty.o")
    assert code == 2
    assert "must have kernels for sm_90, got none" in error
    (tmp_path / "text.o").write_text("text")
    code, _, error = report("text.o")
    assert code == 2
    assert "cuobjdump must read" in error
    code, _, error = report("absent.o")
    assert code == 2
    assert "absent.o must be a file, got none" in error

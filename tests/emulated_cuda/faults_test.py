"""The emulator finds each fault that it says it finds, and says where."""

import platform
import re

import numpy as np
import pytest

from tests.emulated_cuda.warp_kernels import warp_kernels

# What a message says after the kernel's name, block and thread.
LANES = {
    "shuffle_of_some": r"waits at shuffle_xor \(faulty_kernels.cu:\d+\) for "
    "lane 31, which has ended",
    "shuffle_beside_barrier": r"waits at shuffle \(.*\) for lane 7, which "
    "waits at __syncthreads",
    "different_instructions": r"(shuffle|ballot) \(.*\): all lanes must be at "
    r"one instruction, but lane \d+ waits at (shuffle|ballot) \(.*\)",
    "different_places": r"shuffle \(.*:(?P<line>\d+)\): all lanes must be at "
    r"one instruction, but lane \d+ waits at shuffle \(.*:(?!(?P=line)\))\d+\)",
    "different_masks": r"shuffle \(.*\): lanes must be the same in all lanes, "
    r"got 0x(0001|ffff)ffff, and 0x(0001|ffff)ffff in lane \d+",
    "mask_without_itself": r"shuffle \(.*\): lanes must name the lane itself, "
    "got 0x00000001",
    "shuffle_from_outside": r"shuffle_xor \(.*\): the lane that is read must "
    "take part, got 16",
    "shuffle_from_lane_32": "the lane that is read must take part, got 32",
    "vote_of_some": r"waits at any \(.*\) for lane 0, which has ended",
    "incomplete_warp": r"for lane 8, which is not there: the block has 40",
    "syncthreads_of_some": r"waits at __syncthreads, which the others do not "
    r"reach|waits at warp_sync \(.*\) for lane \d+, which",
    "divergent_product": r"waits at multiply_16x8x16<bfloat16> \(.*\) for "
    "lane 16, which has ended",
    "product_of_incomplete_warp": r"waits at multiply_16x8x16<float16> \(.*\) "
    "for lane 16, which is not there",
    "unrounded_product": r"multiply_16x8x8 \(.*\): elements must be rounded by "
    r"tf32\(\), got 0.1",
    "divergent_load": r"load_matrices \(.*\) for lane 8, which has ended",
    "barrier_of_half_a_warp": r"barrier \(.*\): threads must be whole warps of "
    "the block's 64 threads, got 16",
    "barrier_of_too_many": "whole warps of the block's 64 threads, got 96",
    "barrier_that_some_miss": "waits at barrier 3 for 64 threads, of which 32 "
    "have arrived, which the others do not reach",
    "barrier_of_different_counts": r"barrier \(.*\): threads must be (32|64) "
    r"as those say who wait at barrier 1, got|waits at barrier 1 for 64 "
    "threads, of which 32 have arrived",
    "barrier_of_different_lanes": "id and threads must be the same in all",
    "divergent_barrier": r"waits at barrier \(.*\) for lane 16, which has",
    "barrier_zero": "id must be from 1 to 15, got 0",
}
COPIES = {
    "misaligned_load": r"load_matrices \(.*\): row must be on a 16-byte "
    "boundary, got 8 bytes behind one",
    "load_past_the_end": r"load_transposed \(.*\): row must be 16 bytes of "
    "shared memory",
    "load_of_global": "row must be 16 bytes of shared memory",
    "load_before_waiting": r"load_matrices \(.*\): row must have arrived, but "
    r"nobody has waited for copy_async \(.*\)",
    "forgotten_wait": r"copy_async \(.*\): a copy must be waited for, but the "
    "thread has ended",
    "forgotten_commit": "a copy must be committed and waited for, but",
    "misaligned_copy_to": r"copy_async \(.*\): to must be on a 16-byte",
    "misaligned_copy_from": "from must be on a 8-byte boundary",
    "copy_to_global": "to must be shared memory",
    "copy_past_the_end": "to must be shared memory",
    "copy_from_shared": "from must be global memory",
    "copy_of_too_much": "bytes must be from 0 to 4, got 5",
    "two_copies_to_one_place": r"copy_async \((?P<place>.*)\): to must not be "
    r"where a copy is under way, that of copy_async \((?P=place)\)",
    "copy_of_what_changes": "the source must not change before the copy is",
}
MEMORY = {
    "write_to_an_input": "writes element 1 of in, which is an input",
    "write_far_past_the_end": "writes an address outside of every buffer",
    "read_of_null": "reads( or writes)? an address outside of every",
    "read_past_shared_memory": "reads( or writes)? beside its shared memory",
    "large_array": "writes past its stack",
}
if platform.machine() == "x86_64":  # no fault elsewhere, nor on a GPU
    MEMORY["division_by_zero"] = "divides an integer by zero"
# In the order that has a guard page there.
ENDS = {
    "read_past_the_end": "reads( or writes)? 0 bytes past the end of in",
    "write_past_the_end": "writes 0 bytes past the end of output",
    "copy_past_the_input": "reads( or writes)? 0 bytes past the end of in",
}
BEGINNINGS = {
    "read_before_the_beginning": "reads( or writes)? 4 bytes before the "
    "beginning of in",
    "write_before_the_beginning": "writes 8 bytes before the beginning of",
}
BLOCKS = {
    "write_before_the_beginning": "writes 8 bytes before the beginning of",
    "write_past_the_end": r"writes \d+ bytes past the end of output",
    "write_before_shared_memory": "writes beside its shared memory",
    "two_writers": r"writes element 3 of output, as block \([01], 0, 0\) does",
    "two_writers_of_one_value": "writes element 3 of output, as block",
}


def fault(name, size=64):
    """What a kernel with a fault writes, if the emulator lets it."""
    output = np.empty(size, "float32")
    warp_kernels.fault(np.ones(size, "float32"), output, name=name)
    return output


def assert_found(name, message, thread=r", thread \(\d+, 0, 0\)"):
    where = rf"emulated CUDA: san::faults::\(anonymous namespace\)::{name}, "
    match = rf"^{where}block \([01], 0, 0\){thread}: .*({message})"
    with pytest.raises(RuntimeError, match=match):
        fault(name)


@pytest.mark.parametrize("name", [*LANES, *COPIES, *MEMORY])
def test_a_thread_in_error_is_named(name):
    assert_found(name, (LANES | COPIES | MEMORY)[name])


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("order", ["ascending"], indirect=True)
def test_accesses_past_the_end(name):
    assert_found(name, ENDS[name])


@pytest.mark.parametrize("name", BEGINNINGS)
@pytest.mark.parametrize("order", ["descending"], indirect=True)
def test_accesses_before_the_beginning(name):
    assert_found(name, BEGINNINGS[name])


# On the side where there is no guard page, among others.
@pytest.mark.parametrize(
    ("name", "order"),
    [
        (name, order)
        for name in BLOCKS
        for order in ("ascending", "descending")
        if (name, order)
        not in [
            ("write_before_the_beginning", "descending"),
            ("write_past_the_end", "ascending"),
        ]
    ],
    indirect=["order"],
)
def test_a_block_in_error_is_named(name):
    assert_found(name, BLOCKS[name], thread="")


# A block that writes what is there before another one writes is not seen to.
@pytest.mark.parametrize("order", ["descending"], indirect=True)
def test_a_second_writer_of_what_was_there():
    workspace = np.zeros(64, "float32")
    with pytest.raises(RuntimeError, match="element 3 of workspace, as block"):
        warp_kernels.fault_in_workspace(
            np.zeros(64, "float32"),
            workspace=workspace,
            name="two_writers_of_what_was_there",
        )


@pytest.mark.parametrize("name", ["nothing_written", "one_element_unwritten"])
def test_unwritten_outputs(name):
    count, first = {"nothing_written": (64, 0)}.get(name, (1, 5))
    message = f"nothing at {count} of 64 places, the first of them [{first}]"
    with pytest.raises(
        RuntimeError, match=f"fault: output must be .*{re.escape(message)}"
    ):
        fault(name)


# What is under way, and what another block has written, is NaN: unwritten.
@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("read_before_waiting", "32 of 32"),
        ("wait_for_one_group_less", "32 of 32"),
        ("no_barrier_behind_a_copy", "16 of 32"),
    ],
)
def test_copies_are_not_there_before_they_are_waited_for(name, places):
    with pytest.raises(RuntimeError, match=f"output must be .*at {places}"):
        fault(name, size=32)


@pytest.mark.parametrize("order", ["ascending"], indirect=True)
def test_what_another_block_writes_is_not_there():
    with pytest.raises(RuntimeError, match=r"1 of 64 .*of them \[1\]"):
        fault("reader_of_another_block")


def test_a_launch_after_an_error_is_sound():
    for name in ("shuffle_of_some", "read_of_null", "forgotten_wait"):
        with pytest.raises(RuntimeError, match=name):
            fault(name)
        x, found = np.arange(64, dtype="int32"), np.empty(64, "int32")
        warp_kernels.relay(x, found)
        np.testing.assert_array_equal(found, x[::-1])


def test_every_fault_is_tried():
    names = [*LANES, *COPIES, *MEMORY, *ENDS, *BEGINNINGS, *BLOCKS]
    names += ["two_writers_of_what_was_there", "reader_of_another_block"]
    names += ["nothing_written", "one_element_unwritten"]
    names += ["read_before_waiting", "wait_for_one_group_less"]
    names += ["no_barrier_behind_a_copy"]
    names += ["division_by_zero"]
    assert set(names) == set(warp_kernels.faults())

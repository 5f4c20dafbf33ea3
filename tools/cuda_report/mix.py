"""What instructions are for, how wide their accesses are, what they multiply.

Classes are those of which a multiprocessor has so many lanes; a class that is
not known is counted as `other`, and reported.
"""

import collections
import re
from collections.abc import Iterable

from tools.cuda_report.disassembly import Instruction

_CLASSES = {
    "ffma": "FFMA FFMA2 FFMA32I",
    "float": "FADD FMUL FADD2 FMUL2 FMUL32I FADD32I",
    "half": "HFMA2 HADD2 HMUL2 HMNMX2 HSETP2 HSET2 HADD2_32I HFMA2_32I",
    "float64": "DFMA DADD DMUL DSETP",
    "tensor": "HMMA IMMA BMMA DMMA QMMA OMMA HGMMA IGMMA BGMMA QGMMA"
    " UTCHMMA UTCIMMA UTCQMMA UTCOMMA",
    "special": "MUFU",
    "conversion": "F2F F2I I2F F2IP I2FP F2FP I2I I2IP FRND",
    "shared load": "LDS LDSM",
    "shared store": "STS STSM ATOMS",
    "global load": "LDG LD LDGSTS UBLKCP UTMALDG CCTL",
    "global store": "STG ST RED REDG ATOM ATOMG UTMASTG UTMAREDG",
    "local load": "LDL",
    "local store": "STL",
    "constant": "LDC ULDC LDCU",
    "imad": "IMAD IMUL IDP IDP4A",
    "integer": "IADD IADD3 IADD2 IADD32I IABS IMNMX IMNMX3 VIMNMX VIADD"
    " VIADDMNMX VIMNMX3 VHMNMX LEA LOP LOP3 LOP32I SHF SHL SHR SEL ISETP"
    " MOV MOV32I PRMT SGXT BMSK POPC FLO BREV PLOP3 P2R R2P ISCADD"
    " UMOV UIADD3 UIMAD ULEA ULOP ULOP3 USHF USEL UISETP UPRMT USGXT"
    " UPOPC UFLO UBREV UPLOP3 UP2UR UR2UP R2UR S2R S2UR CS2R CS2UR UCGABAR_ARV"
    " UVIADD UIADD UVIMNMX UF2FP USHL USHR UIABS UR2UR UBMSK FSETP FMNMX FMNMX3"
    " FSEL FSET FCHK FSWZADD LEPC UMOV32I REDUX",
    "control": "BRA BRX BRXU JMP JMX CALL RET EXIT BSSY BSYNC BREAK BMOV YIELD"
    " WARPSYNC NANOSLEEP NOP KILL BPT RPCMOV ELECT ENDCOLLECTIVE PREEXIT ACQBULK"
    " WARPGROUP WARPGROUPSET USETMAXREG",
    "barrier": "BAR DEPBAR LDGDEPBAR MEMBAR ERRBAR SYNCS ARRIVES FENCE B2R R2B"
    " UCGABAR_WAIT UTMACMDFLUSH UTMACCTL LDTM STTM UTCBAR",
    "lanes": "SHFL VOTE VOTEU MATCH",
}
CLASSES = (*_CLASSES, "other")
_CLASS_OF = {
    opcode: name for name, group in _CLASSES.items() for opcode in group.split()
}

_WIDTH = re.compile(r"\.[US]?(8|16|64|128|256)\b")
# Rows, columns and depth of a product, by the modifier of its opcode.
_SHAPES = {
    "884": (8, 8, 4),
    "1684": (16, 8, 4),
    "1688": (16, 8, 8),
    "16816": (16, 8, 16),
    "16832": (16, 8, 32),
    "16864": (16, 8, 64),
    "8816": (8, 8, 16),
    "8832": (8, 8, 32),
}
_WIDE_SHAPE = re.compile(r"\.(\d+)x(\d+)x(\d+)\b")
_WARPS_OF_WIDE = 4  # a product of a warp group is one instruction in each warp


def class_of(instruction: Instruction) -> str:
    """One of CLASSES."""
    return _CLASS_OF.get(instruction.base, "other")


def is_access(instruction: Instruction) -> bool:
    """Whether it reads or writes shared, global or local memory."""
    return class_of(instruction).endswith((" load", " store"))


def width(instruction: Instruction) -> int:
    """Bits that a thread's access moves."""
    if instruction.base in ("LDSM", "STSM"):
        count = instruction.opcode.rsplit(".", 1)[-1]
        return 32 * (int(count) if count in ("2", "4") else 1)
    found = _WIDTH.search(instruction.opcode)
    return int(found[1]) if found else 32


def flops(instruction: Instruction) -> int:
    """Floating-point operations of a warp, two for a multiply-add.

    Raises:
      ValueError: for a tensor instruction of unknown shape.
    """
    base, kind = instruction.base, class_of(instruction)
    if kind == "tensor":
        return _tensor_flops(instruction)
    if base in ("FADD2", "FMUL2", "HADD2", "HMUL2"):
        return 64
    if base in ("HFMA2", "FFMA2"):
        return 128
    if kind == "ffma" or base == "DFMA":
        return 64
    return 32 if kind == "float" or base in ("DADD", "DMUL") else 0


def _tensor_flops(instruction: Instruction) -> int:
    for modifier in instruction.opcode.split(".")[1:]:
        if modifier in _SHAPES:
            rows, columns, depth = _SHAPES[modifier]
            return 2 * rows * columns * depth
    wide = _WIDE_SHAPE.search(instruction.opcode)
    if not wide:
        raise ValueError(
            "cuda_report: a tensor instruction must have a known shape, got"
            f" {instruction.opcode}"
        )
    rows, columns, depth = map(int, wide.groups())
    return 2 * rows * columns * depth // _WARPS_OF_WIDE


def of_warp_group(instruction: Instruction) -> bool:
    """Whether it is a part of a product of four warps."""
    return bool(_WIDE_SHAPE.search(instruction.opcode))


def count(code: Iterable[Instruction]) -> dict[str, int]:
    """How many instructions of each class there are, the most first."""
    found = collections.Counter(class_of(i) for i in code)
    return dict(found.most_common())


def widths(code: Iterable[Instruction]) -> dict[str, dict[int, int]]:
    """How many accesses of each class and width, in bits, there are."""
    found: dict[str, collections.Counter[int]] = {}
    for instruction in code:
        if is_access(instruction):
            kind = found.setdefault(
                class_of(instruction), collections.Counter()
            )
            kind[width(instruction)] += 1
    return {kind: dict(sorted(of.items())) for kind, of in found.items()}


def unknown(code: Iterable[Instruction]) -> list[str]:
    """The opcodes that belong to no class."""
    return sorted({i.base for i in code if class_of(i) == "other"})

"""Why a number that the engine is asked for is missed where it is: what bounds it, and what gained nothing.

The cores that the targets were set on multiply, add and read twice as fast as those that were seen.
"""

from __future__ import annotations

from typing import NamedTuple

SEEN = (
    "two threads on two virtual cores of an AMD EPYC of the Zen 4 kind, whose 512-bit products take two "
    "cycles: 118 GFLOP/s, and 118 GB/s out of the second-level cache, a core"
)
"""Where the parts of the time were measured, by hand."""


class Limit(NamedTuple):
    """About one kind of number."""

    limited_by: str
    tried: str
    "and gained nothing"


LIMITS: dict[str, Limit] = {
    "training beside torch": Limit(
        "For a mean of 2 every case would have to run at nine tenths of the cores' full rates. What "
        "stands beside the products: cells, a tenth to a fifth of a narrow layer's time; the tape, 128 MB"
        " each way with 64 sequences of 784 steps and 128 units; the packing of weights that have "
        "changed; the host's part, 0.2 ms a call.",
        "Units split over the threads; every other step from the last block for batches too; the tape of "
        "a plain cell fetched ahead; cells in between the product of the next tile, in C++ (the "
        "compiler's sums then leave their registers: 5 % slower; by hand, in assembly, it has not been "
        "tried).",
    ),
    "training beside torch, small batch": Limit(
        "Four sequences a thread make tiles of four rows, so weights are read once for four products "
        "each; the cells are 6 % of a pass forward in one thread; then what limits all training.",
        "Units split over the threads, so that a tile has eight rows; every other step from the last "
        "block; the tape fetched ahead.",
    ),
    "training beside torch, language": Limit(
        "torch runs at seven tenths of the peak here, and ours at three quarters to four fifths: 650 units "
        "are ten sequences a thread, whose weights no cache holds (6.8 MB a step from the third level); "
        "packing them both ways is 3 ms of 73.",
        "Both packings of a block while it is in cache, and past the caches (half of the packing's time, "
        "none of the step's); what a tile begins with fetched ahead; longer chunks of the weights' "
        "gradients (in: 5 % of the way back).",
    ),
    "inference beside the best peer": Limit(
        "In one thread the products alone, at the core's peak, are 78 to 92 % of ours with 128 units and "
        "more, and all peers run close to that on the large cases; the cells' exponentials are 2 to 6 % "
        "from 256 units, 11 to 15 % with 128 and 30 % with 32 (98 cycles a block of 16 units, 88 of them "
        "multiplications), all else 5 to 8 %, with 32 units 12.",
        "Cells in between the next tile's product (slower, see training). Exponentials from a "
        "table of 16 powers made a cell 18 % faster by trial, and a tanh ten times less exact; for the "
        "sigmoids alone that is some 1 % of a narrow layer: not taken.",
    ),
    "stream beside the best peer": Limit(
        "Each thread reads its half of the weights at nine tenths of what its second-level cache gives; "
        "the rest is the threads' meeting at each step, 70 ns on cores that share a cache and 300 on "
        "cores that do not.",
        "Huge pages for weights below 2 MB; fetching ahead of the product. In, and worth it: every other "
        "step from the last block, cells between the products, own units' h before the others' is "
        "awaited.",
    ),
    "stream, wide beside the best peer": Limit(
        "The weights, 2.1 MB a thread, come from the third-level cache at the rate at which a core can "
        "read it.",
        "Fetching ahead of the product; every other step from the last block is in, and keeps what fits.",
    ),
    "one step": Limit(
        "A step reads all weights, and `bound` is the time of reading so many bytes over and over. What "
        "is left are the call from Python (0.2 us) and the two threads' meeting, there and back: on cores"
        " that share a cache 0.4 us, on cores that do not more than sharing gains.",
        "Fetching ahead of the product; huge pages for weights below 2 MB; cells in between a single "
        "step's products; two threads for less than 320 KB of weights (a quarter faster where they share "
        "a cache, half slower where not).",
    ),
    "one step, wide": Limit(
        "A step reads all weights, and `bound` is the time of reading so many bytes over and over: 3.1 MB a "
        "thread in float32, 1.6 in bfloat16 and 0.8 in int8, of which a second-level cache holds 1. By the "
        "median of single calls, without the host's pauses, it is 36, 18.7 and 10.2 us.",
        "Fetching ahead of the product; every other step from the last block is in, and keeps what fits.",
    ),
    "training with zoneout": Limit(
        "Two masks a step: ten rounds of two multiplications for every four units, and a cell with options, "
        "which passes over a row's tape in pieces. Runs differ by some hundredths about the target.",
        "In, and worth it: the noise of all rows drawn in one run of lanes and once, its bits kept in the "
        "tape; the tape of the rows behind fetched ahead.",
    ),
    "two threads beside one": Limit(
        "Two virtual cores may be two halves of one, which gain nothing from each other.",
        "Nothing: it is the machine's.",
    ),
}
"""The begin of a number's name -> its limit: the longest that fits counts."""
LIMITS["share of peak in training"] = Limit(
    LIMITS["training beside torch"].limited_by.split(". ", 1)[1], LIMITS["training beside torch"].tried
)


def limit_of(what: str) -> Limit | None:
    """Return what is known of a number's limit, by its name.

    >>> limit_of("one step, wide, engine int8, us") is LIMITS["one step, wide"]
    True
    >>> limit_of("first call of a process, ms")
    """
    fitting = [begin for begin in LIMITS if what.startswith(begin)]
    return LIMITS[max(fitting, key=len)] if fitting else None

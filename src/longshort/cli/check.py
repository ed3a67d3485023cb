"""Check this machine in seconds: are the layer's numbers right on each of its devices?

    longshort check
    longshort check --device cpu

On each device it runs every backend against the equations in float64 (parity), and the gradient of a
stack with dropout against finite differences. Exit code 1 if anything disagrees.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of `longshort check`."""
    parser.add_argument(
        "--device", default=None, metavar="NAME", help="one device, such as cpu or cuda:0 (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Check each device and print a line for each check."""
    from ..errors import BackendError
    from ..nn import parity  # here, not above: torch takes seconds to import

    devices = parity.devices()
    if args.device is not None:
        if args.device not in devices:
            raise BackendError(
                f"--device must be one of this machine's devices, {', '.join(devices)}, got {args.device!r}."
            )
        devices = [args.device]
    failed = 0
    for device in devices:
        for check in parity.checks(device):
            failed += not check.passed
            print(f"{device:8} {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}")
    return 1 if failed else 0

"""Read one HDF5 file in a process of its own, and pass it on as plain arrays.

    python hdf5_child.py MOST_BYTES SECONDS PATHS < file.h5 > arrays.npz

PATHS is a JSON list, where to look for h5py and NumPy. The status is 1 if the file is damaged, 3 if one of
these cannot be imported.

libhdf5 follows addresses that it finds in the file, and a damaged file can end or hang the process that
reads it. Here that ends this process alone. Nothing of the file is executed.
"""

import contextlib
import io
import json
import sys
from typing import Any

if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[3])
try:
    import h5py
    import numpy as np
except ImportError as error:
    print(str(error).replace("\n", " "), file=sys.stderr)
    sys.exit(3)


def plain(value: Any) -> Any:
    """An attribute as JSON: text, a number, or a list of these."""
    if isinstance(value, bytes):
        return value.decode("utf8")
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value.ravel().tolist()]
    return value.item() if isinstance(value, np.generic) else value


def main(most: int) -> None:
    """Write the arrays under their paths, and the attributes as JSON under the name `/`."""
    arrays: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    left = most
    with h5py.File(io.BytesIO(sys.stdin.buffer.read()), "r") as file:
        places: dict[str, Any] = {"": file}
        file.visititems(places.__setitem__)
        for path, item in places.items():
            attributes[path] = {name: plain(value) for name, value in item.attrs.items()}
            if isinstance(item, h5py.Dataset):
                left -= item.dtype.itemsize * int(np.prod(item.shape, dtype=np.float64))
                if left < 0:
                    raise ValueError("its arrays say that they are larger than the file")
                if item.dtype.kind in "fiu":
                    arrays[path] = item[()]
    arrays["/"] = np.frombuffer(json.dumps(attributes).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **arrays)
    sys.stdout.buffer.write(out.getvalue())


if __name__ == "__main__":
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), int(sys.argv[2])))
    try:
        main(int(sys.argv[1]))
    except Exception as error:  # any of h5py's; the parent makes a sentence of it
        print(str(error).replace("\n", " "), file=sys.stderr)
        sys.exit(1)

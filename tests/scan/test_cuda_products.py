"""A product at every step by cuBLASLt: a stub of the library multiplies what and where it is told to."""

import ctypes

import pytest
import torch

from longshort.scan.cuda import machine, products

TYPES = {0: torch.float32, 2: torch.float16, 14: torch.bfloat16}
ORDINARY = (3, 24, 10)


class Blas:
    """The library by its rules: matrices by columns, descriptions by handle. `fails` names codes."""

    def __init__(self, workspace=0, found=1, state=0, splits=1, errs=1.0, **fails):
        self.errs = errs
        self.workspace, self.found, self.state, self.fails = workspace, found, state, fails
        self.splits = splits
        self.known, self.multiplied, self.destroyed, self.streams, self.wishes = {}, 0, 0, [], {}

    def new(self, where, value):
        self.known[len(self.known) + 1] = value
        where._obj.value = len(self.known)

    def __getattr__(self, name):
        return lambda *words: self.fails.get(name, 0) or getattr(self, f"do_{name[8:]}")(*words) or 0

    def do_Create(self, where):
        self.new(where, "handle")

    def do_MatmulDescCreate(self, where, compute, scale):
        assert scale == 0
        self.new(where, {"compute": compute, 3: 0})

    def do_MatmulDescSetAttribute(self, which, name, value, size):
        assert size == ctypes.sizeof(value._obj)
        self.known[which][name] = value._obj.value

    def do_MatrixLayoutCreate(self, where, kind, rows, columns, pitch):
        assert pitch >= rows > 0 and columns > 0
        self.new(where, {"matrix": (TYPES[kind], rows, columns, pitch), 5: 1, 6: 0})

    def do_MatrixLayoutSetAttribute(self, which, name, value, size):
        assert size == ctypes.sizeof(value._obj)
        self.known[which][name] = value._obj.value

    def do_MatmulAlgoConfigGetAttribute(self, algorithm, name, value, size, written):
        assert (algorithm._obj.algorithm[0], name, size) == (4321, 2, 4)
        value._obj.value = self.splits

    def do_MatmulPreferenceCreate(self, where):
        self.new(where, self.wishes)

    def do_MatmulPreferenceSetAttribute(self, which, name, value, size):
        assert size == ctypes.sizeof(value._obj)
        self.known[which][name] = value._obj.value

    def do_MatmulAlgoGetHeuristic(self, handle, operation, a, b, c, d, wishes, most, found, count):
        assert (self.known[handle], c, most) == ("handle", d, 1)
        result = found._obj
        result.algorithm[0], result.workspace, result.state = 4321, self.workspace, self.state
        count._obj.value = self.found

    def matrix(self, layout, address):
        dtype, rows, columns, pitch = self.known[layout]["matrix"]
        count, stride = self.known[layout][5], self.known[layout][6]
        size = (stride * (count - 1) + pitch * (columns - 1) + rows) * dtype.itemsize
        memory = torch.frombuffer((ctypes.c_char * size).from_address(address), dtype=dtype)
        return memory.as_strided((count, rows, columns), (stride, 1, pitch))

    def do_Matmul(
        self,
        handle,
        operation,
        one,
        a,
        of_a,
        b,
        of_b,
        zero,
        c,
        of_c,
        d,
        of_d,
        algorithm,
        room,
        bytes_,
        stream,
    ):
        assert ctypes.c_float.from_address(one).value == 1 and ctypes.c_float.from_address(zero).value == 0
        assert ctypes.c_uint64.from_address(algorithm).value == 4321
        assert (c, of_c) == (d, of_d) and (bytes_ == 0 or room) and bytes_ == self.workspace
        for address, alignment in zip((a, b, d), (5, 6, 8), strict=True):
            assert address % self.wishes[alignment] == 0
        left, right, result = self.matrix(of_a, a), self.matrix(of_b, b), self.matrix(of_d, d)
        result.copy_((left.mT if self.known[operation][3] else left).float() @ right.float() * self.errs)
        self.multiplied += 1
        self.streams.append(stream)

    def destroy(self, made):
        del self.known[made.value]
        self.destroyed += 1

    do_MatmulDescDestroy = do_MatrixLayoutDestroy = do_MatmulPreferenceDestroy = destroy


@pytest.fixture
def put(monkeypatch):
    """Put a stub in the library's place; nothing prepared before or after is kept."""

    def forget():
        products._prepared.cache_clear()
        products._handle.cache_clear()

    def put(**settings):
        found = Blas(**settings)
        monkeypatch.setattr(products, "library", lambda: found)
        monkeypatch.setattr(products, "stream_of", lambda device: 1234)
        forget()
        return found

    yield put
    forget()


def otherwise(s):
    raise AssertionError("torch multiplied")


def make(m, k, n, steps=4, dtype=torch.bfloat16, by_columns=True):
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(steps, m, k, generator=rng).to(dtype)
    b = (
        torch.randn(n, k, generator=rng).to(dtype).T
        if by_columns
        else torch.randn(k, n, generator=rng).to(dtype)
    )
    return a, b, torch.full((1, m, n), torch.nan)


def check(run, a, b, out):
    for s in reversed(range(len(a))):
        run(s)
        torch.testing.assert_close(out.sum(0), a[s].float() @ b.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("by_columns", [True, False], ids=["transposed", "straight"])
@pytest.mark.parametrize("dtype", TYPES.values(), ids=str)
@pytest.mark.parametrize("m, k, n", [ORDINARY, (1, 24, 10), (3, 1, 10), (3, 24, 1), (1, 1, 1), (5, 7, 9)])
def test_it_multiplies(m, k, n, dtype, by_columns, put):
    blas = put()
    a, b, out = make(m, k, n, dtype=dtype, by_columns=by_columns)
    check(products.repeated(a, b, out, False, otherwise), a, b, out)
    assert blas.multiplied == 1 + 4 and set(blas.streams) == {1234}


@pytest.mark.parametrize(
    "view",
    [
        lambda a, b, out: (a[:1], b, out),
        lambda a, b, out: (a[0].expand(4, *a.shape[1:]), b, out),
        lambda a, b, out: (torch.cat([a, a], 2)[..., : a.shape[2]], b, out),
        lambda a, b, out: (a.transpose(0, 1).contiguous().transpose(0, 1), b, out),
        lambda a, b, out: (a, torch.cat([b, b])[: len(b)], out),
        lambda a, b, out: (a, b, torch.cat([out, out], 2)[..., : out.shape[2]]),
        lambda a, b, out: (torch.cat([a, a], 1)[:, 1 : 1 + a.shape[1]], b, out),
    ],
    ids=["one", "the same", "longer rows", "steps inside", "longer columns", "a wide result", "odd address"],
)
def test_strides_and_addresses_are_told(view, put):
    put()
    a, b, out = view(*make(3, 7, 10))
    check(products.repeated(a, b, out, False, otherwise), a, b, out)


@pytest.mark.parametrize(
    "dtype, tf32, compute",
    [(torch.float32, True, 77), (torch.float32, False, 68), (torch.bfloat16, True, 68)],
)
def test_tf32_is_for_float32_where_it_is_allowed(dtype, tf32, compute, put):
    blas = put()
    products.repeated(*make(*ORDINARY, dtype=dtype), tf32, otherwise)
    assert [
        known["compute"]
        for known in blas.known.values()
        if isinstance(known, dict) and 3 in known and "compute" in known
    ] == [compute]


def test_parts_of_a_sum_meet_in_a_fixed_order_and_room_is_bounded(put):
    blas = put(workspace=4096)
    a, b, out = make(*ORDINARY)
    check(products.repeated(a, b, out, False, otherwise), a, b, out)
    assert blas.wishes[3] == 2 and blas.wishes[1] == 32 << 20


def test_a_shape_is_prepared_once_and_given_back(put):
    blas = put()
    a, b, out = make(*ORDINARY)
    for _ in range(3):
        products.repeated(a, b, out, False, otherwise)
    assert len(blas.known) == 6  # handle, operation, three layouts, wishes
    products._prepared.cache_clear()
    assert blas.destroyed == 5 and len(blas.known) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"cublasLtCreate": 1},
        {"cublasLtMatmulDescCreate": 3},
        {"cublasLtMatrixLayoutCreate": 7},
        {"cublasLtMatmulAlgoGetHeuristic": 15},
        {"found": 0},
        {"state": 15},
        {"cublasLtMatmul": 13},
    ],
    ids=str,
)
def test_what_the_library_refuses_torch_multiplies(settings, put):
    blas = put(**settings)
    a, b, out = make(*ORDINARY)
    check(
        products.repeated(a, b, out, False, lambda s: out.copy_((a[s].float() @ b.float())[None])), a, b, out
    )
    assert blas.multiplied == 0


def test_a_library_that_errs_is_not_used(put):
    blas = put(errs=1.02)
    given = make(*ORDINARY)
    assert products.repeated(*given, False, otherwise) is otherwise
    assert products.repeated(*given, False, otherwise) is otherwise
    assert blas.multiplied == 1  # asked once


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b, out: (a.double(), b.double(), out.double()),
        lambda a, b, out: (a, b, out.bfloat16()),
        lambda a, b, out: (a.mT.contiguous().mT, b, out),
        lambda a, b, out: (a, b.repeat_interleave(2, 0).repeat_interleave(2, 1)[::2, ::2], out),
        lambda a, b, out: (a[:, :0], b, out[:, :0]),
    ],
    ids=["float64", "a short result", "columns of a", "gaps in b", "nothing"],
)
def test_what_does_not_serve_is_left_to_torch(change, put):
    put()
    assert products.repeated(*change(*make(*ORDINARY)), False, otherwise) is otherwise


@pytest.mark.parametrize("by_columns", [True, False], ids=["transposed", "straight"])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_of_the_sum_are_left_to_be_added(parts, by_columns, put):
    put()
    a, b, _ = make(3, 24, 10, by_columns=by_columns)
    out = torch.full((parts, 3, 10), torch.nan)
    check(products.repeated(a, b, out, False, otherwise), a, b, out)
    for got, x, y in zip(out, a[0].chunk(parts, 1), b.chunk(parts), strict=True):
        torch.testing.assert_close(got, x.float() @ y.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("splits", [1, 2, 7])
def test_whether_the_library_would_split_is_asked(splits, put):
    put(splits=splits)
    assert products.splits(*make(*ORDINARY), False) == (splits > 1)


@pytest.mark.parametrize(
    "k, parts, serve", [(24, 1, True), (24, 2, False), (4600, 4, False), (4608, 4, True)]
)
def test_a_machine_cuts_a_sum_where_its_parts_are_aligned(k, parts, serve, monkeypatch):
    """Parts that 16 bytes do not divide take longer than the kernel they save: awd-lstm's 1150 units."""
    monkeypatch.setattr(products, "splits", lambda *words: True)
    found = object.__new__(machine.Cuda)
    a, b, out = make(3, k, 10)
    assert found.splits(a.bfloat16(), b.bfloat16(), out, parts) is serve


def test_without_the_library_torch_multiplies(monkeypatch):
    monkeypatch.setattr(products, "library", lambda: None)
    assert products.repeated(*make(*ORDINARY), False, otherwise) is otherwise
    assert not products.splits(*make(*ORDINARY), False)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_machine_without_it_multiplies_by_torch(parts, monkeypatch):
    monkeypatch.setattr(products, "library", lambda: None)
    cuda = machine.Cuda.__new__(machine.Cuda)
    a, b, _ = make(*ORDINARY, dtype=torch.float32)
    out = torch.full((parts, 3, 10), torch.nan)
    check(cuda.repeated(a, b, out), a, b, out)

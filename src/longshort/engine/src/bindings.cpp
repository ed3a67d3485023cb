// The module longshort.engine._core. engine/__init__.py documents each function.
#include <nanobind/stl/vector.h>

#include <mutex>

#include "arrays.hpp"
#include "kernels.hpp"
#include "threads.hpp"

namespace longshort {
namespace {

template <class Real>
struct Packed {
  PackedWeights<Real> weights;
  const InstructionSet* set;
  bool back;
};

struct State {  // a layer's call beyond its input, as Python gives it
  Given h, c, reset, lengths, initial_h, initial_c;
};

struct GivenWeights {
  const Given &w_ih, &w_hh, &bias, &w_hr, &peephole, &w_gates, &gain_ih, &gain_hh, &gain_c, &shift_c;
};

void need(const Given& given, const char* name) {
  if (!given) raise_shape(std::string("engine: `") + name + "` must be an array, got None.");
}

constexpr int MostThreads = 1024;

void need_threads(int threads) {
  if (threads < 1) raise_shape("engine: `threads` must be at least 1, got " + std::to_string(threads) + ".");
  if (threads > MostThreads) raise_shape("engine: `threads` must be at most " + std::to_string(MostThreads) + ", got " + std::to_string(threads) + ".");
}

// paired: w_ih and w_hh hold the bits of bfloat16.
template <class Real>
Weights<Real> weights_of(const GivenWeights& given, const Variant& variant, bool paired) {
  const Index gates = variant.gate_count(), sigmoids = variant.sigmoid_count();
  const Given &w_ih = given.w_ih, &w_hh = given.w_hh;
  if (w_ih->ndim() != 2 || w_hh->ndim() != 2 || static_cast<Index>(w_ih->shape(0)) % gates != 0 || w_ih->shape(0) == 0)
    raise_shape("engine: `w_ih` must be (G H, C) and `w_hh` (G H, P) with G = " + std::to_string(gates) + " gates and H >= 1.");
  Weights<Real> from;
  from.C = static_cast<Index>(w_ih->shape(1));
  from.H = static_cast<Index>(w_ih->shape(0)) / gates;
  from.P = static_cast<Index>(w_hh->shape(1));
  if (!given.w_hr && from.P != from.H)
    raise_shape("engine: `w_hh` must be (G H, H) = " + text(std::initializer_list<Index>{gates * from.H, from.H}.begin(), 2) + " without `w_hr`, got P = " + std::to_string(from.P) + ".");
  const Index G = gates * from.H, S = sigmoids * from.H;
  from.w_ih = rows_as<Real>(paired, w_ih, "w_ih", "(G H, C)", G, from.C);
  from.w_hh = rows_as<Real>(paired, w_hh, "w_hh", "(G H, P)", G, from.P);
  from.bias = vector<Real>(given.bias, "bias", "(G H)", G);
  from.w_hr = rows<Real>(given.w_hr, "w_hr", "(P, H)", from.P, from.H);
  from.peephole = vector<Real>(given.peephole, "peephole", "(S H)", S);
  from.w_gates = rows<Real>(given.w_gates, "w_gates", "(S H, S H)", S, S);
  from.gain_ih = vector<Real>(given.gain_ih, "gain_ih", "(G H)", G);
  from.gain_hh = vector<Real>(given.gain_hh, "gain_hh", "(G H)", G);
  from.gain_c = vector<Real>(given.gain_c, "gain_c", "(H)", from.H);
  from.shift_c = vector<Real>(given.shift_c, "shift_c", "(H)", from.H);
  const bool needs_ih = variant.norm == Norm::ba2016 || variant.norm == Norm::products;
  const bool needs_c = variant.norm == Norm::ba2016 || variant.norm == Norm::per_gate;
  if (variant.peephole != bool(from.peephole) || variant.gate_recurrence != bool(from.w_gates) ||
      needs_ih != bool(from.gain_ih) || (variant.norm != Norm::none) != bool(from.gain_hh) ||
      needs_c != bool(from.gain_c) || needs_c != bool(from.shift_c))
    raise_shape("engine: the weights given are not those that the variant asks for (Variant.weights names them).");
  if (paired && (from.w_hr || variant.gate_recurrence || variant.norm != Norm::none))
    raise_shape("engine: weights in bfloat16 serve neither a projection, nor gate recurrence, nor a norm. Give float32, and `rounding`.");
  if (paired) {
    from.C /= 2;
    from.P /= 2;
  }
  return from;
}

template <class Real>
Packed<Real> pack_as(const GivenWeights& given, const Variant& variant, Rounding rounding, bool paired, bool back, int threads) {
  Packed<Real> packed;
  packed.set = &instruction_set();
  if (paired && !kernels_of<Real>(*packed.set).peak_of_pairs)
    raise_shape(std::string("engine: the set ") + packed.set->name + " has no products of bfloat16. Give float32, and `rounding`.");
  const Weights<Real> from = weights_of<Real>(given, variant, paired);
  packed.weights.variant = variant;
  packed.weights.C = paired ? 2 * from.C : from.C;
  packed.weights.H = from.H;
  packed.weights.P = paired ? 2 * from.P : from.P;
  packed.weights.projected = bool(from.w_hr);
  packed.weights.rounding = paired ? Rounding::bfloat16 : rounding;
  packed.weights.paired = paired;
  packed.back = back;
  const nb::gil_scoped_release unlocked;
  kernels_of<Real>(*packed.set).pack(from, packed.weights, back, threads);
  return packed;
}

nb::object pack(const Given& w_ih, const Given& w_hh, const Given& bias, const Given& w_hr, const Given& peephole,
                const Given& w_gates, const Given& gain_ih, const Given& gain_hh, const Given& gain_c, const Given& shift_c,
                const Variant& variant, const std::string& rounding, bool back, int threads) {
  need(w_ih, "w_ih");
  need(w_hh, "w_hh");
  need_threads(threads);
  const Rounding to = rounding == "bfloat16" ? Rounding::bfloat16 : rounding == "float16" ? Rounding::float16 : Rounding::none;
  if (to == Rounding::none && rounding != "none") raise_shape("engine: `rounding` must be 'none', 'bfloat16' or 'float16', got '" + rounding + "'.");
  const auto as = [&]<class Real>(Real, bool paired) {
    return nb::cast(pack_as<Real>({w_ih, w_hh, bias, w_hr, peephole, w_gates, gain_ih, gain_hh, gain_c, shift_c}, variant, to, paired, back, threads));
  };
  if (w_ih->dtype() == nb::dtype<float>()) return as(float{}, false);
  if (w_ih->dtype() == nb::dtype<std::uint16_t>() && to != Rounding::float16) return as(float{}, true);
  if (to != Rounding::none) raise_shape("engine: `rounding` must be 'none' but for float32, got '" + rounding + "'.");
  if (w_ih->dtype() == nb::dtype<double>()) return as(double{}, false);
  raise_shape("engine: `w_ih` must be float32 or float64, or uint16 with the bits of bfloat16.");
}

template <class Real>
void describe(SequenceCall<Real>& call, const Packed<Real>& packed, const Given& x, const State& state, bool reverse,
              const Noise& noise, int threads) {
  const PackedWeights<Real>& w = packed.weights;
  need(x, "x");
  if (x->ndim() != 3) raise_shape("engine: `x` must be (N, T, C), got " + std::to_string(x->ndim()) + " axes.");
  need_threads(threads);
  const Index N = call.N = static_cast<Index>(x->shape(0)), T = call.T = static_cast<Index>(x->shape(1));
  const Index cell = w.H + w.recurrent_depth() - w.P;
  call.x = sequences_as<Real>(w.paired, x, "x", "(N, T, C)", N, T, w.C);
  call.h = rows_as<Real>(w.paired, state.h, "h", "(N, P)", N, w.P);
  call.c = rows<Real>(state.c, "c", "(N, H)", N, cell);
  call.initial_h = rows_as<Real>(w.paired, state.initial_h, "initial_h", "(N, P)", N, w.P);
  call.initial_c = rows<Real>(state.initial_c, "initial_c", "(N, H)", N, cell);
  if (state.reset) {
    const std::uint8_t* data = checked<std::uint8_t>(*state.reset, "reset", "(N, T)", {N, T});
    call.reset = {data, static_cast<Index>(state.reset->stride(0)), static_cast<Index>(state.reset->stride(1))};
  }
  call.lengths = vector<std::int64_t>(state.lengths, "lengths", "(N)", N);
  for (Index n = 0; call.lengths && n < N; ++n)
    if (call.lengths[n] < 0 || call.lengths[n] > T)
      raise_shape("engine: `lengths` must be in [0, T] = [0, " + std::to_string(T) + "], got " + std::to_string(call.lengths[n]) + ".");
  call.reverse = reverse;
  if (w.paired && noise.training && noise.variational_h > 0)
    raise_shape("engine: weights in bfloat16 do not serve `variational_h`. Give float32, and `rounding`.");
  call.noise = noise;
  call.threads = threads;
}

template <class Real>
nb::tuple forward(const Packed<Real>& packed, const Given& x, const Given& h, const Given& c, const Given& reset,
                  const Given& lengths, const Given& initial_h, const Given& initial_c, bool reverse, const Noise& noise,
                  bool keep_cells, bool keep_gates, bool tape, bool time_major, int threads, const Given& bias) {
  const PackedWeights<Real>& w = packed.weights;
  ForwardCall<Real> call;
  call.bias = vector<Real>(bias, "bias", "(G H)", w.variant.gate_count() * w.H);
  describe<Real>(call, packed, x, {h, c, reset, lengths, initial_h, initial_c}, reverse, noise, threads);
  const Kernels<Real>& kernels = kernels_of<Real>(*packed.set);
  const Index cell = w.H + w.recurrent_depth() - w.P;
  const Taken y = fresh_as<Real>(w.paired, {call.N, call.T, w.P}, time_major), h_n = fresh_as<Real>(w.paired, {call.N, w.P});
  const Taken c_n = fresh<Real>({call.N, cell});
  nb::object cells = nb::none(), gates = nb::none(), kept = nb::none();
  call.y = sequences_as<Real>(w.paired, y);
  call.h_n = rows_as<Real>(w.paired, h_n);
  call.c_n = rows<Real>(c_n);
  if (keep_cells) {
    const Taken array = fresh<Real>({call.N, call.T, w.H}, time_major);
    call.cells = sequences<Real>(array);
    cells = nb::cast(array);
  }
  if (keep_gates) {
    const Taken array = fresh<Real>({call.N, call.T, 4 * w.H}, time_major);
    call.gates = sequences<Real>(array);
    gates = nb::cast(array);
  }
  if (tape) {
    const Taken array = fresh<Real>({call.T * call.N * kernels.tape_row(w, noise)});
    call.tape = static_cast<Real*>(array.data());
    kept = nb::cast(array);
  }
  {
    const nb::gil_scoped_release unlocked;
    kernels.forward(call, w);
  }
  return nb::make_tuple(y, h_n, c_n, cells, gates, kept);
}

template <class Real>
nb::dict backward(const Packed<Real>& packed, const Given& tape, const Given& x, const Given& y, const Given& h, const Given& c,
                  const Given& reset, const Given& lengths, const Given& initial_h, const Given& initial_c, bool reverse,
                  const Noise& noise, const Given& dy, const Given& dh, const Given& dc, const Given& dcells,
                  const Given& dgates, const std::vector<std::string>& wanted, bool time_major, int threads) {
  const PackedWeights<Real>& w = packed.weights;
  if (!packed.back) raise_shape("engine: these weights were packed for inference. Pack them with back=True.");
  need(tape, "tape");
  need(y, "y");
  BackwardCall<Real> call;
  describe<Real>(call, packed, x, {h, c, reset, lengths, initial_h, initial_c}, reverse, noise, threads);
  const Kernels<Real>& kernels = kernels_of<Real>(*packed.set);
  const Index N = call.N, T = call.T, cell = w.H + w.recurrent_depth() - w.P;
  const Index G = w.variant.gate_count() * w.H, S = w.variant.sigmoid_count() * w.H;
  call.tape = vector<Real>(tape, "tape", "(T N row)", T * N * kernels.tape_row(w, noise));
  call.y = sequences_as<Real>(w.paired, y, "y", "(N, T, P)", N, T, w.P);
  call.dy = sequences_as<Real>(w.paired, dy, "dy", "(N, T, P)", N, T, w.P);
  call.dh_n = rows<Real>(dh, "dh", "(N, P)", N, w.P);
  call.dc_n = rows<Real>(dc, "dc", "(N, H)", N, cell);
  call.dcells = sequences<Real>(dcells, "dcells", "(N, T, H)", N, T, w.H);
  call.dgates = sequences<Real>(dgates, "dgates", "(N, T, 4H)", N, T, 4 * w.H);
  nb::dict result;
  const auto take = [&](const char* name, std::initializer_list<Index> shape, bool order = false) {
    Taken array = fresh<Real>(shape, order);
    result[name] = array;
    return array;
  };
  for (const std::string& name : wanted) {
    if (name == "x") {
      const Taken array = fresh_as<Real>(w.paired, {N, T, w.C}, time_major);
      result["x"] = array;
      call.dx = sequences_as<Real>(w.paired, array);
    } else if (name == "h") call.dh = rows<Real>(take("h", {N, w.P}));
    else if (name == "c") call.dc = rows<Real>(take("c", {N, cell}));
    else if (name == "initial_h") call.dinitial_h = rows<Real>(take("initial_h", {N, w.P}));
    else if (name == "initial_c") call.dinitial_c = rows<Real>(take("initial_c", {N, cell}));
    else if (name == "w_ih") call.dw_ih = rows<Real>(take("w_ih", {G, w.C}));
    else if (name == "w_hh") call.dw_hh = rows<Real>(take("w_hh", {G, w.P}));
    else if (name == "w_hr" && w.projected) call.dw_hr = rows<Real>(take("w_hr", {w.P, w.H}));
    else if (name == "w_gates" && w.variant.gate_recurrence) call.dw_gates = rows<Real>(take("w_gates", {S, S}));
    else if (name == "bias") call.dbias = static_cast<Real*>(take("bias", {G}).data());
    else if (name == "peephole" && w.peephole) call.dpeephole = static_cast<Real*>(take("peephole", {S}).data());
    else if (name == "gain_ih" && w.gain_ih) call.dgain_ih = static_cast<Real*>(take("gain_ih", {G}).data());
    else if (name == "gain_hh" && w.gain_hh) call.dgain_hh = static_cast<Real*>(take("gain_hh", {G}).data());
    else if (name == "gain_c" && w.gain_c) call.dgain_c = static_cast<Real*>(take("gain_c", {w.H}).data());
    else if (name == "shift_c" && w.shift_c) call.dshift_c = static_cast<Real*>(take("shift_c", {w.H}).data());
    else raise_shape("engine: `wanted` names '" + name + "', which has no gradient in this variant.");
  }
  const nb::gil_scoped_release unlocked;
  kernels.backward(call, w);
  return result;
}

// What a call becomes whose arguments are no such arrays.
template <class Real>
[[noreturn]] void refuse(const char* takes) {
  raise_shape(std::string("engine: ") + takes + ", contiguous and " + name_of<Real>() + ": got something else. Convert x with numpy.ascontiguousarray(x, " + name_of<Real>() + "); "
              "h and c are written where they stand.");
}

// A prepared step. The Python side keeps the arrays that were packed alive.
template <class Real>
class Step {
 public:
  using Row = nb::ndarray<const Real, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
  using Written = nb::ndarray<Real, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

  Step(nb::object packed, const std::string& stored, int threads) : threads_(threads) {
    const Packed<Real>& from = nb::cast<Packed<Real>&>(packed);
    const PackedWeights<Real>& w = from.weights;
    if (w.rounding != Rounding::none) raise_shape("engine: Step serves float32 and float64. Call forward with one step for 16-bit weights.");
    const Variant plain;
    if (w.projected || w.variant.gate_count() != 4 || w.variant.peephole || w.variant.gate_recurrence || w.variant.hard_sigmoid ||
        w.variant.norm != Norm::none || !w.variant.input_activation || !w.variant.output_activation ||
        w.variant.cell_clip != plain.cell_clip || w.variant.projection_clip != plain.projection_clip)
      raise_shape("engine: Step serves the variant of torch.nn.LSTM. Call forward with one step for the others.");
    if (stored != "full" && stored != "bfloat16" && stored != "int8")
      raise_shape("engine: `stored` must be 'full', 'bfloat16' or 'int8', got '" + stored + "'.");
    if (stored != "full" && !std::is_same_v<Real, float>)
      raise_shape("engine: `stored` must be 'full' for float64 weights, got '" + stored + "'. Pack them in float32.");
    need_threads(threads);
    constexpr Index most = 65536;
    if (stored == "int8" && std::max(w.C, w.H) > most)
      raise_shape("engine: `stored` = 'int8' serves up to " + std::to_string(most) + " inputs and units, got " + std::to_string(std::max(w.C, w.H)) + ".");
    kernels_ = &kernels_of<Real>(*from.set);
    weights_ = kernels_->store(w, stored == "int8" ? Stored::int8 : stored == "bfloat16" ? Stored::bfloat16 : Stored::full, copies_);
    if (stored == "full") {
      owner_ = packed;
      packed_ = &w;
    }
  }

  nb::tuple run(const Given& x, const Given& h, const Given& c) {
    const Index H = weights_.H;
    need(x, "x");
    if (x->ndim() != 3) raise_shape("engine: `x` must be (N, T, C), got " + std::to_string(x->ndim()) + " axes.");
    StepCall<Real> call;
    call.N = static_cast<Index>(x->shape(0));
    call.T = static_cast<Index>(x->shape(1));
    call.x = sequences<Real>(x, "x", "(N, T, C)", call.N, call.T, weights_.C);
    const Taken zeros = fresh<Real>({call.N, H});
    std::memset(zeros.data(), 0, static_cast<std::size_t>(call.N * H) * sizeof(Real));
    call.h = h ? rows<Real>(h, "h", "(N, H)", call.N, H) : Rows<const Real>{static_cast<const Real*>(zeros.data()), H};
    call.c = c ? rows<Real>(c, "c", "(N, H)", call.N, H) : Rows<const Real>{static_cast<const Real*>(zeros.data()), H};
    const Taken y = fresh<Real>({call.N, call.T, H}), c_n = fresh<Real>({call.N, H});
    call.y = sequences<Real>(y);
    call.c_n = rows<Real>(c_n);
    for (Index n = 0; call.T == 0 && n < call.N; ++n)
      std::memcpy(call.c_n.row(n), call.c.row(n), static_cast<std::size_t>(H) * sizeof(Real));
    if (packed_ && call.T > 1) stream(call);
    else go(call);
    return nb::make_tuple(y, c_n);
  }

  using Chosen = std::optional<nb::ndarray<const bool, nb::ndim<1>, nb::c_contig, nb::device::cpu>>;

  // One step that moves h and c on where they stand. x: (N, C), h and c: (N, H), contiguous; h and c are
  // written. only: (N) bool, the sequences that step.
  void move(const Row& x, const Written& h, const Written& c, const Chosen& only) {
    const Index N = static_cast<Index>(x.shape(0));
    if (static_cast<Index>(x.shape(1)) != weights_.C) checked<Real>(x, "x", "(N, C)", {N, weights_.C});
    hold(h, c, N);
    advance(x.data(), h.data(), c.data(), N, only);
  }

  void hold(const Written& h, const Written& c, Index N) const {
    const auto fits = [&](const Written& array) {
      return static_cast<Index>(array.shape(0)) == N && static_cast<Index>(array.shape(1)) == weights_.H;
    };
    if (!fits(h)) checked<Real>(h, "h", "(N, H)", {N, weights_.H});
    if (!fits(c)) checked<Real>(c, "c", "(N, H)", {N, weights_.H});
  }

  void advance(const Real* x, Real* h, Real* c, Index N, const Chosen& only) {
    StepCall<Real> call = single(x, h, c, h, c, N);
    std::vector<Index> chosen;
    if (only) {
      if (static_cast<Index>(only->shape(0)) != N) checked<std::uint8_t>(*only, "only", "(N)", {N});
      for (Index n = 0; n < N; ++n)
        if (only->data()[n]) chosen.push_back(n);
      call.only = chosen.data();
      call.N = static_cast<Index>(chosen.size());
    }
    go(call);
  }

  Index inputs() const { return weights_.C; }

  // The same on addresses, for a caller that has checked: contiguous rows of C, H, H, H and H values.
  void at(std::uintptr_t x, std::uintptr_t h, std::uintptr_t c, std::uintptr_t h_n, std::uintptr_t c_n, Index N) {
    const auto place = [](std::uintptr_t address) { return reinterpret_cast<Real*>(address); };
    StepCall<Real> call = single(place(x), place(h), place(c), place(h_n), place(c_n), N);
    go(call);
  }

 private:
  StepCall<Real> single(const Real* x, const Real* h, const Real* c, Real* h_n, Real* c_n, Index N) const {
    StepCall<Real> call;
    call.N = N;
    call.x = {x, weights_.C, weights_.C};
    call.h = {h, weights_.H};
    call.c = {c, weights_.H};
    call.y = {h_n, weights_.H, weights_.H};
    call.c_n = {c_n, weights_.H};
    return call;
  }

  // On the weights as packed, a stream is a sequence like any other.
  void stream(const StepCall<Real>& steps) const {
    const Taken h_n = fresh<Real>({steps.N, weights_.H});
    ForwardCall<Real> call;
    call.N = steps.N;
    call.T = steps.T;
    call.x = steps.x;
    call.h = steps.h;
    call.c = steps.c;
    call.y = steps.y;
    call.h_n = rows<Real>(h_n);
    call.c_n = steps.c_n;
    call.threads = threads_;
    const nb::gil_scoped_release unlocked;
    kernels_->forward(call, *packed_);
  }

  void go(StepCall<Real>& call) {
    const nb::gil_scoped_release unlocked;
    const std::lock_guard<std::mutex> turn(turn_);
    call.threads = threads_;
    call.backwards = backwards_ = !backwards_;
    kernels_->step(call, weights_, desk_);
  }

  nb::object owner_;
  const PackedWeights<Real>* packed_ = nullptr;  // the owner's, where no copies are stored
  const Kernels<Real>* kernels_;
  StepWeights<Real> weights_;
  Room copies_, desk_;
  std::mutex turn_;
  bool backwards_ = false;
  int threads_;
};

// A step and the state that it moves, checked once. Both stay alive with it.
template <class Real>
class Moving {
 public:
  using Taker = Step<Real>;
  Moving(nb::object step, typename Taker::Written h, typename Taker::Written c)
      : owner_(step), step_(nb::cast<Taker&>(step)), h_(std::move(h)), c_(std::move(c)), N_(static_cast<Index>(h_.shape(0))) {
    step_.hold(h_, c_, N_);
  }

  // x: N x C values, whatever their axes.
  void step(nb::handle x, const typename Taker::Chosen& only) {
    const Contiguous<Real> values(x);
    if (!values) refuse<Real>("a moving state takes x of N C values, and `only` (N,) bool or None");
    if (values.size() != N_ * step_.inputs())
      raise_shape("engine: `x` must have N C = " + std::to_string(N_ * step_.inputs()) + " values, got " + std::to_string(values.size()) + ".");
    step_.advance(values.data(), h_.data(), c_.data(), N_, only);
  }

 private:
  nb::object owner_;
  Taker& step_;
  typename Taker::Written h_, c_;
  Index N_;
};

template <class Real>
typename MatrixCall<Real>::Matrix matrix(const Given& given, const char* name) {
  const auto refuse = [&](const std::string& why) { raise_shape(std::string("engine: `") + name + "` " + why); };
  if (given->ndim() != 2) refuse("must be a matrix, got " + std::to_string(given->ndim()) + " axes.");
  if (given->dtype() != nb::dtype<Real>()) refuse(std::string("must be ") + (sizeof(Real) == 4 ? "float32: both are, or both float64." : "float64, as `a` is."));
  const Index rows = static_cast<Index>(given->stride(0)), columns = static_cast<Index>(given->stride(1));
  const bool by_rows = columns == 1 || given->shape(1) <= 1, by_columns = rows == 1 || given->shape(0) <= 1;
  if (!by_rows && !by_columns) refuse("must have one contiguous axis. Copy it.");
  return {static_cast<const Real*>(given->data()), by_rows ? rows : 1, by_rows ? 1 : columns};
}

template <class Real>
Taken multiply_as(const Given& a, const Given& b, const Given& bias, int threads) {
  MatrixCall<Real> call;
  call.a = matrix<Real>(a, "a");
  call.b = matrix<Real>(b, "b");
  call.M = static_cast<Index>(a->shape(0));
  call.C = static_cast<Index>(a->shape(1));
  call.K = static_cast<Index>(b->shape(0));
  if (static_cast<Index>(b->shape(1)) != call.C)
    raise_shape("engine: `b` must be (K, C) with C = " + std::to_string(call.C) + " columns as `a` has, got " + std::to_string(b->shape(1)) + ".");
  need_threads(threads);
  call.bias = vector<Real>(bias, "bias", "(K)", call.K);
  call.threads = threads;
  const Taken out = fresh<Real>({call.M, call.K});
  call.out = rows<Real>(out);
  const nb::gil_scoped_release unlocked;
  kernels_of<Real>(instruction_set()).multiply(call);
  return out;
}

Taken multiply(const Given& a, const Given& b, const Given& bias, int threads) {
  need(a, "a");
  need(b, "b");
  if (a->dtype() == nb::dtype<double>()) return multiply_as<double>(a, b, bias, threads);
  return multiply_as<float>(a, b, bias, threads);
}

template <class Real>
Taken cross_entropy(const nb::ndarray<Real, nb::ndim<2>, nb::device::cpu>& scores, const Given& targets, int threads) {
  EntropyCall<Real> call;
  call.M = static_cast<Index>(scores.shape(0));
  call.V = static_cast<Index>(scores.shape(1));
  if (call.M > 0 && call.V > 1 && scores.stride(1) != 1) raise_shape("engine: `scores` must be contiguous along its last axis: they are written where they stand.");
  call.scores = {scores.data(), static_cast<Index>(scores.stride(0))};
  need(targets, "targets");
  call.targets = vector<std::int64_t>(targets, "targets", "(M)", call.M);
  for (Index m = 0; m < call.M; ++m)
    if (call.targets[m] < 0 || call.targets[m] >= call.V)
      raise_shape("engine: `targets` must be in [0, V) = [0, " + std::to_string(call.V) + "), got " + std::to_string(call.targets[m]) + " at " + std::to_string(m) + ".");
  need_threads(threads);
  call.threads = threads;
  const Taken losses = fresh<Real>({call.M});
  call.losses = static_cast<Real*>(losses.data());
  const nb::gil_scoped_release unlocked;
  kernels_of<Real>(instruction_set()).cross_entropy(call);
  return losses;
}

template <class Real>
Taken activate(const std::string& name, const Given& x) {
  const Index count = static_cast<Index>(x->size());
  const Real* from = vector<Real>(x, "x", "(K)", count);
  Taken result = fresh<Real>({count});
  kernels_of<Real>(instruction_set()).activate(name == "exp" ? 0 : name == "sigmoid" ? 1 : 2, from, static_cast<Real*>(result.data()), count);
  return result;
}

// Whether weights are still those that were packed; the bias is no part of it.
template <class Real>
bool holds(const Packed<Real>& packed, const Given& w_ih, const Given& w_hh, const Given& w_hr, const Given& peephole,
           const Given& w_gates, const Given& gain_ih, const Given& gain_hh, const Given& gain_c, const Given& shift_c, int threads) {
  const PackedWeights<Real>& w = packed.weights;
  need(w_ih, "w_ih");
  need(w_hh, "w_hh");
  need_threads(threads);
  if (w_ih->dtype() != (w.paired ? nb::dtype<std::uint16_t>() : nb::dtype<Real>())) return false;
  const Weights<Real> from = weights_of<Real>({w_ih, w_hh, Given(), w_hr, peephole, w_gates, gain_ih, gain_hh, gain_c, shift_c}, w.variant, w.paired);
  if (from.C != w.words(w.C) || from.H != w.H || from.P != w.words(w.P) || bool(from.w_hr) != w.projected) return false;
  const nb::gil_scoped_release unlocked;
  return kernels_of<Real>(*packed.set).holds(from, w, threads);
}

// The bias alone, anew: it is a sum of two parameters, made for each step.
template <class Real>
void set_bias(Packed<Real>& packed, const Given& bias) {
  const PackedWeights<Real>& w = packed.weights;
  const Real* values = vector<Real>(bias, "bias", "(G H)", w.variant.gate_count() * w.H);
  kernels_of<Real>(*packed.set).pack_bias(values, packed.weights);
}

template <class Real>
void bind(nb::module_& m, const char* name, const char* step_name, const char* moving_name) {
  nb::class_<Step<Real>>(m, step_name)
      .def(nb::init<nb::object, const std::string&, int>(), nb::arg("packed"), nb::arg("stored"), nb::arg("threads"))
      .def("__call__", &Step<Real>::run, nb::arg("x"), nb::arg("h"), nb::arg("c"))
      .def("move", &Step<Real>::move, nb::arg("x").noconvert(), nb::arg("h").noconvert(), nb::arg("c").noconvert(), nb::arg("only").noconvert().none() = nb::none())
      .def("moving", [](nb::object step, typename Step<Real>::Written h, typename Step<Real>::Written c) {
        return Moving<Real>(step, std::move(h), std::move(c));
      }, nb::arg("h").noconvert(), nb::arg("c").noconvert())
      .def("move", [](Step<Real>&, const nb::args&, const nb::kwargs&) { refuse<Real>("`move` takes x (N, C), h and c (N, H), both writable, and `only` (N,) bool or None"); })
      .def("moving", [](Step<Real>&, const nb::args&, const nb::kwargs&) { refuse<Real>("`moving` takes h and c (N, H), both writable"); })
      .def("at", &Step<Real>::at);
  nb::class_<Moving<Real>>(m, moving_name)
      .def("__call__", &Moving<Real>::step, nb::arg("x"), nb::arg("only").noconvert().none() = nb::none())
      .def("__call__", [](Moving<Real>&, const nb::args&, const nb::kwargs&) { refuse<Real>("a moving state takes x of N C values, and `only` (N,) bool or None"); });
  nb::class_<Packed<Real>>(m, name)
      .def_prop_ro("isa", [](const Packed<Real>& p) { return p.set->name; })
      .def_prop_ro("sizes", [](const Packed<Real>& p) { return nb::make_tuple(p.weights.C, p.weights.H, p.weights.P); })
      .def("set_bias", set_bias<Real>, nb::arg("bias").none())
      .def("holds", holds<Real>, nb::arg("w_ih"), nb::arg("w_hh"), nb::arg("w_hr").none() = nb::none(), nb::arg("peephole").none() = nb::none(),
           nb::arg("w_gates").none() = nb::none(), nb::arg("gain_ih").none() = nb::none(), nb::arg("gain_hh").none() = nb::none(),
           nb::arg("gain_c").none() = nb::none(), nb::arg("shift_c").none() = nb::none(), nb::arg("threads") = 1)
      .def("tape_values", [](const Packed<Real>& p, const Noise& noise) { return kernels_of<Real>(*p.set).tape_row(p.weights, noise); });
  m.def("forward", forward<Real>, nb::arg("packed"), nb::arg("x"), nb::arg("h").none(), nb::arg("c").none(),
        nb::arg("reset").none(), nb::arg("lengths").none(), nb::arg("initial_h").none(), nb::arg("initial_c").none(),
        nb::arg("reverse"), nb::arg("noise"), nb::arg("keep_cells"), nb::arg("keep_gates"), nb::arg("tape"),
        nb::arg("time_major"), nb::arg("threads"), nb::arg("bias").none());
  m.def("backward", backward<Real>, nb::arg("packed"), nb::arg("tape"), nb::arg("x"), nb::arg("y"), nb::arg("h").none(),
        nb::arg("c").none(), nb::arg("reset").none(), nb::arg("lengths").none(), nb::arg("initial_h").none(),
        nb::arg("initial_c").none(), nb::arg("reverse"), nb::arg("noise"), nb::arg("dy").none(), nb::arg("dh").none(),
        nb::arg("dc").none(), nb::arg("dcells").none(), nb::arg("dgates").none(), nb::arg("wanted"), nb::arg("time_major"),
        nb::arg("threads"));
}

// Values of tape for each sequence and step of a layer, from its sizes alone.
template <class Real>
Index tape_row(Index H, Index P, bool projected, const Variant& variant, const Noise& noise) {
  PackedWeights<Real> sizes;
  sizes.variant = variant;
  sizes.H = H;
  sizes.P = P;
  sizes.projected = projected;
  return kernels_of<Real>(instruction_set()).tape_row(sizes, noise);
}

Norm norm_named(const std::string& name) {
  return name == "ba2016" ? Norm::ba2016 : name == "per_gate" ? Norm::per_gate : name == "products" ? Norm::products : Norm::none;
}

}  // namespace

NB_MODULE(_core, m) {
  nb::set_leak_warnings(false);
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const UnknownSet& error) {
      PyErr_SetString(nb::module_::import_("longshort.errors").attr("BackendError").ptr(), error.what());
    }
  });
  nb::class_<Variant>(m, "Variant")
      .def(nb::init<>())
      .def_rw("peephole", &Variant::peephole)
      .def_rw("coupled", &Variant::coupled)
      .def_rw("gate_recurrence", &Variant::gate_recurrence)
      .def_rw("input_gate", &Variant::input_gate)
      .def_rw("forget_gate", &Variant::forget_gate)
      .def_rw("output_gate", &Variant::output_gate)
      .def_rw("input_activation", &Variant::input_activation)
      .def_rw("output_activation", &Variant::output_activation)
      .def_rw("hard_sigmoid", &Variant::hard_sigmoid)
      .def_rw("norm_eps", &Variant::norm_eps)
      .def_rw("cell_clip", &Variant::cell_clip)
      .def_rw("projection_clip", &Variant::projection_clip)
      .def_prop_rw("norm", [](const Variant& v) { return static_cast<int>(v.norm); },
                   [](Variant& v, const std::string& name) { v.norm = norm_named(name); });
  nb::class_<Noise>(m, "Noise")
      .def(nb::init<>())
      .def_rw("variational_h", &Noise::variational_h)
      .def_rw("recurrent_dropout", &Noise::recurrent_dropout)
      .def_rw("zoneout_h", &Noise::zoneout_h)
      .def_rw("zoneout_c", &Noise::zoneout_c)
      .def_rw("seed", &Noise::seed)
      .def_rw("first", &Noise::first)
      .def_rw("training", &Noise::training);
  m.def("pack", pack, nb::arg("w_ih"), nb::arg("w_hh"), nb::arg("bias").none(), nb::arg("w_hr").none(), nb::arg("peephole").none(),
        nb::arg("w_gates").none(), nb::arg("gain_ih").none(), nb::arg("gain_hh").none(), nb::arg("gain_c").none(),
        nb::arg("shift_c").none(), nb::arg("variant"), nb::arg("rounding"), nb::arg("back"), nb::arg("threads"));
  bind<float>(m, "Packed32", "Step32", "Moving32");
  bind<double>(m, "Packed64", "Step64", "Moving64");
  m.def("activate32", activate<float>);
  m.def("activate64", activate<double>);
  m.def("tape_row32", tape_row<float>);
  m.def("tape_row64", tape_row<double>);
  m.def("pairs", [] { return instruction_set().single_precision.peak_of_pairs != nullptr; });
  m.def("peak", [](bool paired) {
    const Kernels<float>& kernels = instruction_set().single_precision;
    return paired && kernels.peak_of_pairs ? kernels.peak_of_pairs() : kernels.peak();
  }, nb::arg("paired"));
  m.def("reading", [](Index bytes) {
    if (bytes < 1) raise_shape("engine: `size` must be at least 1 byte, got " + std::to_string(bytes) + ".");
    return instruction_set().single_precision.reading(bytes);
  });
  m.def("multiply", multiply, nb::arg("a"), nb::arg("b"), nb::arg("bias").none(), nb::arg("threads"));
  m.def("cross_entropy", cross_entropy<float>, nb::arg("scores").noconvert(), nb::arg("targets").none(), nb::arg("threads"));
  m.def("cross_entropy", cross_entropy<double>, nb::arg("scores").noconvert(), nb::arg("targets").none(), nb::arg("threads"));
  m.def("cross_entropy", [](const nb::args&, const nb::kwargs&) {
    raise_shape("engine: `scores` must be (M, V), float32 or float64 and writable, with `targets` (M,) of int64 and a number of `threads`.");
  });
  m.def("meeting", meeting);
  m.def("trim", trim);
  m.def("join_openmp", join_openmp);
  m.def("isa", [] { return instruction_set().name; });
  m.def("isas", [] {
    int count = 0;
    const InstructionSet* const* sets = instruction_sets(count);
    nb::list names;
    for (int k = 0; k < count; ++k) names.append(sets[k]->name);
    return names;
  });
}

}  // namespace longshort

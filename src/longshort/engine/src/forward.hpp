// The way forward: one member's share of a call, step by step.
#pragma once

#include "pairs.hpp"
#include "team.hpp"
#include "variant_cell.hpp"

namespace longshort::LONGSHORT_ISA {

constexpr std::size_t ChunkBytes = 512 * 1024;  // what a member computes ahead of the steps: half of a common L2

inline Index chunk_steps(Index steps, Index rows, Index bytes_per_row) {
  return std::clamp<Index>(static_cast<Index>(ChunkBytes) / std::max<Index>(1, rows * bytes_per_row), 1,
                           std::max<Index>(steps, 1));
}

template <class Real, class Form = Whole<Real>>
class Forward {
 public:
  using Call = ForwardCall<Real>;
  using Packed = PackedWeights<Real>;

  static std::size_t room(const Call& call, const Packed& w, Index rows) {
    const Options<Real> options(w, call.noise);
    const Layout<Real> layout(w, options);
    const Index steps = chunk_steps(call.T, rows, layout.wide * static_cast<Index>(sizeof(Real)));
    Index values = rows * steps * (layout.wide + Lanes<Real>) + rows * layout.padded;
    values += rows * (ceil_div(w.P, 4) * 4 + Lanes<Real> + layout.row + layout.wide + layout.padded);
    values += step_noise<Real>(options, w.H, w.P).room(rows);
    values += 2 * rows * (w.recurrent_depth() + Lanes<Real>)+std::max(w.P, w.recurrent_depth()) + rows * w.P;
    return static_cast<std::size_t>(values) * sizeof(Real) + static_cast<std::size_t>(rows * steps) * 4 * sizeof(void*) +
           static_cast<std::size_t>(rows) * 256 + 64 * 32;
  }

  // bias: blocked. sequences: this group's rows. blocks: this member's units. barrier: the group's, null where it is one.
  Forward(const Call& call, const Packed& w, const Real* bias, Range sequences, Range blocks, Barrier* barrier, int member, Arena& arena)
      : call_(call), w_(w), bias_(bias), options_(w, call.noise), layout_(w, options_), sequences_(sequences),
        blocks_(blocks), barrier_(barrier), member_(member), rows_(sequences.size()) {
    steps_ahead_ = chunk_steps(call.T, rows_, layout_.wide * static_cast<Index>(sizeof(Real)));
    ahead_stride_ = layout_.wide + Lanes<Real>;  // off the power of two: rows would share cache sets
    mask_stride_ = ceil_div(w.P, 4) * 4;
    noise_ = step_noise<Real>(options_, w.H, w.P);
    const auto values = [&](Index count) { return reinterpret_cast<Real*>(arena.take(static_cast<std::size_t>(count) * sizeof(Real))); };
    const auto pointers = [&](Index count) { return reinterpret_cast<Real**>(arena.take(static_cast<std::size_t>(count) * sizeof(Real*))); };
    ahead_ = values(rows_ * steps_ahead_ * ahead_stride_);
    c_ = values(rows_ * layout_.padded);
    if (!noise_.silent()) noise_.place(values(noise_.room(rows_)));
    if (!options_.plain && !call.tape) spare_tape_ = values(rows_ * layout_.row);
    if (options_.normed) products_ = values(rows_ * layout_.wide);
    if (options_.projected) unprojected_ = values(rows_ * layout_.padded);
    if (options_.feeds_copy) {
      fed_stride_ = w.recurrent_depth() + Lanes<Real>;
      fed_copy_ = values(2 * rows_ * fed_stride_);
    }
    if (options_.drops_h) mask_h_ = values(rows_ * mask_stride_);
    zeros_ = values(std::max(w.P, w.recurrent_depth()));
    x_rows_ = const_cast<const Real**>(pointers(rows_ * steps_ahead_));
    ahead_rows_ = pointers(rows_ * steps_ahead_);
    starts_ = const_cast<const Real**>(pointers(rows_));
    fed_ = const_cast<const Real**>(pointers(rows_));
    row_ = reinterpret_cast<Row*>(arena.take(static_cast<std::size_t>(rows_) * sizeof(Row)));
    h_ = const_cast<const Real**>(pointers(rows_));
    ends_ = pointers(rows_);
  }

  void run() {
    begin();
    for (Index first = 0; first < call_.T; first += steps_ahead_) {
      const Index steps = std::min(steps_ahead_, call_.T - first);
      multiply_inputs(first, steps);
      for (Index s = first; s < first + steps; ++s) {
        begin_step(s, s - first);
        if (!takes_one_row()) await_others();
        if (options_.plain) call_.tape ? plain_step<true>() : plain_step<false>();
        else if (options_.normed) normed_step();
        else variant_step();
        if (options_.projected) project();
        if (barrier_) barrier_->arrive(member_);
        end_step();
      }
    }
    await_others();
    finish();
  }

 private:
  struct Row {
    Index n, local;
    Real *c, *y, *tape, *cells, *gates;
    const Real* h_old;
    RowNoise noise;
  };

  // Until the h of the step before stands whole.
  void await_others() {
    if (barrier_) barrier_->await(member_);
  }

  Index time(Index s) const { return call_.reverse ? call_.T - 1 - s : s; }
  bool active(Index n, Index t) const { return !call_.lengths || t < call_.lengths[n]; }
  std::size_t bytes_of(Index values) const { return static_cast<std::size_t>(Form::words(values)) * sizeof(Real); }
  Real* fed_copy(Index local, Index parity) { return fed_copy_ + (2 * local + parity) * fed_stride_; }

  void begin() {
    std::memset(zeros_, 0, static_cast<std::size_t>(std::max(w_.P, w_.recurrent_depth())) * sizeof(Real));
    for (Index local = 0; local < rows_; ++local) {
      const Index n = sequences_.first + local;
      if (options_.drops_h) {
        const double rate = call_.noise.variational_h;
        draw<Real>(mask_h_ + local * mask_stride_, w_.P, call_.noise.seed, VariationalH, 0, n, rate,
                   static_cast<Real>(1 / (1 - rate)), Real(0));
      }
      restart(local, call_.h, call_.c, n);
    }
  }

  // h and c of a sequence become a row of the given state, or zero.
  void restart(Index local, const Rows<const Real>& h, const Rows<const Real>& c, Index n) {
    h_[local] = h ? h.row(n) : zeros_;
    Real* cell = c_ + local * layout_.padded;
    std::memset(cell, 0, static_cast<std::size_t>(layout_.padded) * sizeof(Real));
    if (c) std::memcpy(cell, c.row(n), static_cast<std::size_t>(w_.H) * sizeof(Real));
    if (!options_.feeds_copy) return;
    Real* fed = fed_copy(local, parity_);
    feed(local, fed);
    if (w_.variant.gate_recurrence) {
      const std::size_t bytes = static_cast<std::size_t>(w_.recurrent_depth() - w_.P) * sizeof(Real);
      if (c) std::memcpy(fed + w_.P, c.row(n) + w_.H, bytes);
      else std::memset(fed + w_.P, 0, bytes);
    }
  }

  void feed(Index local, Real* fed) {
    copy_masked<Real>(fed, h_[local], options_.drops_h ? mask_h_ + local * mask_stride_ : nullptr, w_.P);
  }

  // (1), the part that does not wait for h: steps first ... first + steps - 1 at once.
  void multiply_inputs(Index first, Index steps) {
    Index count = 0;
    for (Index s = first; s < first + steps; ++s)
      for (Index local = 0; local < rows_; ++local) {
        const Index n = sequences_.first + local, t = time(s);
        if (!active(n, t)) continue;
        x_rows_[count] = call_.x.row(n, t);
        ahead_rows_[count++] = ahead_ + ((s - first) * rows_ + local) * ahead_stride_;
      }
    static constexpr Real Zeros[PanelColumns<Real>] = {};
    for (Index block = blocks_.first; block < blocks_.last; ++block) {
      const Real* panel = w_.input + block * PanelColumns<Real> * Form::words(w_.C);
      const Real* bias = options_.normed ? Zeros : bias_ + block * PanelColumns<Real>;
      for_each_tile(count, [&](Index tile_first, int rows) {
        const Real* start[TileRows];
        Real* out[TileRows];
        for (int r = 0; r < rows; ++r) {
          start[r] = bias;
          out[r] = ahead_rows_[tile_first + r] + block * PanelColumns<Real>;
        }
        Form::tile(rows, PanelVectors)(x_rows_ + tile_first, panel, Form::words(w_.C), start, out);
      });
    }
  }

  void begin_step(Index s, Index ahead) {
    count_ = 0;
    const Index t = time(s);
    const bool writes_rows = blocks_.first == 0;
    for (Index local = 0; local < rows_; ++local) {
      const Index n = sequences_.first + local;
      if (!active(n, t)) {
        if (writes_rows) pad(n, t);
        if (options_.feeds_copy)
          std::memcpy(fed_copy(local, 1 - parity_), fed_copy(local, parity_),
                      static_cast<std::size_t>(w_.recurrent_depth()) * sizeof(Real));
        continue;
      }
      if (call_.reset && *call_.reset.row(n, t)) restart(local, call_.initial_h, call_.initial_c, n);
      Row& row = row_[count_];
      row.n = n;
      row.local = local;
      row.c = c_ + local * layout_.padded;
      row.y = call_.y.row(n, t);
      row.tape = call_.tape ? call_.tape + (s * call_.N + n) * layout_.row + layout_.noise
                            : spare_tape_ ? spare_tape_ + local * layout_.row + layout_.noise : nullptr;
      row.cells = call_.cells ? call_.cells.row(n, t) : nullptr;
      row.gates = call_.gates ? call_.gates.row(n, t) : nullptr;
      row.h_old = h_[local];
      row.noise = {};
      fed_[count_] = options_.feeds_copy ? fed_copy(local, parity_) : h_[local];
      starts_[count_++] = ahead_ + (ahead * rows_ + local) * ahead_stride_;
    }
    if (noise_.silent()) return;
    noise_.draw(call_.noise.seed, call_.noise.first + t, count_, [&](Index k) { return row_[k].n; },
                [&](Index k) { return noise_bits(layout_, row_[k].tape); });
    for (Index k = 0; k < count_; ++k) row_[k].noise = noise_of_row(layout_, row_[k].tape);
  }

  void pad(Index n, Index t) {
    std::memset(call_.y.row(n, t), 0, bytes_of(w_.P));
    if (call_.cells) std::memset(call_.cells.row(n, t), 0, static_cast<std::size_t>(w_.H) * sizeof(Real));
    if (call_.gates) std::memset(call_.gates.row(n, t), 0, static_cast<std::size_t>(Gates * w_.H) * sizeof(Real));
  }

  Index recurrent_words() const { return Form::words(w_.recurrent_depth()); }
  const Real* recurrent_panel(Index block) const { return w_.recurrent + block * PanelColumns<Real> * recurrent_words(); }

  // Calls cell(row, a) for each active row of a block, a the block's pre-activations while they are in cache.
  template <class CellOfRow>
  void multiply_block(Index block, CellOfRow&& cell) {
    const Real* panel = recurrent_panel(block);
    for_each_tile(count_, [&](Index first, int rows) {
      alignas(RegisterBytes) Real a[TileRows][PanelColumns<Real>];
      const Real* start[TileRows];
      Real* out[TileRows];
      for (int r = 0; r < rows; ++r) {
        start[r] = starts_[first + r] + block * PanelColumns<Real>;
        out[r] = a[r];
      }
      Form::tile(rows, PanelVectors)(fed_ + first, panel, recurrent_words(), start, out);
      for (int r = 0; r < rows; ++r) cell(row_[first + r], a[r]);
    });
  }

  int valid(Index block) const { return static_cast<int>(std::min<Index>(Lanes<Real>, w_.H - block * Lanes<Real>)); }

  void put(Real* to, Vector<Real> value, Index block) const {
    const int count = valid(block);
    if (count == Lanes<Real>) store(to + block * Lanes<Real>, value);
    else store_first(to + block * Lanes<Real>, value, count);
  }

  // h where the next product reads it, in the type of x.
  void put_h(Real* y, Vector<Real> h, Index first, int count) const { Form::store(y, first, Form::held(h, w_.rounding), count); }

  template <bool Keep>
  void plain_step() {
    if constexpr (!Form::paired)
      if (takes_one_row()) return plain_step_of_one<Keep>();
    turns_ = count_ == 1 && !turns_;
    for (Index k = 0; k < blocks_.size(); ++k) {
      const Index block = turns_ ? blocks_.last - 1 - k : blocks_.first + k;
      multiply_block(block, [&](Row& row, const Real* a) {
        PlainCell<Real> cell;
        cell.a = a;
        cell.c = row.c + block * Lanes<Real>;
        cell.run();
        keep_plain<Keep>(row, block, cell);
      });
    }
  }

  bool takes_one_row() const { return !Form::paired && options_.plain && count_ == 1; }

  // Every other step from the last block: what was read last is still in cache. The first member's own units of the
  // step before are the first values of h: it multiplies them before it awaits the others.
  template <bool Keep>
  void plain_step_of_one() {
    Row& row = row_[0];
    const Index depth = w_.recurrent_depth(), early = barrier_ && member_ == 0 ? std::min(blocks_.last * Lanes<Real>, depth) : 0;
    turns_ = !turns_;
    const auto block_of = [&](Index k) { return turns_ ? blocks_.first + k : blocks_.last - 1 - k; };
    const auto start_of = [&](Index block) { return starts_[0] + block * PanelColumns<Real>; };
    cells_of_one_row<Real>(blocks_.size(),
        [&](Real* out) {
          const Real *panel = recurrent_panel(block_of(0)), *start = start_of(block_of(0)), *rest = fed_[0] + early;
          tile<Real, 1, PanelVectors>(fed_, panel, early, &start, &out);
          await_others();
          for (Index k = early; k < depth; k += Lanes<Real>) __builtin_prefetch(fed_[0] + k);  // from the others' caches, at once
          start = out;
          tile<Real, 1, PanelVectors>(&rest, panel + early * PanelColumns<Real>, depth - early, &start, &out);
        },
        [&](Index k, Real* out, PlainCell<Real>& before) {
          tile_beside_cell<Real>(fed_[0], recurrent_panel(block_of(k)), depth, start_of(block_of(k)), out, before);
        },
        [&](Index k) { return row.c + block_of(k) * Lanes<Real>; },
        [&](Index k, const PlainCell<Real>& cell) { keep_plain<Keep>(row, block_of(k), cell); });
  }

  template <bool Keep>
  void keep_plain(Row& row, Index block, const PlainCell<Real>& cell) {
    put_h(row.y, cell.h, block * Lanes<Real>, valid(block));
    if constexpr (Keep) cell.keep(row.tape + block * TapeFields * Lanes<Real>);
    if (row.cells) put(row.cells, cell.cell, block);
    for (int q = 0; row.gates && q < Gates; ++q) put(row.gates + q * w_.H, cell.gate(q), block);
  }

  void keep(Row& row, Index block, const Real* fields) {
    if (row.cells) put(row.cells, load(row.c + block * Lanes<Real>), block);
    if (!row.gates) return;
    for (int q = 0; q < Gates; ++q) put(row.gates + q * w_.H, load(fields + q * Lanes<Real>), block);
  }

  void variant_step() {
    constexpr int L = Lanes<Real>;
    const Options<Real> options = options_;  // of its own: no store in the loop can change it
    for (Index block = blocks_.first; block < blocks_.last; ++block)
      multiply_block(block, [&](Row& row, const Real* a) {
        Real* fields = row.tape + block * layout_.fields * L;
        Real* c = row.c + block * L;
        const HalfCell<Real> half = gates_of_block<Real>(options, w_, block, a, c, row.noise, fields);
        emit(row, block, fields, output_of_block<Real>(options, w_, block, half, fields, c, row.noise));
      });
  }

  // (7) for h, and what is kept, of one block; a projection comes first where there is one.
  void emit(Row& row, Index block, const Real* fields, Vector<Real> h) {
    constexpr int L = Lanes<Real>;
    keep(row, block, fields);
    if (w_.variant.gate_recurrence) {
      Real* s = fed_copy(row.local, 1 - parity_) + w_.P;
      for (int q = 0; q < Gates; ++q)
        if (w_.sigmoid_first[q] >= 0) put(s + w_.sigmoid_first[q], load(fields + q * L), block);
    }
    if (options_.projected) return store(unprojected_ + row.local * layout_.padded + block * L, h);
    put_h(row.y, finished(row, h, block * L, valid(block)), block * L, valid(block));
  }

  // Clip and zoneout of h~ for `count` outputs from the first.
  Vector<Real> finished(const Row& row, Vector<Real> h, Index first, int count) {
    const Variant& v = w_.variant;
    if (std::isfinite(v.projection_clip)) {
      if (row.tape) store_first(row.tape + layout_.clipped + first, h, count);
      h = clamp<Real>(h, static_cast<Real>(v.projection_clip));
    }
    if (!options_.zones_h) return h;
    return zoned<Real>(options_, Form::load(row.h_old, first, count), h,
                       row.noise.old_h ? row.noise.old_h + first / Lanes<Real> : nullptr, options_.share_h);
  }

  void normed_step() {
    constexpr int L = Lanes<Real>;
    for (Index block = blocks_.first; block < blocks_.last; ++block) {
      const Real* panel = w_.recurrent + block * PanelColumns<Real> * w_.recurrent_depth();
      static constexpr Real Zeros[PanelColumns<Real>] = {};
      for_each_tile(count_, [&](Index first, int rows) {
        const Real* start[TileRows];
        Real* out[TileRows];
        for (int r = 0; r < rows; ++r) {
          start[r] = w_.variant.norm == Norm::per_gate ? starts_[first + r] + block * PanelColumns<Real> : Zeros;
          out[r] = products_ + (first + r) * layout_.wide + block * PanelColumns<Real>;
        }
        tile_for<Real>(rows, PanelVectors)(fed_ + first, panel, w_.recurrent_depth(), start, out);
      });
    }
    const Options<Real> options = options_;  // of its own: no store in the loop can change it
    for (Index k = 0; k < count_; ++k) {
      Row& row = row_[k];
      Real* a = products_ + k * layout_.wide;
      if (k + RowsFetched < count_) fetch_tape<true>(row_[k + RowsFetched].tape, layout_);
      norm_products(row, starts_[k], a);
      for (Index block = 0; block < layout_.blocks; ++block)
        gates_of_block<Real>(options, w_, block, a + block * PanelColumns<Real>, row.c + block * L, row.noise,
                             row.tape + block * layout_.fields * L);
      if (w_.variant.norm != Norm::products) norm_cell(row);
      for (Index block = 0; block < layout_.blocks; ++block) {
        Real* fields = row.tape + block * layout_.fields * L;
        const HalfCell<Real> half{load(fields + FieldO * L), load(fields + FieldNew * L)};
        emit(row, block, fields, output_of_block<Real>(options, w_, block, half, fields, row.c + block * L, row.noise));
      }
    }
  }

  // (2) with a norm: r (in a) and z become the pre-activations (in a).
  void norm_products(Row& row, const Real* z, Real* a) {
    constexpr int L = Lanes<Real>;
    const GateList gates(w_.variant);
    Real* statistics = row.tape + layout_.statistics;
    const auto field = [&, tape = row.tape, fields = layout_.fields](Index block, int which) { return tape + (block * fields + which) * L; };
    const Real *bias = bias_, *gain_z = w_.gain_ih, *gain_r = w_.gain_hh;
    if (w_.variant.norm == Norm::per_gate) {
      for (int p = 0; p < gates.count; ++p) {
        const int q = gates.gate[p];
        const auto place = [&](Index block) { return block * PanelColumns<Real> + q * L; };
        statistics[InverseR + q] = normalise<Real>(w_.H, w_.variant.norm_eps, [&](Index block) { return a + place(block); },
            [&](Index block, Vector<Real> n) {
              store(field(block, FieldNormR + q), n);
              store(a + place(block), load(gain_r + place(block)) * n + load(bias + place(block)));
            });
      }
      return;
    }
    const Index blocks = layout_.blocks;
    const double count = static_cast<double>(w_.H * gates.count), eps = w_.variant.norm_eps;
    const Vector<Real> last = units_of_block<Real>(blocks - 1, w_.H);
    const auto each = [&](auto&& body) {
      for (Index block = 0; block < blocks; ++block)
        for (int p = 0; p < gates.count; ++p) body(block, gates.gate[p], block * PanelColumns<Real> + gates.gate[p] * L);
    };
    // Both norms in the same passes: each waits for chains of its own.
    Vector<Real> sum_z{}, sum_r{}, squares_z{}, squares_r{};
    each([&](Index, int, Index place) {
      sum_z += load(z + place);
      sum_r += load(a + place);
    });
    Normal<Real> norm_z(sum_z, count), norm_r(sum_r, count);
    const auto centred = [&](Index block, Vector<Real> value, const Normal<Real>& norm) {
      value -= norm.mean;
      return block == blocks - 1 ? value * last : value;
    };
    each([&](Index block, int, Index place) {
      const Vector<Real> of_z = centred(block, load(z + place), norm_z), of_r = centred(block, load(a + place), norm_r);
      squares_z += of_z * of_z;
      squares_r += of_r * of_r;
    });
    norm_z.scale(squares_z, count, eps);
    norm_r.scale(squares_r, count, eps);
    each([&](Index block, int q, Index place) {
      const Vector<Real> of_z = centred(block, load(z + place), norm_z) * norm_z.inverse;
      const Vector<Real> of_r = centred(block, load(a + place), norm_r) * norm_r.inverse;
      store(field(block, FieldNormZ + q), of_z);
      store(field(block, FieldNormR + q), of_r);
      store(a + place, load(gain_z + place) * of_z + load(gain_r + place) * of_r + load(bias + place));
    });
    statistics[InverseZ] = norm_z.inverse;
    statistics[InverseR] = norm_r.inverse;
  }

  void norm_cell(Row& row) {
    constexpr int L = Lanes<Real>;
    const auto field = [&](Index block, int which) { return row.tape + (block * layout_.fields + which) * L; };
    row.tape[layout_.statistics + InverseC] = normalise<Real>(w_.H, w_.variant.norm_eps,
        [&](Index block) { return field(block, FieldNew); },
        [&](Index block, Vector<Real> n) {
          store(field(block, FieldNormC), n);
          if (w_.variant.norm == Norm::per_gate)
            store(field(block, FieldNew), load(w_.gain_c + block * L) * n + load(w_.shift_c + block * L));
        });
  }

  void project() {
    const Panels<Real> matrix{w_.projection, w_.H, w_.P};
    for (Index k = 0; k < count_; ++k) {
      starts_[k] = unprojected_ + row_[k].local * layout_.padded;
      ends_[k] = row_[k].y;
    }
    for (Index p = 0; p < matrix.count(); ++p)
      multiply_panel<Real>(matrix, p, count_, starts_, nullptr, ends_);
    if (!options_.zones_h && !std::isfinite(w_.variant.projection_clip) && w_.rounding == Rounding::none) return;
    for (Index k = 0; k < count_; ++k)
      for (Index first = 0; first < w_.P; first += Lanes<Real>) {
        const int count = static_cast<int>(std::min<Index>(Lanes<Real>, w_.P - first));
        put_h(row_[k].y, finished(row_[k], load_first(row_[k].y + first, count), first, count), first, count);
      }
  }

  void end_step() {
    for (Index k = 0; k < count_; ++k) {
      const Row& row = row_[k];
      h_[row.local] = row.y;
      if (options_.feeds_copy) feed(row.local, fed_copy(row.local, 1 - parity_));
    }
    if (options_.feeds_copy) parity_ = 1 - parity_;
  }

  void finish() {
    for (Index local = 0; local < rows_; ++local) {
      const Index n = sequences_.first + local, unit = blocks_.first * Lanes<Real>;
      const Index units = std::min(blocks_.last * Lanes<Real>, w_.H) - unit;
      std::memcpy(call_.c_n.row(n) + unit, c_ + local * layout_.padded + unit, static_cast<std::size_t>(units) * sizeof(Real));
      if (blocks_.first != 0) continue;
      std::memcpy(call_.h_n.row(n), h_[local], bytes_of(w_.P));
      if (w_.variant.gate_recurrence)
        std::memcpy(call_.c_n.row(n) + w_.H, fed_copy(local, parity_) + w_.P,
                    static_cast<std::size_t>(w_.recurrent_depth() - w_.P) * sizeof(Real));
    }
  }

  const Call& call_;
  const Packed& w_;
  const Real* const bias_;
  const Options<Real> options_;
  const Layout<Real> layout_;
  const Range sequences_, blocks_;
  Barrier* const barrier_;
  const int member_;
  const Index rows_;
  StepNoise<Real> noise_;
  Index steps_ahead_ = 0, ahead_stride_ = 0, mask_stride_ = 0, fed_stride_ = 0, count_ = 0, parity_ = 0;
  Real *ahead_ = nullptr, *c_ = nullptr, *spare_tape_ = nullptr, *products_ = nullptr;
  Real *unprojected_ = nullptr, *fed_copy_ = nullptr, *mask_h_ = nullptr, *zeros_ = nullptr;
  const Real **x_rows_ = nullptr, **starts_ = nullptr, **fed_ = nullptr, **h_ = nullptr;
  Real **ahead_rows_ = nullptr, **ends_ = nullptr;
  Row* row_ = nullptr;
  bool turns_ = false;
};

template <class Real, class Form = Whole<Real>>
void run_forward(const ForwardCall<Real>& call, const PackedWeights<Real>& w) {
  if (call.N == 0) return;
  const Options<Real> options(w, call.noise);
  const Index blocks = block_count<Real>(w.H);
  const Split cut = split(call.N, call.T, blocks, Gates * w.H * w.recurrent_depth(), call.threads, options.units_may_split());
  std::vector<std::unique_ptr<Arena>> arenas;
  std::vector<std::unique_ptr<Barrier>> barriers;
  for (int group = 0; group < cut.groups; ++group) barriers.push_back(std::make_unique<Barrier>(cut.members));
  for (int i = 0; i < cut.threads(); ++i) {
    const Range sequences = part(call.N, cut.groups, i / cut.members);
    arenas.push_back(std::make_unique<Arena>(Forward<Real, Form>::room(call, w, sequences.size())));
  }
  const Real* bias = w.bias;
  if (call.bias) {
    const std::size_t bytes = static_cast<std::size_t>(blocks * PanelColumns<Real>) * sizeof(Real);
    arenas.push_back(std::make_unique<Arena>(Arena::padded(bytes)));
    Real* own = reinterpret_cast<Real*>(arenas.back()->take(bytes));
    GateRows gates;
    std::copy(w.gate_first, w.gate_first + Gates, gates.first);
    pack_vector(own, call.bias, gates, w.H);
    bias = own;
  }
  run_team(cut.threads(), [&](int i) {
    const int group = i / cut.members;
    Forward<Real, Form>(call, w, bias, part(call.N, cut.groups, group), part(blocks, cut.members, i % cut.members),
                  cut.members > 1 ? barriers[static_cast<std::size_t>(group)].get() : nullptr, i % cut.members,
                  *arenas[static_cast<std::size_t>(i)]).run();
  });
}

}  // namespace longshort::LONGSHORT_ISA

// The way back: one member's share of a call, from the last step to the first.
//
// Chunks of steps: first the recurrence, which leaves the gradients of the pre-activations of the chunk in
// memory that all members share; then, while they are in cache, the gradients of the inputs and weights.
#pragma once

#include "gradient.hpp"
#include "variant_cell_back.hpp"

namespace longshort::LONGSHORT_ISA {

constexpr Index RowsPerProduct = 768;  // fewer rows in a chunk than this, and reading and writing dW costs more than it need

// What the members of a call share. Lists hold a row for each sequence and step of a chunk that is active,
// group after group. In pairs the recurrent products and those for x read dr rounded, from rows of their own.
template <class Real, class Form = Whole<Real>>
struct BackwardShared {
  BackwardShared(const BackwardCall<Real>& c, const PackedWeights<Real>& weights)
      : call(c), w(weights), options(w, c.noise), layout(w, options), plain(options.plain && !c.dcells && !c.dgates) {
    const Index blocks = layout.blocks, panels = ceil_div(w.P, PanelColumns<Real>);
    cut = split(c.N, c.T, std::min(blocks, panels), Gates * w.H * w.recurrent_depth(), c.threads, options.units_may_split() && plain);
    const Index rows = ceil_div(c.N, cut.groups);
    const Index row_bytes = std::max<Index>(1, rows * layout.wide * static_cast<Index>(sizeof(Real)));
    steps = std::max<Index>(static_cast<Index>(512 * 1024) / row_bytes, ceil_div(RowsPerProduct, std::max<Index>(1, c.N)));
    steps = std::clamp<Index>(steps, 1, std::max<Index>(1, c.T));
    two_products = w.variant.norm == Norm::ba2016 || w.variant.norm == Norm::products;
    sizes();
    list_groups();
  }

  void sizes() {
    const Index most = call.N * steps;
    da_stride = layout.wide + Lanes<Real>;
    fed_stride = w.recurrent_depth() + Lanes<Real>;
    m_stride = layout.padded + Lanes<Real>;
    out_stride = ceil_div(w.P, Lanes<Real>) * Lanes<Real> + Lanes<Real>;
    const auto bytes = [](Index values) { return Arena::padded(static_cast<std::size_t>(values) * sizeof(Real)) + 64; };
    const auto panel_values = [&](Index columns) { return most * ceil_div(columns, Lanes<Real>) * Lanes<Real>; };
    std::size_t total = bytes(most * da_stride) * (two_products ? 2 : 1) + 8 * (Arena::padded(static_cast<std::size_t>(most) * sizeof(Real*)) + 64);
    if (options.feeds_copy) total += bytes(most * fed_stride);
    if (Form::paired) total += bytes(most * dr_words_stride());
    if (w.projected) total += bytes(most * (m_stride + out_stride)) + bytes(panel_values(w.H)) + 64;
    total += bytes(panel_values(w.C)) + bytes(panel_values(w.P)) + bytes(panel_values(w.recurrent_depth() - w.P)) + bytes(layout.wide);
    arena = std::make_unique<Arena>(total + 4096);
    const auto values = [&](Index count) { return reinterpret_cast<Real*>(arena->take(static_cast<std::size_t>(count) * sizeof(Real))); };
    const auto pointers = [&] { return reinterpret_cast<const Real**>(arena->take(static_cast<std::size_t>(most) * sizeof(Real*))); };
    dr = values(most * da_stride);
    dz = two_products ? values(most * da_stride) : dr;
    if (Form::paired) dr_words = values(most * dr_words_stride());
    if (options.feeds_copy) fed = values(most * fed_stride);
    if (w.projected) {
      m = values(most * m_stride);
      out = values(most * out_stride);
    }
    dr_rows = pointers();
    dz_rows = pointers();
    m_rows = pointers();
    out_rows = pointers();
    dx_rows = const_cast<Real**>(pointers());
    input = {pointers(), w.C, call.dw_ih, values(panel_values(w.C))};
    recurrent = {pointers(), w.P, call.dw_hh, values(panel_values(w.P))};
    gates = {pointers(), w.recurrent_depth() - w.P, call.dw_gates, values(panel_values(w.recurrent_depth() - w.P))};
    if (w.projected) projection = {m_rows, w.H, call.dw_hr, values(panel_values(w.H))};
    bias_sums = values(layout.wide);
    std::memset(bias_sums, 0, static_cast<std::size_t>(layout.wide) * sizeof(Real));
    counts.assign(static_cast<std::size_t>(cut.groups), 0);
  }

  Index dr_words_stride() const { return Form::words(layout.wide) + Lanes<Real>; }

  void list_groups() {
    for (Index block = 0; block < layout.blocks; ++block)
      for (int q = 0; q < Gates; ++q) {
        const Index column = block * PanelColumns<Real> + q * Lanes<Real>, unit = block * Lanes<Real>;
        const Index count = std::min<Index>(Lanes<Real>, w.H - unit);
        if (w.gate_first[q] >= 0) gate_groups.push_back({column, w.gate_first[q] + unit, count});
        if (w.sigmoid_first[q] >= 0) sigmoid_groups.push_back({column, w.sigmoid_first[q] + unit, count});
      }
    for (Index p = 0; w.projected && p < w.P; p += Lanes<Real>) output_groups.push_back({p, p, std::min<Index>(Lanes<Real>, w.P - p)});
  }

  const BackwardCall<Real>& call;
  const PackedWeights<Real>& w;
  const Options<Real> options;
  const Layout<Real> layout;
  const bool plain;
  Split cut;
  Index steps = 1;
  bool two_products = false;
  Index da_stride = 0, fed_stride = 0, m_stride = 0, out_stride = 0;
  std::unique_ptr<Arena> arena;
  Real *dr = nullptr, *dz = nullptr, *dr_words = nullptr, *fed = nullptr, *m = nullptr, *out = nullptr, *bias_sums = nullptr;
  const Real **dr_rows = nullptr, **dz_rows = nullptr, **m_rows = nullptr, **out_rows = nullptr;
  Real** dx_rows = nullptr;
  WeightGradient<Real> input, recurrent, gates, projection;
  std::vector<RowGroup> gate_groups, sigmoid_groups, output_groups;
  std::vector<Index> counts;  // active rows of each group in this chunk
};

template <class Real, class Form = Whole<Real>>
class Backward {
 public:
  using Shared = BackwardShared<Real, Form>;

  static std::size_t room(const Shared& s, Index rows) {
    const Index masks = rows * (ceil_div(s.w.P, 4) * 4 + Lanes<Real>);
    const Index carry = ceil_div(s.w.recurrent_depth(), PanelColumns<Real>) * PanelColumns<Real>;
    Index values = rows * (2 * carry + 3 * s.layout.padded) + masks + 4 * s.layout.wide + 2 * s.layout.padded + 4 * s.layout.padded;
    values += s.w.P + 16 * Lanes<Real>;
    const auto share = [&](const std::vector<RowGroup>& groups) {
      return ceil_div(static_cast<Index>(groups.size()), s.cut.threads());
    };
    return static_cast<std::size_t>(values) * sizeof(Real) + static_cast<std::size_t>(rows) * 512 + 64 * 32 +
           TransposedRows<Real, Form>::bytes(share(s.gate_groups), s.call.N * s.steps) * (s.two_products ? 2 : 1) +
           TransposedRows<Real, Form>::bytes(share(s.output_groups), s.call.N * s.steps);
  }

  Backward(Shared& shared, int thread, Barrier& everyone, Barrier* group, Arena& arena)
      : s_(shared), call_(shared.call), w_(shared.w), options_(shared.options), layout_(shared.layout),
        thread_(thread), group_index_(thread / shared.cut.members), member_(thread % shared.cut.members),
        sequences_(part(call_.N, shared.cut.groups, group_index_)), everyone_(everyone), group_(group),
        rows_(sequences_.size()), recurrent_{w_.recurrent_back, Form::words(layout_.wide), w_.recurrent_depth()},
        panels_(part(recurrent_.count(), shared.cut.members, member_)) {
    const auto values = [&](Index count) { return reinterpret_cast<Real*>(arena.take(static_cast<std::size_t>(count) * sizeof(Real))); };
    const auto pointers = [&](Index count) { return reinterpret_cast<Real**>(arena.take(static_cast<std::size_t>(count) * sizeof(Real*))); };
    constexpr Index per_panel = PanelColumns<Real> / Lanes<Real>;
    blocks_ = s_.cut.members == 1 ? Range{0, layout_.blocks}
                                  : Range{panels_.first * per_panel, std::min(panels_.last * per_panel, layout_.blocks)};
    carry_stride_ = recurrent_.count() * PanelColumns<Real>;
    mask_stride_ = ceil_div(w_.P, 4) * 4;
    dh_ = values(rows_ * carry_stride_);
    dout_ = values(rows_ * carry_stride_);
    dc_ = values(rows_ * layout_.padded);
    dm_ = values(rows_ * layout_.padded);
    mask_h_ = values(rows_ * mask_stride_);
    const auto sums = [&](Index count) {
      Real* place = values(count);
      std::memset(place, 0, static_cast<std::size_t>(count) * sizeof(Real));
      return place;
    };
    sums_ = {sums(layout_.wide), sums(layout_.wide), sums(layout_.wide), sums(layout_.wide), sums(layout_.padded), sums(layout_.padded)};
    dnew_ = values(layout_.padded);
    dnormed_ = values(layout_.padded);
    rows_of_chunk_.reserve(static_cast<std::size_t>(call_.N * s_.steps));
    lists_.reserve(static_cast<std::size_t>(s_.cut.groups));
    zeros_ = sums(w_.P);
    row_ = reinterpret_cast<Row*>(arena.take(static_cast<std::size_t>(rows_) * sizeof(Row)));
    from_ = const_cast<const Real**>(pointers(rows_));
    to_ = pointers(rows_);
    const auto share = [&](const std::vector<RowGroup>& groups) { return part(static_cast<Index>(groups.size()), s_.cut.threads(), thread_); };
    gate_share_ = share(s_.gate_groups);
    output_share_ = share(s_.output_groups);
    const Index most = call_.N * s_.steps;
    const auto transposed = [&](Index groups) { return reinterpret_cast<Real*>(arena.take(TransposedRows<Real, Form>::bytes(groups, most))); };
    dr_columns_.place(transposed(gate_share_.size()), most);
    if (s_.two_products) dz_columns_.place(transposed(gate_share_.size()), most);
    if (w_.projected) out_columns_.place(transposed(output_share_.size()), most);
  }

  void run() {
    begin();
    bool first = true;
    for (Index last = call_.T; first || last > 0; last -= s_.steps) {
      const Index from = std::max<Index>(0, last - s_.steps);
      listed_ = sequences_.first * s_.steps;
      for (Index s = last - 1; s >= from; --s) step(s);
      if (member_ == 0) s_.counts[static_cast<std::size_t>(group_index_)] = listed_ - sequences_.first * s_.steps;
      everyone_.wait(thread_);
      const Index rows = gather();
      everyone_.wait(thread_);
      sum_weights(rows, first);
      first = false;
    }
    finish();
  }

  const RowSums<Real>& sums() const { return sums_; }

 private:
  struct Row {
    Index n, local;
    const Real *tape, *c_before, *dy;
    Real *dr, *dz, *dr_words, *m, *out;
    bool reset;
  };

  Index time(Index s) const { return call_.reverse ? call_.T - 1 - s : s; }
  bool active(Index n, Index t) const { return !call_.lengths || t < call_.lengths[n]; }
  bool resets(Index n, Index t) const { return call_.reset && *call_.reset.row(n, t); }
  const Real* tape_row(Index n, Index s) const { return call_.tape + (s * call_.N + n) * layout_.row + layout_.noise; }

  void begin() {
    for (Index local = 0; local < rows_; ++local) {
      const Index n = sequences_.first + local;
      Real *dh = dh_ + local * carry_stride_, *dc = dc_ + local * layout_.padded;
      std::memset(dh, 0, static_cast<std::size_t>(carry_stride_) * sizeof(Real));
      std::memset(dout_ + local * carry_stride_, 0, static_cast<std::size_t>(carry_stride_) * sizeof(Real));
      std::memset(dc, 0, static_cast<std::size_t>(layout_.padded) * sizeof(Real));
      if (call_.dh_n) std::memcpy(dh, call_.dh_n.row(n), static_cast<std::size_t>(w_.P) * sizeof(Real));
      if (call_.dc_n) {
        std::memcpy(dc, call_.dc_n.row(n), static_cast<std::size_t>(w_.H) * sizeof(Real));
        std::memcpy(dh + w_.P, call_.dc_n.row(n) + w_.H, static_cast<std::size_t>(w_.recurrent_depth() - w_.P) * sizeof(Real));
      }
      if (options_.drops_h)
        draw<Real>(mask_h_ + local * mask_stride_, w_.P, call_.noise.seed, VariationalH, 0, n, call_.noise.variational_h,
                   static_cast<Real>(1 / (1 - call_.noise.variational_h)), Real(0));
      if (member_ != 0) continue;
      if (call_.dinitial_h) std::memset(call_.dinitial_h.row(n), 0, static_cast<std::size_t>(w_.P) * sizeof(Real));
      if (call_.dinitial_c) std::memset(call_.dinitial_c.row(n), 0, static_cast<std::size_t>(cell_values()) * sizeof(Real));
    }
    if (s_.cut.members > 1) group_->wait(member_);
  }

  Index cell_values() const { return w_.H + w_.recurrent_depth() - w_.P; }

  // The state that sequence n had before its active step s: the last step's, or where it started or restarted.
  struct Before {
    const Real *h, *c, *s_tape, *s_given;
  };
  Before before(Index n, Index s) const {
    if (resets(n, time(s))) return given(call_.initial_h, call_.initial_c, n);
    if (s > 0 && active(n, time(s - 1))) {
      const Real* tape = tape_row(n, s - 1);
      return {call_.y.row(n, time(s - 1)), tape, tape, nullptr};
    }
    return given(call_.h, call_.c, n);
  }
  Before given(const Rows<const Real>& h, const Rows<const Real>& c, Index n) const {
    const Real* cell = c ? c.row(n) : nullptr;
    return {h ? h.row(n) : zeros_, cell, nullptr, cell && w_.variant.gate_recurrence ? cell + w_.H : nullptr};
  }

  void step(Index s) {
    list_rows(s);
    if (s_.plain) plain_cells();
    else variant_cells();
    if (s_.cut.members > 1) group_->wait(member_);
    multiply_back();
    if (call_.reset) restart(time(s));
  }

  void list_rows(Index s) {
    count_ = 0;
    const Index t = time(s);
    for (Index local = 0; local < rows_; ++local) {
      const Index n = sequences_.first + local;
      if (!active(n, t)) {
        if (call_.dx && member_ == 0) std::memset(call_.dx.row(n, t), 0, static_cast<std::size_t>(Form::words(w_.C)) * sizeof(Real));
        continue;
      }
      Row& row = row_[count_++];
      const Before start = before(n, s);
      const Index place = listed_++;
      row.n = n;
      row.local = local;
      row.tape = tape_row(n, s);
      row.c_before = start.c;
      row.reset = !start.s_tape;
      row.dy = call_.dy ? call_.dy.row(n, t) : nullptr;
      row.dr = s_.dr + place * s_.da_stride;
      row.dz = s_.dz + place * s_.da_stride;
      row.dr_words = Form::paired ? s_.dr_words + place * s_.dr_words_stride() : nullptr;
      row.m = w_.projected ? s_.m + place * s_.m_stride : nullptr;
      row.out = w_.projected ? s_.out + place * s_.out_stride : nullptr;
      if (member_ != 0) continue;
      s_.dr_rows[place] = row.dr;
      s_.dz_rows[place] = Form::paired ? row.dr_words : row.dz;
      s_.m_rows[place] = row.m;
      s_.out_rows[place] = row.out;
      s_.input.right[place] = call_.x.row(n, t);
      if (call_.dx) s_.dx_rows[place] = call_.dx.row(n, t);
      s_.recurrent.right[place] = start.h;
      if (options_.feeds_copy) feed(start, local, place);
    }
    t_ = t;
  }

  // What the recurrent product read at this step, where that was a copy.
  void feed(const Before& start, Index local, Index place) {
    Real* fed = s_.fed + place * s_.fed_stride;
    copy_masked<Real>(fed, start.h, options_.drops_h ? mask_h_ + local * mask_stride_ : nullptr, w_.P);
    for (int q = 0; q < Gates; ++q) {
      if (!w_.variant.gate_recurrence || w_.sigmoid_first[q] < 0) continue;
      for (Index u = 0; u < w_.H; ++u)
        fed[w_.P + w_.sigmoid_first[q] + u] =
            start.s_tape ? start.s_tape[((u / Lanes<Real>)*layout_.fields + q) * Lanes<Real> + u % Lanes<Real>]
            : start.s_given ? start.s_given[w_.sigmoid_first[q] + u] : Real(0);
    }
    s_.recurrent.right[place] = fed;
    s_.gates.right[place] = fed + w_.P;
  }

  int valid(Index block) const { return static_cast<int>(std::min<Index>(Lanes<Real>, w_.H - block * Lanes<Real>)); }

  // c_{t-1} where it stands: in the tape of the step before (blocks apart), or in a row of a state.
  Vector<Real> cell_before(const Row& row, Index block) const {
    constexpr int L = Lanes<Real>;
    if (!row.reset) return load(row.c_before + (block * layout_.fields + FieldC) * L);
    return row.c_before ? load_first(row.c_before + block * L, valid(block)) : Vector<Real>{};
  }

  // c_{t-1} is the first that is read of the tape of the step before, with gaps that no stream of loads fills: it is
  // fetched some blocks of units ahead.
  void fetch_cells_before(Index k) const {
    constexpr int L = Lanes<Real>;
    constexpr Index blocks_ahead = 16;
    k += std::max<Index>(1, blocks_ahead / layout_.blocks);
    if (k >= count_ || row_[k].reset) return;
    for (Index block = blocks_.first; block < blocks_.last; ++block)
      __builtin_prefetch(row_[k].c_before + (block * layout_.fields + FieldC) * L);
  }

  void plain_cells() {
    constexpr int L = Lanes<Real>;
    for (Index k = 0; k < count_; ++k) {
      const Row& row = row_[k];
      fetch_cells_before(k);
      const Real* dh = dh_ + row.local * carry_stride_;
      Real* dc = dc_ + row.local * layout_.padded;
      for (Index block = blocks_.first; block < blocks_.last; ++block) {
        Vector<Real> total = load(dh + block * L);
        if (row.dy) total += Form::load(row.dy, block * L, valid(block));
        plain_cell_back<Real>(row.tape + block * TapeFields * L, cell_before(row, block), total, dc + block * L,
                              row.dr + block * PanelColumns<Real>);
      }
      from_[k] = as_operand(row);
      to_[k] = dh_ + row.local * carry_stride_;
    }
    starts_ = nullptr;
  }

  // dr as the product reads it.
  const Real* as_operand(const Row& row) const {
    if constexpr (!Form::paired) return row.dr;
    for (Index k = blocks_.first * PanelColumns<Real>; k < blocks_.last * PanelColumns<Real>; k += Lanes<Real>)
      Form::store(row.dr_words, k, load(row.dr + k), Lanes<Real>);
    return row.dr_words;
  }

  void variant_cells() {
    constexpr int L = Lanes<Real>;
    const bool direct = !w_.projected && !std::isfinite(w_.variant.projection_clip);
    for (Index k = 0; k < count_ && !direct; ++k) output_gradient(row_[k]);
    if (w_.projected) unproject();
    const VariantCellBack<Real> cell(options_, w_, layout_, sums_);
    for (Index k = 0; k < count_; ++k) {
      Row& row = row_[k];
      fetch_cells_before(k);
      if (k + RowsFetched < count_) fetch_tape<false>(row_[k + RowsFetched].tape, layout_);
      Real* dh = dh_ + row.local * carry_stride_;
      RowBack<Real> back{};
      back.tape = row.tape;
      back.c_before = row.c_before && !row.reset ? row.c_before + FieldC * L : row.c_before;
      back.c_step = row.reset ? L : layout_.fields * L;
      back.c_given = row.reset;
      back.dcells = call_.dcells ? call_.dcells.row(row.n, t_) : nullptr;
      back.dgates = call_.dgates ? call_.dgates.row(row.n, t_) : nullptr;
      back.ds = w_.variant.gate_recurrence ? dh + w_.P : nullptr;
      back.dc = dc_ + row.local * layout_.padded;
      back.dz = row.dz;
      back.dr = row.dr;
      back.dnew = dnew_;
      back.dout = dnormed_;
      back.noise = noise_of_row(layout_, row.tape);
      if (direct) {
        cell.run(back, [&](Index block) { return renewed_gradient(row, back.noise, dh, block * L, valid(block)); });
      } else {
        const Real* made = w_.projected ? dm_ + row.local * layout_.padded : dout_ + row.local * carry_stride_;
        cell.run(back, [&](Index block) { return load(made + block * L); });
      }
      if (back.ds) std::memset(dh + w_.P, 0, static_cast<std::size_t>(carry_stride_ - w_.P) * sizeof(Real));
      from_[k] = as_operand(row);
      to_[k] = dh;
    }
    starts_ = options_.zones_h ? to_ : nullptr;
  }

  // The gradient of `count` outputs from the p-th, without what zoneout passes straight to h_{t-1}, which stays in dh.
  Vector<Real> renewed_gradient(const Row& row, const RowNoise& noise, Real* dh, Index p, int count) const {
    Vector<Real> fresh = load_some(dh + p, count);
    if (row.dy) fresh += Form::load(row.dy, p, count);
    if (!options_.zones_h) return fresh;
    const Vector<Real> old = options_.noise.training
                                 ? (lanes_of<Real>(noise.old_h[p / Lanes<Real>]) ? Vector<Real>{} : fresh)
                                 : fresh * options_.share_h;
    store_some(dh + p, old, count);
    return fresh - old;
  }

  // From the gradient of h_t to that of h~_t before clip and projection, in dout_ and the chunk; what zoneout
  // passes straight to h_{t-1} stays in dh_.
  void output_gradient(Row& row) {
    Real *dh = dh_ + row.local * carry_stride_, *dout = dout_ + row.local * carry_stride_;
    const bool clips = std::isfinite(w_.variant.projection_clip);
    const Vector<Real> clip = broadcast<Real>(static_cast<Real>(w_.variant.projection_clip));
    const RowNoise noise = noise_of_row(layout_, static_cast<const Real*>(row.tape));
    for_each_vector<Real>(w_.P, [&](Index p, int count) {
      Vector<Real> fresh = renewed_gradient(row, noise, dh, p, count);
      if (clips) {
        const Vector<Real> raw = load_some(row.tape + layout_.clipped + p, count);
        fresh = raw <= clip ? (raw >= -clip ? fresh : Vector<Real>{}) : Vector<Real>{};  // none through what is not a number
      }
      store_some(dout + p, fresh, count);
    });
    if (w_.variant.gate_recurrence)  // the masked product may have left its own there
      std::memset(dout + w_.P, 0, static_cast<std::size_t>(carry_stride_ - w_.P) * sizeof(Real));
    if (!w_.projected) return;
    std::memcpy(row.out, dout, static_cast<std::size_t>(s_.out_stride - Lanes<Real>) * sizeof(Real));
    for (Index block = 0; block < layout_.blocks; ++block) {
      constexpr int L = Lanes<Real>;
      const Real* fields = row.tape + block * layout_.fields * L;
      const Vector<Real> out = cell_out<Real>(options_, w_, block, load(fields + FieldNew * L), fields);
      store(row.m + block * L, load(fields + FieldO * L) * (w_.variant.output_activation ? tanh<Real>(out) : out));
    }
  }

  void unproject() {
    const Panels<Real> matrix{w_.projection_back, w_.P, w_.H};
    for (Index k = 0; k < count_; ++k) {
      from_[k] = dout_ + row_[k].local * carry_stride_;
      to_[k] = dm_ + row_[k].local * layout_.padded;
      std::memset(to_[k], 0, static_cast<std::size_t>(layout_.padded) * sizeof(Real));
    }
    for (Index p = 0; p < matrix.count(); ++p) multiply_panel<Real>(matrix, p, count_, from_, nullptr, to_);
  }

  // dh_{t-1} (and ds_{t-1}) = dr_t W_hh, beside what zoneout passes on.
  void multiply_back() {
    if (options_.drops_h && starts_) return multiply_back_masked_beside_zoneout();
    for (Index p = panels_.first; p < panels_.last; ++p)
      multiply_panel<Real>(recurrent_, p, count_, from_, const_cast<const Real* const*>(starts_), to_, Form::tile);
    if (!options_.drops_h) return;
    for (Index k = 0; k < count_; ++k) mask(to_[k], row_[k].local);
  }

  void mask(Real* dh, Index local) const {
    copy_masked<Real>(dh, dh, mask_h_ + local * mask_stride_, w_.P);
  }

  // The mask lies on the product alone, so the product is made apart, in dout_.
  void multiply_back_masked_beside_zoneout() {
    Real** apart = const_cast<Real**>(to_);
    for (Index k = 0; k < count_; ++k) apart[k] = dout_ + row_[k].local * carry_stride_;
    for (Index p = panels_.first; p < panels_.last; ++p) multiply_panel<Real>(recurrent_, p, count_, from_, nullptr, apart);
    for (Index k = 0; k < count_; ++k) {
      mask(apart[k], row_[k].local);
      Real* dh = dh_ + row_[k].local * carry_stride_;
      for (Index p = 0; p < w_.recurrent_depth(); ++p) dh[p] += apart[k][p];
    }
  }

  // A reset cuts: what reached the state before it belongs to the initial state.
  void restart(Index t) {
    const Index unit = blocks_.first * Lanes<Real>, units = std::min(blocks_.last * Lanes<Real>, w_.H) - unit;
    const bool split = s_.cut.members > 1;
    for (Index local = 0; local < rows_; ++local) {
      const Index n = sequences_.first + local;
      if (!resets(n, t) || !active(n, t)) continue;
      Real *dh = dh_ + local * carry_stride_, *dc = dc_ + local * layout_.padded;
      hand_over(call_.dinitial_h ? call_.dinitial_h.row(n) : nullptr, dh, split ? unit : 0, split ? units : w_.P);
      hand_over(call_.dinitial_c ? call_.dinitial_c.row(n) : nullptr, dc, unit, units);
      if (w_.variant.gate_recurrence)
        hand_over(call_.dinitial_c ? call_.dinitial_c.row(n) + w_.H : nullptr, dh + w_.P, 0, w_.recurrent_depth() - w_.P);
    }
  }

  static void hand_over(Real* to, Real* from, Index first, Index count) {
    for (Index k = first; k < first + count; ++k) {
      if (to) to[k] += from[k];
      from[k] = 0;
    }
  }

  // Between the barriers: the groups' lists become one, rows are packed, and inputs get their gradient.
  Index gather() {
    Index rows = 0;
    lists_.clear();
    for (int group = 0; group < s_.cut.groups; ++group) {
      const Index first = part(call_.N, s_.cut.groups, group).first * s_.steps, count = s_.counts[static_cast<std::size_t>(group)];
      lists_.push_back({first, first + count});
      rows += count;
    }
    const int threads = s_.cut.threads();
    Index job = 0;
    const auto pack = [&](const WeightGradient<Real>& gradient) {
      for (Index p = 0; p < gradient.panel_count(); ++p)
        if (job++ % threads == thread_) pack_panel(gradient, rows, p);
    };
    pack(s_.input);
    pack(s_.recurrent);
    pack(s_.gates);
    pack(s_.projection);
    collect(s_.dr_rows);
    dr_columns_.fill(s_.gate_groups.data() + gate_share_.first, gate_share_.size(), rows_of_chunk_.data(), rows,
                     options_.normed ? nullptr : s_.bias_sums);
    if (s_.two_products) {
      collect(s_.dz_rows);
      dz_columns_.fill(s_.gate_groups.data() + gate_share_.first, gate_share_.size(), rows_of_chunk_.data(), rows, nullptr);
    }
    if (w_.projected) {
      collect(s_.out_rows);
      out_columns_.fill(s_.output_groups.data() + output_share_.first, output_share_.size(), rows_of_chunk_.data(), rows, nullptr);
    }
    if (call_.dx) input_gradient();
    return rows;
  }

  void collect(const Real* const* list) {
    rows_of_chunk_.clear();
    for (const Range& range : lists_) rows_of_chunk_.insert(rows_of_chunk_.end(), list + range.first, list + range.last);
  }

  void pack_panel(const WeightGradient<Real>& gradient, Index rows, Index p) {
    collect(gradient.right);
    const Panels<Real> packed = gradient.packed(Form::words(rows));
    Form::pack_panel(const_cast<Real*>(packed.panel(p)), rows_of_chunk_.data(), rows, gradient.columns, p);
  }

  void input_gradient() {
    const Range own = lists_[static_cast<std::size_t>(group_index_)], share = part(own.size(), s_.cut.members, member_);
    const Panels<Real> matrix{w_.input_back, Form::words(layout_.wide), w_.C};
    for (Index p = 0; p < matrix.count(); ++p)
      multiply_rows_into<Form>(matrix, p, share.size(), s_.dz_rows + own.first + share.first, s_.dx_rows + own.first + share.first);
  }

  void finish() {
    for (Index local = 0; local < rows_; ++local) {
      const Index n = sequences_.first + local;
      const Real *dh = dh_ + local * carry_stride_, *dc = dc_ + local * layout_.padded;
      const Index unit = blocks_.first * Lanes<Real>, units = std::min(blocks_.last * Lanes<Real>, w_.H) - unit;
      const bool split = s_.cut.members > 1;
      if (call_.dh) std::memcpy(call_.dh.row(n) + (split ? unit : 0), dh + (split ? unit : 0), static_cast<std::size_t>(split ? units : w_.P) * sizeof(Real));
      if (!call_.dc) continue;
      std::memcpy(call_.dc.row(n) + unit, dc + unit, static_cast<std::size_t>(units) * sizeof(Real));
      if (w_.variant.gate_recurrence)
        std::memcpy(call_.dc.row(n) + w_.H, dh + w_.P, static_cast<std::size_t>(w_.recurrent_depth() - w_.P) * sizeof(Real));
    }
  }

  void sum_weights(Index rows, bool first) {
    const RowGroup* gates = s_.gate_groups.data() + gate_share_.first;
    const auto& dz_columns = s_.two_products ? dz_columns_ : dr_columns_;
    dz_columns.accumulate(gates, gate_share_.size(), s_.input, rows, first);
    dr_columns_.accumulate(gates, gate_share_.size(), s_.recurrent, rows, first);
    if (w_.projected)
      out_columns_.accumulate(s_.output_groups.data() + output_share_.first, output_share_.size(), s_.projection, rows, first);
    if (!s_.gates.out) return;
    for (Index i = gate_share_.first; i < gate_share_.last; ++i) {
      const int q = static_cast<int>(s_.gate_groups[static_cast<std::size_t>(i)].column % PanelColumns<Real> / Lanes<Real>);
      if (w_.sigmoid_first[q] < 0) continue;
      RowGroup sigmoid = s_.gate_groups[static_cast<std::size_t>(i)];
      sigmoid.row += w_.sigmoid_first[q] - w_.gate_first[q];
      for (Index p = 0; p < s_.gates.panel_count(); ++p)
        dr_columns_.accumulate_one(i - gate_share_.first, sigmoid, s_.gates, p, rows, first);
    }
  }

  Shared& s_;
  const BackwardCall<Real>& call_;
  const PackedWeights<Real>& w_;
  const Options<Real>& options_;
  const Layout<Real>& layout_;
  const Index thread_, group_index_, member_;
  const Range sequences_;
  Barrier& everyone_;
  Barrier* const group_;
  const Index rows_;
  const Panels<Real> recurrent_;
  const Range panels_;
  Range blocks_{}, gate_share_{}, output_share_{};
  Index carry_stride_ = 0, mask_stride_ = 0, count_ = 0, listed_ = 0, t_ = 0;
  Real *dh_ = nullptr, *dout_ = nullptr, *dc_ = nullptr, *dm_ = nullptr, *mask_h_ = nullptr;
  Real *dnew_ = nullptr, *dnormed_ = nullptr, *zeros_ = nullptr;
  RowSums<Real> sums_{};
  Row* row_ = nullptr;
  const Real** from_ = nullptr;
  Real **to_ = nullptr, **starts_ = nullptr;
  TransposedRows<Real, Form> dr_columns_, dz_columns_, out_columns_;
  std::vector<Range> lists_;
  std::vector<const Real*> rows_of_chunk_;
};

// One value per gate and unit, summed over the members in order.
template <class Real, class Form>
void finish_sums(const BackwardShared<Real, Form>& shared, const std::vector<std::unique_ptr<Backward<Real, Form>>>& members) {
  const PackedWeights<Real>& w = shared.w;
  const Layout<Real>& layout = shared.layout;
  const auto total = [&](Real* RowSums<Real>::*which, Index count) {
    std::vector<Real> sum(static_cast<std::size_t>(count), Real(0));
    for (const auto& member : members)
      for (Index k = 0; k < count; ++k) sum[static_cast<std::size_t>(k)] += (member->sums().*which)[k];
    return sum;
  };
  GateRows gates, sigmoids;
  for (int q = 0; q < Gates; ++q) {
    gates.first[q] = w.gate_first[q];
    sigmoids.first[q] = w.sigmoid_first[q];
  }
  const auto blocked = [&](Real* to, Real* RowSums<Real>::*which, GateRows rows) {
    if (to) unpack_vector<Real>(to, total(which, layout.wide).data(), rows, w.H);
  };
  const BackwardCall<Real>& call = shared.call;
  if (call.dbias && !shared.options.normed) unpack_vector<Real>(call.dbias, shared.bias_sums, gates, w.H);
  else blocked(call.dbias, &RowSums<Real>::bias, gates);
  blocked(call.dpeephole, &RowSums<Real>::peephole, sigmoids);
  blocked(call.dgain_ih, &RowSums<Real>::gain_ih, gates);
  blocked(call.dgain_hh, &RowSums<Real>::gain_hh, gates);
  const auto plain = [&](Real* to, Real* RowSums<Real>::*which) {
    if (to) std::memcpy(to, total(which, w.H).data(), static_cast<std::size_t>(w.H) * sizeof(Real));
  };
  plain(call.dgain_c, &RowSums<Real>::gain_c);
  plain(call.dshift_c, &RowSums<Real>::shift_c);
}

template <class Real, class Form = Whole<Real>>
void run_backward(const BackwardCall<Real>& call, const PackedWeights<Real>& w) {
  BackwardShared<Real, Form> shared(call, w);
  const Split cut = shared.cut;
  Barrier everyone(cut.threads());
  std::vector<std::unique_ptr<Barrier>> groups;
  std::vector<std::unique_ptr<Arena>> arenas;
  std::vector<std::unique_ptr<Backward<Real, Form>>> members;
  for (int group = 0; group < cut.groups; ++group) groups.push_back(std::make_unique<Barrier>(cut.members));
  for (int i = 0; i < cut.threads(); ++i) {
    const int group = i / cut.members;
    arenas.push_back(std::make_unique<Arena>(Backward<Real, Form>::room(shared, part(call.N, cut.groups, group).size())));
    members.push_back(std::make_unique<Backward<Real, Form>>(shared, i, everyone, groups[static_cast<std::size_t>(group)].get(), *arenas.back()));
  }
  run_team(cut.threads(), [&](int i) { members[static_cast<std::size_t>(i)]->run(); });
  finish_sums<Real, Form>(shared, members);
}

}  // namespace longshort::LONGSHORT_ISA

// The cell with every option, backward: equations (3) to (7) of scan/definition.py differentiated, one row
// of one step at a time, from the tape that the way forward left.
#pragma once

#include "variant_cell.hpp"

namespace longshort::LONGSHORT_ISA {

// Gradients that sum over all rows of a member, in blocked order; zeroed before the first row.
template <class Real>
struct RowSums {
  Real *bias, *peephole, *gain_ih, *gain_hh;  // blocks * PanelColumns values each
  Real *gain_c, *shift_c;                     // blocks * Lanes values each
};

// One row of one step. All arrays are padded to whole blocks unless said otherwise.
template <class Real>
struct RowBack {
  const Real* tape;
  const Real* c_before;             // block by block `c_step` apart, of H values where `c_given`; or null: zero
  Index c_step;
  bool c_given;
  const Real *dcells, *dgates;      // H and 4H values, or null
  const Real* ds;                   // gradient of s_t, S H values, or null
  Real* dc;                         // in: gradient of c_t; out: that of c_{t-1}
  Real *dz, *dr;                    // out, blocked order: gradients of z_t and r_t; the same place without a norm
  Real *dnew, *dout;                // room
  RowNoise noise;
};

template <class Real>
class VariantCellBack {
 public:
  VariantCellBack(const Options<Real>& options, const PackedWeights<Real>& w, const Layout<Real>& layout, RowSums<Real> sums)
      : options_(options), w_(w), layout_(layout), sums_(sums), gates_(w.variant), fresh_(options.plain ? FieldC : FieldNew) {}

  // dh(block): the gradient of h~ before the projection; asked for once.
  template <class Arriving>
  void run(const RowBack<Real>& row, Arriving&& dh) const {
    if (!options_.normed) {
      for (Index block = 0; block < layout_.blocks; ++block) gates_back(row, block, output_back(row, block, dh(block)));
      return;
    }
    for (Index block = 0; block < layout_.blocks; ++block) {
      const HalfBack half = output_back(row, block, dh(block));
      store(row.dnew + block * L, half.dnew);
      store(row.dc + block * L, half.dc);
    }
    if (w_.variant.norm == Norm::ba2016) norm_out_back(row);
    if (w_.variant.norm == Norm::per_gate) norm_cell_back(row);
    for (Index block = 0; block < layout_.blocks; ++block)
      gates_back(row, block, {load(row.dnew + block * L), load(row.dc + block * L)});
    norm_products_back(row);
  }

 private:
  using V = Vector<Real>;
  static constexpr int L = Lanes<Real>;

  // Between the halves: the gradient of c~_t, and that of the part of c_{t-1} that zoneout kept.
  struct HalfBack {
    V dnew, dc;
  };

  int valid(Index block) const { return static_cast<int>(std::min<Index>(L, w_.H - block * L)); }
  V unit_values(const Real* from, Index block) const { return from ? load_first(from + block * L, valid(block)) : V{}; }
  V field(const RowBack<Real>& row, Index block, int which) const {
    return load(row.tape + (block * layout_.fields + which) * L);
  }
  static void add(Real* to, V value) { store(to, load(to) + value); }

  V cell_before(const RowBack<Real>& row, Index block) const {
    if (!row.c_before) return V{};
    const Real* c = row.c_before + block * row.c_step;
    return row.c_given ? load_first(c, valid(block)) : load(c);
  }

  // (5) to (7): leaves da_o in dr and, with "ba2016", the gradient of the normed cell in dout.
  HalfBack output_back(const RowBack<Real>& row, Index block, V dh) const {
    const Variant& v = options_.variant;
    const V o = field(row, block, FieldO), fresh = field(row, block, fresh_);
    const V out = cell_out<Real>(options_, w_, block, fresh, row.tape + block * layout_.fields * L);
    const V squashed = v.output_activation ? tanh<Real>(out) : out;
    const V dout = v.output_activation ? dh * o * (Real(1) - squashed * squashed) : dh * o;
    const V dc = load(row.dc + block * L) + unit_values(row.dcells, block);
    V dnew = dc, kept{};
    if (options_.zones_c) {
      kept = options_.noise.training ? (lanes_of<Real>(row.noise.old_c[block]) ? V{} : dc) : dc * options_.share_c;
      dnew = dc - kept;
    }
    V da_o{};
    if (v.output_gate) {
      da_o = (dh * squashed + gate_gradient(row, block, 3)) * squash_slope<Real>(v, o);
      if (v.peephole) {
        const Index place = block * PanelColumns<Real> + 3 * L;
        dnew += da_o * load(w_.peephole + place);
        add(sums_.peephole + place, da_o * fresh);
      }
    }
    if (v.norm == Norm::ba2016) store(row.dout + block * L, dout);
    else dnew += dout;
    store(row.dr + block * PanelColumns<Real> + 3 * L, da_o);
    return {dnew, kept};
  }

  // What reaches a gate from outside the cell: kept gates, and the gates of the next step.
  V gate_gradient(const RowBack<Real>& row, Index block, int q) const {
    V sum = row.dgates ? unit_values(row.dgates + q * w_.H, block) : V{};
    if (row.ds && w_.sigmoid_first[q] >= 0) sum += unit_values(row.ds + w_.sigmoid_first[q], block);
    return sum;
  }

  void norm_out_back(const RowBack<Real>& row) const {
    gain_and_shift_back(row, row.dout);
    cell_norm_back(row, row.dout, [&](Index block, V d) { add(row.dnew + block * L, d); });
  }

  void norm_cell_back(const RowBack<Real>& row) const {
    gain_and_shift_back(row, row.dnew);
    cell_norm_back(row, row.dnew, [&](Index block, V d) { store(row.dnew + block * L, d); });
  }

  template <class Out>
  void cell_norm_back(const RowBack<Real>& row, const Real* dnormed, Out out) const {
    through_norm(row.tape[layout_.statistics + InverseC], [&](Index block) { return load(dnormed + block * L); },
                 [&](Index block) { return field(row, block, FieldNormC); }, out);
  }

  // In place, from the gradient of gain * N(c~) + shift to that of N(c~).
  void gain_and_shift_back(const RowBack<Real>& row, Real* d) const {
    for (Index block = 0; block < layout_.blocks; ++block) {
      const V value = load(d + block * L);
      add(sums_.gain_c + block * L, value * field(row, block, FieldNormC));
      add(sums_.shift_c + block * L, value);
      store(d + block * L, value * load(w_.gain_c + block * L));
    }
  }

  // (3), (4): from dnew to the gradients of the pre-activations (in dr) and of c_{t-1} (in dc).
  void gates_back(const RowBack<Real>& row, Index block, HalfBack half) const {
    const Variant& v = options_.variant;
    const V i = field(row, block, FieldI), f = field(row, block, FieldF), g = field(row, block, FieldG);
    const V c = cell_before(row, block);
    V mask = broadcast<Real>(Real(1));
    if (row.noise.g) mask = lanes_of<Real>(row.noise.g[block]) ? broadcast<Real>(options_.scale_g) : V{};
    V dnew = half.dnew;
    if (std::isfinite(v.cell_clip)) {
      const V raw = f * c + i * (g * mask), limit = broadcast<Real>(static_cast<Real>(v.cell_clip));
      dnew = raw > limit ? V{} : raw < -limit ? V{} : dnew;
    }
    V di = dnew * (g * mask) + gate_gradient(row, block, 0);
    const V df = dnew * c + gate_gradient(row, block, 1);
    const V dg = dnew * i * mask + gate_gradient(row, block, 2);
    if (v.coupled) di -= df;
    const V da_i = v.input_gate ? di * squash_slope<Real>(v, i) : V{};
    const V da_f = v.computes(1) ? df * squash_slope<Real>(v, f) : V{};
    V dc = half.dc + dnew * f;
    if (v.peephole) {
      const Index place = block * PanelColumns<Real>;
      dc += da_i * load(w_.peephole + place) + da_f * load(w_.peephole + place + L);
      add(sums_.peephole + place, da_i * c);
      add(sums_.peephole + place + L, da_f * c);
    }
    store(row.dc + block * L, dc);
    Real* da = row.dr + block * PanelColumns<Real>;
    store(da, da_i);
    store(da + L, da_f);
    store(da + 2 * L, v.input_activation ? dg * (Real(1) - g * g) : dg);
  }

  // (2) with a norm: da, in dr, becomes dz and dr.
  void norm_products_back(const RowBack<Real>& row) const {
    if (w_.variant.norm == Norm::per_gate) {
      for (int p = 0; p < gates_.count; ++p) gate_norm_back(row, gates_.gate[p]);
      return;
    }
    V sum_z{}, product_z{}, sum_r{}, product_r{};
    each_gate([&](Index block, int q, Index place) {
      const V da = load(row.dr + place), z = field(row, block, FieldNormZ + q), r = field(row, block, FieldNormR + q);
      add(sums_.bias + place, da);
      add(sums_.gain_ih + place, da * z);
      add(sums_.gain_hh + place, da * r);
      const V dz = da * load(w_.gain_ih + place), dr = da * load(w_.gain_hh + place);
      sum_z += dz;
      product_z += dz * z;
      sum_r += dr;
      product_r += dr * r;
    });
    const Index count = w_.H * gates_.count;
    const NormBack z_back(sum_z, product_z, count, row.tape[layout_.statistics + InverseZ]);
    const NormBack r_back(sum_r, product_r, count, row.tape[layout_.statistics + InverseR]);
    const V last = units_of_block<Real>(layout_.blocks - 1, w_.H);
    each_gate([&](Index block, int q, Index place) {
      const V da = load(row.dr + place);
      V dz = z_back(da * load(w_.gain_ih + place), field(row, block, FieldNormZ + q));
      V dr = r_back(da * load(w_.gain_hh + place), field(row, block, FieldNormR + q));
      if (block == layout_.blocks - 1) {
        dz *= last;
        dr *= last;
      }
      store(row.dz + place, dz);
      store(row.dr + place, dr);
    });
    if (gates_.count == Gates) return;
    for (Index block = 0; block < layout_.blocks; ++block)
      for (int q = 0; q < Gates; ++q)
        if (!w_.variant.computes(q)) store(row.dz + block * PanelColumns<Real> + q * L, V{});
  }

  // body(block, gate, its place in blocked order) for the gates that are computed.
  template <class Body>
  void each_gate(Body&& body) const {
    for (Index block = 0; block < layout_.blocks; ++block)
      for (int p = 0; p < gates_.count; ++p) body(block, gates_.gate[p], block * PanelColumns<Real> + gates_.gate[p] * L);
  }

  void gate_norm_back(const RowBack<Real>& row, int q) const {
    const auto place = [&](Index block) { return block * PanelColumns<Real> + q * L; };
    for (Index block = 0; block < layout_.blocks; ++block) {
      const V da = load(row.dr + place(block));
      add(sums_.bias + place(block), da);
      add(sums_.gain_hh + place(block), da * field(row, block, FieldNormR + q));
    }
    through_norm(row.tape[layout_.statistics + InverseR + q],
                 [&](Index block) { return load(row.dr + place(block)) * load(w_.gain_hh + place(block)); },
                 [&](Index block) { return field(row, block, FieldNormR + q); },
                 [&](Index block, V d) { store(row.dr + place(block), d); });
  }

  // d = inverse (dn - mean dn - n mean(dn n)), from the sums of dn and of dn n.
  struct NormBack {
    NormBack(V sum, V product, Index count, Real inverse_)
        : mean(static_cast<Real>(sum_of_lanes<Real>(sum) / static_cast<double>(count))),
          slope(static_cast<Real>(sum_of_lanes<Real>(product) / static_cast<double>(count))), inverse(inverse_) {}
    V operator()(V dn, V n) const { return (dn - mean - n * slope) * inverse; }
    Real mean, slope, inverse;
  };

  // The same over the units of one vector of H.
  template <class Gradient, class Normed, class Out>
  void through_norm(Real inverse, Gradient gradient, Normed normed, Out out) const {
    V sum{}, product{};
    for (Index block = 0; block < layout_.blocks; ++block) {
      const V d = gradient(block);
      sum += d;
      product += d * normed(block);
    }
    const NormBack back(sum, product, w_.H, inverse);
    const V last = units_of_block<Real>(layout_.blocks - 1, w_.H);
    for (Index block = 0; block < layout_.blocks; ++block) {
      V d = back(gradient(block), normed(block));
      if (block == layout_.blocks - 1) d *= last;
      out(block, d);
    }
  }

  const Options<Real> options_;  // of its own: no store in a loop can change it
  const PackedWeights<Real>& w_;
  const Layout<Real>& layout_;
  const RowSums<Real> sums_;
  const GateList gates_;
  const int fresh_;
};

}  // namespace longshort::LONGSHORT_ISA

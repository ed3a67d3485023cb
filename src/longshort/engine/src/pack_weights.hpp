// From torch's layout to PackedWeights.
#pragma once

#include <memory>

#include "marks.hpp"
#include "options.hpp"
#include "pairs.hpp"
#include "team.hpp"

namespace longshort::LONGSHORT_ISA {

template <class Real>
void pack_bias(const Real* bias, PackedWeights<Real>& w) {
  GateRows gates;
  std::copy(w.gate_first, w.gate_first + Gates, gates.first);
  if (bias) return pack_vector(w.bias, bias, gates, w.H);
  std::memset(w.bias, 0, static_cast<std::size_t>(block_count<Real>(w.H) * PanelColumns<Real>) * sizeof(Real));
}

template <class Real, class Form>
class Packer {
 public:
  Packer(const Weights<Real>& from, PackedWeights<Real>& to, bool back) : from_(from), w_(to), back_(back) {
    number_gates(w_);
    for (int q = 0; q < Gates; ++q) {
      gates_.first[q] = w_.gate_first[q];
      sigmoids_.first[q] = w_.sigmoid_first[q];
    }
    blocks_ = block_count<Real>(w_.H);
    wide_ = blocks_ * PanelColumns<Real>;
  }

  void run(int threads) {
    w_.arena = std::make_unique<Arena>(lay_out(nullptr));
    lay_out(w_.arena.get());
    pack_vectors();
    const Panels<Real> input{nullptr, wide_, w_.C}, recurrent{nullptr, wide_, w_.recurrent_depth()};
    const Index forward_jobs = blocks_, input_jobs = back_ ? input.count() : 0, recurrent_jobs = back_ ? recurrent.count() : 0;
    const WeightRows<Real> rows(from_, w_.variant);
    w_.marks.resize(static_cast<std::size_t>(rows.count()));
    run_team(threads, [&](int member) {
      rows.each_mark(threads, member, [&](Index k, std::uint64_t mark) {
        w_.marks[static_cast<std::size_t>(k)] = mark;
        return true;
      });
      const auto share = [&](Index count) { return part(count, threads, member); };
      for (Index b = share(forward_jobs).first; b < share(forward_jobs).last; ++b) pack_gates(b);
      for (Index p = share(input_jobs).first; p < share(input_jobs).last; ++p)
        Form::pack_back(w_.input_back + p * PanelColumns<Real> * Form::words(wide_), from_.w_ih, gates_, w_.H, w_.C, p);
      for (Index p = share(recurrent_jobs).first; p < share(recurrent_jobs).last; ++p) pack_recurrent_back(p);
      if (member == 0) pack_projection();
    });
  }

 private:
  // Places in the arena, or, without one, the bytes that they need.
  std::size_t lay_out(Arena* arena) {
    std::size_t bytes = 0;
    const auto place = [&](Real*& where, Index values, bool wanted = true) {
      if (!wanted) return;
      const std::size_t size = static_cast<std::size_t>(values) * sizeof(Real);
      bytes += Arena::padded(size);
      if (arena) where = reinterpret_cast<Real*>(arena->take(size));
    };
    const Index depth = w_.recurrent_depth(), padded = blocks_ * Lanes<Real>;
    const auto back_size = [&](Index k, Index columns) { return k * ceil_div(columns, Lanes<Real>) * Lanes<Real>; };
    place(w_.input, wide_ * Form::words(w_.C));
    place(w_.recurrent, wide_ * Form::words(depth));
    place(w_.projection, back_size(w_.H, w_.P), w_.projected);
    place(w_.bias, wide_);
    place(w_.peephole, wide_, from_.peephole);
    place(w_.gain_ih, wide_, from_.gain_ih);
    place(w_.gain_hh, wide_, from_.gain_hh);
    place(w_.gain_c, padded, from_.gain_c);
    place(w_.shift_c, padded, from_.shift_c);
    place(w_.input_back, back_size(Form::words(wide_), w_.C), back_);
    place(w_.recurrent_back, back_size(Form::words(wide_), depth), back_);
    place(w_.projection_back, back_size(w_.P, w_.H), back_ && w_.projected);
    return bytes + 64;
  }

  void pack_vectors() {
    pack_bias(from_.bias, w_);
    if (from_.peephole) pack_vector(w_.peephole, from_.peephole, sigmoids_, w_.H);
    if (from_.gain_ih) pack_vector(w_.gain_ih, from_.gain_ih, gates_, w_.H);
    if (from_.gain_hh) pack_vector(w_.gain_hh, from_.gain_hh, gates_, w_.H);
    for (Index u = 0; u < blocks_ * Lanes<Real>; ++u) {
      if (from_.gain_c) w_.gain_c[u] = u < w_.H ? from_.gain_c[u] : Real(0);
      if (from_.shift_c) w_.shift_c[u] = u < w_.H ? from_.shift_c[u] : Real(0);
    }
  }

  void pack_gates(Index block) {
    const Index inputs = Form::words(w_.C), outputs = Form::words(w_.P);
    pack_block<Real>(w_.input + block * PanelColumns<Real> * inputs, from_.w_ih.data, from_.w_ih.stride, gates_, w_.H, inputs, block);
    Real* recurrent = w_.recurrent + block * PanelColumns<Real> * Form::words(w_.recurrent_depth());
    pack_block<Real>(recurrent, from_.w_hh.data, from_.w_hh.stride, gates_, w_.H, outputs, block);
    if (w_.variant.gate_recurrence)
      pack_block<Real>(recurrent + w_.P * PanelColumns<Real>, from_.w_gates.data, from_.w_gates.stride, sigmoids_, w_.H,
                       w_.recurrent_depth() - w_.P, block);
  }

  // The columns of w_hh and, behind them, those of w_gates: a panel may hold some of both.
  void pack_recurrent_back(Index p) {
    Real* to = w_.recurrent_back + p * PanelColumns<Real> * Form::words(wide_);
    if (!w_.variant.gate_recurrence) return Form::pack_back(to, from_.w_hh, gates_, w_.H, w_.P, p);
    const Panels<Real> shape{nullptr, wide_, w_.recurrent_depth()};
    const Index stride = shape.vectors(p) * Lanes<Real>, first = p * PanelColumns<Real>;
    for (Index block = 0; block < blocks_; ++block)
      for (int q = 0; q < Gates; ++q)
        for (int lane = 0; lane < Lanes<Real>; ++lane, to += stride) {
          const Index unit = block * Lanes<Real> + lane;
          std::memset(to, 0, static_cast<std::size_t>(stride) * sizeof(Real));
          if (unit >= w_.H) continue;
          for (Index j = 0; j < shape.width(p); ++j) {
            const Index column = first + j;
            if (column < w_.P && gates_.first[q] >= 0) to[j] = from_.w_hh.row(gates_.first[q] + unit)[column];
            if (column >= w_.P && sigmoids_.first[q] >= 0)
              to[j] = from_.w_gates.row(sigmoids_.first[q] + unit)[column - w_.P];
          }
        }
  }

  void pack_projection() {
    if (!w_.projected) return;
    std::vector<const Real*> rows(static_cast<std::size_t>(w_.P));
    for (Index p = 0; p < w_.P; ++p) rows[static_cast<std::size_t>(p)] = from_.w_hr.row(p);
    if (back_) {
      const Panels<Real> shape{nullptr, w_.P, w_.H};
      for (Index panel = 0; panel < shape.count(); ++panel)
        pack_rows<Real>(w_.projection_back + panel * PanelColumns<Real> * w_.P, rows.data(), w_.P, w_.H, panel);
    }
    const Panels<Real> shape{nullptr, w_.H, w_.P};
    for (Index panel = 0; panel < shape.count(); ++panel) {
      Real* to = w_.projection + panel * PanelColumns<Real> * w_.H;
      const Index stride = shape.vectors(panel) * Lanes<Real>;
      for (Index k = 0; k < w_.H; ++k, to += stride)
        for (Index j = 0; j < stride; ++j)
          to[j] = j < shape.width(panel) ? rows[static_cast<std::size_t>(panel * PanelColumns<Real> + j)][k] : Real(0);
    }
  }

  const Weights<Real>& from_;
  PackedWeights<Real>& w_;
  const bool back_;
  GateRows gates_{}, sigmoids_{};
  Index blocks_ = 0, wide_ = 0;
};

template <class Real, class Form = Whole<Real>>
void pack(const Weights<Real>& from, PackedWeights<Real>& to, bool back, int threads) {
  Packer<Real, Form>(from, to, back).run(threads);
}

}  // namespace longshort::LONGSHORT_ISA

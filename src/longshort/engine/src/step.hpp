// One step, or a stream of them: the plain cell on weights of 32, 16 or 8 bits.
//
// What limits a step of few sequences is reading the weights: they may be stored short, each thread reads
// its own units' and keeps them in its core's cache, and every other step reads them from the end, so that
// what was read last is read first. With many sequences the threads split these instead.
#pragma once

#include "cell.hpp"
#include "stored.hpp"
#include "team.hpp"

namespace longshort::LONGSHORT_ISA {

constexpr Index BytesWorthSharing = 160 * 1024;  // of weights, that a thread should read in a single step
constexpr Index BytesWorthWaking = 2048 * 1024;  // of weights, read in the time that a sleeping worker needs to come
constexpr Index RowsInCache = 48;                // sequences that take a step together
constexpr Index Together = 4;                    // blocks of units whose cells follow each other
constexpr Index RowsAhead = 48;                  // rows of x that are multiplied before their steps

// A step of one sequence on weights as packed. Jobs hold it by value: what a worker needs is then one line away, not three.
template <class Real>
struct StepOfOne {
  const StepWeights<Real>* w;
  const Real *x, *h, *c;
  Real *y, *c_n;  // c_n may be c; neither may be x or h

  // x's products first, since their panels lie one behind the other.
  void run(Range blocks) const {
    constexpr int L = Lanes<Real>;
    alignas(RegisterBytes) Real cells[Together][L], inputs[Together][PanelColumns<Real>];
    const auto valid = [&](Index k) { return static_cast<int>(std::min<Index>(L, w->H - (blocks.first + k) * L)); };
    const auto panel = [&](const void* weights, Index depth, Index k) {
      return static_cast<const Real*>(weights) + (blocks.first + k) * PanelColumns<Real> * depth;
    };
    const auto add = [&](const Real* values, const Real* weights, Index depth, const Real* start, Real* out) {
      tile<Real, 1, Gates>(&values, weights, depth, &start, &out);
    };
    for (Index k = 0; k < blocks.size(); ++k)
      add(x, panel(w->input, w->C, k), w->C, w->bias + (blocks.first + k) * PanelColumns<Real>, inputs[k]);
    cells_of_one_row<Real>(blocks.size(),
        [&](Real* out) { add(h, panel(w->recurrent, w->H, 0), w->H, inputs[0], out); },
        [&](Index k, Real* out, PlainCell<Real>& before) {
          tile_beside_cell<Real>(h, panel(w->recurrent, w->H, k), w->H, inputs[k], out, before);
        },
        [&](Index k) {
          store(cells[k], load_some(c + (blocks.first + k) * L, valid(k)));
          return cells[k];
        },
        [&](Index k, const PlainCell<Real>& cell) {
          store_some(y + (blocks.first + k) * L, cell.h, valid(k));
          store_some(c_n + (blocks.first + k) * L, cell.cell, valid(k));
        });
  }
};

template <class Real, class Form>
class Steps {
 public:
  Steps(const StepCall<Real>& call, const StepWeights<Real>& w, Room& room)
      : call_(call), w_(w), room_(room), blocks_(block_count<Real>(w.H)) {}

  // Streams are for short weights: on weights as packed they are run_forward's.
  void run() {
    if (call_.T == 1) return single();
    if constexpr (!in_place)
      if (call_.T > 1) stream();
  }

 private:
  static constexpr bool in_place = std::is_same_v<Form, Full<Real>>;  // rows are multiplied as they stand

  // One member's place in memory for `rows` rows of x and as many of h, and the products of `ahead` rows.
  struct Desk {
    Activations *x, *h;
    char *x_bytes, *h_bytes;
    Real* ahead;
  };

  std::size_t desk_bytes(Index x_rows, Index h_rows, Index ahead_values) const {
    const auto count = [](Index rows) { return static_cast<std::size_t>(rows); };
    const std::size_t h_row = std::max(Form::row_bytes(w_.H), Full<Real>::row_bytes(w_.H));
    return Arena::padded(count(x_rows) * sizeof(Activations)) + Arena::padded(count(h_rows) * sizeof(Activations)) +
           count(x_rows) * Form::row_bytes(w_.C) + count(h_rows) * h_row + Arena::padded(count(ahead_values) * sizeof(Real)) + 64;
  }

  Desk desk(char* at, Index x_rows, Index h_rows) const {
    const auto take = [&](std::size_t bytes) { return std::exchange(at, at + Arena::padded(bytes)); };
    Desk d;
    d.x = reinterpret_cast<Activations*>(take(static_cast<std::size_t>(x_rows) * sizeof(Activations)));
    d.h = reinterpret_cast<Activations*>(take(static_cast<std::size_t>(h_rows) * sizeof(Activations)));
    d.x_bytes = take(static_cast<std::size_t>(x_rows) * Form::row_bytes(w_.C));
    d.h_bytes = take(static_cast<std::size_t>(h_rows) * std::max(Form::row_bytes(w_.H), Full<Real>::row_bytes(w_.H)));
    d.ahead = reinterpret_cast<Real*>(at);
    return d;
  }

  static Range together(Index first, Range blocks) { return {first, std::min(first + Together, blocks.last)}; }

  Index row(Index k) const { return call_.only ? call_.only[k] : k; }

  // h of a single step may be overwritten in place, so the products read a copy.
  Activations prepare_h(const Real* from, char* to) const {
    if (Form::row_bytes(w_.H) > 0 && !in_place) return Form::prepare(from, w_.H, to);
    std::memcpy(to, from, static_cast<std::size_t>(w_.H) * sizeof(Real));
    return Form::prepare(reinterpret_cast<const Real*>(to), w_.H, to);
  }

  void prepare_single(const Desk& d, Range rows) const {
    const std::size_t x_row = Form::row_bytes(w_.C), h_row = std::max(Form::row_bytes(w_.H), Full<Real>::row_bytes(w_.H));
    for (Index k = 0; k < rows.size(); ++k) {
      const Index n = row(rows.first + k);
      d.x[k] = Form::prepare(call_.x.row(n, 0), w_.C, d.x_bytes + static_cast<std::size_t>(k) * x_row);
      d.h[k] = prepare_h(call_.h.row(n), d.h_bytes + static_cast<std::size_t>(k) * h_row);
    }
  }

  Index bytes() const { return Gates * w_.H * (w_.C + w_.H) * 4 / Form::group; }

  // Members for a single step in so many pieces, which reads so many bytes.
  int members(Index bytes, Index pieces) const {
    return static_cast<int>(std::clamp<Index>(std::min<Index>(bytes / BytesWorthSharing, call_.threads), 1, std::max<Index>(pieces, 1)));
  }

  void single() {
    if constexpr (in_place)
      if (call_.N == 1) return one();
    const bool wakes = bytes() * call_.N >= BytesWorthWaking;
    if (call_.N > RowsInCache || (call_.threads == 1 && call_.N > 1)) {
      const Index pieces = ceil_div(call_.N, RowsInCache);
      const int threads = members(bytes() * call_.N, pieces);
      const std::size_t each = desk_bytes(RowsInCache, RowsInCache, 0);
      char* memory = room_.bytes(each * static_cast<std::size_t>(threads));
      share(threads, pieces, {.wakes = wakes}, [&](int member, Index piece) {
        const Range rows = part(call_.N, pieces, piece);
        const Desk d = desk(memory + each * static_cast<std::size_t>(member), RowsInCache, RowsInCache);
        prepare_single(d, rows);
        for (Index block = 0; block < blocks_; block += Together) step_blocks(d.x, d.h, nullptr, rows, 0, together(block, {0, blocks_}));
      });
      return;
    }
    const Desk d = desk(room_.bytes(desk_bytes(call_.N, call_.N, 0)), call_.N, call_.N);
    const FlushDenormals flush;
    prepare_single(d, {0, call_.N});
    const Index pieces = ceil_div(blocks_, Together);
    share(members(bytes(), pieces), pieces, {.settled = true, .backwards = call_.backwards, .wakes = wakes}, [&](int, Index piece) {
      step_blocks(d.x, d.h, nullptr, {0, call_.N}, 0, together(piece * Together, {0, blocks_}));
    });
  }

  // One sequence on weights as packed. All members read h where it stands, so what it becomes waits until they are done:
  // a copy of h, made first, would have to cross to their cores before they can begin.
  void one() {
    const Index pieces = ceil_div(blocks_, Together), n = row(0);
    const std::size_t size = static_cast<std::size_t>(w_.H) * sizeof(Real);
    Real* next = reinterpret_cast<Real*>(room_.bytes(size));
    const StepOfOne<Real> step{&w_, call_.x.row(n, 0), call_.h.row(n), call_.c.row(n), next, call_.c_n.row(n)};
    share(members(bytes(), pieces), pieces, {.settled = true, .backwards = call_.backwards, .wakes = bytes() >= BytesWorthWaking},
          [step](int, Index piece) { step.run(together(piece * Together, {0, block_count<Real>(step.w->H)})); });
    std::memcpy(call_.y.row(n, 0), next, size);
  }

  void stream() {
    const Split cut = split(call_.N, call_.T, blocks_, Gates * w_.H * (w_.C + w_.H), call_.threads, true);
    const Index most_rows = ceil_div(call_.N, cut.groups), most_blocks = ceil_div(blocks_, cut.members);
    const Index steps_ahead = std::clamp<Index>(RowsAhead / std::max<Index>(most_rows, 1), 1, call_.T);
    const std::size_t each = desk_bytes(most_rows * steps_ahead, most_rows, most_rows * steps_ahead * most_blocks * PanelColumns<Real>);
    char* memory = room_.bytes(each * static_cast<std::size_t>(cut.threads()));
    std::vector<std::unique_ptr<Barrier>> barriers;
    for (int group = 0; group < cut.groups; ++group) barriers.push_back(std::make_unique<Barrier>(cut.members));
    run_team(cut.threads(), [&](int thread) {
      const int group = thread / cut.members, member = thread % cut.members;
      const Range rows = part(call_.N, cut.groups, group), blocks = part(blocks_, cut.members, member);
      const Desk d = desk(memory + each * static_cast<std::size_t>(thread), most_rows * steps_ahead, most_rows);
      for (Index first = 0; first < call_.T; first += steps_ahead) {
        const Index steps = std::min(steps_ahead, call_.T - first);
        multiply_ahead(d, rows, blocks, first, steps);
        for (Index t = first; t < first + steps; ++t) {
          prepare_h_rows(d, rows, t);
          const Index pieces = ceil_div(blocks.size(), Together);
          for (Index k = 0; k < pieces; ++k) {
            const Range now = together(blocks.first + (t % 2 == 0 ? k : pieces - 1 - k) * Together, blocks);
            const Index before = (t - first) * blocks.size() + now.first - blocks.first;
            step_blocks(nullptr, d.h, d.ahead + before * rows.size() * PanelColumns<Real>, rows, t, now);
          }
          if (cut.members > 1) barriers[static_cast<std::size_t>(group)]->wait(member);
        }
      }
    });
  }

  void prepare_h_rows(const Desk& d, Range rows, Index t) const {
    const std::size_t h_row = Form::row_bytes(w_.H);
    for (Index k = 0; k < rows.size(); ++k) {
      const Index n = row(rows.first + k);
      d.h[k] = Form::prepare(t == 0 ? call_.h.row(n) : call_.y.row(n, t - 1), w_.H, d.h_bytes + static_cast<std::size_t>(k) * h_row);
    }
  }

  // ahead[step][block][row] = bias + x @ w_ih, for own blocks.
  void multiply_ahead(const Desk& d, Range rows, Range blocks, Index first, Index steps) const {
    const std::size_t x_row = Form::row_bytes(w_.C);
    const Index count = rows.size() * steps;
    for (Index k = 0; k < count; ++k)
      d.x[k] = Form::prepare(call_.x.row(row(rows.first + k % rows.size()), first + k / rows.size()), w_.C, d.x_bytes + static_cast<std::size_t>(k) * x_row);
    for (Index own = 0; own < blocks.size(); ++own) {
      const Index block = blocks.first + own;
      const auto panel = panel_of<Form, Real>(w_.input, w_.input_scale, w_.input_offset, w_.C, block);
      for_each_tile(count, [&](Index from, int R) {
        const Real* start[TileRows];
        Real* out[TileRows];
        for (int r = 0; r < R; ++r) {
          const Index k = from + r;
          start[r] = w_.bias + block * PanelColumns<Real>;
          out[r] = d.ahead + ((k / rows.size() * blocks.size() + own) * rows.size() + k % rows.size()) * PanelColumns<Real>;
        }
        multiply(R, d.x + from, panel, w_.C, start, out);
      });
    }
  }

  // Step t of some blocks of units, at most Together.
  //   x: activations of rows.size() rows, or null where `ahead` has bias and products: for each block, rows of
  //   PanelColumns values.
  // The cells follow when all products are under way: their long chains then hide behind each other.
  void step_blocks(const Activations* x, const Activations* h, const Real* ahead, Range rows, Index t, Range blocks) const {
    for_each_tile(rows.size(), [&](Index from, int R) {
      alignas(RegisterBytes) Real a[Together][TileRows][PanelColumns<Real>];
      for (Index k = 0; k < blocks.size(); ++k) multiply_block(x, h, ahead ? ahead + k * rows.size() * PanelColumns<Real> : nullptr, from, R, blocks.first + k, a[k]);
      for (Index k = 0; k < blocks.size(); ++k)
        for (int r = 0; r < R; ++r) finish(a[k][r], row(rows.first + from + r), t, blocks.first + k);
    });
  }

  void multiply_block(const Activations* x, const Activations* h, const Real* ahead, Index from, int R, Index block, Real (*a)[PanelColumns<Real>]) const {
    const Real* start[TileRows];
    Real* out[TileRows];
    for (int r = 0; r < R; ++r) {
      start[r] = ahead ? ahead + (from + r) * PanelColumns<Real> : w_.bias + block * PanelColumns<Real>;
      out[r] = a[r];
    }
    if (x) {
      multiply(R, x + from, panel_of<Form, Real>(w_.input, w_.input_scale, w_.input_offset, w_.C, block), w_.C, start, out);
      for (int r = 0; r < R; ++r) start[r] = a[r];
    }
    multiply(R, h + from, panel_of<Form, Real>(w_.recurrent, w_.recurrent_scale, w_.recurrent_offset, w_.H, block), w_.H, start, out);
  }

  int valid(Index block) const { return static_cast<int>(std::min<Index>(Lanes<Real>, w_.H - block * Lanes<Real>)); }

  Vector<Real> cell_before(Index n, Index t, Index block) const {
    return load_some((t == 0 ? call_.c.row(n) : call_.c_n.row(n)) + block * Lanes<Real>, valid(block));
  }

  void keep(const PlainCell<Real>& cell, Index n, Index t, Index block) const {
    store_some(call_.y.row(n, t) + block * Lanes<Real>, cell.h, valid(block));
    store_some(call_.c_n.row(n) + block * Lanes<Real>, cell.cell, valid(block));
  }

  void finish(const Real* a, Index n, Index t, Index block) const {
    alignas(RegisterBytes) Real c[Lanes<Real>];
    store(c, cell_before(n, t, block));
    PlainCell<Real> cell;
    cell.a = a;
    cell.c = c;
    cell.run();
    keep(cell, n, t, block);
  }

  static void multiply(int R, const Activations* rows, typename Form::Panel panel, Index depth, const Real* const* start, Real* const* out) {
    if (depth == 0) {
      for (int r = 0; r < R; ++r) std::memmove(out[r], start[r], PanelColumns<Real> * sizeof(Real));
      return;
    }
    switch (R) {
      case 1: return Form::template multiply<1>(rows, panel, depth, start, out);
      case 2: return Form::template multiply<2>(rows, panel, depth, start, out);
      case 3: return Form::template multiply<3>(rows, panel, depth, start, out);
      case 4: return Form::template multiply<TileRows == 6 ? 4 : 3>(rows, panel, depth, start, out);
      case 5: return Form::template multiply<TileRows == 6 ? 5 : 3>(rows, panel, depth, start, out);
      default: return Form::template multiply<TileRows>(rows, panel, depth, start, out);
    }
  }

  const StepCall<Real>& call_;
  const StepWeights<Real>& w_;
  Room& room_;
  const Index blocks_;
};

template <class Real, Dot dot>
void run_step(const StepCall<Real>& call, const StepWeights<Real>& w, Room& room) {
  if constexpr (std::is_same_v<Real, float>) {
    if (w.stored == Stored::bfloat16) return Steps<float, Bfloat16<dot>>(call, w, room).run();
    if (w.stored == Stored::int8) return Steps<float, Int8<dot>>(call, w, room).run();
  }
  Steps<Real, Full<Real>>(call, w, room).run();
}

}  // namespace longshort::LONGSHORT_ISA

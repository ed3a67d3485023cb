// The kernels of one instruction set, made in kernels.cpp.
#pragma once

#include "kernels.hpp"
#include "stored.hpp"

namespace longshort::LONGSHORT_ISA {

// Constants: nothing of a set may run, at loading neither, before somebody asked whether the processor has it.
template <class Real, Dot dot>
struct Made {
  static const Kernels<Real> kernels;
};

}  // namespace longshort::LONGSHORT_ISA

// Compiled once for each instruction set: its name, which processors have it, and its kernels.
#include "set.hpp"

namespace longshort::LONGSHORT_ISA {
namespace {

bool supported() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

#if defined(__AVX512F__)
bool supports_int8() { return supported() && __builtin_cpu_supports("avx512vnni"); }
bool supports_bfloat16() { return supports_int8() && __builtin_cpu_supports("avx512bf16"); }
#endif

#define LONGSHORT_TEXT(name) #name
#define LONGSHORT_NAME(name) LONGSHORT_TEXT(name)

}  // namespace

extern const InstructionSet set;
constinit const InstructionSet set = {LONGSHORT_NAME(LONGSHORT_ISA), supported, Made<float, Dot::none>::kernels, Made<double, Dot::none>::kernels};

#if defined(__AVX512F__)
// The same set with products of short values, for steps on short weights.
extern const InstructionSet set_with_int8, set_with_bfloat16;
constinit const InstructionSet set_with_int8 = {"avx512vnni", supports_int8, Made<float, Dot::int8>::kernels, Made<double, Dot::int8>::kernels};
constinit const InstructionSet set_with_bfloat16 = {"avx512bf16", supports_bfloat16, Made<float, Dot::bfloat16>::kernels, Made<double, Dot::bfloat16>::kernels};
#endif

}  // namespace longshort::LONGSHORT_ISA

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace longshort {

#if defined(LONGSHORT_HAS_X86_SETS)
namespace avx512 { extern const InstructionSet set, set_with_int8, set_with_bfloat16; }
namespace avx2 { extern const InstructionSet set; }
#endif
namespace portable { extern const InstructionSet set; }

namespace {

const std::vector<const InstructionSet*>& supported_sets() {
  static const std::vector<const InstructionSet*> sets = [] {
    std::vector<const InstructionSet*> found;
    for (const InstructionSet* set : {
#if defined(LONGSHORT_HAS_X86_SETS)
             &avx512::set_with_bfloat16, &avx512::set_with_int8, &avx512::set, &avx2::set,
#endif
             &portable::set})
      if (set->supported()) found.push_back(set);
    return found;
  }();
  return sets;
}

}  // namespace

const InstructionSet* const* instruction_sets(int& count) {
  count = static_cast<int>(supported_sets().size());
  return supported_sets().data();
}

const InstructionSet& instruction_set() {
  const char* wanted = std::getenv("LONGSHORT_ENGINE_ISA");
  if (!wanted || !*wanted) return *supported_sets().front();
  std::string names;
  for (const InstructionSet* set : supported_sets()) {
    if (std::string(wanted) == set->name) return *set;
    names += names.empty() ? set->name : std::string(", ") + set->name;
  }
  throw UnknownSet("engine: LONGSHORT_ENGINE_ISA must name one of " + names +
                           ", the sets of this processor, got '" + wanted + "'. Unset it to take the best.");
}

}  // namespace longshort

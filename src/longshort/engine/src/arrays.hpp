// NumPy arrays in and out of the engine: every array is checked here, before its memory is touched.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <bit>
#include <initializer_list>
#include <optional>
#include <string>

#include "call.hpp"
#include "memory.hpp"

namespace longshort {

namespace nb = nanobind;

using Given = std::optional<nb::ndarray<nb::ro, nb::device::cpu>>;
using Taken = nb::ndarray<nb::numpy>;

[[noreturn]] inline void raise_shape(const std::string& message) {
  const nb::object type = nb::module_::import_("longshort.errors").attr("ShapeError");
  PyErr_SetString(type.ptr(), message.c_str());
  throw nb::python_error();
}

inline std::string text(const Index* lengths, std::size_t count) {
  std::string result = "(";
  for (std::size_t k = 0; k < count; ++k) result += (k ? ", " : "") + std::to_string(lengths[k]);
  return result + (count == 1 ? ",)" : ")");
}

template <class Value>
constexpr const char* name_of() {
  return std::is_same_v<Value, float> ? "float32" : std::is_same_v<Value, double> ? "float64"
       : std::is_same_v<Value, std::int64_t> ? "int64" : std::is_same_v<Value, std::uint16_t> ? "uint16 (the bits of bfloat16)" : "bool";
}

inline std::string name_of(nb::dlpack::dtype type) {
  using Code = nb::dlpack::dtype_code;
  const auto code = static_cast<Code>(type.code);
  if (code == Code::Bool) return "bool";
  const char* kind = code == Code::Float ? "float" : code == Code::Int ? "int" : code == Code::UInt ? "uint"
                   : code == Code::Complex ? "complex" : code == Code::Bfloat ? "bfloat" : "a type of ";
  return kind + std::to_string(type.bits);
}

// The array's data, if it has this type and shape and its last axis is contiguous; null if it is absent.
template <class Value, class Array>
const Value* checked(const Array& array, const char* name, const char* axes, std::initializer_list<Index> shape) {
  constexpr bool is_bool = std::is_same_v<Value, std::uint8_t>;
  if (is_bool ? array.dtype() != nb::dtype<bool>() : array.dtype() != nb::dtype<Value>())
    raise_shape(std::string("engine: `") + name + "` must be " + name_of<Value>() +
                (std::is_floating_point_v<Value> ? " like the weights, got " : ", got ") + name_of(array.dtype()) + ". Convert it.");
  Index got[8] = {};
  const std::size_t rank = std::min<std::size_t>(array.ndim(), 8);
  for (std::size_t k = 0; k < rank; ++k) got[k] = static_cast<Index>(array.shape(k));
  if (rank != shape.size() || !std::equal(shape.begin(), shape.end(), got))
    raise_shape(std::string("engine: `") + name + "` must be " + axes + " = " + text(shape.begin(), shape.size()) +
                ", got " + text(got, rank) + ".");
  if (rank > 0 && array.size() > 0 && got[rank - 1] > 1 && array.stride(rank - 1) != 1 && name[0] != 'r')
    raise_shape(std::string("engine: `") + name + "` must be contiguous along its last axis. Pass numpy.ascontiguousarray(" + name + ").");
  return reinterpret_cast<const Value*>(array.data());
}

template <class Value>
Rows<const Value> rows(const Given& array, const char* name, const char* axes, Index count, Index width) {
  if (!array) return {};
  const Value* data = checked<Value>(*array, name, axes, {count, width});
  return {data, static_cast<Index>(array->stride(0))};
}

template <class Value>
Sequences<const Value> sequences(const Given& array, const char* name, const char* axes, Index N, Index T, Index width) {
  if (!array) return {};
  const Value* data = checked<Value>(*array, name, axes, {N, T, width});
  return {data, static_cast<Index>(array->stride(0)), static_cast<Index>(array->stride(1))};
}

// Rows are read in words where they begin and end at whole ones.
inline void need_pairs(const void* data, Index width, std::initializer_list<Index> strides, const char* name) {
  bool even = width % 2 == 0 && reinterpret_cast<std::uintptr_t>(data) % 4 == 0;
  for (const Index stride : strides) even = even && stride % 2 == 0;
  if (!even) raise_shape(std::string("engine: `") + name + "` is read in pairs: its last axis, its strides and its address must be even. Copy it, or give float32.");
}

// The arrays above in words, each a pair of neighbouring bfloat16, whose bits the array holds.
template <class Real>
Rows<const Real> rows_of_pairs(const Given& array, const char* name, const char* axes, Index count, Index width) {
  const Rows<const std::uint16_t> values = rows<std::uint16_t>(array, name, axes, count, width);
  if (!values) return {};
  need_pairs(values.data, width, {count > 1 ? values.stride : 0}, name);
  return {reinterpret_cast<const Real*>(values.data), values.stride / 2};
}

template <class Real>
Sequences<const Real> sequences_of_pairs(const Given& array, const char* name, const char* axes, Index N, Index T, Index width) {
  const Sequences<const std::uint16_t> values = sequences<std::uint16_t>(array, name, axes, N, T, width);
  if (!values) return {};
  need_pairs(values.data, width, {N > 1 ? values.sequence_stride : 0, T > 1 ? values.step_stride : 0}, name);
  return {reinterpret_cast<const Real*>(values.data), values.sequence_stride / 2, values.step_stride / 2};
}

template <class Value>
const Value* vector(const Given& array, const char* name, const char* axes, Index count) {
  return array ? checked<Value>(*array, name, axes, {count}) : nullptr;
}

// The contiguous values of an array for as long as this stands. A buffer costs half of what an import does, so only what
// has none (a tensor) is imported.
template <class Real>
class Contiguous {
 public:
  explicit Contiguous(nb::handle array) {
    if (PyObject_CheckBuffer(array.ptr())) {
      if (PyObject_GetBuffer(array.ptr(), &view_, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) != 0) PyErr_Clear();
      else if (view_.itemsize == sizeof(Real) && is_native(view_.format)) take(view_.buf, view_.len / view_.itemsize);
    } else if (nb::try_cast(array, imported_, false)) {
      take(imported_.data(), static_cast<Index>(imported_.size()));
    }
  }
  Contiguous(const Contiguous&) = delete;
  Contiguous& operator=(const Contiguous&) = delete;
  ~Contiguous() {
    if (view_.obj) PyBuffer_Release(&view_);
  }

  explicit operator bool() const { return taken_; }
  const Real* data() const { return data_; }
  Index size() const { return size_; }

 private:
  void take(const void* data, Index size) {
    data_ = static_cast<const Real*>(data);
    size_ = size;
    taken_ = true;
  }

  static bool is_native(const char* format) {
    if (!format) return false;
    if (*format == '@' || *format == '=' || (*format == '<' && std::endian::native == std::endian::little)) ++format;
    return format[0] == (sizeof(Real) == 4 ? 'f' : 'd') && format[1] == 0;
  }

  Py_buffer view_{};
  nb::ndarray<const Real, nb::c_contig, nb::device::cpu> imported_;
  const Real* data_ = nullptr;
  Index size_ = 0;
  bool taken_ = false;
};

// A fresh array on pooled memory. order: for rank 3, 0 is (N, T, K) in memory, 1 is (T, N, K).
template <class Real>
Taken fresh(std::initializer_list<Index> shape, bool time_major = false) {
  std::size_t lengths[3] = {}, count = 1, rank = 0;
  for (const Index length : shape) count *= lengths[rank++] = static_cast<std::size_t>(length);
  void* memory = acquire(count * sizeof(Real));
  const nb::capsule owner(memory, [](void* p) noexcept { release(p); });
  if (!time_major) return Taken(memory, rank, lengths, owner, nullptr, nb::dtype<Real>());
  const auto width = static_cast<std::int64_t>(lengths[2]), sequences = static_cast<std::int64_t>(lengths[0]);
  const std::int64_t strides[3] = {width, width * sequences, 1};
  return Taken(memory, rank, lengths, owner, strides, nb::dtype<Real>());
}

// Fresh values of x, h or y: the bits of bfloat16 in pairs.
template <class Real>
Taken fresh_as(bool paired, std::initializer_list<Index> shape, bool time_major = false) {
  return paired ? fresh<std::uint16_t>(shape, time_major) : fresh<Real>(shape, time_major);
}

template <class Real>
Sequences<Real> sequences(const Taken& array) {
  return {static_cast<Real*>(array.data()), static_cast<Index>(array.stride(0)), static_cast<Index>(array.stride(1))};
}
template <class Real>
Rows<Real> rows(const Taken& array) {
  return {static_cast<Real*>(array.data()), static_cast<Index>(array.stride(0))};
}

template <class Real>
Sequences<Real> sequences_as(bool paired, const Taken& array) {
  const Index places = paired ? 2 : 1;
  return {static_cast<Real*>(array.data()), static_cast<Index>(array.stride(0)) / places, static_cast<Index>(array.stride(1)) / places};
}
template <class Real>
Rows<Real> rows_as(bool paired, const Taken& array) {
  return {static_cast<Real*>(array.data()), static_cast<Index>(array.stride(0)) / (paired ? 2 : 1)};
}

// What a caller gave of x, h or y.
template <class Real>
Sequences<const Real> sequences_as(bool paired, const Given& array, const char* name, const char* axes, Index N, Index T, Index width) {
  return paired ? sequences_of_pairs<Real>(array, name, axes, N, T, width) : sequences<Real>(array, name, axes, N, T, width);
}
template <class Real>
Rows<const Real> rows_as(bool paired, const Given& array, const char* name, const char* axes, Index count, Index width) {
  return paired ? rows_of_pairs<Real>(array, name, axes, count, width) : rows<Real>(array, name, axes, count, width);
}

}  // namespace longshort

// Images in memory: [..., C], float32 or bfloat16, the channels side by side.

#pragma once

#include <cstdint>
#include <cstring>

#include "xla/ffi/api/ffi.h"

namespace scaling {

namespace ffi = xla::ffi;

struct BFloat16 {
  uint16_t bits;
};

inline float Read(float value) { return value; }

inline float Read(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

inline void Write(float value, float& to) { to = value; }

// To the nearest, of two as near to the even one; NaN stays NaN.
inline void Write(float value, BFloat16& to) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to.bits = static_cast<uint16_t>(value == value ? rounded : 0x7fc0);
}

// Returns the numbers of a buffer, and nothing for an empty one.
template <typename T>
T* Data(const ffi::AnyBuffer& buffer) {
  return buffer.element_count() ? reinterpret_cast<T*>(buffer.untyped_data()) : nullptr;
}

// Calls run(T()) with the type of the images.
template <typename Run>
ffi::Error WithType(const ffi::AnyBuffer& images, Run run) {
  if (images.element_type() == ffi::DataType::F32) {
    run(float());
  } else if (images.element_type() == ffi::DataType::BF16) {
    run(BFloat16());
  } else {
    return ffi::Error::InvalidArgument("images must be float32 or bfloat16");
  }
  return ffi::Error::Success();
}

}  // namespace scaling

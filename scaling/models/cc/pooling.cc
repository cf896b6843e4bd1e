// Max-pooling by 3x3 windows at stride 2, padded by 1, and its gradient, as XLA custom
// calls.
//
// Images lie as [B, H, W, C]. Each result remembers which tap of its window, row by
// row, won: of equal ones the first.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "images.h"

namespace scaling {
namespace {

constexpr int64_t kSize = 3, kStride = 2, kPad = 1;

ffi::Error MaxPool(ffi::AnyBuffer images, ffi::Result<ffi::AnyBuffer> result,
                   ffi::ResultBuffer<ffi::U8> taps, int64_t threads) {
  const auto in = images.dimensions(), out = result->dimensions();
  const int64_t height = in[1], width = in[2], channels = in[3];
  const int64_t rows = out[1], columns = out[2];
  uint8_t* tap = taps->typed_data();
  return WithType(images, [&](auto type) {
    using T = decltype(type);
    const T* x = Data<T>(images);
    T* y = Data<T>(*result);
#pragma omp parallel num_threads(static_cast<int>(threads))
    {
      std::vector<float> largest(channels);
      float* best = largest.data();
#pragma omp for schedule(static)
      for (int64_t row = 0; row < in[0] * rows; ++row) {
        const int64_t image = row / rows, top = row % rows * kStride - kPad;
        for (int64_t column = 0; column < columns; ++column) {
          const int64_t left = column * kStride - kPad;
          const int64_t to = (row * columns + column) * channels;
          uint8_t* won = tap + to;
          std::fill_n(best, channels, -std::numeric_limits<float>::infinity());
          std::fill_n(won, channels, 0);
          for (int64_t i = 0; i < kSize; ++i) {
            for (int64_t j = 0; j < kSize; ++j) {
              if (top + i < 0 || top + i >= height) continue;
              if (left + j < 0 || left + j >= width) continue;
              const int64_t at = (image * height + top + i) * width + left + j;
              const T* seen = x + at * channels;
              const uint8_t name = static_cast<uint8_t>(i * kSize + j);
#pragma omp simd
              for (int64_t c = 0; c < channels; ++c) {
                const float value = Read(seen[c]), before = best[c];
                const bool wins = value > before || value != value;  // NaN stays
                best[c] = wins ? value : before;
                won[c] = wins ? name : won[c];
              }
            }
          }
          for (int64_t c = 0; c < channels; ++c) Write(best[c], y[to + c]);
        }
      }
    }
  });
}

// Each pixel takes the gradients of the windows that it won.
ffi::Error MaxPoolGradient(ffi::AnyBuffer gradient, ffi::Buffer<ffi::U8> taps,
                           ffi::Result<ffi::AnyBuffer> result, int64_t threads) {
  const auto in = result->dimensions(), out = gradient.dimensions();
  const int64_t height = in[1], width = in[2], channels = in[3];
  const int64_t rows = out[1], columns = out[2];
  const uint8_t* tap = taps.typed_data();
  return WithType(gradient, [&](auto type) {
    using T = decltype(type);
    const T* grad = Data<T>(gradient);
    T* by_images = Data<T>(*result);
#pragma omp parallel num_threads(static_cast<int>(threads))
    {
      std::vector<float> line(width * channels);
#pragma omp for schedule(static)
      for (int64_t at = 0; at < in[0] * height; ++at) {
        const int64_t image = at / height, y = at % height;
        std::fill(line.begin(), line.end(), 0.f);
        const int64_t first = y / kStride, last = (y + kPad) / kStride;
        for (int64_t row = first; row <= std::min(last, rows - 1); ++row) {
          const int64_t i = y - (row * kStride - kPad);
          for (int64_t column = 0; column < columns; ++column) {
            const int64_t from = ((image * rows + row) * columns + column) * channels;
            for (int64_t j = 0; j < kSize; ++j) {
              const int64_t x = column * kStride - kPad + j;
              if (x < 0 || x >= width) continue;
              const uint8_t name = static_cast<uint8_t>(i * kSize + j);
              float* sum = line.data() + x * channels;
#pragma omp simd
              for (int64_t c = 0; c < channels; ++c) {
                const float value = Read(grad[from + c]);
                sum[c] += tap[from + c] == name ? value : 0.f;
              }
            }
          }
        }
        T* to = by_images + at * width * channels;
#pragma omp simd
        for (int64_t k = 0; k < width * channels; ++k) Write(line[k], to[k]);
      }
    }
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ScalingMaxPool, MaxPool,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::U8>>()
                                  .Attr<int64_t>("threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(ScalingMaxPoolGradient, MaxPoolGradient,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("threads"));

}  // namespace scaling

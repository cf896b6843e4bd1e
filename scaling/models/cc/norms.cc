// The passes of batch norm over memory as XLA custom calls: sums over the pixels, and
// what is done to each pixel. Whoever calls adds up over devices and works out the
// factors.
//
// Images lie as [..., C], float32 or bfloat16; sums and factors are float32. Sums are
// kept in double between blocks of rows, and those of the threads are added in order:
// the same threads give the same bits.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "images.h"

namespace scaling {
namespace {

constexpr int64_t kWide = 128;   // numbers in a row below which rows are joined
constexpr int64_t kBlock = 128;  // rows that are summed in float32

// Rows of channels; few channels side by side, for loops over a row that are worth it.
struct Rows {
  int64_t count, width, joined;

  explicit Rows(const ffi::AnyBuffer& images) : joined(1) {
    width = images.dimensions().back();
    count = images.element_count() / std::max<int64_t>(width, 1);
    while (width < kWide && count % 2 == 0 && count > 0) {
      count /= 2, width *= 2, joined *= 2;
    }
  }

  // Returns row i of factors [n, C], repeated for the channels side by side.
  std::vector<float> Factor(const ffi::Buffer<ffi::F32>& factors, int64_t i) const {
    const int64_t channels = width / joined;
    const float* row = factors.typed_data() + i * channels;
    std::vector<float> repeated(width);
    for (int64_t j = 0; j < width; ++j) repeated[j] = row[j % channels];
    return repeated;
  }

  // Calls each(start) for the first number of each row.
  template <typename Each>
  void ForEach(int64_t threads, Each each) const {
#pragma omp parallel for schedule(static) num_threads(static_cast<int>(threads))
    for (int64_t i = 0; i < count; ++i) each(i * width);
  }

  // Calls add(start, first, second) for each row and writes both sums over rows: [2, C].
  template <typename Add>
  void Sum(int64_t threads, float* sums, Add add) const {
    std::vector<std::vector<double>> totals(threads, std::vector<double>(2 * width));
#pragma omp parallel for schedule(static) num_threads(static_cast<int>(threads))
    for (int64_t thread = 0; thread < threads; ++thread) {
      std::vector<float> block(2 * width);
      const int64_t end = count * (thread + 1) / threads;
      for (int64_t i = count * thread / threads; i < end;) {
        std::fill(block.begin(), block.end(), 0.f);
        for (const int64_t last = std::min(end, i + kBlock); i < last; ++i) {
          add(i * width, block.data(), block.data() + width);
        }
        for (int64_t j = 0; j < 2 * width; ++j) totals[thread][j] += block[j];
      }
    }
    const int64_t channels = width / joined;
    for (int64_t j = 0; j < 2 * channels; ++j) {
      const int64_t first = j / channels * width + j % channels;
      double total = 0;
      for (const auto& of_thread : totals) {
        for (int64_t k = 0; k < joined; ++k) total += of_thread[first + k * channels];
      }
      sums[j] = static_cast<float>(total);
    }
  }
};

// What a result is clipped at.
float Least(bool relu) { return relu ? 0.f : -std::numeric_limits<float>::infinity(); }

using Factors = ffi::Buffer<ffi::F32>;

// Writes the sums of x and of x * x.
ffi::Error Statistics(ffi::AnyBuffer images, ffi::ResultBuffer<ffi::F32> sums,
                      int64_t threads) {
  return WithType(images, [&](auto type) {
    using T = decltype(type);
    const Rows rows(images);
    const T* x = Data<T>(images);
    const int64_t width = rows.width;
    rows.Sum(threads, sums->typed_data(),
             [=](int64_t start, float* first, float* second) {
#pragma omp simd
               for (int64_t j = 0; j < width; ++j) {
                 const float value = Read(x[start + j]);
                 first[j] += value;
                 second[j] += value * value;
               }
             });
  });
}

// Writes (x - mean) * gain + bias, with the shortcut, where there is one, added,
// clipped at 0 where asked. Factors are mean, gain and bias.
ffi::Error Normalize(ffi::AnyBuffer images, Factors factors, ffi::AnyBuffer shortcut,
                     ffi::Result<ffi::AnyBuffer> result, bool relu, int64_t threads) {
  return WithType(images, [&](auto type) {
    using T = decltype(type);
    const Rows rows(images);
    const T *x = Data<T>(images), *other = Data<T>(shortcut);
    T* y = Data<T>(*result);
    const auto means = rows.Factor(factors, 0), gains = rows.Factor(factors, 1),
               biases = rows.Factor(factors, 2);
    const float *mean = means.data(), *gain = gains.data(), *bias = biases.data();
    const float least = Least(relu);
    const int64_t width = rows.width;
    rows.ForEach(threads, [=](int64_t start) {
      if (other) {
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) {
          const float value = (Read(x[start + j]) - mean[j]) * gain[j] + bias[j] +
                              Read(other[start + j]);
          Write(value < least ? least : value, y[start + j]);
        }
      } else {
#pragma omp simd
        for (int64_t j = 0; j < width; ++j) {
          const float value = (Read(x[start + j]) - mean[j]) * gain[j] + bias[j];
          Write(value < least ? least : value, y[start + j]);
        }
      }
    });
  });
}

// Writes the sums of the gradients and of gradient * (x - mean). What was clipped has
// no gradient: without a shortcut it is worked out again from the factors; with one it
// is read from y, and the gradients that are left are written too: they are the
// shortcut's.
ffi::Error GradientSums(ffi::AnyBuffer images, ffi::AnyBuffer gradient, Factors factors,
                        ffi::AnyBuffer normalized, ffi::ResultBuffer<ffi::F32> sums,
                        ffi::Result<ffi::AnyBuffer> left, bool relu, int64_t threads) {
  return WithType(images, [&](auto type) {
    using T = decltype(type);
    const Rows rows(images);
    const T *x = Data<T>(images), *grad = Data<T>(gradient), *y = Data<T>(normalized);
    T* passed = Data<T>(*left);
    const auto means = rows.Factor(factors, 0), gains = rows.Factor(factors, 1),
               biases = rows.Factor(factors, 2);
    const float *mean = means.data(), *gain = gains.data(), *bias = biases.data();
    const float least = Least(relu);
    const int64_t width = rows.width;
    rows.Sum(threads, sums->typed_data(),
             [=](int64_t start, float* first, float* second) {
               if (y) {
#pragma omp simd
                 for (int64_t j = 0; j < width; ++j) {
                   const float given = Read(grad[start + j]);
                   const float by = Read(y[start + j]) > 0 ? given : 0.f;
                   Write(by, passed[start + j]);
                   first[j] += by;
                   second[j] += by * (Read(x[start + j]) - mean[j]);
                 }
               } else {
#pragma omp simd
                 for (int64_t j = 0; j < width; ++j) {
                   const float centred = Read(x[start + j]) - mean[j];
                   const float given = Read(grad[start + j]);
                   const float by = centred * gain[j] + bias[j] > least ? given : 0.f;
                   first[j] += by;
                   second[j] += by * centred;
                 }
               }
             });
  });
}

// Writes the gradient by x. Factors are mean, gain, bias, slope and offset.
ffi::Error GradientByImages(ffi::AnyBuffer images, ffi::AnyBuffer gradient,
                            Factors factors, ffi::Result<ffi::AnyBuffer> result,
                            bool relu, int64_t threads) {
  return WithType(images, [&](auto type) {
    using T = decltype(type);
    const Rows rows(images);
    const T *x = Data<T>(images), *grad = Data<T>(gradient);
    T* by_images = Data<T>(*result);
    const auto means = rows.Factor(factors, 0), gains = rows.Factor(factors, 1),
               biases = rows.Factor(factors, 2), slopes = rows.Factor(factors, 3),
               offsets = rows.Factor(factors, 4);
    const float *mean = means.data(), *gain = gains.data(), *bias = biases.data(),
                *slope = slopes.data(), *offset = offsets.data();
    const float least = Least(relu);
    const int64_t width = rows.width;
    rows.ForEach(threads, [=](int64_t start) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) {
        const float centred = Read(x[start + j]) - mean[j];
        const float given = Read(grad[start + j]);
        const float by = centred * gain[j] + bias[j] > least ? given : 0.f;
        Write(gain[j] * by + slope[j] * centred + offset[j], by_images[start + j]);
      }
    });
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    ScalingStatistics, Statistics,
    ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Ret<ffi::Buffer<ffi::F32>>().Attr<int64_t>(
        "threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(ScalingNormalize, Normalize,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Factors>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("relu")
                                  .Attr<int64_t>("threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(ScalingGradientSums, GradientSums,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Factors>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("relu")
                                  .Attr<int64_t>("threads"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(ScalingGradientByImages, GradientByImages,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Factors>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<bool>("relu")
                                  .Attr<int64_t>("threads"));

}  // namespace scaling

// Convolutions of oneDNN 3 as one XLA custom call, forward and both gradients.
//
// Images lie as [B, H, W, C] and kernels as [height, width, in, out], float32 or
// bfloat16. Each thread of XLA keeps its own primitives, so that none has to be shared.

#include <omp.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "images.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace scaling {
namespace {

using dnnl::memory;
using Dims = ffi::AnyBuffer::Dimensions;

enum Direction : int64_t { kForward, kByImages, kByKernel };

const dnnl::engine& Cpu() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

memory::data_type TypeOf(ffi::DataType type) {
  if (type == ffi::DataType::F32) return memory::data_type::f32;
  if (type == ffi::DataType::BF16) return memory::data_type::bf16;
  throw dnnl::error(dnnl_invalid_arguments, "only float32 and bfloat16");
}

// oneDNN names dimensions as NCHW and OIHW, whatever the order in memory.
memory::desc Images(Dims d, memory::data_type type) {
  return {{d[0], d[3], d[1], d[2]}, type, memory::format_tag::nhwc};
}

memory::desc Kernel(Dims d, memory::data_type type, memory::format_tag tag) {
  return {{d[3], d[2], d[0], d[1]}, type, tag};
}

// A convolution, and what turns the kernel from our layout to the one it wants or back.
struct Convolution {
  dnnl::primitive run, reorder;
  memory images, kernel, reordered, outputs;
};

Convolution Make(int64_t direction, Dims image_dims, Dims kernel_dims, Dims output_dims,
                 memory::data_type type, memory::data_type kernel_type, int64_t stride,
                 int64_t pad) {
  using tag = memory::format_tag;
  using dnnl::algorithm;
  const auto images = Images(image_dims, type), outputs = Images(output_dims, type);
  const auto kernel = Kernel(kernel_dims, kernel_type, tag::hwio);
  const auto any = Kernel(kernel_dims, type, tag::any);
  const memory::dims strides{stride, stride}, before{pad, pad};
  memory::dims after;
  for (int i : {2, 3}) {
    after.push_back((outputs.get_dims()[i] - 1) * stride + kernel.get_dims()[i] -
                    images.get_dims()[i] - pad);
  }
  const auto direct = algorithm::convolution_direct;
  const dnnl::convolution_forward::primitive_desc forward(
      Cpu(), dnnl::prop_kind::forward_training, direct, images, any, outputs, strides,
      before, after);
  Convolution made;
  memory::desc wanted;
  if (direction == kForward) {
    made.run = dnnl::convolution_forward(forward);
    wanted = forward.weights_desc();
  } else if (direction == kByImages) {
    const dnnl::convolution_backward_data::primitive_desc by_images(
        Cpu(), direct, images, any, outputs, strides, before, after, forward);
    made.run = dnnl::convolution_backward_data(by_images);
    wanted = by_images.weights_desc();
  } else {
    const dnnl::convolution_backward_weights::primitive_desc by_kernel(
        Cpu(), direct, images, Kernel(kernel_dims, kernel_type, tag::any), outputs,
        strides, before, after, forward);
    made.run = dnnl::convolution_backward_weights(by_kernel);
    wanted = by_kernel.diff_weights_desc();
  }
  made.images = memory(images, Cpu(), nullptr);
  made.outputs = memory(outputs, Cpu(), nullptr);
  made.kernel = memory(kernel, Cpu(), nullptr);
  if (wanted != kernel) {
    made.reordered = memory(wanted, Cpu());
    made.reorder = direction == kByKernel ? dnnl::reorder(made.reordered, made.kernel)
                                          : dnnl::reorder(made.kernel, made.reordered);
  }
  return made;
}

// Two of images, kernel and outputs come in, in this order; the third is the result.
ffi::Error Convolve(ffi::AnyBuffer first, ffi::AnyBuffer second,
                    ffi::Result<ffi::AnyBuffer> result, int64_t direction,
                    int64_t stride, int64_t pad, int64_t threads) {
  thread_local std::map<std::vector<int64_t>, Convolution> made;
  thread_local dnnl::stream stream(Cpu());
  const ffi::AnyBuffer& third = *result;
  const auto& images = direction == kByImages ? third : first;
  const auto& kernel = direction == kForward    ? second
                       : direction == kByImages ? first
                                                : third;
  const auto& outputs = direction == kForward ? third : second;
  try {
    const auto type = TypeOf(images.element_type());
    const auto kernel_type = TypeOf(kernel.element_type());
    std::vector<int64_t> key{direction,
                             stride,
                             pad,
                             threads,
                             static_cast<int64_t>(type),
                             static_cast<int64_t>(kernel_type)};
    for (Dims d : {images.dimensions(), kernel.dimensions(), outputs.dimensions()}) {
      key.insert(key.end(), d.begin(), d.end());
    }
    omp_set_num_threads(static_cast<int>(threads));  // of the calling thread alone
    auto found = made.find(key);
    if (found == made.end()) {
      found =
          made.emplace(key, Make(direction, images.dimensions(), kernel.dimensions(),
                                 outputs.dimensions(), type, kernel_type, stride, pad))
              .first;
    }
    Convolution& our = found->second;
    our.images.set_data_handle(images.untyped_data());
    our.kernel.set_data_handle(kernel.untyped_data());
    our.outputs.set_data_handle(outputs.untyped_data());
    const memory& weights = our.reorder ? our.reordered : our.kernel;
    if (our.reorder && direction != kByKernel) {
      our.reorder.execute(stream,
                          {{DNNL_ARG_FROM, our.kernel}, {DNNL_ARG_TO, weights}});
    }
    if (direction == kForward) {
      our.run.execute(stream, {{DNNL_ARG_SRC, our.images},
                               {DNNL_ARG_WEIGHTS, weights},
                               {DNNL_ARG_DST, our.outputs}});
    } else if (direction == kByImages) {
      our.run.execute(stream, {{DNNL_ARG_DIFF_SRC, our.images},
                               {DNNL_ARG_WEIGHTS, weights},
                               {DNNL_ARG_DIFF_DST, our.outputs}});
    } else {
      our.run.execute(stream, {{DNNL_ARG_SRC, our.images},
                               {DNNL_ARG_DIFF_WEIGHTS, weights},
                               {DNNL_ARG_DIFF_DST, our.outputs}});
      if (our.reorder) {
        our.reorder.execute(stream,
                            {{DNNL_ARG_FROM, weights}, {DNNL_ARG_TO, our.kernel}});
      }
    }
    stream.wait();
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.what());
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ScalingConvolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("direction")
                                  .Attr<int64_t>("stride")
                                  .Attr<int64_t>("pad")
                                  .Attr<int64_t>("threads"));

}  // namespace scaling

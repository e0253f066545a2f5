// Copies: images between batches, and the ceiling of what memory can do.
#include "common/common.cuh"

constexpr int THREADS = 256;

// The ceiling: out = inp, 16 bytes a thread, n floats, n a multiple of 4. grid (ceil(n / 4 / THREADS))
extern "C" __global__ void __launch_bounds__(THREADS)
    copy_x4_f32(float *__restrict__ out, const float *__restrict__ inp, int n) {
    const size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * 4;
    if (i < n) store4(out + i, load4(inp + i), 0);
}

// Copies (or adds) `count` floats per direction between batches of images: direction d of `out` takes
// direction d of `inp`, or the other one of two where `swap` is 1. Strides are floats from one direction
// to the next; the caller's pointers already stand on the first image. grid (ceil(count / THREADS), D)
extern "C" __global__ void __launch_bounds__(THREADS)
    copy_images_f32(ADDS_IF(accumulate) float *out, const float *inp, int count, int out_stride, int inp_stride,
                    int swap, int accumulate) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= count) return;
    const int d = blockIdx.y, from = swap ? (int)gridDim.y - 1 - d : d;
    store(out + (size_t)d * out_stride + i, inp[(size_t)from * inp_stride + i], accumulate);
}

// Fully connected layers without bias: y = act(x W^T), x [D*N, I], W [D, O, I], y [D*N, O].
//
// At the sizes of the gamma/beta network (N of one or two, I up to 1,048,576 in full mode) every weight is
// used N times and never again: reading W once is the whole cost. NB images are done for each read of W.
#include "common/common.cuh"

constexpr int THREADS = 128;
constexpr int NB = 4;
constexpr int SPLIT = 8;  // warps that share the sum over outputs

// A block an output row. grid (O, D)
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_forward_f32(float *out, const float *inp, const float *weight, int N, int I, int O, int act) {
    __shared__ float scratch[THREADS / WARP];
    const int o = blockIdx.x, d = blockIdx.y;
    const float *w = weight + ((size_t)d * O + o) * I;
    for (int n0 = 0; n0 < N; n0 += NB) {
        const float *x = inp + ((size_t)d * N + n0) * I;
        float acc[NB] = {};
        for (int i = threadIdx.x; i < I; i += THREADS) {
            const float wi = w[i];
#pragma unroll
            for (int n = 0; n < NB; ++n)
                if (n0 + n < N) acc[n] = fmaf(wi, x[(size_t)n * I + i], acc[n]);
        }
#pragma unroll
        for (int n = 0; n < NB; ++n) {
            if (n0 + n >= N) break;
            const float y = block_sum<THREADS>(acc[n], scratch);
            if (threadIdx.x == 0) out[((size_t)d * N + n0 + n) * O + o] = activate(y, act);
        }
    }
}

// dinp [D*N, I] (+)= dout W. A warp 32 inputs of every SPLIT-th output; the block's warps then add up what they have, in
// order. grid (ceil(I / WARP), D)
extern "C" __global__ void __launch_bounds__(WARP * SPLIT)
    linear_backward_input_f32(ADDS_IF(accumulate) float *dinp, const float *dout, const float *weight, int N, int I,
                              int O, int accumulate) {
    __shared__ float parts[SPLIT][NB][WARP];
    const int lane = threadIdx.x % WARP, part = threadIdx.x / WARP, i = blockIdx.x * WARP + lane, d = blockIdx.y;
    const float *w = weight + (size_t)d * O * I + min(i, I - 1);
    for (int n0 = 0; n0 < N; n0 += NB) {
        const float *dy = dout + ((size_t)d * N + n0) * O;
        float acc[NB] = {};
#pragma unroll 8
        for (int o = part; o < O; o += SPLIT) {
            const float wo = w[(size_t)o * I];
#pragma unroll
            for (int n = 0; n < NB; ++n)
                if (n0 + n < N) acc[n] = fmaf(wo, dy[n * O + o], acc[n]);
        }
        __syncthreads();
#pragma unroll
        for (int n = 0; n < NB; ++n) parts[part][n][lane] = acc[n];
        __syncthreads();
        // A warp an image.
        if (part >= NB || n0 + part >= N || i >= I) continue;
        float sum = 0.f;
#pragma unroll
        for (int p = 0; p < SPLIT; ++p) sum += parts[p][part][lane];
        store(dinp + ((size_t)d * N + n0 + part) * I + i, sum, accumulate);
    }
}

// dweight [D, O, I] (+)= dout^T inp. grid (ceil(I / THREADS), O, D)
extern "C" __global__ void __launch_bounds__(THREADS)
    linear_backward_weight_f32(ADDS_IF(accumulate) float *dweight, const float *dout, const float *inp, int N, int I,
                               int O, int accumulate) {
    const int i = blockIdx.x * THREADS + threadIdx.x, o = blockIdx.y, d = blockIdx.z;
    if (i >= I) return;
    float acc = 0.f;
    for (int n = 0; n < N; ++n) acc = fmaf(dout[((size_t)d * N + n) * O + o], inp[((size_t)d * N + n) * I + i], acc);
    store(dweight + ((size_t)d * O + o) * I + i, acc, accumulate);
}

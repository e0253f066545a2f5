// Mean-reduced losses and their gradients. A group is one loss term: inp is [groups, n], terms [groups].
// Group g belongs to half g % halves of its direction's batch (real and fake, or translation and identity),
// and each half has its own target and weight.
#include "common/common.cuh"

constexpr int THREADS = 512;
enum Kind { MSE = 0, BCE = 1, L1 = 2 };

// Least squares (LSGAN), binary cross-entropy on logits in its stable form max(x,0) - x t + log(1 + exp(-|x|)),
// or absolute difference to the tensor `target`.
template <int KIND>
__device__ __forceinline__ float value(float x, float t) {
    if (KIND == MSE) return (x - t) * (x - t);
    if (KIND == BCE) return fmaxf(x, 0.f) - x * t + log1pf(expf(-fabsf(x)));
    return fabsf(x - t);
}

// d value / d x; d|x - t| at equality is 0.
template <int KIND>
__device__ __forceinline__ float slope(float x, float t) {
    if (KIND == MSE) return 2.f * (x - t);
    if (KIND == BCE) {
        const float e = expf(-fabsf(x)), s = 1.f / (1.f + e);
        return (x >= 0.f ? s : e * s) - t;
    }
    return x > t ? 1.f : (x < t ? -1.f : (x == t ? 0.f : x - t));
}

// terms[g] = mean of value(inp[g], target). grid (groups)
template <int KIND>
__device__ __forceinline__ void forward(float *terms, const float *inp, const float *target, int n, int halves,
                                        float target0, float target1) {
    __shared__ float scratch[THREADS / WARP];
    const int group = blockIdx.x;
    const float t = group % halves ? target1 : target0;
    float sum = 0.f;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        const size_t at = (size_t)group * n + i;
        sum += value<KIND>(inp[at], KIND == L1 ? target[at] : t);
    }
    sum = block_sum<THREADS>(sum, scratch);
    if (threadIdx.x == 0) terms[group] = sum / (float)n;
}

// dinp (+)= weight / n * slope(inp, target). grid (ceil(n / THREADS), groups)
template <int KIND>
__device__ __forceinline__ void backward(float *dinp, const float *inp, const float *target, int n, int halves,
                                         float target0, float target1, float weight0, float weight1, int accumulate) {
    const int i = blockIdx.x * THREADS + threadIdx.x, group = blockIdx.y;
    if (i >= n) return;
    const bool second = group % halves != 0;
    const size_t at = (size_t)group * n + i;
    const float s = slope<KIND>(inp[at], KIND == L1 ? target[at] : (second ? target1 : target0));
    store(dinp + at, (second ? weight1 : weight0) / (float)n * s, accumulate);
}

#define LOSS(name, KIND)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) loss_##name##_forward_f32(                                 \
        float *terms, const float *inp, OPTIONAL const float *target, int n, int halves, float target0,              \
        float target1) {                                                                                             \
        forward<KIND>(terms, inp, target, n, halves, target0, target1);                                              \
    }                                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) loss_##name##_backward_f32(                                \
        ADDS_IF(accumulate) float *dinp, const float *inp, OPTIONAL const float *target, int n, int halves,          \
        float target0, float target1, float weight0, float weight1, int accumulate) {                                \
        backward<KIND>(dinp, inp, target, n, halves, target0, target1, weight0, weight1, accumulate);                \
    }

LOSS(mse, MSE)
LOSS(bce, BCE)
LOSS(l1, L1)

// Variant 2, baseline (b): the norm out of the layers a framework has: instance norm, layer norm, blend, scale and shift.
//
//   forward  7: instance statistics, instance apply | layer statistics, finish, apply | blend | scale and shift
//   backward 14: sum (dbeta), mul, sum (dgamma), mul | mul, mul, dot, finish (drho) | instance sums, apply |
//                layer sums, finish, apply | add
//
// What changed from variant 1: each layer is fused by itself. The layer norm's reductions over a million elements are
// split over blocks. Sums, products and the layer's statistics are the kernels of variants 1 and 4.
// Moves: forward 11 passes over an x-sized tensor, backward 27.
// Bound by: memory bandwidth, on the intermediates between the layers.
#include "common/norm.cuh"

constexpr int THREADS = 256;

// Mean and rstd of every channel in one launch: stats [images, C, 2]. partial [images, chunks, 2, C]; counter [images]
// is 0 before and after. Block (groups of V channels, pixels).
// grid (ceil(C / V / blockDim.x), chunks of `rows` pixels, images)
template <int V, typename T>
__device__ __forceinline__ void instance_statistics(float *stats, float *partial, unsigned *counter, const T *x,
                                                    int HW, int C, int rows, int unbiased, float eps) {
    __shared__ MomentsScratch<THREADS, V> scratch;
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V, image = blockIdx.z, chunks = gridDim.y;
    const int begin = blockIdx.y * rows + threadIdx.y, end = min((blockIdx.y + 1) * rows, HW);
    float n = 0.f, mean[V] = {}, m2[V] = {};
    if (c < C && begin < end)
        n = moments_of_pixels(mean, m2, x + (size_t)image * HW * C + c, C, begin, end);
    join_rows(n, mean, m2, scratch);
    partial += (size_t)image * chunks * 2 * C;
    if (threadIdx.y == 0 && c < C) {
        store_row(partial + (size_t)blockIdx.y * 2 * C + c, mean);
        store_row(partial + ((size_t)blockIdx.y * 2 + 1) * C + c, m2);
    }
    if (!last_block(counter + image, gridDim.x * gridDim.y)) return;
    for (int k = threadIdx.y * blockDim.x + threadIdx.x; k < C; k += THREADS) {
        Moments m = {0.f, 0.f, 0.f};
        for (int chunk = 0; chunk < chunks; ++chunk) {
            const float *p = partial + (size_t)chunk * 2 * C + k;
            m = join(m, {(float)min(rows, HW - chunk * rows), p[0], p[C]});
        }
        float *s = stats + ((size_t)image * C + k) * 2;
        s[0] = m.mean;
        s[1] = 1.f / sqrtf(m.m2 / (float)(HW - unbiased) + eps);
    }
}

// The layer's mean and rstd out of the moments of chunks and channels: stats [images, 2], partial
// [images, chunks, 2, C]. grid (images)
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    adalin_composed_layer_statistics_f32(float *stats, const float *partial, int HW, int C, int rows, int unbiased,
                                         float eps) {
    __shared__ Moments scratch[THREADS];
    const int chunks = ceil_div(HW, rows), image = blockIdx.x, thread = threadIdx.x;
    Moments m = {0.f, 0.f, 0.f};
    for (int i = thread; i < chunks * C; i += THREADS) {
        const int chunk = i / C;
        const float *p = partial + ((size_t)image * chunks + chunk) * 2 * C + i % C;
        m = join(m, {(float)min(rows, HW - chunk * rows), p[0], p[C]});
    }
    scratch[thread] = m;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (thread < half) scratch[thread] = join(scratch[thread], scratch[thread + half]);
        __syncthreads();
    }
    if (thread > 0) return;
    stats[image * 2] = scratch[0].mean;
    stats[image * 2 + 1] = 1.f / sqrtf(scratch[0].m2 / (scratch[0].n - (float)unbiased) + eps);
}

// out = (x - mean) * rstd: stats [images, C, 2], or with `layer` [images, 2]. grid (ceil(HW * C / V / THREADS), images)
template <int V, typename T>
__device__ __forceinline__ void standardise(T *out, const T *x, const float *stats, int HW, int C, int layer) {
    const int i = (blockIdx.x * THREADS + threadIdx.x) * V, image = blockIdx.y;
    if (i >= HW * C) return;
    const size_t at = (size_t)image * HW * C + i;
    const float *s = stats + (layer ? (size_t)image : (size_t)image * C + i % C) * 2;
    float q[V];
    load_row(q, x + at);
#pragma unroll
    for (int v = 0; v < V; ++v) {
        const float2 m = *reinterpret_cast<const float2 *>(layer ? s : s + 2 * v);
        q[v] = (q[v] - m.x) * m.y;
    }
    store_row(out + at, q);
}

// out = rho * a + (1 - rho) * b. rho [images / N, C]. grid (ceil(HW * C / V / THREADS), images)
template <int V, typename T>
__device__ __forceinline__ void blend(T *out, const T *a, const T *b, const float *rho, int HW, int C, int N) {
    const int i = (blockIdx.x * THREADS + threadIdx.x) * V, image = blockIdx.y;
    if (i >= HW * C) return;
    const size_t at = (size_t)image * HW * C + i;
    float p[V], q[V], r[V];
    load_row(p, a + at);
    load_row(q, b + at);
    load_row(r, rho + image / N * C + i % C);
#pragma unroll
    for (int v = 0; v < V; ++v) p[v] = fmaf(r[v], p[v], (1.f - r[v]) * q[v]);
    store_row(out + at, p);
}

// out = x * gamma + beta. gamma, beta [images / per, C]. grid (ceil(HW * C / V / THREADS), images)
template <int V, typename T>
__device__ __forceinline__ void scale_shift(T *out, const T *x, const float *gamma, const float *beta, int HW, int C,
                                            int per) {
    const int i = (blockIdx.x * THREADS + threadIdx.x) * V, image = blockIdx.y;
    if (i >= HW * C) return;
    const size_t at = (size_t)image * HW * C + i;
    float q[V], g[V], b[V];
    load_row(q, x + at);
    load_row(g, gamma + image / per * C + i % C);
    load_row(b, beta + image / per * C + i % C);
#pragma unroll
    for (int v = 0; v < V; ++v) q[v] = fmaf(q[v], g[v], b[v]);
    store_row(out + at, q);
}

// drho's part of a chunk: sum of g (a - b), partial [chunks, D, C]; pixels are those of all images of a direction.
// Block (groups of V channels, pixels). grid (ceil(C / V / blockDim.x), chunks of `rows` pixels, D)
template <int V, typename T>
__device__ __forceinline__ void blend_dot(float *partial, const T *g, const T *a, const T *b, int pixels, int C,
                                          int rows) {
    __shared__ SumsScratch<THREADS, V> scratch;
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V, d = blockIdx.z;
    const int end = min((blockIdx.y + 1) * rows, pixels);
    float total[V] = {}, none[V] = {};
    if (c < C) {
#pragma unroll 2
        for (int i = blockIdx.y * rows + threadIdx.y; i < end; i += blockDim.y) {
            const size_t at = ((size_t)d * pixels + i) * C + c;
            float o[V], p[V], q[V];
            load_row(o, g + at);
            load_row(p, a + at);
            load_row(q, b + at);
#pragma unroll
            for (int v = 0; v < V; ++v) total[v] = fmaf(o[v], p[v] - q[v], total[v]);
        }
    }
    sum_rows(total, none, scratch);
    if (threadIdx.y == 0 && c < C) store_row(partial + ((size_t)blockIdx.y * gridDim.z + d) * C + c, total);
}

// Sums of g and of g a, a the standardised input, of a chunk: partial [images, chunks, 2, C]. With sums
// [images, 2, C] the last block joins the chunks in the same launch; counter [images] is 0 before and after.
// Block (groups of V channels, pixels). grid (ceil(C / V / blockDim.x), chunks of `rows` pixels, images)
template <int V, typename T>
__device__ __forceinline__ void backward_sums(float *sums, float *partial, unsigned *counter, const T *g, const T *a,
                                              int HW, int C, int rows) {
    __shared__ SumsScratch<THREADS, V> scratch;
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V, image = blockIdx.z, chunks = gridDim.y;
    const int end = min((blockIdx.y + 1) * rows, HW);
    float s1[V] = {}, s2[V] = {};
    if (c < C) {
#pragma unroll 2
        for (int i = blockIdx.y * rows + threadIdx.y; i < end; i += blockDim.y) {
            const size_t at = ((size_t)image * HW + i) * C + c;
            float p[V], q[V];
            load_row(p, g + at);
            load_row(q, a + at);
#pragma unroll
            for (int v = 0; v < V; ++v) s1[v] += p[v], s2[v] = fmaf(p[v], q[v], s2[v]);
        }
    }
    sum_rows(s1, s2, scratch);
    partial += (size_t)image * chunks * 2 * C;
    if (threadIdx.y == 0 && c < C) {
        store_row(partial + (size_t)blockIdx.y * 2 * C + c, s1);
        store_row(partial + ((size_t)blockIdx.y * 2 + 1) * C + c, s2);
    }
    if (!sums || !last_block(counter + image, gridDim.x * gridDim.y)) return;
    for (int k = threadIdx.y * blockDim.x + threadIdx.x; k < 2 * C; k += THREADS) {
        float t = 0.f;
        for (int chunk = 0; chunk < chunks; ++chunk) t += partial[(size_t)chunk * 2 * C + k];
        sums[(size_t)image * 2 * C + k] = t;
    }
}

// The layer's two sums out of the partial ones: sums [images, 2]. grid (images)
extern "C" __global__ void __launch_bounds__(THREADS)
    adalin_composed_layer_sums_f32(float *sums, const float *partial, int C, int chunks) {
    __shared__ float scratch[THREADS / WARP];
    float s1 = 0.f, s2 = 0.f;
    const float *p = partial + (size_t)blockIdx.x * chunks * 2 * C;
    for (int chunk = 0; chunk < chunks; ++chunk)
        for (int c = threadIdx.x; c < C; c += THREADS) {
            s1 += p[(size_t)chunk * 2 * C + c];
            s2 += p[((size_t)chunk * 2 + 1) * C + c];
        }
    s1 = block_sum<THREADS>(s1, scratch);
    s2 = block_sum<THREADS>(s2, scratch);
    if (threadIdx.x == 0) sums[blockIdx.x * 2] = s1, sums[blockIdx.x * 2 + 1] = s2;
}

// dx = rstd (g - s1 / n - a s2 / (n - unbiased)), n the values of a channel, or with `layer` of the image.
// stats [images, C, 2] and sums [images, 2, C], or [images, 2] both. grid (ceil(HW * C / V / THREADS), images)
template <int V, typename T>
__device__ __forceinline__ void backward(T *dx, const T *g, const T *a, const float *stats, const float *sums, int HW,
                                         int C, int layer, int unbiased, int accumulate) {
    const int i = (blockIdx.x * THREADS + threadIdx.x) * V, image = blockIdx.y;
    if (i >= HW * C) return;
    const size_t at = (size_t)image * HW * C + i;
    const float n = layer ? (float)HW * (float)C : (float)HW;
    const float by_n = 1.f / n, by_less = 1.f / (n - (float)unbiased);
    float p[V], q[V], s1[V], s2[V], rstd[V];
    load_row(p, g + at);
    load_row(q, a + at);
    if (layer) {
#pragma unroll
        for (int v = 0; v < V; ++v)
            s1[v] = sums[image * 2], s2[v] = sums[image * 2 + 1], rstd[v] = stats[image * 2 + 1];
    } else {
        const int c = i % C;
        load_row(s1, sums + (size_t)image * 2 * C + c);
        load_row(s2, sums + ((size_t)image * 2 + 1) * C + c);
#pragma unroll
        for (int v = 0; v < V; ++v) rstd[v] = stats[((size_t)image * C + c + v) * 2 + 1];
    }
#pragma unroll
    for (int v = 0; v < V; ++v) p[v] = rstd[v] * (p[v] - s1[v] * by_n - q[v] * s2[v] * by_less);
    store_row(dx + at, p, accumulate);
}

#define ADALIN_COMPOSED(V, T, NAME)                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) adalin_composed_instance_statistics_##NAME(               \
        float *stats, SCRATCH float *partial, SCRATCH unsigned *counter, const T *x, int HW, int C, int rows,          \
        int unbiased, float eps) {                                                                                     \
        instance_statistics<V>(stats, partial, counter, x, HW, C, rows, unbiased, eps);                                \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) adalin_composed_standardise_##NAME(                          \
        T *out, const T *x, const float *stats, int HW, int C, int layer) {                                            \
        standardise<V>(out, x, stats, HW, C, layer);                                                                   \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) adalin_composed_blend_##NAME(                                \
        T *out, const T *a, const T *b, const float *rho, int HW, int C, int N) {                                      \
        blend<V>(out, a, b, rho, HW, C, N);                                                                            \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) adalin_composed_scale_shift_##NAME(                          \
        T *out, const T *x, const float *gamma, const float *beta, int HW, int C, int per) {                           \
        scale_shift<V>(out, x, gamma, beta, HW, C, per);                                                               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) adalin_composed_blend_dot_##NAME(                         \
        float *partial, const T *g, const T *a, const T *b, int pixels, int C, int rows) {                             \
        blend_dot<V>(partial, g, a, b, pixels, C, rows);                                                               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        adalin_composed_backward_sums_##NAME(OPTIONAL float *sums, float *partial,                                     \
                                             OPTIONAL SCRATCH unsigned *counter, const T *g, const T *a, int HW,       \
                                             int C, int rows) {                                                        \
        backward_sums<V>(sums, partial, counter, g, a, HW, C, rows);                                                   \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        adalin_composed_backward_##NAME(ADDS_IF(accumulate) T *dx, const T *g, const T *a, const float *stats,         \
                                        const float *sums, int HW, int C, int layer, int unbiased, int accumulate) {   \
        backward<V>(dx, g, a, stats, sums, HW, C, layer, unbiased, accumulate);                                        \
    }

ADALIN_COMPOSED(1, float, x1_f32)
ADALIN_COMPOSED(4, float, x4_f32)
ADALIN_COMPOSED(1, f16, x1_f16)
ADALIN_COMPOSED(8, f16, x8_f16)
ADALIN_COMPOSED(1, bf16, x1_bf16)
ADALIN_COMPOSED(8, bf16, x8_bf16)

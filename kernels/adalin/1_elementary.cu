// Variant 1, baseline (a): the norm as an eager framework issues it, one kernel for each operation of
//
//   m = mean(x); v = var(x); a = (x - m) / sqrt(v + eps)      over (H, W), and again over (C, H, W)
//   out = (rho * a_I + (1 - rho) * a_L) * gamma + beta
//
// Forward 18 launches: mean, var, sub, add, sqrt, div, twice; mul, rsub, mul, add, mul, add. Backward 47, in the order
// and number in which reverse-mode differentiation of those lines issues them (src/tape/ops/norm/elementary.rs lists them).
// Moves: forward 23 passes over an x-sized tensor, backward 76 (reads and writes together).
// Bound by: memory bandwidth, on traffic that fusing removes; at one image by the launches.
//
// It is no straw man: accesses are 16 bytes wide where C allows, a reduction is split over many blocks and still one
// launch (the last block to arrive joins the partial results in order), small tensors stay in fp32.
#include "common/norm.cuh"

constexpr int THREADS = 256;

enum Elementary { ADD = 0, SUB = 1, MUL = 2, DIV = 3, NEG = 4, SQRT = 5, RSUB = 6, EXPAND = 7, MUL_RSUB = 8 };

__device__ __forceinline__ float apply(int op, float a, float b) {
    switch (op) {
        case ADD: return a + b;
        case SUB: return a - b;
        case MUL: return a * b;
        case DIV: return a / b;
        case NEG: return -a;
        case SQRT: return sqrtf(a);
        case RSUB: return b - a;
        case MUL_RSUB: return a * (1.f - b);
        default: return b;
    }
}

// out = a op b, tensors of n elements; b null for an operation of one argument. grid (ceil(n / V / THREADS))
template <int V, typename T>
__device__ __forceinline__ void binary(T *out, const T *a, const T *b, int n, int op, int accumulate) {
    const int i = (blockIdx.x * THREADS + threadIdx.x) * V;
    if (i >= n) return;
    float p[V], q[V] = {};
    load_row(p, a + i);
    if (b) load_row(q, b + i);
#pragma unroll
    for (int v = 0; v < V; ++v) p[v] = apply(op, p[v], q[v]);
    store_row(out + i, p, accumulate);
}

// out = a op b, b broadcast over the pixels: b [images / per, C], or with `scalar` [images / per]. `a` null for EXPAND.
// grid (ceil(HW * C / V / THREADS), images)
template <int V, typename T>
__device__ __forceinline__ void broadcast(T *out, const T *a, const float *b, int HW, int C, int per, int scalar,
                                          int op) {
    const int i = (blockIdx.x * THREADS + threadIdx.x) * V, image = blockIdx.y;
    if (i >= HW * C) return;
    const size_t at = (size_t)image * HW * C + i;
    float p[V] = {}, q[V];
    if (a) load_row(p, a + at);
    if (scalar) {
        const float s = b[image / per];
#pragma unroll
        for (int v = 0; v < V; ++v) q[v] = s;
    } else {
        load_row(q, b + image / per * C + i % C);
    }
#pragma unroll
    for (int v = 0; v < V; ++v) p[v] = apply(op, p[v], q[v]);
    store_row(out + at, p);
}

// Sums of x [groups, pixels, C] over the pixels, times `scale`: out [groups, C], or with `layer` over the channels
// too: out [groups]. partial [groups, chunks, C]; counter [groups] is 0 before and after. Block (groups of V channels,
// pixels). grid (ceil(C / V / blockDim.x), chunks of `rows` pixels, groups)
template <int V, typename T>
__device__ __forceinline__ void sum(float *out, float *partial, unsigned *counter, const T *x, int pixels, int C,
                                    int rows, int layer, float scale, int accumulate) {
    __shared__ SumsScratch<THREADS, V> scratch;
    __shared__ float sums[THREADS / WARP];
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V, group = blockIdx.z, chunks = gridDim.y;
    const int end = min((blockIdx.y + 1) * rows, pixels);
    float total[V] = {}, none[V] = {};
    if (c < C) {
#pragma unroll 4
        for (int i = blockIdx.y * rows + threadIdx.y; i < end; i += blockDim.y) {
            float q[V];
            load_row(q, x + ((size_t)group * pixels + i) * C + c);
#pragma unroll
            for (int v = 0; v < V; ++v) total[v] += q[v];
        }
    }
    sum_rows(total, none, scratch);
    partial += (size_t)group * chunks * C;
    if (threadIdx.y == 0 && c < C) store_row(partial + (size_t)blockIdx.y * C + c, total);
    if (!last_block(counter + group, gridDim.x * gridDim.y)) return;

    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    float all = 0.f;
    for (int k = thread; k < C; k += THREADS) {
        float t = 0.f;
        for (int chunk = 0; chunk < chunks; ++chunk) t += partial[(size_t)chunk * C + k];
        if (!layer) store(out + (size_t)group * C + k, t * scale, accumulate);
        all += t;
    }
    if (!layer) return;
    all = block_sum<THREADS>(all, sums, thread);
    if (thread == 0) store(out + group, all * scale, accumulate);
}

// Variances of x [groups, pixels, C], divided by the number less `correction`: shapes as `sum`, but partial
// [groups, chunks, 2, C].
template <int V, typename T>
__device__ __forceinline__ void variance(float *out, float *partial, unsigned *counter, const T *x, int pixels, int C,
                                         int rows, int layer, int correction) {
    __shared__ MomentsScratch<THREADS, V> scratch;
    __shared__ MomentsScratch<THREADS, 1> channels;
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V, group = blockIdx.z, chunks = gridDim.y;
    const int begin = blockIdx.y * rows + threadIdx.y, end = min((blockIdx.y + 1) * rows, pixels);
    float n = 0.f, mean[V] = {}, m2[V] = {};
    if (c < C && begin < end)
        n = moments_of_pixels(mean, m2, x + (size_t)group * pixels * C + c, C, begin, end);
    join_rows(n, mean, m2, scratch);
    partial += (size_t)group * chunks * 2 * C;
    if (threadIdx.y == 0 && c < C) {
        store_row(partial + (size_t)blockIdx.y * 2 * C + c, mean);
        store_row(partial + ((size_t)blockIdx.y * 2 + 1) * C + c, m2);
    }
    if (!last_block(counter + group, gridDim.x * gridDim.y)) return;

    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    Moments all = {0.f, 0.f, 0.f};
    for (int k = thread; k < C; k += THREADS) {
        Moments m = {0.f, 0.f, 0.f};
        for (int chunk = 0; chunk < chunks; ++chunk) {
            const float *p = partial + (size_t)chunk * 2 * C + k;
            m = join(m, {(float)min(rows, pixels - chunk * rows), p[0], p[C]});
        }
        if (!layer) out[(size_t)group * C + k] = m.m2 / (m.n - (float)correction);
        all = join(all, m);
    }
    if (!layer) return;
    // Joined over the threads in halves, as join_rows does over rows.
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (thread >= half && thread < 2 * half)
            channels.n[thread] = all.n, channels.mean[0][thread] = all.mean, channels.m2[0][thread] = all.m2;
        __syncthreads();
        if (thread < half)
            all = join(all, {channels.n[thread + half], channels.mean[0][thread + half], channels.m2[0][thread + half]});
    }
    if (thread == 0) out[group] = all.m2 / (all.n - (float)correction);
}

// out = a op b over n floats, the small tensors between the passes; b null takes `scalar` in its place.
// grid (ceil(n / THREADS))
extern "C" __global__ void __launch_bounds__(THREADS)
    adalin_elementary_small_f32(ADDS_IF(accumulate) float *out, const float *a, OPTIONAL const float *b, float scalar,
                                int n, int op, int accumulate) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n) store(out + i, apply(op, a[i], b ? b[i] : scalar), accumulate);
}

// Zeroes the counters of the reductions. grid (ceil(n / THREADS))
extern "C" __global__ void __launch_bounds__(THREADS) adalin_elementary_zero_u32(unsigned *counter, int n) {
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n) counter[i] = 0;
}

#define ADALIN_ELEMENTARY(V, T, NAME)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) adalin_elementary_binary_##NAME(                             \
        ADDS_IF(accumulate) T *out, const T *a, OPTIONAL const T *b, int n, int op, int accumulate) {                  \
        binary<V>(out, a, b, n, op, accumulate);                                                                       \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) adalin_elementary_broadcast_##NAME(                          \
        T *out, OPTIONAL const T *a, const float *b, int HW, int C, int per, int scalar, int op) {                     \
        broadcast<V>(out, a, b, HW, C, per, scalar, op);                                                               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        adalin_elementary_sum_##NAME(ADDS_IF(accumulate) float *out, SCRATCH float *partial,                           \
                                     SCRATCH unsigned *counter, const T *x, int pixels, int C, int rows, int layer,    \
                                     float scale, int accumulate) {                                                    \
        sum<V>(out, partial, counter, x, pixels, C, rows, layer, scale, accumulate);                                   \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        adalin_elementary_variance_##NAME(float *out, SCRATCH float *partial, SCRATCH unsigned *counter, const T *x,   \
                                          int pixels, int C, int rows, int layer, int correction) {                    \
        variance<V>(out, partial, counter, x, pixels, C, rows, layer, correction);                                     \
    }

ADALIN_ELEMENTARY(1, float, x1_f32)
ADALIN_ELEMENTARY(4, float, x4_f32)
ADALIN_ELEMENTARY(1, f16, x1_f16)
ADALIN_ELEMENTARY(8, f16, x8_f16)
ADALIN_ELEMENTARY(1, bf16, x1_bf16)
ADALIN_ELEMENTARY(8, bf16, x8_bf16)

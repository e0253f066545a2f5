// What the normalisation family shares: mean and M2 (the sum of squared distances from the mean) of a set
// of values, and how two sets are joined. Never E[x^2] - E[x]^2: with mean 50 and variance 1e-3 that
// difference has no correct digit in fp32.
#pragma once
#include "common/storage.cuh"

struct Moments {
    float n, mean, m2;
};

// Chan, Golub, LeVeque (1979): moments of the union of two disjoint sets.
__device__ __forceinline__ Moments join(Moments a, Moments b) {
    const float n = a.n + b.n;
    if (n == 0.f) return a;
    const float delta = b.mean - a.mean, share = b.n / n;
    return {n, fmaf(delta, share, a.mean), a.m2 + b.m2 + delta * delta * a.n * share};
}

// The same of V channels at once, each thread having seen `n` values of every one: shifted by the first value,
// so that no digit is lost to a large mean.
template <int V>
__device__ __forceinline__ void moments_of(float (&mean)[V], float (&m2)[V], const float (&first)[V],
                                           const float (&sum)[V], const float (&squares)[V], float n) {
    const float one_nth = 1.f / n;
#pragma unroll
    for (int v = 0; v < V; ++v) {
        const float m = sum[v] * one_nth;
        mean[v] = first[v] + m;
        m2[v] = fmaxf(fmaf(-sum[v], m, squares[v]), 0.f);
        if (!(squares[v] == squares[v])) m2[v] = squares[v];  // fmaxf drops a NaN; the norm must not
    }
}

// Of the pixels begin, begin + blockDim.y, .. below `end`, of which there is one at least, V channels at `x` of C a
// pixel; returns how many.
template <int V, typename T>
__device__ __forceinline__ float moments_of_pixels(float (&mean)[V], float (&m2)[V], const T *x, int C, int begin,
                                                   int end) {
    const size_t step = (size_t)blockDim.y * C;
    x += (size_t)begin * C;
    float first[V], sum[V] = {}, squares[V] = {};
    load_row(first, x);
#pragma unroll 4
    for (int i = begin + blockDim.y; i < end; i += blockDim.y) {
        float q[V];
        load_row(q, x += step);
#pragma unroll
        for (int v = 0; v < V; ++v) {
            q[v] -= first[v];
            sum[v] += q[v];
            squares[v] = fmaf(q[v], q[v], squares[v]);
        }
    }
    const float n = (float)ceil_div(end - begin, blockDim.y);
    moments_of(mean, m2, first, sum, squares, n);
    return n;
}

// ---------------------------------------------------------------- over the rows of a block, in a fixed order
// A block is (channels, rows), rows a power of two. Arrays are apart, so neighbours hit neighbouring banks.
template <int THREADS, int V>
struct MomentsScratch {
    float n[THREADS], mean[V][THREADS], m2[V][THREADS];
};

// Joins the sets of the threads that have one threadIdx.x; row 0 is left with the union.
template <int THREADS, int V>
__device__ __forceinline__ void join_rows(float &n, float (&mean)[V], float (&m2)[V], MomentsScratch<THREADS, V> &s) {
    const int slot = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y >= half && threadIdx.y < 2 * half) {
            s.n[slot] = n;
#pragma unroll
            for (int v = 0; v < V; ++v) s.mean[v][slot] = mean[v], s.m2[v][slot] = m2[v];
        }
        __syncthreads();
        if (threadIdx.y < half) {
            const int other = slot + half * blockDim.x;
            const float all = n + s.n[other], share = all > 0.f ? s.n[other] / all : 0.f;
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const float delta = s.mean[v][other] - mean[v];
                mean[v] = fmaf(delta, share, mean[v]);
                m2[v] += s.m2[v][other] + delta * delta * n * share;
            }
            n = all;
        }
    }
}

template <int THREADS, int V>
struct SumsScratch {
    float a[V][THREADS], b[V][THREADS];
};

// Sums a and b over the threads that have one threadIdx.x; row 0 is left with the totals.
template <int THREADS, int V>
__device__ __forceinline__ void sum_rows(float (&a)[V], float (&b)[V], SumsScratch<THREADS, V> &s) {
    const int slot = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y >= half && threadIdx.y < 2 * half) {
#pragma unroll
            for (int v = 0; v < V; ++v) s.a[v][slot] = a[v], s.b[v][slot] = b[v];
        }
        __syncthreads();
        if (threadIdx.y < half) {
            const int other = slot + half * blockDim.x;
#pragma unroll
            for (int v = 0; v < V; ++v) a[v] += s.a[v][other], b[v] += s.b[v][other];
        }
    }
}

// ---------------------------------------------------------------- a reduction that ends in its own launch
// True in every thread of the block that is the last of its group to come here; what the others wrote to global
// memory before is visible to it. `counter` is 0 before and after. One group has `blocks` blocks.
__device__ __forceinline__ bool last_block(unsigned *counter, unsigned blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) last = atomicInc(counter, blocks - 1) == blocks - 1;
    __syncthreads();
    if (last) __threadfence();
    return last;
}

// ---------------------------------------------------------------- the affine part
// How gamma, beta and rho enter, per image and channel, for the forward pass and wherever it is recomputed.
// Without rho the layer is an instance norm: rho 1, gamma 1, beta 0.
struct Affine {
    float mean_i, mean_l, scale_i, scale_l, shift;
};

// stats is [images, C, 2] (mean, rstd), layer_stats [images, 2]. gamma and beta hold one row of C for every
// `images_per_affine` images (1: AdaLIN; N: ILN), rho one row for every N.
__device__ __forceinline__ Affine affine_of(const float *stats, const float *layer_stats, const float *rho,
                                            const float *gamma, const float *beta, int image, int c, int C, int N,
                                            int images_per_affine) {
    const float *s = stats + ((size_t)image * C + c) * 2;
    if (!rho) return {s[0], 0.f, s[1], 0.f, 0.f};
    const float r = rho[image / N * C + c], g = gamma[image / images_per_affine * C + c];
    return {s[0], layer_stats[image * 2], r * s[1] * g, (1.f - r) * layer_stats[image * 2 + 1] * g,
            beta[image / images_per_affine * C + c]};
}

// (rho * a_I + (1 - rho) * a_L) * gamma + beta with both means subtracted first: folding them into one
// shift would lose the digits that a large mean takes.
__device__ __forceinline__ float normalise(float x, const Affine &a) {
    return fmaf(x - a.mean_i, a.scale_i, fmaf(x - a.mean_l, a.scale_l, a.shift));
}

// The same with both means folded into one: what is subtracted is the channel's mean, and only the difference of the
// means enters the shift, so nothing cancels. Kept as planes of C floats an image, lines [images, 3, C].
//   y = (x - mean) * scale + shift
template <int V>
struct Line {
    float mean[V], scale[V], shift[V];
};

template <int V>
__device__ __forceinline__ float normalise(float x, const Line<V> &line, int v) {
    return fmaf(x - line.mean[v], line.scale[v], line.shift[v]);
}

// ---------------------------------------------------------------- planes a block shares
// V values a lane of each of several planes. Lanes lie 16 bytes apart, so that reading them has no bank conflict.
template <int V, int PLANES, int LANES = WARP>
struct Staged {
    alignas(16) float at[PLANES][(V + 3) / 4][LANES][V < 4 ? V : 4];
};

// A thread puts its own channels' values there, for all rows of the block.
template <int V, int PLANES, int LANES>
__device__ __forceinline__ void put(Staged<V, PLANES, LANES> &to, int plane, const float (&q)[V]) {
#pragma unroll
    for (int v = 0; v < V; v += 4) {
        if constexpr (V == 1)
            to.at[plane][0][threadIdx.x][0] = q[0];
        else
            *reinterpret_cast<float4 *>(to.at[plane][v / 4][threadIdx.x]) =
                make_float4(q[v], q[v + 1], q[v + 2], q[v + 3]);
    }
}

// Row `first` + k of the block fetches plane k of src [count, C], for the channels from c on. A barrier must follow.
template <int V, int PLANES, int LANES>
__device__ __forceinline__ void stage(Staged<V, PLANES, LANES> &to, int first, int count, const float *src, int C, int c) {
    const int k = (int)threadIdx.y - first;
    if (k < 0 || k >= count || c >= C) return;
    float q[V];
    load_row(q, src + (size_t)k * C + c);
    put(to, threadIdx.y, q);
}

template <int V, int PLANES, int LANES>
__device__ __forceinline__ void take(float (&q)[V], const Staged<V, PLANES, LANES> &from, int plane) {
#pragma unroll
    for (int v = 0; v < V; v += 4) {
        if constexpr (V == 1) {
            q[0] = from.at[plane][0][threadIdx.x][0];
        } else {
            const float4 f = *reinterpret_cast<const float4 *>(from.at[plane][v / 4][threadIdx.x]);
            q[v] = f.x, q[v + 1] = f.y, q[v + 2] = f.z, q[v + 3] = f.w;
        }
    }
}

template <int V, int PLANES, int LANES>
__device__ __forceinline__ Line<V> take_line(const Staged<V, PLANES, LANES> &from) {
    Line<V> line;
    take(line.mean, from, 0);
    take(line.scale, from, 1);
    take(line.shift, from, 2);
    return line;
}

// ---------------------------------------------------------------- the activation after a norm
// None, ReLU or leaky ReLU: those whose slope follows from the sign of what enters them, so that the backward pass
// recomputes it from x, which it reads anyway.
__device__ __forceinline__ float rectify(float v, int act) {
    if (act == RELU) return v > 0.f ? v : (v == v ? 0.f : v);  // a NaN stays a NaN
    if (act == LEAKY_RELU) return v > 0.f ? v : LEAK * v;
    return v;
}

__device__ __forceinline__ float rectify_slope(float v, int act) {
    return v > 0.f ? 1.f : act == RELU ? 0.f : LEAK;
}

// The gradient that reaches the norm itself: dout times the activation's slope. The sign the slope needs is
// recomputed from x, which the pass reads anyway, so the output is not read.
template <int V>
__device__ __forceinline__ void through_activation(float (&g)[V], const float (&x)[V], const Line<V> &line, int act) {
    if (act == NONE) return;
#pragma unroll
    for (int v = 0; v < V; ++v) g[v] *= rectify_slope(normalise(x[v], line, v), act);
}

// sum(g a_I) and sum(g a_L) of a channel.
struct Dots {
    float i, l;
};

__device__ __forceinline__ Dots dots_of(float s1, float s2, float mean, float rstd, float mean_l, float rstd_l) {
    return {rstd * s2, rstd_l * fmaf(mean - mean_l, s1, s2)};
}

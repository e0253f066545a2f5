// Variant 4: the fused norm with 16-byte accesses, 4 floats or 8 of a 16-bit type a thread.
//
// What changed from variant 3: a thread owns V neighbouring channels and reads them in one instruction, so a warp's
// access is 512 contiguous bytes; partial results lie in planes, so that they too move 16 bytes at a time. Both
// small kernels between the passes use a whole block for an image, where variant 3 left one thread with all chunks of a
// channel and one block with all images; they leave three numbers a channel, mean, scale and shift, which a block of
// the apply pass fetches once. x1 instances serve channel numbers that are no multiple of V.
// Moves: forward 3 passes (x twice, out once), backward 5 (dout and x twice, dx once), as variant 3; the partial
// results are below 2 % of that where an image has 64 x 64 pixels or more.
// Bound by: memory bandwidth; at one image, by the latency of three dependent launches.
//
// Block shape: (groups of V channels, pixels), 256 threads; grid.y splits H*W into chunks of `rows` pixels.
#include "common/norm.cuh"

constexpr int THREADS = 256;
constexpr int SMALL = 1024;  // threads of the two kernels between the passes

// Mean and M2 of one chunk of pixels: partial [images, chunks, 2, C]. Each thread shifts by its first value.
// grid (ceil(C / V / blockDim.x), chunks, images)
template <int V, typename T>
__device__ __forceinline__ void statistics(float *__restrict__ partial, const T *__restrict__ x, int HW, int C,
                                           int rows) {
    __shared__ MomentsScratch<THREADS, V> scratch;
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V, chunk = blockIdx.y, image = blockIdx.z;
    const int begin = chunk * rows + threadIdx.y, end = min((chunk + 1) * rows, HW);
    float n = 0.f, mean[V] = {}, m2[V] = {};
    if (c < C && begin < end)
        n = moments_of_pixels(mean, m2, x + (size_t)image * HW * C + c, C, begin, end);
    join_rows(n, mean, m2, scratch);
    if (threadIdx.y == 0 && c < C) {
        float *out = partial + ((size_t)image * gridDim.y + chunk) * 2 * C + c;
        store_row(out, mean);
        store_row(out + C, m2);
    }
}

// Joins the chunks: stats [images, C, 2] = mean, rstd; with rho also the layer's mean and rstd, layer_stats
// [images, 2]; and lines [images, 3, C] for the apply passes. `unbiased` 1 divides by n - 1.
// Block (channels, parts of the chunks), SMALL threads. grid (images)
extern "C" __global__ void __launch_bounds__(SMALL, 1)
    adalin_finish_rows_f32(float *stats, OPTIONAL float *layer_stats, float *lines, const float *partial,
                           OPTIONAL const float *rho, OPTIONAL const float *gamma, OPTIONAL const float *beta, int HW,
                           int C, int N, int images_per_affine, int rows, int unbiased, float eps) {
    __shared__ MomentsScratch<SMALL, 1> scratch;
    __shared__ float sums[SMALL / WARP];
    const int image = blockIdx.x, chunks = ceil_div(HW, rows), thread = threadIdx.y * blockDim.x + threadIdx.x;
    partial += (size_t)image * chunks * 2 * C;
    stats += (size_t)image * C * 2;
    lines += (size_t)image * C * 3;
    const float shift = partial[0];  // means are summed as their distance from some value of the image
    float mean_sum = 0.f, m2_sum = 0.f;
    for (int first = 0; first < C; first += blockDim.x) {
        const int c = first + threadIdx.x;
        float n = 0.f, mean[1] = {0.f}, m2[1] = {0.f};
        if (c < C && threadIdx.y < chunks) {
            const float base = partial[(size_t)threadIdx.y * 2 * C + c];
            float sum = 0.f, squares = 0.f;
#pragma unroll 4
            for (int chunk = threadIdx.y; chunk < chunks; chunk += blockDim.y) {
                const float *p = partial + (size_t)chunk * 2 * C + c;
                const float count = (float)min(rows, HW - chunk * rows), delta = p[0] - base;
                n += count;
                sum = fmaf(count, delta, sum);
                squares = fmaf(count * delta, delta, squares);
                m2[0] += p[C];
            }
            const float m = sum / n;
            mean[0] = base + m;
            m2[0] += fmaxf(fmaf(-sum, m, squares), 0.f);
        }
        join_rows(n, mean, m2, scratch);
        if (threadIdx.y == 0 && c < C) {
            const float rstd = 1.f / sqrtf(m2[0] / (float)(HW - unbiased) + eps);
            stats[2 * c] = mean[0];
            stats[2 * c + 1] = rstd;
            if (!rho) lines[c] = mean[0], lines[C + c] = rstd, lines[2 * C + c] = 0.f;
            mean_sum += mean[0] - shift;
            m2_sum += m2[0];
        }
    }
    if (!rho) return;
    const float mean = shift + block_sum<SMALL>(mean_sum, sums, thread) / (float)C;
    float spread = 0.f;
    for (int c = thread; c < C; c += SMALL) {
        const float delta = stats[2 * c] - mean;
        spread = fmaf(delta, delta, spread);
    }
    const float m2 = block_sum<SMALL>(fmaf((float)HW, spread, m2_sum), sums, thread);
    const float rstd = 1.f / sqrtf(m2 / ((float)HW * (float)C - (float)unbiased) + eps);
    if (thread == 0) layer_stats[image * 2] = mean, layer_stats[image * 2 + 1] = rstd;
    rho += image / N * C;
    gamma += image / images_per_affine * C;
    beta += image / images_per_affine * C;
    for (int c = thread; c < C; c += SMALL) {
        const float m = stats[2 * c], layer = (1.f - rho[c]) * rstd * gamma[c];
        lines[c] = m;
        lines[C + c] = fmaf(rho[c] * stats[2 * c + 1], gamma[c], layer);
        lines[2 * C + c] = fmaf(m - mean, layer, beta[c]);
    }
}

// out = act((x - mean) * scale + shift) + residual. grid (ceil(C / V / blockDim.x), chunks, images)
template <int V, typename T>
__device__ __forceinline__ void forward(T *__restrict__ out, const T *__restrict__ x, const float *__restrict__ lines,
                                        const T *__restrict__ residual, int HW, int C, int act, int rows) {
    __shared__ Staged<V, 3> planes;
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V, image = blockIdx.z;
    stage(planes, 0, 3, lines + (size_t)image * 3 * C, C, c);
    __syncthreads();
    if (c >= C) return;
    const Line<V> line = take_line(planes);
    const int end = min((blockIdx.y + 1) * rows, HW);
    const size_t base = (size_t)image * HW * C + c;
#pragma unroll 4
    for (int i = blockIdx.y * rows + threadIdx.y; i < end; i += blockDim.y) {
        const size_t at = base + (size_t)i * C;
        float q[V], r[V] = {};
        load_row(q, x + at);
        if (residual) load_row(r, residual + at);
#pragma unroll
        for (int v = 0; v < V; ++v) q[v] = rectify(normalise(q[v], line, v), act) + r[v];
        store_row(out + at, q);
    }
}

// S1 = sum(g), S2 = sum(g * (x - mean_I)) of a chunk: partial [images, chunks, 2, C], g = dout through the
// activation. grid (ceil(C / V / blockDim.x), chunks, images)
template <int V, typename T>
__device__ __forceinline__ void backward_reduce(float *__restrict__ partial, const T *__restrict__ dout,
                                                const T *__restrict__ x, const float *__restrict__ lines, int HW,
                                                int C, int act, int rows) {
    __shared__ SumsScratch<THREADS, V> scratch;
    __shared__ Staged<V, 3> planes;
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V, chunk = blockIdx.y, image = blockIdx.z;
    stage(planes, 0, act == NONE ? 1 : 3, lines + (size_t)image * 3 * C, C, c);
    __syncthreads();
    float s1[V] = {}, s2[V] = {};
    if (c < C) {
        Line<V> line = {};
        take(line.mean, planes, 0);
        if (act != NONE) line = take_line(planes);
        const int end = min((chunk + 1) * rows, HW);
        const size_t base = (size_t)image * HW * C + c;
#pragma unroll 2
        for (int i = chunk * rows + threadIdx.y; i < end; i += blockDim.y) {
            const size_t at = base + (size_t)i * C;
            float q[V], g[V];
            load_row(q, x + at);
            load_row(g, dout + at);
            through_activation(g, q, line, act);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                s1[v] += g[v];
                s2[v] = fmaf(g[v], q[v] - line.mean[v], s2[v]);
            }
        }
    }
    sum_rows(s1, s2, scratch);
    if (threadIdx.y == 0 && c < C) {
        float *out = partial + ((size_t)image * gridDim.y + chunk) * 2 * C + c;
        store_row(out, s1);
        store_row(out + C, s2);
    }
}

// From S1 and S2: the coefficients of dx = A g + B (x - mean_I) + C per image and channel, coefficients
// [images, 3, C]; and the gradients of gamma, beta ([images, C] or [D, C], see images_per_affine) and rho [D, C].
// The first `images` blocks have the coefficients of an image each; the others the gradients of blockDim.x channels
// of a direction each, over its images in order. Block (channels, parts of the chunks), SMALL threads.
// grid (images + (rho ? D * ceil(C / blockDim.x) : 0))
extern "C" __global__ void __launch_bounds__(SMALL, 1)
    adalin_backward_coefficients_rows_f32(OPTIONAL float *coefficients,
                                          OPTIONAL ADDS_IF(accumulate_affine) float *dgamma,
                                          OPTIONAL ADDS_IF(accumulate_affine) float *dbeta,
                                          OPTIONAL ADDS_IF(accumulate_rho) float *drho, const float *partial,
                                          const float *stats, OPTIONAL const float *layer_stats,
                                          OPTIONAL const float *rho, OPTIONAL const float *gamma, int images, int HW,
                                          int C, int N, int images_per_affine, int unbiased, int rows,
                                          int accumulate_affine, int accumulate_rho) {
    __shared__ SumsScratch<SMALL, 1> scratch;
    __shared__ float sums[SMALL / WARP];
    const int chunks = ceil_div(HW, rows), thread = threadIdx.y * blockDim.x + threadIdx.x;
    // S1 and S2 of a channel, over all chunks; in row 0.
    const auto totals = [&](float(&s1)[1], float(&s2)[1], int image, int c) {
        s1[0] = 0.f, s2[0] = 0.f;
        if (c < C) {
#pragma unroll 4
            for (int chunk = threadIdx.y; chunk < chunks; chunk += blockDim.y) {
                const float *p = partial + ((size_t)image * chunks + chunk) * 2 * C + c;
                s1[0] += p[0];
                s2[0] += p[C];
            }
        }
        sum_rows(s1, s2, scratch);
    };
    float s1[1], s2[1];

    if (blockIdx.x >= images) {
        const int blocks = ceil_div(C, blockDim.x), d = (blockIdx.x - images) / blocks;
        const int c = (blockIdx.x - images) % blocks * blockDim.x + threadIdx.x;
        const bool mine = threadIdx.y == 0 && c < C;
        float of_rho = 0.f, of_gamma = 0.f, of_beta = 0.f;
        for (int n = 0; n < N; ++n) {
            const int image = d * N + n, row = image / images_per_affine * C + c;
            totals(s1, s2, image, c);
            if (!mine) continue;
            const float *s = stats + ((size_t)image * C + c) * 2;
            const Dots g = dots_of(s1[0], s2[0], s[0], s[1], layer_stats[image * 2], layer_stats[image * 2 + 1]);
            const float r = rho[d * C + c];
            of_rho = fmaf(gamma[row], g.i - g.l, of_rho);
            of_gamma += fmaf(r, g.i, (1.f - r) * g.l);
            of_beta += s1[0];
            if ((image + 1) % images_per_affine) continue;
            store(dgamma + row, of_gamma, accumulate_affine);
            store(dbeta + row, of_beta, accumulate_affine);
            of_gamma = 0.f, of_beta = 0.f;
        }
        if (mine) store(drho + d * C + c, of_rho, accumulate_rho);
        return;
    }

    const int image = blockIdx.x;
    stats += (size_t)image * C * 2;
    coefficients += (size_t)image * 3 * C;
    const float mean_l = rho ? layer_stats[image * 2] : 0.f, rstd_l = rho ? layer_stats[image * 2 + 1] : 0.f;
    float q1 = 0.f, q2 = 0.f;  // sum over the layer of q = g gamma (1 - rho), and of q a_L
    for (int first = 0; first < C; first += blockDim.x) {
        const int c = first + threadIdx.x;
        totals(s1, s2, image, c);
        if (threadIdx.y > 0 || c >= C) continue;
        const float mean = stats[2 * c], rstd = stats[2 * c + 1];
        const float r = rho ? rho[image / N * C + c] : 1.f, k = rho ? gamma[image / images_per_affine * C + c] : 1.f;
        const Dots g = dots_of(s1[0], s2[0], mean, rstd, mean_l, rstd_l);
        q1 = fmaf(k * (1.f - r), s1[0], q1);
        q2 = fmaf(k * (1.f - r), g.l, q2);
        coefficients[c] = k * fmaf(r, rstd, (1.f - r) * rstd_l);
        coefficients[C + c] = -rstd * rstd * k * r * g.i / (float)(HW - unbiased);
        coefficients[2 * C + c] = -k * r * rstd * s1[0] / (float)HW;
    }
    if (!rho) return;
    q1 = block_sum<SMALL>(q1, sums, thread);
    q2 = block_sum<SMALL>(q2, sums, thread);
    const float count = (float)HW * (float)C, slope = -rstd_l * rstd_l * q2 / (count - (float)unbiased);
    for (int c = thread; c < C; c += SMALL) {
        coefficients[C + c] += slope;
        coefficients[2 * C + c] += slope * (stats[2 * c] - mean_l) - rstd_l * q1 / count;
    }
}

// dx = A g + B (x - mean_I) + C. grid (ceil(C / V / blockDim.x), chunks, images)
template <int V, typename T>
__device__ __forceinline__ void backward(T *__restrict__ dx, const T *__restrict__ dout, const T *__restrict__ x,
                                         const float *__restrict__ coefficients, const float *__restrict__ lines,
                                         int HW, int C, int act, int rows, int accumulate) {
    __shared__ Staged<V, 6> planes;
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V, image = blockIdx.z;
    stage(planes, 0, act == NONE ? 1 : 3, lines + (size_t)image * 3 * C, C, c);
    stage(planes, 3, 3, coefficients + (size_t)image * 3 * C, C, c);
    __syncthreads();
    if (c >= C) return;
    Line<V> line = {};
    take(line.mean, planes, 0);
    if (act != NONE) line = take_line(planes);
    float k0[V], k1[V], k2[V];
    take(k0, planes, 3);
    take(k1, planes, 4);
    take(k2, planes, 5);
    const int end = min((blockIdx.y + 1) * rows, HW);
    const size_t base = (size_t)image * HW * C + c;
#pragma unroll 2
    for (int i = blockIdx.y * rows + threadIdx.y; i < end; i += blockDim.y) {
        const size_t at = base + (size_t)i * C;
        float q[V], g[V];
        load_row(q, x + at);
        load_row(g, dout + at);
        through_activation(g, q, line, act);
#pragma unroll
        for (int v = 0; v < V; ++v) q[v] = fmaf(k0[v], g[v], fmaf(k1[v], q[v] - line.mean[v], k2[v]));
        store_row(dx + at, q, accumulate);
    }
}

#define ADALIN_VECTORISED(V, T, NAME)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        adalin_statistics_##NAME(float *partial, const T *x, int HW, int C, int rows) {                                \
        statistics<V>(partial, x, HW, C, rows);                                                                        \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) adalin_forward_##NAME(                                    \
        T *out, const T *x, const float *lines, OPTIONAL const T *residual, int HW, int C, int act, int rows) {        \
        forward<V>(out, x, lines, residual, HW, C, act, rows);                                                         \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) adalin_backward_reduce_##NAME(                            \
        float *partial, const T *dout, const T *x, const float *lines, int HW, int C, int act, int rows) {             \
        backward_reduce<V>(partial, dout, x, lines, HW, C, act, rows);                                                 \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        adalin_backward_##NAME(ADDS_IF(accumulate) T *dx, const T *dout, const T *x, const float *coefficients,        \
                               const float *lines, int HW, int C, int act, int rows, int accumulate) {                 \
        backward<V>(dx, dout, x, coefficients, lines, HW, C, act, rows, accumulate);                                   \
    }

ADALIN_VECTORISED(1, float, x1_f32)
ADALIN_VECTORISED(4, float, x4_f32)
ADALIN_VECTORISED(1, f16, x1_f16)
ADALIN_VECTORISED(8, f16, x8_f16)
ADALIN_VECTORISED(1, bf16, x1_bf16)
ADALIN_VECTORISED(8, bf16, x8_bf16)

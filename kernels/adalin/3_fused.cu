// Variant 3: instance norm, AdaLIN and ILN as one family, forward and backward, with activation and residual fused.
//
//   out = act((rho * a_I + (1 - rho) * a_L) * gamma + beta) + residual
//   a_I = (x - mean_I) * rstd_I over (H, W) per image and channel, a_L over (C, H, W) per image
//
// Source: U-GAT-IT (arXiv 1907.10830) eq. 1-3; variances as the official PyTorch code has them: unbiased in
// AdaLIN and ILN, population in instance norm. All tensors NHWC. Formulas: kernels/README.md.
//
// What changed from variant 2: no x-sized intermediate is left. Forward: statistics of chunks -> finish -> apply.
// Backward: sums of chunks -> coefficients -> apply, dx = A dy + B (x - mean) + C. The layer statistics cost no pass
// of their own: they follow from the channels' means and M2.
// Moves: forward 3 passes (x twice, out once), backward 5 (dout and x twice, dx once).
// Bound by: memory instructions, one element each; and the coefficients, where one block walks over all images.
//
// Block shape for the reductions and passes: blockDim (channels, pixels) with 256 threads in all, a thread
// stays on one channel, so its coefficients are loaded once. grid.y splits H*W into chunks of `rows` pixels.
#include "common/norm.cuh"

constexpr int THREADS = 256;

// Mean and M2 of one chunk of pixels: partial [images, chunks, C, 2]. Each thread shifts by its first value.
// grid (ceil(C / blockDim.x), chunks, images)
template <typename T>
__device__ __forceinline__ void statistics(float *partial, const T *x, int HW, int C, int rows) {
    __shared__ Moments scratch[THREADS];
    const int c = blockIdx.x * blockDim.x + threadIdx.x, chunk = blockIdx.y, image = blockIdx.z;
    const int begin = chunk * rows + threadIdx.y, end = min((chunk + 1) * rows, HW);
    Moments m = {0.f, 0.f, 0.f};
    if (c < C && begin < end) {
        const T *p = x + ((size_t)image * HW + begin) * C + c;
        float first[1], sum[1] = {0.f}, squares[1] = {0.f}, mean[1], m2[1];
        load_row(first, p);
        for (int i = begin; i < end; i += blockDim.y) {
            float v[1];
            load_row(v, p);
            v[0] -= first[0];
            sum[0] += v[0];
            squares[0] = fmaf(v[0], v[0], squares[0]);
            p += (size_t)blockDim.y * C;
        }
        m.n = (float)ceil_div(end - begin, blockDim.y);
        moments_of(mean, m2, first, sum, squares, m.n);
        m.mean = mean[0], m.m2 = m2[0];
    }
    const int slot = threadIdx.y * blockDim.x + threadIdx.x;
    scratch[slot] = m;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) scratch[slot] = join(scratch[slot], scratch[slot + half * blockDim.x]);
        __syncthreads();
    }
    if (threadIdx.y == 0 && c < C) {
        float *out = partial + (((size_t)image * gridDim.y + chunk) * C + c) * 2;
        out[0] = scratch[slot].mean;
        out[1] = scratch[slot].m2;
    }
}

// Joins the chunks: stats [images, C, 2] = mean, rstd; with layer_stats also the layer's mean and rstd
// [images, 2]. `unbiased` 1 divides by n - 1. grid (images)
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    adalin_finish_f32(float *stats, OPTIONAL float *layer_stats, const float *partial, int HW, int C, int rows,
                      int unbiased, float eps) {
    __shared__ float scratch[THREADS / WARP];
    const int image = blockIdx.x, chunks = ceil_div(HW, rows);
    float mean_sum = 0.f, m2_sum = 0.f;
    for (int c = threadIdx.x; c < C; c += THREADS) {
        Moments m = {0.f, 0.f, 0.f};
        for (int chunk = 0; chunk < chunks; ++chunk) {
            const float *p = partial + (((size_t)image * chunks + chunk) * C + c) * 2;
            m = join(m, {(float)min(rows, HW - chunk * rows), p[0], p[1]});
        }
        float *s = stats + ((size_t)image * C + c) * 2;
        s[0] = m.mean;
        s[1] = 1.f / sqrtf(m.m2 / (float)(HW - unbiased) + eps);
        mean_sum += m.mean;
        m2_sum += m.m2;
    }
    if (!layer_stats) return;
    const float mean = block_sum<THREADS>(mean_sum, scratch) / (float)C;
    float spread = 0.f;
    for (int c = threadIdx.x; c < C; c += THREADS) {
        const float delta = stats[((size_t)image * C + c) * 2] - mean;
        spread = fmaf(delta, delta, spread);
    }
    const float m2 = block_sum<THREADS>(fmaf((float)HW, spread, m2_sum), scratch);
    if (threadIdx.x == 0) {
        layer_stats[image * 2] = mean;
        layer_stats[image * 2 + 1] = 1.f / sqrtf(m2 / ((float)HW * (float)C - (float)unbiased) + eps);
    }
}

// out = act(normalised x) + residual. grid (ceil(C / blockDim.x), chunks, images)
template <typename T>
__device__ __forceinline__ void forward(T *out, const T *x, const float *stats, const float *layer_stats,
                                        const float *rho, const float *gamma, const float *beta, const T *residual,
                                        int HW, int C, int N, int images_per_affine, int act, int rows) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.z;
    if (c >= C) return;
    const Affine a = affine_of(stats, layer_stats, rho, gamma, beta, image, c, C, N, images_per_affine);
    const int end = min((blockIdx.y + 1) * rows, HW);
    for (int i = blockIdx.y * rows + threadIdx.y; i < end; i += blockDim.y) {
        const size_t at = ((size_t)image * HW + i) * C + c;
        float v[1], r[1];
        load_row(v, x + at);
        v[0] = rectify(normalise(v[0], a), act);
        if (residual) {
            load_row(r, residual + at);
            v[0] += r[0];
        }
        store_row(out + at, v);
    }
}

// The gradient that reaches the norm itself: dout times the activation's slope. The sign the slope needs is
// recomputed from x, which the pass reads anyway, so the output is not read.
__device__ __forceinline__ float through_activation(float dout, float x, const Affine &a, int act) {
    return act == NONE ? dout : dout * rectify_slope(normalise(x, a), act);
}

// S1 = sum(g), S2 = sum(g * (x - mean_I)) of a chunk: partial [images, chunks, C, 2], g = dout through the
// activation. grid (ceil(C / blockDim.x), chunks, images)
template <typename T>
__device__ __forceinline__ void backward_reduce(float *partial, const T *dout, const T *x, const float *stats,
                                                const float *layer_stats, const float *rho, const float *gamma,
                                                const float *beta, int HW, int C, int N, int images_per_affine,
                                                int act, int rows) {
    __shared__ float2 scratch[THREADS];
    const int c = blockIdx.x * blockDim.x + threadIdx.x, chunk = blockIdx.y, image = blockIdx.z;
    float2 s = make_float2(0.f, 0.f);
    if (c < C) {
        const Affine a = affine_of(stats, layer_stats, rho, gamma, beta, image, c, C, N, images_per_affine);
        const int end = min((chunk + 1) * rows, HW);
        for (int i = chunk * rows + threadIdx.y; i < end; i += blockDim.y) {
            const size_t at = ((size_t)image * HW + i) * C + c;
            float v[1], dy[1];
            load_row(v, x + at);
            load_row(dy, dout + at);
            const float g = through_activation(dy[0], v[0], a, act);
            s.x += g;
            s.y = fmaf(g, v[0] - a.mean_i, s.y);
        }
    }
    const int slot = threadIdx.y * blockDim.x + threadIdx.x;
    scratch[slot] = s;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) {
            const float2 o = scratch[slot + half * blockDim.x];
            scratch[slot].x += o.x;
            scratch[slot].y += o.y;
        }
        __syncthreads();
    }
    if (threadIdx.y == 0 && c < C) {
        float *out = partial + (((size_t)image * gridDim.y + chunk) * C + c) * 2;
        out[0] = scratch[slot].x;
        out[1] = scratch[slot].y;
    }
}

// From S1 and S2: the coefficients of dx = A g + B (x - mean_I) + C per image and channel (coefficients
// [images, C, 3]) and the gradients of gamma, beta ([images, C] or [D, C], see images_per_affine) and rho [D, C].
// One block a direction walks over its images in order, so the sums over images are in a fixed order. grid (D)
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    adalin_backward_coefficients_f32(float *coefficients, OPTIONAL ADDS_IF(accumulate_affine) float *dgamma,
                                     OPTIONAL ADDS_IF(accumulate_affine) float *dbeta,
                                     OPTIONAL ADDS_IF(accumulate_rho) float *drho, const float *partial,
                                     const float *stats, OPTIONAL const float *layer_stats, OPTIONAL const float *rho,
                                     OPTIONAL const float *gamma, int HW, int C, int N, int images_per_affine,
                                     int unbiased, int rows, int accumulate_affine, int accumulate_rho) {
    __shared__ float scratch[THREADS / WARP];
    const int d = blockIdx.x, chunks = ceil_div(HW, rows);
    for (int n = 0; n < N; ++n) {
        const int image = d * N + n;
        const float mean_l = rho ? layer_stats[image * 2] : 0.f, rstd_l = rho ? layer_stats[image * 2 + 1] : 0.f;
        float q1 = 0.f, q2 = 0.f;  // sum over the layer of q = g gamma (1 - rho), and of q a_L
        for (int c = threadIdx.x; c < C; c += THREADS) {
            float s1 = 0.f, s2 = 0.f;
            for (int chunk = 0; chunk < chunks; ++chunk) {
                const float *p = partial + (((size_t)image * chunks + chunk) * C + c) * 2;
                s1 += p[0];
                s2 += p[1];
            }
            const float mean = stats[((size_t)image * C + c) * 2], rstd = stats[((size_t)image * C + c) * 2 + 1];
            const float r = rho ? rho[d * C + c] : 1.f, k = rho ? gamma[image / images_per_affine * C + c] : 1.f;
            const float g_ai = rstd * s2;                                 // sum(g a_I)
            const float g_al = rstd_l * fmaf(mean - mean_l, s1, s2);      // sum(g a_L)
            q1 = fmaf(k * (1.f - r), s1, q1);
            q2 = fmaf(k * (1.f - r), g_al, q2);
            const float slope_i = -rstd * rstd * k * r * g_ai / (float)(HW - unbiased);
            float *out = coefficients + ((size_t)image * C + c) * 3;
            out[0] = k * fmaf(r, rstd, (1.f - r) * rstd_l);
            out[1] = slope_i;
            out[2] = -k * r * rstd * s1 / (float)HW;
            if (!rho) continue;
            // ILN's gamma and beta collect over the images of a direction, AdaLIN's are one row an image.
            const int row = image / images_per_affine * C + c;
            const int more = accumulate_affine || (images_per_affine > 1 && n > 0);
            store(dgamma + row, fmaf(r, g_ai, (1.f - r) * g_al), more);
            store(dbeta + row, s1, more);
            store(drho + d * C + c, k * (g_ai - g_al), accumulate_rho || n > 0);
        }
        if (!rho) continue;
        q1 = block_sum<THREADS>(q1, scratch);
        q2 = block_sum<THREADS>(q2, scratch);
        const float count = (float)HW * (float)C;
        const float slope_l = -rstd_l * rstd_l * q2 / (count - (float)unbiased);
        for (int c = threadIdx.x; c < C; c += THREADS) {
            float *out = coefficients + ((size_t)image * C + c) * 3;
            out[1] += slope_l;
            out[2] += slope_l * (stats[((size_t)image * C + c) * 2] - mean_l) - rstd_l * q1 / count;
        }
    }
}

// dx = A g + B (x - mean_I) + C. grid (ceil(C / blockDim.x), chunks, images)
template <typename T>
__device__ __forceinline__ void backward(T *dx, const T *dout, const T *x, const float *coefficients,
                                         const float *stats, const float *layer_stats, const float *rho,
                                         const float *gamma, const float *beta, int HW, int C, int N,
                                         int images_per_affine, int act, int rows, int accumulate) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.z;
    if (c >= C) return;
    const Affine a = affine_of(stats, layer_stats, rho, gamma, beta, image, c, C, N, images_per_affine);
    const float *k = coefficients + ((size_t)image * C + c) * 3;
    const float k0 = k[0], k1 = k[1], k2 = k[2];
    const int end = min((blockIdx.y + 1) * rows, HW);
    for (int i = blockIdx.y * rows + threadIdx.y; i < end; i += blockDim.y) {
        const size_t at = ((size_t)image * HW + i) * C + c;
        float v[1], dy[1];
        load_row(v, x + at);
        load_row(dy, dout + at);
        const float g = through_activation(dy[0], v[0], a, act);
        v[0] = fmaf(k0, g, fmaf(k1, v[0] - a.mean_i, k2));
        store_row(dx + at, v, accumulate);
    }
}

#define ADALIN_FUSED(T, NAME)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
        adalin_statistics_##NAME(float *partial, const T *x, int HW, int C, int rows) {                                \
        statistics(partial, x, HW, C, rows);                                                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) adalin_forward_##NAME(                                       \
        T *out, const T *x, const float *stats, OPTIONAL const float *layer_stats, OPTIONAL const float *rho,          \
        OPTIONAL const float *gamma, OPTIONAL const float *beta, OPTIONAL const T *residual, int HW, int C, int N,     \
        int images_per_affine, int act, int rows) {                                                                    \
        forward(out, x, stats, layer_stats, rho, gamma, beta, residual, HW, C, N, images_per_affine, act, rows);       \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) adalin_backward_reduce_##NAME(                               \
        float *partial, const T *dout, const T *x, const float *stats, OPTIONAL const float *layer_stats,              \
        OPTIONAL const float *rho, OPTIONAL const float *gamma, OPTIONAL const float *beta, int HW, int C, int N,      \
        int images_per_affine, int act, int rows) {                                                                    \
        backward_reduce(partial, dout, x, stats, layer_stats, rho, gamma, beta, HW, C, N, images_per_affine, act,      \
                        rows);                                                                                         \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS) adalin_backward_##NAME(                                      \
        ADDS_IF(accumulate) T *dx, const T *dout, const T *x, const float *coefficients, const float *stats,           \
        OPTIONAL const float *layer_stats, OPTIONAL const float *rho, OPTIONAL const float *gamma,                     \
        OPTIONAL const float *beta, int HW, int C, int N, int images_per_affine, int act, int rows, int accumulate) {  \
        backward(dx, dout, x, coefficients, stats, layer_stats, rho, gamma, beta, HW, C, N, images_per_affine, act,    \
                 rows, accumulate);                                                                                    \
    }

ADALIN_FUSED(float, f32)
ADALIN_FUSED(f16, f16)
ADALIN_FUSED(bf16, bf16)

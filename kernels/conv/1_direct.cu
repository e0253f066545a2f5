// Convolution, variant 1: direct, fp32, register-tiled, no shared memory.
//
// A convolution here is always *valid*: padding and up-sampling happened before it (pad.cu). Shapes:
// inp [D*N, H, W, CI], weight [D, K, K, CI, CO], out [D*N, OH, OW, CO], OH = (H - K) / S + 1.
// `scale`, where given, holds one factor per `n_per_scale` images: 1/sigma of spectral normalisation,
// so that W/sigma is never written down.
//
// A thread owns PX pixels times CT channels and keeps them in registers; for four input channels it
// loads PX + CT vectors of 16 bytes and does 4 * PX * CT multiply-adds. What bounds it: load
// instructions that hit L1 and L2 (every block reads all its inputs and weights through the cache);
// variant 2 stages both in shared memory instead.
//
// VEC: the contracted channels come in fours (16-byte loads); otherwise they are read one by one.
// WIDE: the tiled channels come in eights (CT = 8); otherwise CT = 4 with a guard on each.
#include "common/common.cuh"

constexpr int PX = 4;  // pixels a thread
constexpr int THREADS = 64;

// Dot-product step shared by forward and dgrad: acc[px][c] += a[px][i] * b[i][c] for four i.
template <int CT>
__device__ __forceinline__ void rank4(float (&acc)[PX][CT], const float4 (&a)[PX], const float (&b)[4][CT]) {
#pragma unroll
    for (int px = 0; px < PX; ++px) {
#pragma unroll
        for (int c = 0; c < CT; ++c) {
            acc[px][c] = fmaf(a[px].x, b[0][c], acc[px][c]);
            acc[px][c] = fmaf(a[px].y, b[1][c], acc[px][c]);
            acc[px][c] = fmaf(a[px].z, b[2][c], acc[px][c]);
            acc[px][c] = fmaf(a[px].w, b[3][c], acc[px][c]);
        }
    }
}

template <bool WIDE, int CT>
__device__ __forceinline__ void load_channels(float (&b)[CT], const float *p, int c0, int channels) {
    if (WIDE) {
#pragma unroll
        for (int c = 0; c < CT; c += 4) {
            const float4 v = load4(p + c);
            b[c] = v.x, b[c + 1] = v.y, b[c + 2] = v.z, b[c + 3] = v.w;
        }
    } else {
#pragma unroll
        for (int c = 0; c < CT; ++c) b[c] = c0 + c < channels ? p[c] : 0.f;
    }
}

// ---------------------------------------------------------------- forward
// out[oh, ow, co] = act(scale * sum over taps and ci of inp[oh*S + kh, ow*S + kw, ci] * weight[kh, kw, ci, co] + bias).
// grid (ceil(pixel groups * channel groups / THREADS), D * N)
template <bool VEC, bool WIDE>
__device__ __forceinline__ void forward(float *out, const float *inp, const float *weight, const float *bias,
                                        const float *scale, int N, int H, int W, int CI, int OH, int OW, int CO,
                                        int K, int S, int n_per_scale, int act) {
    constexpr int CT = WIDE ? 8 : 4;
    const int channel_groups = ceil_div(CO, CT), P = OH * OW;
    const int index = blockIdx.x * THREADS + threadIdx.x;
    const int co = index % channel_groups * CT, p0 = index / channel_groups * PX;
    if (p0 >= P) return;
    const int image = blockIdx.y, d = image / N;

    const float *x[PX];
#pragma unroll
    for (int px = 0; px < PX; ++px) {
        const int p = min(p0 + px, P - 1);  // past the end: repeat the last pixel, store nothing
        x[px] = inp + (((size_t)image * H + p / OW * S) * W + p % OW * S) * CI;
    }
    const float *w = weight + (size_t)d * K * K * CI * CO + co;

    float acc[PX][CT] = {};
    for (int kh = 0; kh < K; ++kh) {
        for (int kw = 0; kw < K; ++kw) {
            const int offset = (kh * W + kw) * CI;
            if (VEC) {
                for (int ci = 0; ci < CI; ci += 4) {
                    float4 a[PX];
                    float b[4][CT];
#pragma unroll
                    for (int px = 0; px < PX; ++px) a[px] = load4(x[px] + offset + ci);
#pragma unroll
                    for (int i = 0; i < 4; ++i) load_channels<WIDE>(b[i], w + i * CO, co, CO);
                    rank4(acc, a, b);
                    w += 4 * CO;
                }
            } else {
                for (int ci = 0; ci < CI; ++ci) {
                    float b[CT];
                    load_channels<WIDE>(b, w, co, CO);
#pragma unroll
                    for (int px = 0; px < PX; ++px) {
                        const float a = x[px][offset + ci];
#pragma unroll
                        for (int c = 0; c < CT; ++c) acc[px][c] = fmaf(a, b[c], acc[px][c]);
                    }
                    w += CO;
                }
            }
        }
    }

    const float factor = scale ? scale[image / n_per_scale] : 1.f;
    float shift[CT] = {};
    if (bias) load_channels<WIDE>(shift, bias + d * CO + co, co, CO);
#pragma unroll
    for (int px = 0; px < PX; ++px) {
        if (p0 + px >= P) break;
        float *y = out + ((size_t)image * P + p0 + px) * CO + co;
#pragma unroll
        for (int c = 0; c < CT; ++c) acc[px][c] = activate(fmaf(acc[px][c], factor, shift[c]), act);
        if (WIDE) {
#pragma unroll
            for (int c = 0; c < CT; c += 4)
                store4(y + c, make_float4(acc[px][c], acc[px][c + 1], acc[px][c + 2], acc[px][c + 3]), 0);
        } else {
#pragma unroll
            for (int c = 0; c < CT; ++c)
                if (co + c < CO) y[c] = acc[px][c];
        }
    }
}

// ---------------------------------------------------------------- dgrad
// dinp[h, w, ci] = scale * sum over taps and co of dout[(h - kh) / S, (w - kw) / S, co] * weight[kh, kw, ci, co].
// Pixels of one phase (h % S, w % S) meet the same taps, so a thread's pixels share a phase: grid.z is
// the phase, and no multiply-add is spent on taps that a stride skips.
// grid (ceil(pixel groups * channel groups / THREADS), D * N, S * S)
template <bool VEC, bool WIDE>
__device__ __forceinline__ void dgrad(float *dinp, const float *dout, const float *weight, const float *scale, int N,
                                      int H, int W, int CI, int OH, int OW, int CO, int K, int S, int n_per_scale,
                                      int accumulate) {
    constexpr int CT = WIDE ? 8 : 4;
    const int phase_h = blockIdx.z / S, phase_w = blockIdx.z % S;
    const int PH = ceil_div(H - phase_h, S), PW = ceil_div(W - phase_w, S), P = PH * PW;
    const int channel_groups = ceil_div(CI, CT);
    const int index = blockIdx.x * THREADS + threadIdx.x;
    const int ci = index % channel_groups * CT, p0 = index / channel_groups * PX;
    if (p0 >= P) return;
    const int image = blockIdx.y, d = image / N;

    int ph[PX], pw[PX];
#pragma unroll
    for (int px = 0; px < PX; ++px) {
        const int p = min(p0 + px, P - 1);
        ph[px] = p / PW, pw[px] = p % PW;
    }
    const float *dy = dout + (size_t)image * OH * OW * CO;
    const float *w0 = weight + ((size_t)d * K * K * CI + ci) * CO;

    float acc[PX][CT] = {};
    for (int th = 0, kh = phase_h; kh < K; ++th, kh += S) {
        for (int tw = 0, kw = phase_w; kw < K; ++tw, kw += S) {
            bool ok[PX];
            const float *row[PX];
            bool any = false;
#pragma unroll
            for (int px = 0; px < PX; ++px) {
                const int oh = ph[px] - th, ow = pw[px] - tw;
                ok[px] = oh >= 0 && oh < OH && ow >= 0 && ow < OW;
                any = any || ok[px];
                row[px] = dy + (ok[px] ? (oh * OW + ow) * CO : 0);
            }
            if (!any) continue;
            const float *w = w0 + (size_t)(kh * K + kw) * CI * CO;
            if (VEC) {
                for (int co = 0; co < CO; co += 4) {
                    float4 a[PX], t[CT];
                    float b[4][CT];
#pragma unroll
                    for (int px = 0; px < PX; ++px) a[px] = ok[px] ? load4(row[px] + co) : make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
                    for (int c = 0; c < CT; ++c)
                        t[c] = WIDE || ci + c < CI ? load4(w + c * CO + co) : make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
                    for (int c = 0; c < CT; ++c) b[0][c] = t[c].x, b[1][c] = t[c].y, b[2][c] = t[c].z, b[3][c] = t[c].w;
                    rank4(acc, a, b);
                }
            } else {
                for (int co = 0; co < CO; ++co) {
                    float b[CT];
#pragma unroll
                    for (int c = 0; c < CT; ++c) b[c] = WIDE || ci + c < CI ? w[c * CO + co] : 0.f;
#pragma unroll
                    for (int px = 0; px < PX; ++px) {
                        const float a = ok[px] ? row[px][co] : 0.f;
#pragma unroll
                        for (int c = 0; c < CT; ++c) acc[px][c] = fmaf(a, b[c], acc[px][c]);
                    }
                }
            }
        }
    }

    const float factor = scale ? scale[image / n_per_scale] : 1.f;
#pragma unroll
    for (int px = 0; px < PX; ++px) {
        if (p0 + px >= P) break;
        const int h = ph[px] * S + phase_h, w = pw[px] * S + phase_w;
        float *dx = dinp + (((size_t)image * H + h) * W + w) * CI + ci;
#pragma unroll
        for (int c = 0; c < CT; ++c) {
            if (WIDE || ci + c < CI) store(dx + c, acc[px][c] * factor, accumulate);
        }
    }
}

// ---------------------------------------------------------------- wgrad
// dweight[kh, kw, ci, co] = sum over images and output pixels of scale * inp[oh*S + kh, ow*S + kw, ci] * dout[oh, ow, co].
// A thread owns a tile of 4 ci times CT co of one tap and walks over the output rows of its chunk. With
// several chunks each writes its own partial [chunk][D][K*K*CI*CO], which reduce_partials_f32 adds in order.
// grid (ceil(tiles / THREADS), chunks, D)
template <bool VEC, bool WIDE>
__device__ __forceinline__ void wgrad(float *dweight, const float *inp, const float *dout, const float *scale, int N,
                                      int H, int W, int CI, int OH, int OW, int CO, int K, int S, int n_per_scale,
                                      int chunks, int accumulate) {
    constexpr int CT = WIDE ? 8 : 4;
    const int ci_groups = ceil_div(CI, 4), co_groups = ceil_div(CO, CT);
    int index = blockIdx.x * THREADS + threadIdx.x;
    const int co = index % co_groups * CT;
    index /= co_groups;
    const int ci = index % ci_groups * 4, tap = index / ci_groups;
    if (tap >= K * K) return;
    const int kh = tap / K, kw = tap % K, d = blockIdx.z, chunk = blockIdx.y;

    const int rows = N * OH, row_end = (int)((long long)rows * (chunk + 1) / chunks);
    float acc[4][CT] = {};
    for (int row = (int)((long long)rows * chunk / chunks); row < row_end; ++row) {
        const int image = d * N + row / OH, oh = row % OH;
        const float factor = scale ? scale[image / n_per_scale] : 1.f;
        const float *x = inp + (((size_t)image * H + oh * S + kh) * W + kw) * CI + ci;
        const float *dy = dout + ((size_t)image * OH + oh) * OW * CO + co;
        for (int ow = 0; ow < OW; ++ow) {
            float a[4], b[CT];
            if (VEC) {
                const float4 v = load4(x);
                a[0] = v.x, a[1] = v.y, a[2] = v.z, a[3] = v.w;
            } else {
#pragma unroll
                for (int i = 0; i < 4; ++i) a[i] = ci + i < CI ? x[i] : 0.f;
            }
            load_channels<WIDE>(b, dy, co, CO);
            if (scale) {
#pragma unroll
                for (int i = 0; i < 4; ++i) a[i] *= factor;
            }
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int c = 0; c < CT; ++c) acc[i][c] = fmaf(a[i], b[c], acc[i][c]);
            x += S * CI;
            dy += CO;
        }
    }

    float *dw = dweight + ((((size_t)chunk * gridDim.z + d) * K * K + tap) * CI + ci) * CO + co;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (!VEC && ci + i >= CI) break;
#pragma unroll
        for (int c = 0; c < CT; ++c)
            if (WIDE || co + c < CO) store(dw + (size_t)i * CO + c, acc[i][c], accumulate);
    }
}

// ---------------------------------------------------------------- forward, one output channel
// So few results that a thread each would leave the GPU empty: the threads of a block share the sum of one, each every
// ONE_THREADS-th channel of each tap, added up in a fixed order. Bytes: inputs and weights once a result; bound by latency.
// grid (OH*OW, D * N)
constexpr int ONE_THREADS = 256;

extern "C" __global__ void __launch_bounds__(ONE_THREADS) conv_forward_direct_one_f32(
    float *out, const float *inp, const float *weight, OPTIONAL const float *bias, OPTIONAL const float *scale, int N, int H,
    int W, int CI, int OH, int OW, int CO, int K, int S, int n_per_scale, int act) {
    __shared__ float scratch[ONE_THREADS / WARP];
    const int image = blockIdx.y, d = image / N, oh = blockIdx.x / OW, ow = blockIdx.x % OW;
    const float *x = inp + (((size_t)image * H + oh * S) * W + ow * S) * CI;
    const float *w = weight + (size_t)d * K * K * CI;
    float sum = 0.f;
    for (int tap = 0; tap < K * K; ++tap, w += CI) {
        const float *row = x + (size_t)(tap / K * W + tap % K) * CI;
        for (int ci = threadIdx.x; ci < CI; ci += ONE_THREADS) sum = fmaf(row[ci], w[ci], sum);
    }
    sum = block_sum<ONE_THREADS>(sum, scratch);
    if (threadIdx.x != 0) return;
    const float factor = scale ? scale[image / n_per_scale] : 1.f;
    out[(size_t)image * OH * OW + blockIdx.x] = activate(fmaf(sum, factor, bias ? bias[d] : 0.f), act);
}

// Eight blocks an SM: left to itself, ptxas aims for more and spills.
#define CONV_DIRECT(suffix, VEC, WIDE)                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, 8) conv_forward_direct_##suffix##_f32(                      \
        float *out, const float *inp, const float *weight, OPTIONAL const float *bias, OPTIONAL const float *scale,   \
        int N, int H, int W, int CI, int OH, int OW, int CO, int K, int S, int n_per_scale, int act) {                \
        forward<VEC, WIDE>(out, inp, weight, bias, scale, N, H, W, CI, OH, OW, CO, K, S, n_per_scale, act);           \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 8) conv_dgrad_direct_##suffix##_f32(                        \
        ADDS_IF(accumulate) float *dinp, const float *dout, const float *weight, OPTIONAL const float *scale, int N,  \
        int H, int W, int CI, int OH, int OW, int CO, int K, int S, int n_per_scale, int accumulate) {                \
        dgrad<VEC, WIDE>(dinp, dout, weight, scale, N, H, W, CI, OH, OW, CO, K, S, n_per_scale, accumulate);          \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 8) conv_wgrad_direct_##suffix##_f32(                        \
        ADDS_IF(accumulate) float *dweight, const float *inp, const float *dout, OPTIONAL const float *scale, int N,  \
        int H, int W, int CI, int OH, int OW, int CO, int K, int S, int n_per_scale, int chunks, int accumulate) {    \
        wgrad<VEC, WIDE>(dweight, inp, dout, scale, N, H, W, CI, OH, OW, CO, K, S, n_per_scale, chunks, accumulate);  \
    }

// x4 or x1: contracted channels four at a time or one; c8 or c4: tiled channels in eights or guarded fours.
CONV_DIRECT(x4_c8, true, true)
CONV_DIRECT(x4_c4, true, false)
CONV_DIRECT(x1_c8, false, true)
CONV_DIRECT(x1_c4, false, false)

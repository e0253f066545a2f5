// Convolution, variant 2: implicit GEMM, fp32, tiles in shared memory.
//
// What changed against variant 1: a block of 256 threads computes a tile of BM x BN results together. Both operands
// pass through shared memory in slices of BK = 8, so each value is read from the cache once a tile instead of once a
// thread, and a thread's 8 x TN results need only 8 + TN words of shared memory for 8 * TN multiply-adds. The next
// slice is fetched into registers while the current one is multiplied (two buffers, one barrier a slice).
// Bytes from L2: M N K (1 / BM + 1 / BN) words instead of M N K (1 / CT + 1 / PX). What bounds it now: the fp32 units,
// where there are enough tiles to fill the GPU. Where there are not, the long sum of each tile is split over several blocks,
// and the last of them to end adds the parts up (split-K).
//
// The matrix is never written down: a row of A is a pixel and a column a (tap, channel), found by index arithmetic.
// As in variant 1 a convolution is valid, inp is [D*N, H, W, CI], weight [D, K, K, CI, CO], out [D*N, OH, OW, CO]. Both
// channel counts come in fours.
//
//   pass     rows (BM)             columns (BN)   sum over
//   forward  output pixels         CO             taps, CI
//   dgrad    input pixels (phase)  CI             taps of the phase, CO
//   wgrad    taps, CI              CO             output pixels
#include "common/common.cuh"
#include "common/ring.cuh"
#include "common/split_k.cuh"

constexpr int BM = 128;
constexpr int BK = 8;
constexpr int THREADS = 256;
constexpr int TM = 8;
// Two blocks an SM, so that one multiplies while the other waits at its barrier. For sm_80 and sm_100 ptxas would spill,
// and in the forward pass for sm_90 too.
#if __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1200
#define BOUNDS __launch_bounds__(THREADS, 2)
#else
#define BOUNDS __launch_bounds__(THREADS)
#endif
constexpr int LDA = BM + 4;  // padded rows: the transposing stores of a warp meet 32 different banks

// One slice of both operands, k-major.
template <int BN>
struct Tile {
    float a[BK][LDA];
    float b[BK][BN + 4];
};

// acc += a^T b over one slice. Thread (ty, tx) owns rows ty*4.. and 64 + ty*4.., columns tx*4.. (and 64 + tx*4..).
template <int BN>
__device__ __forceinline__ void multiply(float (&acc)[TM][BN / 16], const Tile<BN> &tile, int ty, int tx) {
    constexpr int TN = BN / 16;
#pragma unroll
    for (int k = 0; k < BK; ++k) {
        float a[TM], b[TN];
#pragma unroll
        for (int i = 0; i < TM; i += 4) {
            const float4 v = load4(&tile.a[k][i * 16 + ty * 4]);
            a[i] = v.x, a[i + 1] = v.y, a[i + 2] = v.z, a[i + 3] = v.w;
        }
#pragma unroll
        for (int j = 0; j < TN; j += 4) {
            const float4 v = load4(&tile.b[k][j * 16 + tx * 4]);
            b[j] = v.x, b[j + 1] = v.y, b[j + 2] = v.z, b[j + 3] = v.w;
        }
#pragma unroll
        for (int i = 0; i < TM; ++i)
#pragma unroll
            for (int j = 0; j < TN; ++j) acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
    }
}

// A vector of four k of one row, stored as a column of the k-major tile.
__device__ __forceinline__ void store_column(float *column, int stride, float4 v) {
    column[0] = v.x, column[stride] = v.y, column[2 * stride] = v.z, column[3 * stride] = v.w;
}

__device__ __forceinline__ float4 zero4() { return make_float4(0.f, 0.f, 0.f, 0.f); }

// The main loop, the same for all three passes: `fetch(a, b)` reads the thread's part of the next slice into
// registers, `put(tile, a, b)` stores it.
template <int BN, class Fetch, class Put>
__device__ __forceinline__ void accumulate_tiles(float (&acc)[TM][BN / 16], Tile<BN> (&tiles)[2], int slices, Fetch fetch,
                                                 Put put) {
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    float4 a, b;
    fetch(a, b);
    put(tiles[0], a, b);
    __syncthreads();
    for (int s = 0; s < slices; ++s) {
        if (s + 1 < slices) fetch(a, b);
        multiply<BN>(acc, tiles[s % 2], ty, tx);
        if (s + 1 < slices) put(tiles[(s + 1) % 2], a, b);
        __syncthreads();
    }
}

// ---------------------------------------------------------------- forward
// grid (ceil(N*OH*OW / BM), chunks * ceil(CO / BN), D)
template <int BN>
__device__ __forceinline__ void forward(float *out, const float *inp, const float *weight, const float *bias,
                                        const float *scale, float *partials, unsigned *counters, int N, int H, int W,
                                        int CI, int OH, int OW, int CO, int K, int KW, int S, int n_per_scale, int act,
                                        int chunks) {
    __shared__ Tile<BN> tiles[2];
    __shared__ bool comes_last;
    const Chunk c(ceil_div(CO, BN), chunks);
    const int t = threadIdx.x, d = blockIdx.z, P = OH * OW, M = N * P;
    const int m0 = blockIdx.x * BM, n0 = c.column * BN, KK = K * KW * CI, slices = ceil_div(KK, BK);
    const int first = c.first(slices), k0 = first * BK, tap = k0 / CI;

    // A: thread t reads four channels of pixel m0 + t / 2.
    const int am = m0 + t / 2, ak = t % 2 * 4;
    const int pixel = min(am, M - 1), image = d * N + pixel / P, oh = pixel % P / OW, ow = pixel % OW;
    const float *x = inp + (((size_t)image * H + oh * S) * W + ow * S) * CI;
    int ci = k0 - tap * CI + ak, kh = tap / KW, kw = tap % KW;
    while (ci >= CI) ci -= CI, kw + 1 < KW ? ++kw : (kw = 0, ++kh);
    // B: thread t reads four output channels of one k.
    constexpr int B_THREADS = BN / 4;
    const int bk = t / B_THREADS, bn = n0 + t % B_THREADS * 4;
    const float *w = weight + (size_t)d * KK * CO + bn;
    int k = k0 + bk;

    auto fetch = [&](float4 &a, float4 &b) {
        a = kh < K && am < M ? load4(x + ((size_t)kh * W + kw) * CI + ci) : zero4();
        ci += BK;
        while (ci >= CI) ci -= CI, kw + 1 < KW ? ++kw : (kw = 0, ++kh);
        if (bk < BK) b = k < KK && bn < CO ? load4(w + (size_t)k * CO) : zero4();
        k += BK;
    };
    auto put = [&](Tile<BN> &tile, float4 a, float4 b) {
        store_column(&tile.a[ak][t / 2], LDA, a);
        if (bk < BK) store4(&tile.b[bk][t % B_THREADS * 4], b, 0);
    };
    float acc[TM][BN / 16] = {};
    accumulate_tiles<BN>(acc, tiles, c.end(slices) - first, fetch, put);
    if (!join<THREADS>(acc, partials, counters, c, &comes_last)) return;

    const int ty = t / 16, tx = t % 16;
#pragma unroll
    for (int i = 0; i < TM; ++i) {
        const int m = m0 + i / 4 * 64 + ty * 4 + i % 4;
        if (m >= M) continue;
        const float factor = scale ? scale[(d * N + m / P) / n_per_scale] : 1.f;
#pragma unroll
        for (int j = 0; j < BN / 16; j += 4) {
            const int n = n0 + j * 16 + tx * 4;
            if (n >= CO) continue;
            const float4 s = bias ? load4(bias + d * CO + n) : zero4();
            store4(out + ((size_t)d * M + m) * CO + n,
                   make_float4(activate(fmaf(acc[i][j], factor, s.x), act), activate(fmaf(acc[i][j + 1], factor, s.y), act),
                               activate(fmaf(acc[i][j + 2], factor, s.z), act),
                               activate(fmaf(acc[i][j + 3], factor, s.w), act)),
                   0);
        }
    }
}

// ---------------------------------------------------------------- dgrad
// The gradient of an input of H x W pixels that is reflect-padded by `pad`, without what its border has from its mirror
// images; those are the next kernel's. Pixels of one phase ((h + pad) % S, (w + pad) % S) meet the same taps;
// blockIdx.z = d * S * S + phase. grid (ceil(N * ceil(H / S) * ceil(W / S) / BM), chunks * ceil(CI / BN), D * S * S)
template <int BN>
__device__ __forceinline__ void dgrad(float *dinp, const float *dout, const float *weight, const float *scale,
                                      float *partials, unsigned *counters, int N, int H, int W, int CI, int OH, int OW,
                                      int CO, int K, int KW, int S, int pad, int n_per_scale, int chunks, int accumulate) {
    __shared__ Tile<BN> tiles[2];
    __shared__ bool comes_last;
    const Chunk c(ceil_div(CI, BN), chunks);
    const int t = threadIdx.x, d = blockIdx.z / (S * S), phase = blockIdx.z % (S * S);
    const int phase_h = phase / S, phase_w = phase % S;
    const Phase rows(H, phase_h, S, pad), columns(W, phase_w, S, pad);
    const int PW = columns.count, P = rows.count * PW, M = N * P;
    const int m0 = blockIdx.x * BM, n0 = c.column * BN;
    if (m0 >= M) return;  // phases of an odd side differ in size
    const int TH = phase_h < K ? ceil_div(K - phase_h, S) : 0, TW = phase_w < KW ? ceil_div(KW - phase_w, S) : 0;
    const int KK = TH * TW * CO, slices = ceil_div(KK, BK);
    const int first = c.first(slices), k0 = first * BK, tap0 = k0 / CO;

    // A: four gradient channels of one pixel, at the tap the slice has come to.
    const int am = m0 + t / 2, ak = t % 2 * 4;
    const int pixel = min(am, M - 1), image = d * N + pixel / P, ph = rows.first + pixel % P / PW, pw = columns.first + pixel % P % PW;
    const float *dy = dout + (size_t)image * OH * OW * CO;
    int co = k0 - tap0 * CO + ak, th = TW > 0 ? tap0 / TW : 0, tw = tap0 - th * TW;
    while (co >= CO) co -= CO, tw + 1 < TW ? ++tw : (tw = 0, ++th);
    // B: four gradient channels of one input channel, transposed like A.
    const int bn = n0 + t / 2;
    const float *w = weight + ((size_t)d * K * KW * CI + min(bn, CI - 1)) * CO;

    auto fetch = [&](float4 &a, float4 &b) {
        const int oh = ph - th, ow = pw - tw;
        const bool tap = th < TH, inside = tap && am < M && oh >= 0 && oh < OH && ow >= 0 && ow < OW;
        a = inside ? load4(dy + ((size_t)oh * OW + ow) * CO + co) : zero4();
        if (t < 2 * BN) {
            const int kh = phase_h + th * S, kw = phase_w + tw * S;
            b = tap && bn < CI ? load4(w + (size_t)(kh * KW + kw) * CI * CO + co) : zero4();
        }
        co += BK;
        while (co >= CO) co -= CO, tw + 1 < TW ? ++tw : (tw = 0, ++th);
    };
    auto put = [&](Tile<BN> &tile, float4 a, float4 b) {
        store_column(&tile.a[ak][t / 2], LDA, a);
        if (t < 2 * BN) store_column(&tile.b[ak][t / 2], BN + 4, b);
    };
    float acc[TM][BN / 16] = {};
    if (KK > 0) accumulate_tiles<BN>(acc, tiles, c.end(slices) - first, fetch, put);
    const uint3 block = block_index_again();
    const Chunk part(ceil_div(CI, BN), chunks, block.y);
    if (!join<THREADS>(acc, partials, counters, part, &comes_last)) return;

    const int direction = block.z / (S * S), of = block.z % (S * S);
    const Phase rows_of(H, of / S, S, pad), columns_of(W, of % S, S, pad);
    const int pixels = rows_of.count * columns_of.count, ty = t / 16, tx = t % 16;
#pragma unroll
    for (int i = 0; i < TM; ++i) {
        const int m = block.x * BM + i / 4 * 64 + ty * 4 + i % 4;
        if (m >= N * pixels) continue;
        const int n_image = direction * N + m / pixels;
        const int h = rows_of.pixel(m % pixels / columns_of.count), w = columns_of.pixel(m % pixels % columns_of.count);
        const float factor = scale ? scale[n_image / n_per_scale] : 1.f;
#pragma unroll
        for (int j = 0; j < BN / 16; j += 4) {
            const int n = part.column * BN + j * 16 + tx * 4;
            if (n >= CI) continue;
            store4(dinp + (((size_t)n_image * H + h) * W + w) * CI + n,
                   make_float4(acc[i][j] * factor, acc[i][j + 1] * factor, acc[i][j + 2] * factor, acc[i][j + 3] * factor),
                   accumulate);
        }
    }
}

// The rest of that gradient, added: what the targets next to the border have from their mirror images, see ring.cuh.
// grid (ceil(N * targets / BM), chunks * ceil(CI / BN), D)
template <int BN>
__device__ __forceinline__ void ring_dgrad(float *dinp, const float *dout, const float *weight, const float *scale,
                                           float *partials, unsigned *counters, int N, int H, int W, int CI, int OH,
                                           int OW, int CO, int K, int KW, int S, int pad, int n_per_scale, int chunks) {
    __shared__ Tile<BN> tiles[2];
    __shared__ Ring ring;
    __shared__ bool comes_last;
    const Chunk c(ceil_div(CI, BN), chunks);
    const Targets targets(N, H, W, pad);
    const int t = threadIdx.x, d = blockIdx.z, M = targets.count();
    const int m0 = blockIdx.x * BM, n0 = c.column * BN;
    const int entries = ring.build<THREADS>(targets, m0, BM, K, KW, S, OH, OW);
    const int slices = ceil_div(entries * CO, BK), first = c.first(slices), k0 = first * BK;

    // A: four gradient channels that a target's image meets, by the entry of the list that the slice has come to.
    const int am = m0 + t / 2, ak = t % 2 * 4;
    int image, h, w;
    targets.at(min(am, M - 1), image, h, w);
    image += d * N;
    int entry = k0 / CO, co = k0 - entry * CO + ak;
    while (co >= CO) co -= CO, ++entry;
    // B: four gradient channels of one input channel, transposed like A.
    const int bn = n0 + t / 2;
    const float *weights = weight + ((size_t)d * K * KW * CI + min(bn, CI - 1)) * CO;

    auto fetch = [&](float4 &a, float4 &b) {
        const bool there = entry < entries;
        const ImageTap at = ImageTap::unpack(there ? ring.list[entry] : 0);
        const int oh = image_reads(at.kind_h, at.kh, h, H, pad, S, OH), ow = image_reads(at.kind_w, at.kw, w, W, pad, S, OW);
        const bool inside = there && am < M && oh >= 0 && ow >= 0;
        a = inside ? load4(dout + (((size_t)image * OH + oh) * OW + ow) * CO + co) : zero4();
        if (t < 2 * BN) b = there && bn < CI ? load4(weights + (size_t)(at.kh * KW + at.kw) * CI * CO + co) : zero4();
        co += BK;
        while (co >= CO) co -= CO, ++entry;
    };
    auto put = [&](Tile<BN> &tile, float4 a, float4 b) {
        store_column(&tile.a[ak][t / 2], LDA, a);
        if (t < 2 * BN) store_column(&tile.b[ak][t / 2], BN + 4, b);
    };
    float acc[TM][BN / 16] = {};
    if (c.end(slices) > first) accumulate_tiles<BN>(acc, tiles, c.end(slices) - first, fetch, put);
    const uint3 block = block_index_again();
    const Chunk part(ceil_div(CI, BN), chunks, block.y);
    if (!join<THREADS>(acc, partials, counters, part, &comes_last)) return;

    const Targets results(N, H, W, pad);
    const int count = results.count(), ty = t / 16, tx = t % 16;
#pragma unroll
    for (int i = 0; i < TM; ++i) {
        const int m = block.x * BM + i / 4 * 64 + ty * 4 + i % 4;
        if (m >= count) continue;
        int n_image, rh, rw;
        results.at(m, n_image, rh, rw);
        n_image += block.z * N;
        const float factor = scale ? scale[n_image / n_per_scale] : 1.f;
#pragma unroll
        for (int j = 0; j < BN / 16; j += 4) {
            const int n = part.column * BN + j * 16 + tx * 4;
            if (n >= CI) continue;
            store4(dinp + (((size_t)n_image * H + rh) * W + rw) * CI + n,
                   make_float4(acc[i][j] * factor, acc[i][j + 1] * factor, acc[i][j + 2] * factor, acc[i][j + 3] * factor),
                   1);
        }
    }
}

// ---------------------------------------------------------------- wgrad
// A chunk sums over its share of the N*OH*OW pixels.
// grid (ceil(K*K*CI / BM), chunks * ceil(CO / BN), D)
template <int BN>
__device__ __forceinline__ void wgrad(float *dweight, const float *inp, const float *dout, const float *scale,
                                      float *partials, unsigned *counters, int N, int H, int W, int CI, int OH, int OW,
                                      int CO, int K, int KW, int S, int n_per_scale, int chunks, int accumulate) {
    __shared__ Tile<BN> tiles[2];
    __shared__ bool comes_last;
    const Chunk c(ceil_div(CO, BN), chunks);
    const int d = blockIdx.z;
    const int t = threadIdx.x, P = OH * OW, pixels = N * P, M = K * KW * CI;
    const int m0 = blockIdx.x * BM, n0 = c.column * BN;
    const int begin = c.first(pixels), end = c.end(pixels);

    // A: four input channels of one tap at one pixel; B: four output channels at one pixel.
    const int ak = t / 32, am = m0 + t % 32 * 4, row = min(am, M - 4);
    const int tap = row / CI, offset = (tap / KW * W + tap % KW) * CI + row % CI;
    constexpr int B_THREADS = BN / 4;
    const int bk = t / B_THREADS, bn = n0 + t % B_THREADS * 4;
    int a_pixel = begin + ak, b_pixel = begin + bk;

    auto fetch = [&](float4 &a, float4 &b) {
        a = zero4();
        if (a_pixel < end && am < M) {
            const int image = d * N + a_pixel / P, oh = a_pixel % P / OW, ow = a_pixel % P % OW;
            a = load4(inp + (((size_t)image * H + oh * S) * W + ow * S) * CI + offset);
            if (scale) {
                const float factor = scale[image / n_per_scale];
                a = make_float4(a.x * factor, a.y * factor, a.z * factor, a.w * factor);
            }
        }
        a_pixel += BK;
        if (bk < BK) b = b_pixel < end && bn < CO ? load4(dout + ((size_t)d * pixels + b_pixel) * CO + bn) : zero4();
        b_pixel += BK;
    };
    auto put = [&](Tile<BN> &tile, float4 a, float4 b) {
        store4(&tile.a[ak][t % 32 * 4], a, 0);
        if (bk < BK) store4(&tile.b[bk][t % B_THREADS * 4], b, 0);
    };
    float acc[TM][BN / 16] = {};
    accumulate_tiles<BN>(acc, tiles, ceil_div(end - begin, BK), fetch, put);
    if (!join<THREADS>(acc, partials, counters, c, &comes_last)) return;

    const int ty = t / 16, tx = t % 16;
    float *dw = dweight + (size_t)d * M * CO;
#pragma unroll
    for (int i = 0; i < TM; ++i) {
        const int m = m0 + i / 4 * 64 + ty * 4 + i % 4;
        if (m >= M) continue;
#pragma unroll
        for (int j = 0; j < BN / 16; j += 4) {
            const int n = n0 + j * 16 + tx * 4;
            if (n < CO) store4(dw + (size_t)m * CO + n, make_float4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]), accumulate);
        }
    }
}

#define CONV_GEMM(BN)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) conv_forward_gemm_n##BN##_f32(                              \
        float *out, const float *inp, const float *weight, OPTIONAL const float *bias, OPTIONAL const float *scale,   \
        OPTIONAL SCRATCH float *partials, OPTIONAL SCRATCH unsigned *counters, int N, int H, int W, int CI, int OH,   \
        int OW, int CO, int K, int KW, int S, int n_per_scale, int act, int chunks) {                                 \
        forward<BN>(out, inp, weight, bias, scale, partials, counters, N, H, W, CI, OH, OW, CO, K, KW, S, n_per_scale,\
                    act, chunks);                                                                                     \
    }                                                                                                                 \
    extern "C" __global__ void BOUNDS conv_dgrad_gemm_n##BN##_f32(                                                    \
        ADDS_IF(accumulate) float *dinp, const float *dout, const float *weight, OPTIONAL const float *scale,         \
        OPTIONAL SCRATCH float *partials, OPTIONAL SCRATCH unsigned *counters, int N, int H, int W, int CI, int OH,   \
        int OW, int CO, int K, int KW, int S, int pad, int n_per_scale, int chunks, int accumulate) {                 \
        dgrad<BN>(dinp, dout, weight, scale, partials, counters, N, H, W, CI, OH, OW, CO, K, KW, S, pad, n_per_scale, \
                  chunks, accumulate);                                                                                \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) conv_ring_dgrad_gemm_n##BN##_f32(                        \
        INOUT float *dinp, const float *dout, const float *weight, OPTIONAL const float *scale,                       \
        OPTIONAL SCRATCH float *partials, OPTIONAL SCRATCH unsigned *counters, int N, int H, int W, int CI, int OH,   \
        int OW, int CO, int K, int KW, int S, int pad, int n_per_scale, int chunks) {                                 \
        ring_dgrad<BN>(dinp, dout, weight, scale, partials, counters, N, H, W, CI, OH, OW, CO, K, KW, S, pad,         \
                       n_per_scale, chunks);                                                                          \
    }                                                                                                                 \
    extern "C" __global__ void BOUNDS conv_wgrad_gemm_n##BN##_f32(                                                    \
        ADDS_IF(accumulate) float *dweight, const float *inp, const float *dout, OPTIONAL const float *scale,         \
        OPTIONAL SCRATCH float *partials, OPTIONAL SCRATCH unsigned *counters, int N, int H, int W, int CI, int OH,   \
        int OW, int CO, int K, int KW, int S, int n_per_scale, int chunks, int accumulate) {                          \
        wgrad<BN>(dweight, inp, dout, scale, partials, counters, N, H, W, CI, OH, OW, CO, K, KW, S, n_per_scale, chunks,\
                  accumulate);                                                                                        \
    }

// n128 or n64: columns of a tile.
CONV_GEMM(128)
CONV_GEMM(64)

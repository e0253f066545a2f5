// Convolution, variant 3: implicit GEMM on tensor cores, tf32.
//
// What changed against variant 2: products are taken by mma.sync.m16n8k8, of operands rounded to tf32 (10 bits of mantissa)
// and summed in fp32. A warp's instruction does 2,048 floating-point operations, so the multiply-adds no longer bound; what
// feeds them does. Slices of BK = 16 are copied by cp.async, past the registers, into three buffers, two slices ahead.
// A warp computes 64 x 64 results, so that of the operands it reads it makes 32 mma.sync of 8 shared-memory loads.
// Bytes from L2: M N K (1 / BM + 1 / BN) words, as in variant 2. What bounds it now: tensor cores, and the L2 close behind them.
//
// Passes, rows, columns and sums are those of variant 2, and so is the split of long sums. x4 kernels copy four channels
// at once and need both channel counts in fours; x1 kernels copy one and take any.
//
// Shared memory. An operand of which k runs fastest in memory (inputs, and gradients and weights of dgrad) keeps that order:
// rows of 16 k, from which ldmatrix takes fragments. One of which rows or columns run fastest (weights, and both operands
// of wgrad) keeps that: 16 rows of k, from which a 16-byte load takes the same k of four neighbouring fragments. For that to
// be what mma.sync wants, column g of the four n-tiles of 32 columns stands for the columns `spread(g)` and three after it;
// the results of a thread then are neighbours too, and stored 16 bytes at a time. 16-byte words of a tile are permuted
// (XOR with bits of the row), so that neither copies nor loads meet a bank twice.
#include "common/common.cuh"
#include "common/mma.cuh"
#include "common/ring.cuh"
#include "common/split_k.cuh"

constexpr int THREADS = 128;
constexpr int BK = 16;
constexpr int STAGES = 3;

// Of 32 rows or columns, the first of four that column g of four fragments stands for.
__device__ __forceinline__ int spread(int g) { return (g & 1) * 16 + (g >> 1) * 4; }

// ---------------------------------------------------------------- tiles in shared memory
// Element (row, k) of a tile of rows of 16 k. Two rows are a line of 32 banks. `SPREAD`: eight rows `spread` apart meet
// different banks, else eight rows in a row.
template <bool SPREAD>
__device__ __forceinline__ int k_fastest(int row, int k) {
    const int swizzle = SPREAD ? row >> 2 & 7 : row >> 1 & 3;
    return (row >> 1) * 32 + (((row & 1) * 4 + (k >> 2)) ^ swizzle) * 4 + (k & 3);
}

// Element (k, column) of a tile of 16 k of N columns.
template <int N>
__device__ __forceinline__ int k_slowest(int k, int column) {
    return k * N + (((column >> 2) ^ (k & 3)) << 2) + (column & 3);
}

// A block's tile of BM x BN results, and its four warps' WM x WN.
template <int BM_, int BN_, int WM_, int WN_>
struct Shape {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_;
    static_assert(BM / WM * (BN / WN) * WARP == THREADS && WM % 32 == 0 && WN % 32 == 0, "four warps");
    // First row and column of the thread's warp.
    static __device__ __forceinline__ int row() { return threadIdx.x / WARP % (BM / WM) * WM; }
    static __device__ __forceinline__ int column() { return threadIdx.x / WARP / (BM / WM) * WN; }
};

// Both operands, slice by slice.
template <class S>
struct Stage {
    float a[S::BM * BK];
    float b[S::BN * BK];
};

// The results of a thread: four of each 16 x 8 fragment, fragment (i, j) in row i * FRAGMENTS + j.
template <class S>
struct Accumulators {
    static constexpr int ROWS = S::WM / 16, FRAGMENTS = S::WN / 8;
    float v[ROWS * FRAGMENTS][4];

    template <class F>
    __device__ __forceinline__ void map(F f) {
#pragma unroll
        for (int i = 0; i < ROWS * FRAGMENTS; ++i)
#pragma unroll
            for (int r = 0; r < 4; ++r) v[i][r] = f(v[i][r]);
    }
};

// ---------------------------------------------------------------- copies to shared memory
// The copies of a thread, of X = 4 or 1 elements each, that cover a tile whose rows are 16 k: all are of the same k, at
// rows `row(0)`, `row(1)`, and so on.
template <int X, int ROWS, bool SPREAD>
struct KFastest {
    static constexpr int STEP = THREADS * X / BK, COUNT = ROWS / STEP;
    static __device__ __forceinline__ int k() { return threadIdx.x % (BK / X) * X; }
    static __device__ __forceinline__ int row(int i) { return threadIdx.x / (BK / X) + i * STEP; }
    static __device__ __forceinline__ int first() { return k_fastest<SPREAD>(row(0), k()); }
    // Where copy i goes if the first one goes there. The swizzle of 32 rows is that of the next 32; where rows are not
    // spread, that of eight is that of the next eight.
    static __device__ __forceinline__ unsigned to(unsigned first, int i) {
        static_assert(STEP == 32 || STEP == 8, "rows of a swizzle");
        return (SPREAD && STEP == 8 ? first ^ (i * 2 & 7) << 4 : first) + i * STEP * BK * 4;
    }
};

// The same for a tile of 16 k of N columns: all are of the same columns, at `k(0)`, `k(1)`, and so on.
template <int X, int N>
struct KSlowest {
    static constexpr int STEP = THREADS * X / N, COUNT = BK / STEP;
    static __device__ __forceinline__ int k(int i) { return threadIdx.x / (N / X) + i * STEP; }
    static __device__ __forceinline__ int column() { return threadIdx.x % (N / X) * X; }
    static __device__ __forceinline__ int first() { return k_slowest<N>(k(0), column()); }
    static __device__ __forceinline__ unsigned to(unsigned first, int i) {
        static_assert(STEP % 4 == 0 || STEP == 1, "rows of a swizzle");
        return (first ^ (i * STEP & 3) << 4) + i * STEP * N * 4;
    }
};

template <int X>
__device__ __forceinline__ void copy(unsigned to, const float *from, bool inside) {
    if constexpr (X == 4)
        cp_async_16(to, from, inside);
    else
        cp_async_4(to, from, inside);
}

// ---------------------------------------------------------------- fragments
template <int N, int R>
__device__ __forceinline__ void round_to_tf32(unsigned (&fragments)[N][R]) {
#pragma unroll
    for (int i = 0; i < N; ++i)
#pragma unroll
        for (int j = 0; j < R; ++j) fragments[i][j] = to_tf32(fragments[i][j]);
}

// Fragments of A, of rows in their order. `stage` is the stage to load from, in bytes from the first; so with those below.
template <class S>
struct RowsKFastest {
    unsigned at;
    __device__ __forceinline__ RowsKFastest(const Stage<S> *stages) {
        const int lane = threadIdx.x % WARP;
        at = shared_address(stages->a + k_fastest<false>(S::row() + lane % 16, lane / 16 * 4));
    }
    __device__ __forceinline__ void load(unsigned (&a)[S::WM / 16][4], unsigned stage, int k8) const {
#pragma unroll
        for (int i = 0; i < S::WM / 16; ++i) ldmatrix_x4(a[i], ((at + stage) ^ k8 * 32) + i * 16 * BK * 4);
    }
    // Of the results of fragment row i, half h.
    static __device__ __forceinline__ int row(int i, int h) { return i * 16 + h * 8 + threadIdx.x % WARP / 4; }
};

// Fragments of A from a tile of 16 k of BM rows.
template <class S>
struct RowsKSlowest {
    const float *at;
    __device__ __forceinline__ RowsKSlowest(const Stage<S> *stages) {
        const int lane = threadIdx.x % WARP;
        at = stages->a + k_slowest<S::BM>(lane % 4, S::row() + spread(lane / 4));
    }
    __device__ __forceinline__ void load(unsigned (&a)[S::WM / 16][4], unsigned stage, int k8) const {
#pragma unroll
        for (int i = 0; i < S::WM / 16; i += 2)
#pragma unroll
            for (int k = 0; k < 2; ++k) {
                const float4 v = load4(at + stage / 4 + (k8 * 8 + k * 4) * S::BM + i * 16);
                a[i][2 * k] = __float_as_uint(v.x), a[i][2 * k + 1] = __float_as_uint(v.y);
                a[i + 1][2 * k] = __float_as_uint(v.z), a[i + 1][2 * k + 1] = __float_as_uint(v.w);
            }
    }
    static __device__ __forceinline__ int row(int i, int h) {
        return i / 2 * 32 + spread(threadIdx.x % WARP / 4) + i % 2 * 2 + h;
    }
};

// Fragments of B, those of 32 columns of the warp's from column n on, out of a tile of BN columns of 16 k.
template <class S>
struct ColumnsKFastest {
    unsigned at;
    __device__ __forceinline__ ColumnsKFastest(const Stage<S> *stages) {
        const int lane = threadIdx.x % WARP;
        at = shared_address(stages->b + k_fastest<true>(S::column() + spread(lane % 8) + lane / 16, lane / 8 % 2 * 4));
    }
    __device__ __forceinline__ void load(unsigned (&b)[4][2], unsigned stage, int k8, int n) const {
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            unsigned r[4];
            ldmatrix_x4(r, ((at + stage) ^ k8 * 32) + (n + j) * BK * 4);
            b[j][0] = r[0], b[j][1] = r[1], b[j + 1][0] = r[2], b[j + 1][1] = r[3];
        }
    }
};

// The same out of a tile of 16 k of BN columns.
template <class S>
struct ColumnsKSlowest {
    const float *at;
    __device__ __forceinline__ ColumnsKSlowest(const Stage<S> *stages) {
        const int lane = threadIdx.x % WARP;
        at = stages->b + k_slowest<S::BN>(lane % 4, S::column() + spread(lane / 4));
    }
    __device__ __forceinline__ void load(unsigned (&b)[4][2], unsigned stage, int k8, int n) const {
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            const float4 v = load4(at + stage / 4 + (k8 * 8 + k * 4) * S::BN + n);
            b[0][k] = __float_as_uint(v.x), b[1][k] = __float_as_uint(v.y);
            b[2][k] = __float_as_uint(v.z), b[3][k] = __float_as_uint(v.w);
        }
    }
};

// ---------------------------------------------------------------- main loop
// The same for all three passes: `fetch(stage)` starts the copies of the next slice, `before()` comes before each.
template <class Rows, class Columns, class S, class Fetch, class Before>
__device__ __forceinline__ void accumulate_tiles(Accumulators<S> &acc, const Stage<S> *stages, int slices, Fetch fetch,
                                                 Before before) {
    constexpr unsigned BYTES = sizeof(Stage<S>);
    static_assert(BYTES % 128 == 0, "a stage begins at a line of banks");
    const Rows rows(stages);
    const Columns columns(stages);
#pragma unroll
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < slices) fetch(s * BYTES);
        cp_async_commit();
    }
    unsigned reads = 0, writes = (STAGES - 1) * BYTES;
    for (int s = 0; s < slices; ++s) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        if (s + STAGES - 1 < slices) fetch(writes);
        cp_async_commit();
        before();
#pragma unroll
        for (int k8 = 0; k8 < BK / 8; ++k8) {
            unsigned a[S::WM / 16][4];
            rows.load(a, reads, k8);
            round_to_tf32(a);
#pragma unroll
            for (int n = 0; n < S::WN; n += 32) {
                unsigned b[4][2];
                columns.load(b, reads, k8, n);
                round_to_tf32(b);
#pragma unroll
                for (int i = 0; i < S::WM / 16; ++i)
#pragma unroll
                    for (int j = 0; j < 4; ++j) mma_m16n8k8_tf32(acc.v[i * acc.FRAGMENTS + n / 8 + j], a[i], b[j]);
            }
        }
        writes = reads;
        reads = reads == (STAGES - 1) * BYTES ? 0 : reads + BYTES;
    }
}

// The sum of the tile in its last block, see split_k.cuh.
template <class S>
__device__ __forceinline__ bool join_chunks(Accumulators<S> &acc, Stage<S> (&stages)[STAGES], float *partials,
                                            unsigned *counters, const Chunk &c) {
    return join<THREADS>(acc.v, partials, counters, c, reinterpret_cast<bool *>(stages));
}

// Calls `row(m)` for each row of the thread's results, and what that returns with a column and the four results from it
// on, which it may change.
template <class Rows, class S, class Row>
__device__ __forceinline__ void for_results(Accumulators<S> &acc, int m0, int n0, Row row) {
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < S::WM / 16; ++i)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            auto use = row(m0 + S::row() + Rows::row(i, h));
#pragma unroll
            for (int j = 0; j < S::WN / 8; j += 4)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const int f = i * acc.FRAGMENTS + j, r = h * 2 + e;
                    float4 v = make_float4(acc.v[f][r], acc.v[f + 1][r], acc.v[f + 2][r], acc.v[f + 3][r]);
                    use(n0 + S::column() + j * 8 + e * 16 + t * 4, v);
                    acc.v[f][r] = v.x, acc.v[f + 1][r] = v.y, acc.v[f + 2][r] = v.z, acc.v[f + 3][r] = v.w;
                }
        }
}

// The four columns from n on, X at a time; 0 where there is none.
template <int X>
__device__ __forceinline__ float4 load_columns(const float *row, int n, int columns) {
    if constexpr (X == 4)
        return n < columns ? load4(row + n) : make_float4(0.f, 0.f, 0.f, 0.f);
    else
        return make_float4(n < columns ? row[n] : 0.f, n + 1 < columns ? row[n + 1] : 0.f,
                           n + 2 < columns ? row[n + 2] : 0.f, n + 3 < columns ? row[n + 3] : 0.f);
}

// Stores the columns that there are of the four from n on, X at a time.
template <int X>
__device__ __forceinline__ void store_columns(float *row, int n, int columns, float4 v, int accumulate) {
    if constexpr (X == 4) {
        if (n < columns) store4(row + n, v, accumulate);
    } else {
        if (n < columns) store(row + n, v.x, accumulate);
        if (n + 1 < columns) store(row + n + 1, v.y, accumulate);
        if (n + 2 < columns) store(row + n + 2, v.z, accumulate);
        if (n + 3 < columns) store(row + n + 3, v.w, accumulate);
    }
}

// ---------------------------------------------------------------- forward
// grid (ceil(N*OH*OW / BM), chunks * ceil(CO / BN), D)
template <class S, int X>
__device__ __forceinline__ void forward(float *out, const float *inp, const float *weight, const float *bias,
                                        const float *scale, float *partials, unsigned *counters, int N, int H, int W,
                                        int CI, int OH, int OW, int CO, int K, int KW, int stride, int n_per_scale, int act,
                                        int chunks) {
    __shared__ __align__(128) Stage<S> stages[STAGES];
    const Chunk c(ceil_div(CO, S::BN), chunks);
    const int d = blockIdx.z, P = OH * OW, M = N * P, KK = K * KW * CI, slices = ceil_div(KK, BK);
    const int m0 = blockIdx.x * S::BM, n0 = c.column * S::BN, first = c.first(slices);

    // A: X channels of the same tap at some pixels.
    using A = KFastest<X, S::BM, false>;
    const unsigned a_to = shared_address(stages->a + A::first());
    int x[A::COUNT];
#pragma unroll
    for (int i = 0; i < A::COUNT; ++i) {
        const int m = min(m0 + A::row(i), M - 1), image = d * N + m / P, oh = m % P / OW, ow = m % P % OW;
        x[i] = ((image * H + oh * stride) * W + ow * stride) * CI;
    }
    const int k0 = first * BK + A::k(), tap = k0 / CI;
    int ci = k0 - tap * CI, kh = tap / KW, kw = tap - kh * KW;
    // B: X output channels at some k.
    using B = KSlowest<X, S::BN>;
    const int bn = n0 + B::column();
    const unsigned b_to = shared_address(stages->b + B::first());
    int k = first * BK + B::k(0);
    const float *w = weight + ((size_t)d * KK + k) * CO + bn;

    auto fetch = [&](unsigned stage) {
        const int offset = (kh * W + kw) * CI + ci;
#pragma unroll
        for (int i = 0; i < A::COUNT; ++i)
            copy<X>(A::to(a_to + stage, i), inp + (x[i] + offset), kh < K && m0 + A::row(i) < M);
        ci += BK;
        while (ci >= CI) ci -= CI, kw + 1 < KW ? ++kw : (kw = 0, ++kh);
#pragma unroll
        for (int i = 0; i < B::COUNT; ++i)
            copy<X>(B::to(b_to + stage, i), w + i * B::STEP * CO, k + i * B::STEP < KK && bn < CO);
        k += BK, w += BK * CO;
    };
    Accumulators<S> acc = {};
    using Rows = RowsKFastest<S>;
    accumulate_tiles<Rows, ColumnsKSlowest<S>>(acc, stages, c.end(slices) - first, fetch, [] {});
    if (!join_chunks(acc, stages, partials, counters, c)) return;

    if (scale || bias) {
        for_results<Rows>(acc, m0, n0, [&](int m) {
            const float factor = scale ? scale[(d * N + min(m, M - 1) / P) / n_per_scale] : 1.f;
            return [=](int n, float4 &v) {
                const float4 s = bias ? load_columns<X>(bias + d * CO, n, CO) : make_float4(0.f, 0.f, 0.f, 0.f);
                v = make_float4(fmaf(v.x, factor, s.x), fmaf(v.y, factor, s.y), fmaf(v.z, factor, s.z),
                                fmaf(v.w, factor, s.w));
            };
        });
    }
    if (act == RELU) acc.map([](float v) { return activate(v, RELU); });
    if (act == LEAKY_RELU) acc.map([](float v) { return activate(v, LEAKY_RELU); });
    if constexpr (X == 1) {  // here it is not most of the code
        if (act == TANH) acc.map([](float v) { return activate(v, TANH); });
    }
    for_results<Rows>(acc, m0, n0, [&](int m) {
        return [=](int n, float4 &v) {
            if (m < M) store_columns<X>(out + ((size_t)d * M + m) * CO, n, CO, v, 0);
        };
    });
}

// ---------------------------------------------------------------- dgrad
// As in variant 2: the gradient of an input of H x W pixels that is reflect-padded by P, without what its border has from
// its mirror images; those are the next kernel's. Pixels of one phase ((h + P) % S, (w + P) % S) meet the same taps;
// blockIdx.z = d * S * S + phase. grid (ceil(N * ceil(H / S) * ceil(W / S) / BM), chunks * ceil(CI / BN), D * S * S)
template <class S, int X, int XO>
__device__ __forceinline__ void dgrad(float *dinp, const float *dout, const float *weight, const float *scale,
                                      float *partials, unsigned *counters, int N, int H, int W, int CI, int OH, int OW,
                                      int CO, int K, int KW, int stride, int pad, int n_per_scale, int chunks, int accumulate) {
    __shared__ __align__(128) Stage<S> stages[STAGES];
    const Chunk c(ceil_div(CI, S::BN), chunks);
    const int d = blockIdx.z / (stride * stride), phase = blockIdx.z % (stride * stride);
    const int phase_h = phase / stride, phase_w = phase % stride;
    const Phase rows_of(H, phase_h, stride, pad), columns_of(W, phase_w, stride, pad);
    const int PW = columns_of.count, P = rows_of.count * PW, M = N * P;
    const int m0 = blockIdx.x * S::BM, n0 = c.column * S::BN;
    if (m0 >= M) return;  // phases of an odd side differ in size
    const int TH = phase_h < K ? ceil_div(K - phase_h, stride) : 0, TW = phase_w < KW ? ceil_div(KW - phase_w, stride) : 0;
    const int KK = TH * TW * CO, slices = ceil_div(KK, BK), first = c.first(slices);

    // A: X gradient channels at some pixels, at the tap the slice has come to.
    using A = KFastest<X, S::BM, false>;
    const unsigned a_to = shared_address(stages->a + A::first());
    int dy[A::COUNT];
    unsigned inside[A::COUNT];  // of the taps: a bit for each row, 16 bits further one for each column
#pragma unroll
    for (int i = 0; i < A::COUNT; ++i) {
        const int m = min(m0 + A::row(i), M - 1), image = d * N + m / P;
        const int ph = rows_of.first + m % P / PW, pw = columns_of.first + m % P % PW;
        dy[i] = ((image * OH + ph) * OW + pw) * CO;
        inside[i] = 0;
        if (m0 + A::row(i) >= M) continue;
        for (int th = 0; th < TH; ++th) inside[i] |= (unsigned)(ph - th) < (unsigned)OH ? 1u << th : 0u;
        for (int tw = 0; tw < TW; ++tw) inside[i] |= (unsigned)(pw - tw) < (unsigned)OW ? 0x10000u << tw : 0u;
    }
    const int k0 = first * BK + A::k(), tap = k0 / CO;
    int co = k0 - tap * CO, th = TW > 0 ? tap / TW : 0, tw = tap - th * TW;
    // B: the same k of some input channels.
    using B = KFastest<X, S::BN, true>;
    const unsigned b_to = shared_address(stages->b + B::first());
    static_assert(A::STEP == B::STEP, "both operands at the same k");
    const float *w = weight + ((size_t)d * K * KW * CI + n0 + B::row(0)) * CO;

    auto fetch = [&](unsigned stage) {
        const int back = (th * OW + tw) * CO - co;
        const bool there = th < TH;
        const unsigned tap_bits = 1u << th | 0x10000u << tw;
#pragma unroll
        for (int i = 0; i < A::COUNT; ++i)
            copy<X>(A::to(a_to + stage, i), dout + (dy[i] - back), (inside[i] & tap_bits) == tap_bits);
        const int kh = phase_h + th * stride, kw = phase_w + tw * stride;
        const size_t tap = there ? (size_t)(kh * KW + kw) * CI * CO + co : 0;
#pragma unroll
        for (int i = 0; i < B::COUNT; ++i)
            copy<X>(B::to(b_to + stage, i), w + tap + i * B::STEP * CO, there && n0 + B::row(i) < CI);
        co += BK;
        while (co >= CO) co -= CO, tw + 1 < TW ? ++tw : (tw = 0, ++th);
    };
    Accumulators<S> acc = {};
    using Rows = RowsKFastest<S>;
    if (KK > 0) accumulate_tiles<Rows, ColumnsKFastest<S>>(acc, stages, c.end(slices) - first, fetch, [] {});
    const uint3 block = block_index_again();
    const Chunk part(ceil_div(CI, S::BN), chunks, block.y);
    if (!join_chunks(acc, stages, partials, counters, part)) return;

    const int direction = block.z / (stride * stride), of = block.z % (stride * stride);
    const Phase rows(H, of / stride, stride, pad), columns(W, of % stride, stride, pad);
    const int pixels = rows.count * columns.count;
    for_results<Rows>(acc, block.x * S::BM, part.column * S::BN, [&](int m) {
        const bool there = m < N * pixels;
        const int image = direction * N + (there ? m / pixels : 0), pixel = there ? m % pixels : 0;
        const int h = rows.pixel(pixel / columns.count), w = columns.pixel(pixel % columns.count);
        const float factor = scale ? scale[image / n_per_scale] : 1.f;
        float *row = dinp + (((size_t)image * H + h) * W + w) * CI;
        return [=](int n, float4 &v) {
            v = make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);
            if (there) store_columns<XO>(row, n, CI, v, accumulate);
        };
    });
}

// The rest of that gradient, added: what the targets next to the border have from their mirror images, see ring.cuh.
// grid (ceil(N * targets / BM), chunks * ceil(CI / BN), D)
template <class S, int X, int XO>
__device__ __forceinline__ void ring_dgrad(float *dinp, const float *dout, const float *weight, const float *scale,
                                           float *partials, unsigned *counters, int N, int H, int W, int CI, int OH,
                                           int OW, int CO, int K, int KW, int stride, int pad, int n_per_scale, int chunks) {
    __shared__ __align__(128) Stage<S> stages[STAGES];
    __shared__ Ring ring;
    const Chunk c(ceil_div(CI, S::BN), chunks);
    const Targets targets(N, H, W, pad);
    const int d = blockIdx.z, M = targets.count(), m0 = blockIdx.x * S::BM, n0 = c.column * S::BN;
    const int entries = ring.build<THREADS>(targets, m0, S::BM, K, KW, stride, OH, OW);
    const int slices = ceil_div(entries * CO, BK), first = c.first(slices);

    // A: X gradient channels that some targets' images meet, by the entry of the list that the slice has come to.
    using A = KFastest<X, S::BM, false>;
    const unsigned a_to = shared_address(stages->a + A::first());
    int image[A::COUNT], h[A::COUNT], w[A::COUNT];
#pragma unroll
    for (int i = 0; i < A::COUNT; ++i) {
        targets.at(min(m0 + A::row(i), M - 1), image[i], h[i], w[i]);
        image[i] = m0 + A::row(i) < M ? d * N + image[i] : -1;
    }
    const int k0 = first * BK + A::k();
    int entry = k0 / CO, co = k0 - entry * CO;
    // B: the same k of some input channels.
    using B = KFastest<X, S::BN, true>;
    const unsigned b_to = shared_address(stages->b + B::first());
    const float *weights = weight + ((size_t)d * K * KW * CI + n0 + B::row(0)) * CO;

    auto fetch = [&](unsigned stage) {
        const bool there = entry < entries;
        const ImageTap at = ImageTap::unpack(there ? ring.list[entry] : 0);
#pragma unroll
        for (int i = 0; i < A::COUNT; ++i) {
            const int oh = image_reads(at.kind_h, at.kh, h[i], H, pad, stride, OH);
            const int ow = image_reads(at.kind_w, at.kw, w[i], W, pad, stride, OW);
            const bool inside = there && image[i] >= 0 && oh >= 0 && ow >= 0;
            copy<X>(A::to(a_to + stage, i), dout + (inside ? ((image[i] * OH + oh) * OW + ow) * CO + co : 0), inside);
        }
        const size_t tap = there ? (size_t)(at.kh * KW + at.kw) * CI * CO + co : 0;
#pragma unroll
        for (int i = 0; i < B::COUNT; ++i)
            copy<X>(B::to(b_to + stage, i), weights + tap + i * B::STEP * CO, there && n0 + B::row(i) < CI);
        co += BK;
        while (co >= CO) co -= CO, ++entry;
    };
    Accumulators<S> acc = {};
    using Rows = RowsKFastest<S>;
    accumulate_tiles<Rows, ColumnsKFastest<S>>(acc, stages, c.end(slices) - first, fetch, [] {});
    const uint3 block = block_index_again();
    const Chunk part(ceil_div(CI, S::BN), chunks, block.y);
    if (!join_chunks(acc, stages, partials, counters, part)) return;

    const Targets results(N, H, W, pad);
    const int count = results.count();
    for_results<Rows>(acc, block.x * S::BM, part.column * S::BN, [&](int m) {
        const bool there = m < count;
        int image, h, w;
        results.at(there ? m : 0, image, h, w);
        image += block.z * N;
        const float factor = scale ? scale[image / n_per_scale] : 1.f;
        float *row = dinp + (((size_t)image * H + h) * W + w) * CI;
        return [=](int n, float4 &v) {
            v = make_float4(v.x * factor, v.y * factor, v.z * factor, v.w * factor);
            if (there) store_columns<XO>(row, n, CI, v, 1);
        };
    });
}

// ---------------------------------------------------------------- wgrad
// The sum over N*OH*OW pixels goes group by group of the images that share a scale, each in slices of its own.
// grid (ceil(K*K*CI / BM), chunks * ceil(CO / BN), D)
template <class S, int X>
__device__ __forceinline__ void wgrad(float *dweight, const float *inp, const float *dout, const float *scale,
                                      float *partials, unsigned *counters, int N, int H, int W, int CI, int OH, int OW,
                                      int CO, int K, int KW, int stride, int n_per_scale, int chunks, int accumulate) {
    __shared__ __align__(128) Stage<S> stages[STAGES];
    const Chunk c(ceil_div(CO, S::BN), chunks);
    const int d = blockIdx.z, P = OH * OW, M = K * KW * CI, m0 = blockIdx.x * S::BM, n0 = c.column * S::BN;
    const int groups = scale ? N / n_per_scale : 1, pixels = N / groups * P, group_slices = ceil_div(pixels, BK);
    const int first = c.first(groups * group_slices), slices = c.end(groups * group_slices) - first;

    // A: X input channels of one tap at some pixels. B: X output channels at the same pixels or others.
    using A = KSlowest<X, S::BM>;
    using B = KSlowest<X, S::BN>;
    const int am = m0 + A::column(), tap = min(am, M - X) / CI, bn = n0 + B::column();
    const float *x = inp + (tap / KW * W + tap % KW) * CI + min(am, M - X) % CI;
    const float *dy = dout + (size_t)d * N * P * CO + bn;
    const unsigned a_to = shared_address(stages->a + A::first()), b_to = shared_address(stages->b + B::first());
    // The next slice, its pixel of B, and the pixel of A: in its group, in its image, and where that lies.
    int group = first / group_slices, slice = first - group * group_slices;
    int pixel = 0, row = 0, column = 0;
    const float *at = nullptr;
    size_t b_at = 0;
    auto seek = [&] {
        pixel = slice * BK + A::k(0);
        const int image = d * N + group * (N / groups) + pixel / P;
        row = pixel % P / OW, column = pixel % P % OW;
        at = x + (((size_t)image * H + row * stride) * W + column * stride) * CI;
        b_at = ((size_t)group * pixels + slice * BK + B::k(0)) * CO;
    };
    seek();

    auto fetch = [&](unsigned stage) {
        const int b_pixel = slice * BK + B::k(0);
#pragma unroll
        for (int i = 0; i < A::COUNT; ++i) {
            copy<X>(A::to(a_to + stage, i), at, pixel < pixels && am < M);
            pixel += A::STEP, column += A::STEP, at += A::STEP * stride * CI;
            while (column >= OW) {
                column -= OW, at += (stride * W - OW * stride) * CI;
                if (++row == OH) row = 0, at += (size_t)(H - OH * stride) * W * CI;
            }
        }
#pragma unroll
        for (int i = 0; i < B::COUNT; ++i)
            copy<X>(B::to(b_to + stage, i), dy + b_at + i * B::STEP * CO, b_pixel + i * B::STEP < pixels && bn < CO);
        b_at += BK * CO;
        if (++slice == group_slices && groups > 1) slice = 0, ++group, seek();
    };
    // What was summed up in one group's scale counts in the next one's.
    const float *factor = scale ? scale + d * groups + group : nullptr;
    int left = group_slices - slice;
    Accumulators<S> acc = {};
    auto before = [&] {
        if (left-- > 0) return;
        left = group_slices - 1;
        const float by = __fdividef(factor[0], factor[1]);
        acc.map([=](float v) { return v * by; });
        ++factor;
    };
    using Rows = RowsKSlowest<S>;
    accumulate_tiles<Rows, ColumnsKSlowest<S>>(acc, stages, slices, fetch, before);
    if (scale) acc.map([by = *factor](float v) { return v * by; });
    if (!join_chunks(acc, stages, partials, counters, c)) return;

    float *dw = dweight + (size_t)d * M * CO;
    for_results<Rows>(acc, m0, n0, [&](int m) {
        return [=](int n, float4 &v) {
            if (m < M) store_columns<X>(dw + (size_t)m * CO, n, CO, v, accumulate);
        };
    });
}

#define CONV_TENSOR_CORE(NAME, X, XO, ...)                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) conv_forward_mma_##NAME##_tf32(                          \
        float *out, const float *inp, const float *weight, OPTIONAL const float *bias, OPTIONAL const float *scale,   \
        OPTIONAL SCRATCH float *partials, OPTIONAL SCRATCH unsigned *counters, int N, int H, int W, int CI, int OH,   \
        int OW, int CO, int K, int KW, int S, int n_per_scale, int act, int chunks) {                                 \
        forward<Shape<__VA_ARGS__>, X>(out, inp, weight, bias, scale, partials, counters, N, H, W, CI, OH, OW, CO, K, \
                                       KW, S, n_per_scale, act, chunks);                                              \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) conv_dgrad_mma_##NAME##_tf32(                            \
        ADDS_IF(accumulate) float *dinp, const float *dout, const float *weight, OPTIONAL const float *scale,         \
        OPTIONAL SCRATCH float *partials, OPTIONAL SCRATCH unsigned *counters, int N, int H, int W, int CI, int OH,   \
        int OW, int CO, int K, int KW, int S, int pad, int n_per_scale, int chunks, int accumulate) {                 \
        dgrad<Shape<__VA_ARGS__>, X, XO>(dinp, dout, weight, scale, partials, counters, N, H, W, CI, OH, OW, CO, K,   \
                                         KW, S, pad, n_per_scale, chunks, accumulate);                                \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) conv_wgrad_mma_##NAME##_tf32(                            \
        ADDS_IF(accumulate) float *dweight, const float *inp, const float *dout, OPTIONAL const float *scale,         \
        OPTIONAL SCRATCH float *partials, OPTIONAL SCRATCH unsigned *counters, int N, int H, int W, int CI, int OH,   \
        int OW, int CO, int K, int KW, int S, int n_per_scale, int chunks, int accumulate) {                          \
        wgrad<Shape<__VA_ARGS__>, X>(dweight, inp, dout, scale, partials, counters, N, H, W, CI, OH, OW, CO, K, KW,   \
                                     S, n_per_scale, chunks, accumulate);                                             \
    }

#define CONV_RING(NAME, X, XO, ...)                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) conv_ring_dgrad_mma_##NAME##_tf32(                       \
        INOUT float *dinp, const float *dout, const float *weight, OPTIONAL const float *scale,                       \
        OPTIONAL SCRATCH float *partials, OPTIONAL SCRATCH unsigned *counters, int N, int H, int W, int CI, int OH,   \
        int OW, int CO, int K, int KW, int S, int pad, int n_per_scale, int chunks) {                                 \
        ring_dgrad<Shape<__VA_ARGS__>, X, XO>(dinp, dout, weight, scale, partials, counters, N, H, W, CI, OH, OW, CO, \
                                              K, KW, S, pad, n_per_scale, chunks);                                    \
    }

// Channels a copy (of dgrad a store, where it differs), rows and columns of a block's tile, then of a warp's.
CONV_TENSOR_CORE(n128, 4, 4, 128, 128, 64, 64)
CONV_TENSOR_CORE(n64, 4, 4, 128, 64, 32, 64)
CONV_TENSOR_CORE(n32, 4, 1, 128, 32, 32, 32)
CONV_TENSOR_CORE(m64, 4, 4, 64, 128, 32, 64)
CONV_TENSOR_CORE(x1, 1, 1, 128, 32, 32, 32)
CONV_RING(m64, 4, 4, 64, 128, 32, 64)
CONV_RING(n64, 4, 4, 128, 64, 32, 64)
CONV_RING(n32, 4, 1, 128, 32, 32, 32)
CONV_RING(x1, 1, 1, 128, 32, 32, 32)

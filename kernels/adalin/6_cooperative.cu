// Variant 6: the fused norm that reads its input once: an image stays in shared memory between statistics and result.
//
// What changed from variant 4: the three launches became one. Blocks that are resident all at once share an image, each
// keeps its tile of it in shared memory, and they tell each other their sums through global memory, at barriers of the
// blocks of an image (integer counters, release and acquire). The result is then written from the tiles, and the
// blocks go on to their next image. Sums are joined in a fixed order, so every block gets the same bits.
// Moves: forward 2 passes (x once, out once), backward 3 (dout and x once, dx once), and up to 8 floats for each channel
// of each tile: partial sums, and what a block fetches of its channels. The parameters' gradients take a second, small
// launch, since they go over all images.
// Bound by: memory bandwidth, while a block loads or stores; at two barriers an image nothing moves, unless another
// group of blocks is at work meanwhile.
//
// Block shape: (up to WIDTH groups of V channels, pixels), THREADS threads; grid (ceil(C / V / blockDim.x), chunks,
// groups), a cooperative launch. A chunk is `rows` pixels, their tile rows * blockDim.x * V elements of dynamic shared
// memory; a group of blocks has the images blockIdx.z, blockIdx.z + gridDim.z and so on.
#include "common/norm.cuh"

constexpr int THREADS = 512;
constexpr int WARPS = THREADS / WARP;
// Most groups of V channels a block: a row of its tile is a whole line of the cache. Narrow tiles are long ones, and
// fewer of them share a channel, so that there are fewer partial sums.
template <int V>
constexpr int WIDTH = V == 1 ? WARP : 8;
constexpr int SLICE = 8;  // channels whose partial sums one block joins: 32 bytes a row of them

// ---------------------------------------------------------------- one function per PTX instruction
__device__ __forceinline__ void add_release(unsigned *counter) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

__device__ __forceinline__ unsigned load_acquire(const unsigned *counter) {
    unsigned v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(counter) : "memory");
    return v;
}

__device__ __forceinline__ void sleep() { asm volatile("nanosleep.u32 40;" ::: "memory"); }

// ---------------------------------------------------------------- the blocks of an image
__device__ __forceinline__ int blocks_of_image() { return gridDim.x * gridDim.y; }

__device__ __forceinline__ int thread_of_block() { return threadIdx.y * blockDim.x + threadIdx.x; }

// Waits until all blocks of the image are here: what any of their threads wrote before, every thread sees afterwards.
__device__ __forceinline__ void meet(unsigned *counter) {
    __syncthreads();
    if (thread_of_block() == 0) {
        add_release(counter);
        while (load_acquire(counter) < (unsigned)blocks_of_image()) sleep();
    }
    __syncthreads();
}

// Leaves the counters of an image as they were found, 0: the last block to pass both barriers does. Three an image:
// two barriers, and those who have passed them.
__device__ __forceinline__ void leave(unsigned *counters) {
    if (thread_of_block() != 0) return;
    const unsigned last = blocks_of_image() - 1;
    if (inc_acq_rel(counters + 2, last) == last) counters[0] = 0, counters[1] = 0;
}

// What threads hand each other: moments of disjoint sets, or two sums.
struct Set {
    Moments m;
    __device__ __forceinline__ Set with(const Set &other) const { return {join(m, other.m)}; }
    __device__ __forceinline__ Set of_lane(int lane) const {
        return {{__shfl_sync(FULL, m.n, lane), __shfl_sync(FULL, m.mean, lane), __shfl_sync(FULL, m.m2, lane)}};
    }
};

struct Pair {
    float a, b;
    __device__ __forceinline__ Pair with(const Pair &other) const { return {a + other.a, b + other.b}; }
    __device__ __forceinline__ Pair of_lane(int lane) const {
        return {__shfl_sync(FULL, a, lane), __shfl_sync(FULL, b, lane)};
    }
};

// Of the lanes of a warp, every `last`-th by itself, left in the first `last` lanes.
template <typename Value>
__device__ __forceinline__ Value over_lanes(Value v, int first, int last) {
    const int lane = thread_of_block() % WARP;
    for (int offset = first; offset >= last; offset /= 2) v = v.with(v.of_lane((lane + offset) % WARP));
    return v;
}

// Values in shared memory, their fields apart, so that neighbours hit neighbouring banks.
template <typename Value, int ROWS, int COLUMNS>
struct Scratch {
    static constexpr int FIELDS = sizeof(Value) / sizeof(float);
    float at[FIELDS][ROWS][COLUMNS];

    __device__ __forceinline__ void set(int row, int column, const Value &v) {
#pragma unroll
        for (int i = 0; i < FIELDS; ++i) at[i][row][column] = reinterpret_cast<const float *>(&v)[i];
    }
    __device__ __forceinline__ Value get(int row, int column) const {
        Value v;
#pragma unroll
        for (int i = 0; i < FIELDS; ++i) reinterpret_cast<float *>(&v)[i] = at[i][row][column];
        return v;
    }
};

template <typename Value, int V>
using RowScratch = Scratch<Value, WARPS / 2, WIDTH<V> * V>;
template <typename Value>
using PartScratch = Scratch<Value, WARPS, SLICE>;

// Where in a row the i-th channel of a lane lies: neither the lanes nor the channels of a warp meet in a bank.
template <int V>
__device__ __forceinline__ int column_of(int lane, int i) {
    return lane * V + ((i + lane / 4) & (V - 1));
}

// Over the rows of the block, of V channels a thread: within the warps first, then two warps each, then those in
// order. Left in the first blockDim.x * V threads, one channel each.
template <int V, typename Value>
__device__ __forceinline__ Value over_rows(const Value (&v)[V], RowScratch<Value, V> &scratch) {
    const int thread = thread_of_block(), lane = thread % WARP, warp = thread / WARP, width = blockDim.x;
    Value all[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
        all[i] = over_lanes(v[i], WARP / 2, width);
        if (warp >= WARPS / 2 && lane < width) scratch.set(warp - WARPS / 2, column_of<V>(lane, i), all[i]);
    }
    __syncthreads();
    if (warp < WARPS / 2 && lane < width) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const int at = column_of<V>(lane, i);
            scratch.set(warp, at, all[i].with(scratch.get(warp, at)));
        }
    }
    __syncthreads();
    Value total = {};
    if (thread < width * V)
#pragma unroll 4
        for (int k = 0; k < WARPS / 2; ++k)
            total = total.with(scratch.get(k, column_of<V>(thread / V, thread % V)));
    return total;
}

// Over the block, of what the threads of each `threadIdx % SLICE` hold, left in the first SLICE threads: within the
// warps first, then the warps in order.
template <typename Value>
__device__ __forceinline__ Value over_parts(Value v, PartScratch<Value> &scratch) {
    const int thread = thread_of_block();
    v = over_lanes(v, WARP / 2, SLICE);
    __syncthreads();
    if (thread % WARP < SLICE) scratch.set(thread / WARP, thread % WARP, v);
    __syncthreads();
    if (thread < SLICE)
#pragma unroll 3
        for (int warp = 1; warp < WARPS; ++warp) v = v.with(scratch.get(warp, thread));
    return v;
}

// ---------------------------------------------------------------- tiles
// Bits of V elements as they lie in memory.
template <int V, typename T>
struct Bits {
    typedef uint4 type;
};
template <>
struct Bits<1, float> {
    typedef float type;
};
template <typename T>
struct Bits<1, T> {
    typedef T type;
};

template <int V, typename T>
__device__ __forceinline__ void widen(float (&v)[V], const typename Bits<V, T>::type &bits) {
    load_row(v, reinterpret_cast<const T *>(&bits));
}

// ---------------------------------------------------------------- forward
// out = act((x - mean) * scale + shift) + residual; stats [images, C, 2], layer_stats [images, 2] and lines
// [images, 3, C] as `adalin_finish_rows_f32` leaves them. Scratch: partial [images, chunks, 2, C], planes
// [images, 4, C], slices [images, ceil(C / SLICE), 3]; counters [images, 3], 0 before and after.
template <int V, typename T>
__device__ __forceinline__ void forward(T *out, const T *x, const T *residual, float *stats, float *layer_stats,
                                        float *lines, float *partial, float *planes, float *slices,
                                        unsigned *counters, const float *rho, const float *gamma, const float *beta,
                                        int images, int HW, int C, int N, int images_per_affine, int rows,
                                        int unbiased, int act, float eps) {
    typedef typename Bits<V, T>::type Word;
    extern __shared__ __align__(16) unsigned char tile_bytes[];
    Word *const tile = reinterpret_cast<Word *>(tile_bytes) + threadIdx.x;
    __shared__ RowScratch<Set, V> scratch;
    __shared__ PartScratch<Set> sets;
    __shared__ float layer[2];  // mean, rstd
    __shared__ Staged<V, 3, WIDTH<V>> staged;
    const int thread = thread_of_block(), c = (blockIdx.x * blockDim.x + threadIdx.x) * V, chunk = blockIdx.y;
    const int chunks = gridDim.y, slice_count = ceil_div(C, SLICE), block = chunk * gridDim.x + blockIdx.x;
    const int begin = chunk * rows + threadIdx.y, end = min((chunk + 1) * rows, HW);
    if (thread == 0) layer[0] = 0.f, layer[1] = 0.f;  // stays so in an instance norm
    for (int image = blockIdx.z; image < images; image += gridDim.z) {
        float *const sums = partial + (size_t)image * chunks * 2 * C;
        const size_t base = (size_t)image * HW * C + c;

        // The tile, and the mean and M2 of its channels. Each thread shifts by its first value.
        Set mine[V] = {};
        if (c < C && begin < end) {
            float first[V], sum[V] = {}, squares[V] = {};
            const Word head = *reinterpret_cast<const Word *>(x + base + (size_t)begin * C);
            tile[threadIdx.y * blockDim.x] = head;
            widen<V, T>(first, head);
#pragma unroll 8
            for (int i = begin + blockDim.y; i < end; i += blockDim.y) {
                const Word word = *reinterpret_cast<const Word *>(x + base + (size_t)i * C);
                tile[(i - chunk * rows) * blockDim.x] = word;
                float q[V];
                widen<V, T>(q, word);
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    q[v] -= first[v];
                    sum[v] += q[v];
                    squares[v] = fmaf(q[v], q[v], squares[v]);
                }
            }
            const float n = (float)ceil_div(end - begin, blockDim.y);
            float mean[V], m2[V];
            moments_of(mean, m2, first, sum, squares, n);
#pragma unroll
            for (int v = 0; v < V; ++v) mine[v] = {{n, mean[v], m2[v]}};
        }
        const Set of_tile = over_rows(mine, scratch);
        const int own = blockIdx.x * blockDim.x * V + thread;
        if (thread < blockDim.x * V && own < C) {
            sums[(size_t)chunk * 2 * C + own] = of_tile.m.mean;
            sums[((size_t)chunk * 2 + 1) * C + own] = of_tile.m.m2;
        }
        meet(counters + 3 * image);

        // The channels of this block's slices, over all chunks in order; what the layer needs of them.
        for (int slice = block; slice < slice_count; slice += blocks_of_image()) {
            const int k = slice * SLICE + thread % SLICE;
            Set set = {};
            if (k < C)
#pragma unroll 1
                for (int i = thread / SLICE; i < chunks; i += THREADS / SLICE)
                    set = set.with({{(float)min(rows, HW - i * rows), sums[(size_t)i * 2 * C + k],
                                     sums[((size_t)i * 2 + 1) * C + k]}});
            set = over_parts(set, sets);
            if (thread < WARP) {
                if (thread < SLICE && k < C) {
                    const float rstd = 1.f / sqrtf(set.m.m2 / (float)(HW - unbiased) + eps);
                    const size_t at = (size_t)image * C + k;
                    stats[2 * at] = set.m.mean;
                    stats[2 * at + 1] = rstd;
                    float *const plane = planes + (size_t)image * 4 * C + k;
                    const float r = rho ? rho[image / N * C + k] : 1.f;
                    const float g = rho ? gamma[image / images_per_affine * C + k] : 1.f;
                    plane[0] = set.m.mean;
                    plane[C] = r * rstd * g;
                    plane[2 * C] = (1.f - r) * g;
                    plane[3 * C] = rho ? beta[image / images_per_affine * C + k] : 0.f;
                }
                if (thread >= SLICE || k >= C) set = {};
                set = over_lanes(set, SLICE / 2, 1);
                float *const of = slices + ((size_t)image * slice_count + slice) * 3;
                if (thread == 0) of[0] = set.m.n, of[1] = set.m.mean, of[2] = set.m.m2;
            }
        }
        meet(counters + 3 * image + 1);
        leave(counters + 3 * image);

        // The layer: every block joins the slices in the same order.
        if (rho) {
            Set set = {};
            for (int i = thread; i < slice_count && thread < WARP; i += WARP) {
                const float *const of = slices + ((size_t)image * slice_count + i) * 3;
                set = set.with({{of[0], of[1], of[2]}});
            }
            if (thread < WARP) {
                set = over_lanes(set, WARP / 2, 1);
                if (thread == 0) {
                    layer[0] = set.m.mean;
                    layer[1] = 1.f / sqrtf(set.m.m2 / ((float)HW * (float)C - (float)unbiased) + eps);
                    if (block == 0) layer_stats[image * 2] = layer[0], layer_stats[image * 2 + 1] = layer[1];
                }
            }
            __syncthreads();
        }

        // Mean, scale and shift of the block's channels, for all its rows, and once for the backward pass.
        if (threadIdx.y == 0 && c < C) {
            const float mean_l = layer[0], rstd_l = layer[1];
            const float *const plane = planes + (size_t)image * 4 * C + c;
            float mean[V], scale[V], share[V], shift[V];
            load_row(mean, plane);
            load_row(scale, plane + C);
            load_row(share, plane + 2 * C);
            load_row(shift, plane + 3 * C);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                const float of_layer = share[v] * rstd_l;
                scale[v] += of_layer;
                shift[v] = fmaf(mean[v] - mean_l, of_layer, shift[v]);
            }
            put(staged, 0, mean);
            put(staged, 1, scale);
            put(staged, 2, shift);
            if (chunk == 0) {
                float *const line = lines + (size_t)image * 3 * C + c;
                store_row(line, mean);
                store_row(line + C, scale);
                store_row(line + 2 * C, shift);
            }
        }
        __syncthreads();
        if (c < C) {
            const Line<V> line = take_line(staged);
#pragma unroll 4
            for (int i = begin; i < end; i += blockDim.y) {
                const size_t at = base + (size_t)i * C;
                float q[V], r[V] = {};
                widen<V, T>(q, tile[(i - chunk * rows) * blockDim.x]);
                if (residual) load_row(r, residual + at);
#pragma unroll
                for (int v = 0; v < V; ++v) q[v] = rectify(normalise(q[v], line, v), act) + r[v];
                store_row(out + at, q);
            }
        }
    }
}

// ---------------------------------------------------------------- backward
// dx = A g + B (x - mean_I) + C, g = dout through the activation; S1 and S2 of every channel are left in totals
// [images, 2, C], for the gradients of the parameters. Scratch: partial [images, chunks, 2, C], planes [images, 3, C],
// slices [images, ceil(C / SLICE), 2]; counters [images, 3], 0 before and after. The tile of dout lies after that of x.
template <int V, typename T>
__device__ __forceinline__ void backward(T *dx, float *totals, const T *dout, const T *x, const float *stats,
                                         const float *layer_stats, const float *lines, float *partial, float *planes,
                                         float *slices, unsigned *counters, const float *rho, const float *gamma,
                                         int images, int HW, int C, int N, int images_per_affine, int rows,
                                         int unbiased, int act, int accumulate) {
    typedef typename Bits<V, T>::type Word;
    extern __shared__ __align__(16) unsigned char tile_bytes[];
    Word *const tile = reinterpret_cast<Word *>(tile_bytes) + threadIdx.x;
    Word *const tile_of_dout = tile + rows * blockDim.x;
    __shared__ RowScratch<Pair, V> scratch;
    __shared__ PartScratch<Pair> pairs;
    __shared__ float layer[3];  // B_L, rstd_L Q1 / m, mean_L
    __shared__ Staged<V, 6, WIDTH<V>> staged;
    const int thread = thread_of_block(), c = (blockIdx.x * blockDim.x + threadIdx.x) * V, chunk = blockIdx.y;
    const int chunks = gridDim.y, slice_count = ceil_div(C, SLICE), block = chunk * gridDim.x + blockIdx.x;
    const int begin = chunk * rows + threadIdx.y, end = min((chunk + 1) * rows, HW);
    if (thread == 0) layer[0] = 0.f, layer[1] = 0.f, layer[2] = 0.f;  // stays so in an instance norm
    for (int image = blockIdx.z; image < images; image += gridDim.z) {
        float *const sums = partial + (size_t)image * chunks * 2 * C;
        const size_t base = (size_t)image * HW * C + c;

        // Both tiles, S1 = sum(g) and S2 = sum(g (x - mean_I)) of their channels.
        __syncthreads();  // the planes of the image before are in use until here
        stage(staged, 0, act == NONE ? 1 : 3, lines + (size_t)image * 3 * C, C, c);
        __syncthreads();
        Pair mine[V] = {};
        if (c < C) {
            Line<V> line = {};
            take(line.mean, staged, 0);
            if (act != NONE) line = take_line(staged);
#pragma unroll 4
            for (int i = begin; i < end; i += blockDim.y) {
                const size_t at = base + (size_t)i * C;
                const Word of_x = *reinterpret_cast<const Word *>(x + at);
                const Word of_dout = *reinterpret_cast<const Word *>(dout + at);
                tile[(i - chunk * rows) * blockDim.x] = of_x;
                tile_of_dout[(i - chunk * rows) * blockDim.x] = of_dout;
                float q[V], g[V];
                widen<V, T>(q, of_x);
                widen<V, T>(g, of_dout);
                through_activation(g, q, line, act);
#pragma unroll
                for (int v = 0; v < V; ++v) {
                    mine[v].a += g[v];
                    mine[v].b = fmaf(g[v], q[v] - line.mean[v], mine[v].b);
                }
            }
        }
        const Pair of_tile = over_rows(mine, scratch);
        const int own = blockIdx.x * blockDim.x * V + thread;
        if (thread < blockDim.x * V && own < C) {
            sums[(size_t)chunk * 2 * C + own] = of_tile.a;
            sums[((size_t)chunk * 2 + 1) * C + own] = of_tile.b;
        }
        meet(counters + 3 * image);

        // The channels of this block's slices, over all chunks in order; what the layer needs of them.
        for (int slice = block; slice < slice_count; slice += blocks_of_image()) {
            const int k = slice * SLICE + thread % SLICE;
            Pair pair = {};
            if (k < C)
#pragma unroll 1
                for (int i = thread / SLICE; i < chunks; i += THREADS / SLICE)
                    pair = pair.with({sums[(size_t)i * 2 * C + k], sums[((size_t)i * 2 + 1) * C + k]});
            pair = over_parts(pair, pairs);
            if (thread < WARP) {
                Pair q = {};
                if (thread < SLICE && k < C) {
                    totals[(size_t)image * 2 * C + k] = pair.a;
                    totals[((size_t)image * 2 + 1) * C + k] = pair.b;
                    const float *const s = stats + ((size_t)image * C + k) * 2;
                    const float mean = s[0], rstd = s[1];
                    const float mean_l = rho ? layer_stats[image * 2] : 0.f;
                    const float rstd_l = rho ? layer_stats[image * 2 + 1] : 0.f;
                    const float r = rho ? rho[image / N * C + k] : 1.f;
                    const float g = rho ? gamma[image / images_per_affine * C + k] : 1.f;
                    const Dots dots = dots_of(pair.a, pair.b, mean, rstd, mean_l, rstd_l);
                    q = {g * (1.f - r) * pair.a, g * (1.f - r) * dots.l};
                    float *const plane = planes + (size_t)image * 3 * C + k;
                    plane[0] = g * fmaf(r, rstd, (1.f - r) * rstd_l);
                    plane[C] = -rstd * rstd * g * r * dots.i / (float)(HW - unbiased);
                    plane[2 * C] = -g * r * rstd * pair.a / (float)HW;
                }
                q = over_lanes(q, SLICE / 2, 1);
                float *const of = slices + ((size_t)image * slice_count + slice) * 2;
                if (thread == 0) of[0] = q.a, of[1] = q.b;
            }
        }
        meet(counters + 3 * image + 1);
        leave(counters + 3 * image);

        // The layer's part, from Q1 and Q2: every block adds the slices in the same order.
        if (rho) {
            if (thread < WARP) {
                Pair q = {};
                for (int i = thread; i < slice_count; i += WARP) {
                    const float *const of = slices + ((size_t)image * slice_count + i) * 2;
                    q = q.with({of[0], of[1]});
                }
                q = over_lanes(q, WARP / 2, 1);
                if (thread == 0) {
                    const float rstd_l = layer_stats[image * 2 + 1], count = (float)HW * (float)C;
                    layer[0] = -rstd_l * rstd_l * q.b / (count - (float)unbiased);
                    layer[1] = rstd_l * q.a / count;
                    layer[2] = layer_stats[image * 2];
                }
            }
            __syncthreads();
        }
        if (threadIdx.y == 0 && c < C) {
            const float *const plane = planes + (size_t)image * 3 * C + c;
            float k0[V], k1[V], k2[V], mean[V];
            load_row(k0, plane);
            load_row(k1, plane + C);
            load_row(k2, plane + 2 * C);
            take(mean, staged, 0);
            const float slope = layer[0], constant = layer[1], mean_l = layer[2];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                k1[v] += slope;
                k2[v] += slope * (mean[v] - mean_l) - constant;
            }
            put(staged, 3, k0);
            put(staged, 4, k1);
            put(staged, 5, k2);
        }
        __syncthreads();
        if (c < C) {
            Line<V> line = {};
            take(line.mean, staged, 0);
            if (act != NONE) line = take_line(staged);
            float k0[V], k1[V], k2[V];
            take(k0, staged, 3);
            take(k1, staged, 4);
            take(k2, staged, 5);
#pragma unroll 2
            for (int i = begin; i < end; i += blockDim.y) {
                float q[V], g[V];
                widen<V, T>(q, tile[(i - chunk * rows) * blockDim.x]);
                widen<V, T>(g, tile_of_dout[(i - chunk * rows) * blockDim.x]);
                through_activation(g, q, line, act);
#pragma unroll
                for (int v = 0; v < V; ++v) q[v] = fmaf(k0[v], g[v], fmaf(k1[v], q[v] - line.mean[v], k2[v]));
                store_row(dx + base + (size_t)i * C, q, accumulate);
            }
        }
    }
}

#define ADALIN_COOPERATIVE(V, T, NAME)                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) adalin_cooperative_forward_##NAME(                        \
        T *out, const T *x, OPTIONAL const T *residual, float *stats, OPTIONAL float *layer_stats, float *lines,       \
        SCRATCH float *partial, SCRATCH float *planes, SCRATCH float *slices, SCRATCH unsigned *counters,              \
        OPTIONAL const float *rho, OPTIONAL const float *gamma, OPTIONAL const float *beta, int images, int HW,        \
        int C, int N, int images_per_affine, int rows, int unbiased, int act, float eps) {                             \
        forward<V>(out, x, residual, stats, layer_stats, lines, partial, planes, slices, counters, rho, gamma, beta,   \
                   images, HW, C, N, images_per_affine, rows, unbiased, act, eps);                                     \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) adalin_cooperative_backward_##NAME(                       \
        ADDS_IF(accumulate) T *dx, float *totals, const T *dout, const T *x, const float *stats,                       \
        OPTIONAL const float *layer_stats, const float *lines, SCRATCH float *partial, SCRATCH float *planes,          \
        SCRATCH float *slices, SCRATCH unsigned *counters, OPTIONAL const float *rho, OPTIONAL const float *gamma,     \
        int images, int HW, int C, int N, int images_per_affine, int rows, int unbiased, int act, int accumulate) {    \
        backward<V>(dx, totals, dout, x, stats, layer_stats, lines, partial, planes, slices, counters, rho, gamma,     \
                    images, HW, C, N, images_per_affine, rows, unbiased, act, accumulate);                             \
    }

ADALIN_COOPERATIVE(1, float, x1_f32)
ADALIN_COOPERATIVE(4, float, x4_f32)
ADALIN_COOPERATIVE(1, f16, x1_f16)
ADALIN_COOPERATIVE(8, f16, x8_f16)
ADALIN_COOPERATIVE(1, bf16, x1_bf16)
ADALIN_COOPERATIVE(8, bf16, x8_bf16)

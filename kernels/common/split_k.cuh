// A long sum of a tile, split over several blocks (split-K).
#pragma once
#include "common/common.cuh"

// The blocks that share the sum of a tile. blockIdx.y counts the tiles of a row, then the chunks.
struct Chunk {
    int column, chunk, chunks;
    __device__ __forceinline__ Chunk(int columns, int chunks, int y = blockIdx.y) : chunks(chunks) {
        column = y % columns, chunk = y / columns;
    }
    // First of its slices, of so many; that of the next chunk is its end.
    __device__ __forceinline__ int first(int slices) const { return (int)((long long)slices * chunk / chunks); }
    __device__ __forceinline__ int end(int slices) const { return (int)((long long)slices * (chunk + 1) / chunks); }
};

// Leaves the block's part of a tile, R x C floats of each of THREADS threads, in `partials` [tile][chunk][R*C*THREADS]. In
// the last block of the tile to come, acc is then the sum of all parts, added in the order of the chunks whichever
// block it is; the others are done (false). The tile's counter is 0 before and after. `comes_last` lies in shared memory
// that nobody reads any more.
template <int THREADS, int R, int C>
__device__ __forceinline__ bool join(float (&acc)[R][C], float *partials, unsigned *counters, const Chunk &c,
                                     bool *comes_last) {
    static_assert(C % 4 == 0, "whole 16 bytes");
    if (c.chunks == 1) return true;
    const int tile = (blockIdx.z * (gridDim.y / c.chunks) + c.column) * gridDim.x + blockIdx.x;
    float *part = partials + ((size_t)tile * c.chunks + c.chunk) * (R * C * THREADS) + threadIdx.x * 4;
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < C; j += 4)
            store4(part + (i * C + j) * THREADS,
                   make_float4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]), 0);
    __syncthreads();
    if (threadIdx.x == 0) *comes_last = inc_acq_rel(counters + tile, c.chunks - 1) == c.chunks - 1;
    __syncthreads();
    if (!*comes_last) return false;
    part -= (size_t)c.chunk * (R * C * THREADS);
#pragma unroll
    for (int i = 0; i < R; ++i)
#pragma unroll
        for (int j = 0; j < C; ++j) acc[i][j] = 0.f;
#pragma unroll 1
    for (int k = 0; k < c.chunks; ++k, part += R * C * THREADS) {
#pragma unroll
        for (int i = 0; i < R; ++i) {
#pragma unroll
            for (int j = 0; j < C; j += 4) {
                const float4 v = load4(part + (i * C + j) * THREADS);
                acc[i][j] += v.x, acc[i][j + 1] += v.y, acc[i][j + 2] += v.z, acc[i][j + 3] += v.w;
            }
        }
    }
    return true;
}

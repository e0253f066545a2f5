// The gradient of a reflect-padded convolution at the pixels that the padding repeats.
//
// A pixel u of the unpadded input has its gradient from every padded position that shows it. One of them is its own,
// u + P. The pixels next to the border, the targets, have others: mirror images (see `mirror`), of kind 1 to the left or
// above, 2 to the right or below, and pairs of them in the corners. An image meets few of the K x KW taps: those that look
// over the border. So a block of targets first lists the (kind, tap) that any of its rows needs, and sums over those.
#pragma once
#include "common/common.cuh"

constexpr int RING_MAX_K = 7;
constexpr int RING_LIST = 9 * RING_MAX_K * RING_MAX_K;
constexpr int RING_WORDS = (RING_LIST + 31) / 32;

// Positions of n that have a mirror image in a padding by P; all where the two sides meet.
__device__ __forceinline__ int border_count(int n, int P) { return 2 * P > n - 2 ? n : 2 * P; }

// The i-th of them, and the i-th of the others.
__device__ __forceinline__ int border(int i, int n, int P) { return 2 * P > n - 2 ? i : i < P ? 1 + i : n - 1 - 2 * P + i; }
__device__ __forceinline__ int inner(int i, int n, int P) { return i == 0 ? 0 : i == n - 2 * P - 1 ? n - 1 : P + i; }

// Targets of N images of H x W: those rows whole, and those columns of the others. Row by row and column by column, each
// of all images, so that neighbours need the same taps.
struct Targets {
    int N, H, W, P, rows, columns;
    __device__ __forceinline__ Targets(int N, int H, int W, int P)
        : N(N), H(H), W(W), P(P), rows(border_count(H, P)), columns(border_count(W, P)) {}
    __device__ __forceinline__ int count() const { return N * (rows * W + (H - rows) * columns); }
    __device__ __forceinline__ void at(int i, int &image, int &h, int &w) const {
        int side = N * W;
        if (i < rows * side) {
            image = i % side / W, h = border(i / side, H, P), w = i % side % W;
        } else {
            i -= rows * side;
            const int others = H - rows;
            side = N * others;
            image = i % side / others, h = inner(i % side % others, H, P), w = border(i / side, W, P);
        }
    }
};

// One entry of the list: kinds of row and column, tap.
struct ImageTap {
    int kind_h, kind_w, kh, kw;
    __device__ __forceinline__ unsigned short pack() const { return kind_h << 12 | kind_w << 8 | kh << 4 | kw; }
    static __device__ __forceinline__ ImageTap unpack(unsigned v) {
        return {(int)(v >> 12), (int)(v >> 8 & 3), (int)(v >> 4 & 15), (int)(v & 15)};
    }
};

// The output position that tap k of image `kind` of u reads; -1 where there is none.
__device__ __forceinline__ int image_reads(int kind, int k, int u, int n, int P, int S, int outputs) {
    int q;
    if (!mirror(q, kind, u, n, P) || q < k) return -1;
    q -= k;
    if (S > 1) {
        if (q % S != 0) return -1;
        q /= S;
    }
    return q < outputs ? q : -1;
}

// What the rows of a block need, in shared memory.
struct Ring {
    unsigned wanted[RING_WORDS];
    unsigned short list[RING_LIST + 1];

    // Fills the list for the targets m0 to m0 + rows; returns its length. All threads of the block.
    template <int THREADS>
    __device__ __forceinline__ int build(const Targets &targets, int m0, int rows, int K, int KW, int S, int OH, int OW) {
        const int t = threadIdx.x, end = min(m0 + rows, targets.count());
        for (int i = t; i < RING_WORDS; i += THREADS) wanted[i] = 0;
        __syncthreads();
        for (int m = m0 + t; m < end; m += THREADS) {
            int image, h, w;
            targets.at(m, image, h, w);
            for (int kind = 1; kind < 9; ++kind)
                for (int kh = 0; kh < K; ++kh) {
                    if (image_reads(kind / 3, kh, h, targets.H, targets.P, S, OH) < 0) continue;
                    for (int kw = 0; kw < KW; ++kw) {
                        if (image_reads(kind % 3, kw, w, targets.W, targets.P, S, OW) < 0) continue;
                        const int entry = (kind * K + kh) * KW + kw;
                        atomicOr(&wanted[entry / 32], 1u << entry % 32);
                    }
                }
        }
        __syncthreads();
        for (int entry = t; entry < 9 * K * KW; entry += THREADS) {
            if (!(wanted[entry / 32] >> entry % 32 & 1)) continue;
            int at = __popc(wanted[entry / 32] & ((1u << entry % 32) - 1));
            for (int i = 0; i < entry / 32; ++i) at += __popc(wanted[i]);
            const int kind = entry / (K * KW), tap = entry % (K * KW);
            list[at] = ImageTap{kind / 3, kind % 3, tap / KW, tap % KW}.pack();
        }
        int length = 0;
        for (int i = 0; i < RING_WORDS; ++i) length += __popc(wanted[i]);
        __syncthreads();
        return length;
    }
};

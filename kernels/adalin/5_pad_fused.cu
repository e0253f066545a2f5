// Variant 5: what the network needs after a norm, in the norm's own pass: activation, residual, and the reflect-padded,
// optionally up-sampled tensor that the next convolution reads.
//
// What changed from variant 4: the apply pass writes every value to all the places of the padded tensor that show it
// (mostly one, at the border up to four, times up * up), and the unpadded tensor only where something else reads it.
// Each value is read once and nothing is gathered, so a padded tensor costs no pass of its own.
// Moves: x twice, the padded tensor once (variant 4 and a padding: two passes more). Backward as variant 4.
// Bound by: memory bandwidth, as variant 4.
#include "common/norm.cuh"

constexpr int THREADS = 256;

// padded [images, H * UP + 2 P, W * UP + 2 P, C] and, unless null, out [images, H, W, C], both
// act((x - mean) * scale + shift) + residual. lines [images, 3, C] as adalin_finish_rows_f32 leaves them.
// Block (groups of V channels, pixels). grid (ceil(C / V / blockDim.x), chunks of `rows` pixels, images)
template <int V, typename T>
__device__ __forceinline__ void forward(T *__restrict__ padded, T *__restrict__ out, const T *__restrict__ x,
                                        const float *__restrict__ lines, const T *__restrict__ residual, int H, int W,
                                        int C, int act, int P, int UP, int rows) {
    __shared__ Staged<V, 3> planes;
    const int c = (blockIdx.x * blockDim.x + threadIdx.x) * V, image = blockIdx.z;
    stage(planes, 0, 3, lines + (size_t)image * 3 * C, C, c);
    __syncthreads();
    if (c >= C) return;
    const Line<V> line = take_line(planes);
    const int end = min((blockIdx.y + 1) * rows, H * W), OH = H * UP + 2 * P, OW = W * UP + 2 * P;
    const size_t base = (size_t)image * H * W * C + c;
    padded += (size_t)image * OH * OW * C + c;
    for (int i = blockIdx.y * rows + threadIdx.y; i < end; i += blockDim.y) {
        const size_t at = base + (size_t)i * C;
        const int h = i / W, w = i % W;
        float q[V], r[V] = {};
        load_row(q, x + at);
        if (residual) load_row(r, residual + at);
#pragma unroll
        for (int v = 0; v < V; ++v) q[v] = rectify(normalise(q[v], line, v), act) + r[v];
        if (out) store_row(out + at, q);
        for (int uh = h * UP; uh < h * UP + UP; ++uh)
            for (int uw = w * UP; uw < w * UP + UP; ++uw) {
                if (uh > P && uh < H * UP - 1 - P && uw > P && uw < W * UP - 1 - P) {  // no mirror image
                    store_row(padded + ((size_t)(uh + P) * OW + uw + P) * C, q);
                    continue;
                }
#pragma unroll
                for (int k = 0; k < 9; ++k) {
                    int oh, ow;
                    if (mirror(oh, k / 3, uh, H * UP, P) && mirror(ow, k % 3, uw, W * UP, P))
                        store_row(padded + ((size_t)oh * OW + ow) * C, q);
                }
            }
    }
}

#define ADALIN_PAD_FUSED(V, T, NAME)                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        adalin_pad_fused_##NAME(T *padded, OPTIONAL T *out, const T *x, const float *lines,                            \
                                OPTIONAL const T *residual, int H, int W, int C, int act, int P, int UP, int rows) {   \
        forward<V>(padded, out, x, lines, residual, H, W, C, act, P, UP, rows);                                        \
    }

ADALIN_PAD_FUSED(1, float, x1_f32)
ADALIN_PAD_FUSED(4, float, x4_f32)
ADALIN_PAD_FUSED(1, f16, x1_f16)
ADALIN_PAD_FUSED(8, f16, x8_f16)
ADALIN_PAD_FUSED(1, bf16, x1_bf16)
ADALIN_PAD_FUSED(8, bf16, x8_bf16)

// Reflect padding after an optional nearest-neighbour up-sampling.
#include "common/common.cuh"

constexpr int THREADS = 256;

// out[image, q_h, q_w, c] = inp[image, reflect(q_h - P, H*UP) / UP, reflect(q_w - P, W*UP) / UP, c];
// out is [images, H*UP + 2P, W*UP + 2P, C]. Reflection does not repeat the edge, so P < H*UP and P < W*UP.
// V channels a thread. grid (ceil(out row elements / THREADS), out rows, images)
template <int V>
__device__ __forceinline__ void forward(float *out, const float *inp, int H, int W, int C, int P, int UP) {
    const int OW = W * UP + 2 * P, OH = H * UP + 2 * P;
    const int index = blockIdx.x * THREADS + threadIdx.x, groups = C / V;
    const int w = index / groups, c = index % groups * V;
    if (w >= OW) return;
    const int h = blockIdx.y, image = blockIdx.z;
    const int ih = reflect(h - P, H * UP) / UP, iw = reflect(w - P, W * UP) / UP;
    const float *x = inp + (((size_t)image * H + ih) * W + iw) * C + c;
    float *y = out + (((size_t)image * OH + h) * OW + w) * C + c;
    if (V == 4)
        store4(y, load4(x), 0);
    else
        *y = *x;
}

// dinp[image, h, w, c] = sum of dout over every padded position that shows (h, w). A gather, so no atomics:
// the order of the sum is fixed. grid (ceil(row elements / THREADS), H, images)
template <int V>
__device__ __forceinline__ void backward(float *dinp, const float *dout, int H, int W, int C, int P, int UP,
                                         int accumulate) {
    const int OW = W * UP + 2 * P, OH = H * UP + 2 * P;
    const int index = blockIdx.x * THREADS + threadIdx.x, groups = C / V;
    const int w = index / groups, c = index % groups * V;
    if (w >= W) return;
    const int h = blockIdx.y, image = blockIdx.z;
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
    for (int uh = h * UP; uh < h * UP + UP; ++uh) {
        for (int uw = w * UP; uw < w * UP + UP; ++uw) {
#pragma unroll
            for (int i = 0; i < 3; ++i) {
#pragma unroll
                for (int j = 0; j < 3; ++j) {
                    int qh, qw;
                    if (!mirror(qh, i, uh, H * UP, P) || !mirror(qw, j, uw, W * UP, P)) continue;
                    const float *dy = dout + (((size_t)image * OH + qh) * OW + qw) * C + c;
                    if (V == 4) {
                        const float4 v = load4(dy);
                        sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
                    } else {
                        sum.x += *dy;
                    }
                }
            }
        }
    }
    float *dx = dinp + (((size_t)image * H + h) * W + w) * C + c;
    if (V == 4)
        store4(dx, sum, accumulate);
    else
        store(dx, sum.x, accumulate);
}

// Reflect padding by `pad` after nearest-neighbour up-sampling by `up`; four channels a thread.
extern "C" __global__ void __launch_bounds__(THREADS)
    pad_forward_x4_f32(float *out, const float *inp, int H, int W, int C, int pad, int up) {
    forward<4>(out, inp, H, W, C, pad, up);
}

// Reflect padding by `pad` after nearest-neighbour up-sampling by `up`; one channel a thread.
extern "C" __global__ void __launch_bounds__(THREADS)
    pad_forward_x1_f32(float *out, const float *inp, int H, int W, int C, int pad, int up) {
    forward<1>(out, inp, H, W, C, pad, up);
}

// Gradient of pad_forward: every input pixel gathers the positions that showed it; four channels a thread.
extern "C" __global__ void __launch_bounds__(THREADS)
    pad_backward_x4_f32(ADDS_IF(accumulate) float *dinp, const float *dout, int H, int W, int C, int pad, int up,
                        int accumulate) {
    backward<4>(dinp, dout, H, W, C, pad, up, accumulate);
}

// Gradient of pad_forward: every input pixel gathers the positions that showed it; one channel a thread.
extern "C" __global__ void __launch_bounds__(THREADS)
    pad_backward_x1_f32(ADDS_IF(accumulate) float *dinp, const float *dout, int H, int W, int C, int pad, int up,
                        int accumulate) {
    backward<1>(dinp, dout, H, W, C, pad, up, accumulate);
}
